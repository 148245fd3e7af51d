"""Every command that a page or a module's docstring shows is one that its program understands, and those that need no cluster run.

The project's commands are parsed by their own parsers; those of other projects by a short list of what the pages need. A block of docs/
below `<!-- executed: makes FILE ... -->` is run, in the order of the page, in a copy of the project.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from kfp_pipeline.commands.main import make_parser
from kfp_pipeline.commands.parser import chosen_pipeline
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.step_command import parse

PROJECT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *PROJECT.glob("*.md"),
        *PROJECT.glob("data/*.md"),
        *PROJECT.glob("spark-operator/*.md"),
        *PROJECT.glob("docs/**/*.md"),
    ]
)
PLAIN = ("cd", "git", "pip", "open", "xdg-open", "export", "cp", "rm", "printf", ".")
"""Commands of every machine."""
KNOWN: Mapping[str, Sequence[str]] = {
    "kubectl": (
        "apply",
        "auth can-i",
        "create configmap",
        "create secret generic",
        "delete",
        "describe",
        "diff",
        "get",
        "kustomize",
        "label namespace",
        "logs",
        "port-forward",
        "rollout restart",
        "rollout status",
        "top pods",
        "wait",
    ),
    "helm": ("repo add", "install", "uninstall"),
    "kind": ("create cluster", "delete cluster", "load docker-image"),
    "minikube": ("start", "delete", "image load"),
    "docker": ("build",),
    "mc": ("alias set", "cat", "ilm rule add", "ilm rule ls", "mirror"),
    "aws": ("s3 sync",),
}
"""Other projects' programs, and which of their commands the pages may show."""
FLAGS: Mapping[str, str] = {
    "kubectl": "-n --namespace -k -f --all --as --dry-run --for --from-file --from-literal -l -o --overwrite --sort-by --timeout",
    "helm": "--create-namespace --force-update --namespace --set --set-json --version --wait",
    "kind": "",
    "minikube": "--cni --cpus --memory",
    "docker": "-t",
    "mc": "--expire-days --overwrite --prefix",
    "aws": "--endpoint-url",
}
EXECUTED = re.compile(
    r"^<!-- executed:(?: makes (?P<made>[^>]*?))? -->\n```bash\n(?P<script>.*?)^```", re.DOTALL | re.MULTILINE
)
NEVER_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".tools", ".*_cache", ".hypothesis", "runs", "_build", "__pycache__"
)
KEPT = ("SPARK_KFP_CACHE",)
"""Settings of this project that change no outcome."""
LONGEST_SECONDS = 900


