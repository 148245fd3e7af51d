"""Every command that a page or a module's docstring shows is one that its program understands, and every link leads somewhere.

The commands are parsed by the programs' own parsers, not run.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from kfp_pipeline.cli import make_parser
from spark_jobs.__main__ import parse
from spark_jobs.contract import InputError, Step

PROJECT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *PROJECT.glob("*.md"),
        *PROJECT.glob("data/*.md"),
        *PROJECT.glob("spark-operator/*.md"),
        *PROJECT.glob("docs/**/*.md"),
    ]
)
PLAIN = ("cd", "git", "pip", "open", "xdg-open", "kubectl", "helm", "minikube", "kind", "export")
"""Commands that are not the project's own."""


class WrongCommandError(AssertionError):
    """A page shows a command that its program would refuse."""


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command in the text's bash blocks."""
    for block in re.findall(r"^ *```(?:bash|console|sh)\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield words


def command_of_docstring(path: Path) -> list[str]:
    """The spark-submit line that a step's module shows."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    shown = re.search(r"^ *spark-submit (?:.*\\\n)*.*", docstring, re.MULTILINE)
    assert shown, f"{path.name} shows no spark-submit line"
    return shlex.split(shown[0].replace("\\\n", " "))


def check(words: list[str]) -> None:
    """Raises `WrongCommandError` unless the program that the command names would take it."""
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
        case ["python", "-m", "benchmarks.run", *_]:
            require_files(["benchmarks/run.py"])
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
        make_parser().parse_args(argv)
    except (InputError, SystemExit) as error:
        raise WrongCommandError(f"spark-kfp refuses {shlex.join(argv)}: {error}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_the_commands_of_a_page_are_understood(page: Path) -> None:
    for words in commands_of(page.read_text(encoding="utf-8")):
        check(words)


@pytest.mark.parametrize("step", Step)
def test_the_command_in_a_steps_docstring_is_understood_and_is_that_step(step: Step) -> None:
    words = command_of_docstring(PROJECT / "spark_jobs" / f"{step}.py")
    check(words)
    assert step in words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


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
    ],
)
def test_a_wrong_command_is_seen(command: str) -> None:
    page = f"Text.\n\n```bash\n{command}   # a comment\n```\n"
    (words,) = commands_of(page)
    with pytest.raises(WrongCommandError):
        check(words)


def test_a_command_over_two_lines_is_one_command() -> None:
    page = "```bash\nspark-submit spark_jobs/__main__.py \\\n    load --data-uri=a\n\nmake test\n```\n"
    assert list(commands_of(page)) == [
        ["spark-submit", "spark_jobs/__main__.py", "load", "--data-uri=a"],
        ["make", "test"],
    ]