class WrongCommandError(AssertionError):
    """A page shows a command that its program would refuse."""


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command in the text's bash blocks."""
    for block in re.findall(r"^ *```(?:bash|console|sh)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for is_operator, command in itertools.groupby(words, lambda word: word in ("&&", "|", ";")):
                if not is_operator:
                    yield list(command)


def command_of_docstring(path: Path) -> list[str]:
    """The spark-submit line that a step's module shows."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    shown = re.search(r"^ *spark-submit (?:.*\\\n)*.*", docstring, re.MULTILINE)
    assert shown, f"{path.name} shows no spark-submit line"
    return shlex.split(shown[0].replace("\\\n", " "))


def check(words: list[str]) -> None:
    """Raises `WrongCommandError` unless the program that the command names would take it."""
    words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))  # of the command's environment
    if words[0] in KNOWN:
        require_known(words[0], words[1:])
    else:
        check_own(words)


def check_own(words: list[str]) -> None:
    """The same for the project's own commands, and those of every machine."""
    match words:
        case ["make", *rest]:
            require_targets([word for word in rest if "=" not in word])
        case ["uv", "run", *rest]:
            check(rest)
        case ["pytest", *rest]:
            require_files([word for word in rest if "/" in word])
        case ["spark-kfp", *rest]:
            require_parsed_by_the_command_line(rest)
        case ["python", "-m", "spark_jobs", *rest]:
            require_parsed_by_the_step(rest)
        case ["python", "-m", module, *_] if module.startswith("benchmarks."):
            require_files([module.replace(".", "/") + ".py"])
        case ["spark-submit", *rest] if any(word.endswith("spark_jobs/__main__.py") for word in rest):
            at = next(index for index, word in enumerate(rest) if word.endswith("spark_jobs/__main__.py"))
            require_parsed_by_the_step(rest[at + 1 :])
        case ["bash" | "python", script, *_]:
            require_files([script])
        case [program, *_] if program not in PLAIN:
            raise WrongCommandError(f"no check knows {program!r}: {shlex.join(words)}")


def require_targets(names: list[str]) -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    if unknown := set(names) - targets:
        raise WrongCommandError(f"the Makefile has no {', '.join(sorted(unknown))}")


def require_known(program: str, words: list[str]) -> None:
    """Raises unless it is one of the commands of another project's program that the pages may show, with files and names that are there."""
    shown = shlex.join([program, *words])
    unknown = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)} - set(FLAGS[program].split())
    if unknown:
        raise WrongCommandError(f"{program} is not known to take {', '.join(sorted(unknown))}: {shown}")
    rest = words[2:] if words[:1] in (["-n"], ["--namespace"]) else words
    if not any(rest[: len(known.split())] == known.split() for known in KNOWN[program]):
        raise WrongCommandError(f"no page may show {shown}")
    if program != "kubectl":
        return
    for flag, path in itertools.pairwise(words):
        if flag in ("-f", "-k") or (flag == "kustomize"):
            require_files([path] if not path.startswith(("https://", "github.com/")) and path != "YOUR_COPY" else [])
    parts = {part for word in words if "=" not in word for part in re.split("[/:,]", word)}
    if wrong := {part for part in parts if part.startswith("spark-kfp")} - names_in_the_manifests():
        raise WrongCommandError(f"nothing in spark-operator/ is called {', '.join(sorted(wrong))}: {shown}")


def names_in_the_manifests() -> set[str]:
    """The names of all that `kubectl apply -k` makes."""
    found: set[str] = set()
    for path in (PROJECT / "spark-operator").rglob("*.yaml"):
        for document in filter(None, yaml.safe_load_all(path.read_text(encoding="utf-8"))):
            made = [document, *document.get("configMapGenerator", []), *document.get("secretGenerator", [])]
            found |= {
                str(name) for item in made for name in (item.get("name"), (item.get("metadata") or {}).get("name"))
            }
    return found


def execute(text: str, folder: Path) -> None:
    """Runs the executed blocks of a page, one after another.

    Raises:
        AssertionError: one fails, or does not make what it says.
    """
    own = ("AWS_", "KFP_", "SPARK_KFP_", "KUBECONFIG")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {name: os.environ[name] for name in KEPT if name in os.environ}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(folder)}
    for block in EXECUTED.finditer(text):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", in_this_environment(block["script"])],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (
            f"{block['script']}ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}"
        )
        for made in (block["made"] or "").split():
            assert list(folder.glob(made)), f"{block['script']}made no {made}"


def in_this_environment(script: str) -> str:
    """A script without what sets the environment up: it is there, and a copy of the project would install all of it anew."""
    recipes = re.findall(
        r"^(\w+):.*\n\t@\$\(IN_SETUP\) (.*)$", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    known = {f"make {target}": recipe for target, recipe in recipes}
    lines = [line.partition("  #")[0].rstrip() for line in script.splitlines()]
    return "\n".join(known.get(line, "true" if line == ". .venv/bin/activate" else line) for line in lines)


def require_files(names: list[str]) -> None:
    if missing := [name for name in names if not (PROJECT / name.partition("::")[0]).exists()]:
        raise WrongCommandError(f"there is no {', '.join(missing)}")


def require_parsed_by_the_step(argv: list[str]) -> None:
    try:
        parse(argv)
    except InputError as error:
        raise WrongCommandError(str(error)) from error


def require_parsed_by_the_command_line(argv: list[str]) -> None:
    try:
        make_parser(chosen_pipeline(argv)).parse_args(argv)
    except (InputError, SystemExit) as error:
        raise WrongCommandError(f"spark-kfp refuses {shlex.join(argv)}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_the_commands_of_a_page_are_understood(page: Path) -> None:
    for words in commands_of(page.read_text(encoding="utf-8")):
        check(words)


@pytest.mark.parametrize("step", Step)
def test_the_command_in_a_steps_docstring_is_understood_and_is_that_step(step: Step) -> None:
    words = command_of_docstring(PROJECT / "spark_jobs/steps" / f"{step}.py")
    check(words)
    assert step in words


@pytest.mark.parametrize(
    "page",
    [
        *(pytest.param(page, marks=[pytest.mark.spark, pytest.mark.slow]) for page in ("laptop.md", "monitoring.md")),
        pytest.param("kubeflow.md", marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_the_commands_of_a_page_that_need_no_cluster_run_and_make_what_the_page_says(page: str, tmp_path: Path) -> None:
    text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
    assert len(EXECUTED.findall(text)) >= 2
    shutil.copytree(PROJECT, tmp_path / "copy", ignore=NEVER_COPIED)
    execute(text, tmp_path / "copy")


def test_no_other_page_has_blocks_that_say_that_they_are_run() -> None:
    said = {page.name for page in PAGES if re.search("^<!-- executed", page.read_text(encoding="utf-8"), re.MULTILINE)}
    assert said == {"laptop.md", "monitoring.md", "kubeflow.md"}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("<!-- executed: -->\n```bash\ntrue\nfalse\n```\n", "ended with 1"),
        ("<!-- executed: makes here/*.csv -->\n```bash\ntrue\n```\n", "made no here/"),
        ("<!-- executed: -->\n```bash\nfalse | true\n```\n", "ended with 1"),
    ],
)
def test_a_block_that_fails_or_makes_nothing_is_seen(block: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=said):
        execute(block, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        "make nothing",
        "pytest tests/test_nothing.py",
        "bash tools/nothing.sh",
        "python data/nothing.py",
        "python -m spark_jobs trian --preprocess-uri=a --output-uri=b",
        "python -m spark_jobs train --preprocess-uri=a --output-uri=b --reg=1",
        "spark-submit --master local spark_jobs/__main__.py train --preprocess-uri=a --output-uri=b --reg-param=-1",
        "spark-kfp rnu",
        "sparkkfp run",
        "true && sparkkfp run",
        "PREFIX=a/ make nothing",
        "kubectl aply -k spark-operator/",
        "kubectl apply -k spark-operator/overlays/minikub",
        "kubectl apply -f nothing.yaml",
        "kubectl -n spark-kpf get pods --al",
        "kubectl -n spark-kfp rollout status deployment/spark-kfp-reper",
        "helm instal minio-service minio/minio",
        "helm install minio-service minio/minio --namespce kubeflow",
        "kind create clusters",
        "minikube image lod spark-kfp-spark:0.1.0",
        "docker biuld -t spark-kfp-task:0.1.0-kubeflow -",
        "mc mirrow store/spark-kfp backup/spark-kfp",
        "aws s3 snyc s3://spark-kfp backup/spark-kfp",
    ],
)
def test_a_wrong_command_is_seen(command: str) -> None:
    page = f"Text.\n\n```bash\n{command}   # a comment\n```\n"
    *before, wrong = commands_of(page)
    assert all(words == ["true"] for words in before)
    with pytest.raises(WrongCommandError):
        check(wrong)


def test_a_command_over_two_lines_is_one_command() -> None:
    page = "```bash\nspark-submit spark_jobs/__main__.py \\\n    load --data-uri=a\n\nmake test\n```\n"
    assert list(commands_of(page)) == [
        ["spark-submit", "spark_jobs/__main__.py", "load", "--data-uri=a"],
        ["make", "test"],
    ]
