"""What stands around the code: workflows call make targets only and may do no more than they need; the tag and the packages are checked.

The programs that a test calls are those of `tools/`, with made-up ones on PATH in place of uv and of the builder of images.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in PROJECT.glob(".github/workflows/*")
}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"]]
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
MOST_MINUTES = 120
NOT_IN_FORKS = "!github.event.repository.fork"


def steps_of(name: str, job: str) -> list[dict[str, Any]]:
    return list(WORKFLOWS[name]["jobs"][job]["steps"])


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a document, keys left out."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from texts_of(each)
    else:
        yield str(value)


def test_the_five_workflows_are_there() -> None:
    assert set(WORKFLOWS) == {"cluster.yaml", "ci.yaml", "images.yaml", "release.yaml", "dependencies.yaml"}


def test_together_the_workflows_call_what_a_delivery_needs() -> None:
    called = {step["run"] for name, job in JOBS for step in steps_of(name, job) if "run" in step}
    assert called == {
        f"make {target}"
        for target in ("lint", "test", "slow", "docs", "gate", "compile", "image", "tag", "upload", "deps", "kind")
    }


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_a_step_is_a_target_of_the_makefile_or_a_pinned_action(name: str, job: str) -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", MAKEFILE, re.MULTILINE))
    for step in steps_of(name, job):
        if "run" in step:
            called = re.fullmatch(r"make ([a-z0-9]+)", step["run"])
            assert called, f"{step['run']!r} is more than a make target"
            assert called[1] in targets
        else:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])


def test_every_pinned_action_names_its_version_beside_it() -> None:
    for path in PROJECT.glob(".github/workflows/*"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert "uses:" not in line or re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_the_repository_and_nothing_else(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    assert not [job for job in WORKFLOWS[name]["jobs"].values() if "permissions" in job]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_a_concurrency_group_of_its_own_and_no_dangerous_trigger(name: str) -> None:
    assert WORKFLOWS[name]["concurrency"]["group"].startswith("${{ github.workflow }}")
    triggers = set(WORKFLOWS[name][True])  # YAML 1.1 reads the key `on` as true
    assert triggers <= {"push", "pull_request", "schedule", "workflow_dispatch"}


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_a_job_has_a_time_limit_and_keeps_no_credential(name: str, job: str) -> None:
    assert 0 < WORKFLOWS[name]["jobs"][job]["timeout-minutes"] <= MOST_MINUTES
    first = steps_of(name, job)[0]
    assert first["uses"].startswith("actions/checkout@")
    assert first["with"] == {"persist-credentials": False}


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_a_run_line_holds_no_expression_so_neither_a_secret_nor_the_name_of_a_branch(name: str, job: str) -> None:
    assert [step["run"] for step in steps_of(name, job) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_a_secret_is_given_to_single_steps_of_jobs_that_never_run_for_a_pull_request_or_in_a_fork(
    name: str, job: str
) -> None:
    document = WORKFLOWS[name]["jobs"][job]
    if not any("secrets." in text for text in texts_of(document)):
        return
    assert NOT_IN_FORKS in document["if"]
    assert "pull_request" not in WORKFLOWS[name][True] or "github.ref_type == 'tag'" in document["if"]
    outside_steps = {key: value for key, value in document.items() if key != "steps"}
    given = [text for text in texts_of(outside_steps) if "secrets." in text]
    assert all(re.fullmatch(r"\$\{\{ secrets\.\w+ != '' \}\}", text) for text in given), given


def test_images_are_pushed_for_a_tag_only() -> None:
    jobs = WORKFLOWS["images.yaml"]["jobs"]
    pushing = [name for name, job in jobs.items() if any("PUSH" in step.get("env", {}) for step in job["steps"])]
    assert pushing == ["push"]
    assert "github.ref_type == 'tag'" in jobs["push"]["if"]


def test_a_release_uploads_after_the_tag_and_the_gate_and_only_to_a_server_it_knows() -> None:
    assert WORKFLOWS["release.yaml"][True] == {"push": {"tags": ["v*"]}}
    jobs = WORKFLOWS["release.yaml"]["jobs"]
    assert [step["run"] for step in jobs["gate"]["steps"] if "run" in step] == ["make tag", "make gate"]
    assert jobs["upload"]["needs"] == "gate"
    assert jobs["upload"]["env"]["HAS_SERVER"] == "${{ secrets.SPARK_KFP_KFP != '' }}"
    (step,) = [step for step in jobs["upload"]["steps"] if step.get("run") == "make upload"]
    assert step["if"] == "env.HAS_SERVER == 'true'"
    assert set(step["env"]) == {"SPARK_KFP_KFP", "KFP_TOKEN"}


@pytest.mark.parametrize("name", ["release.yaml", "images.yaml"])
def test_the_tag_that_is_checked_is_the_one_that_was_pushed(name: str) -> None:
    checks = [
        step for job in WORKFLOWS[name]["jobs"].values() for step in job["steps"] if step.get("run") == "make tag"
    ]
    assert [step["env"] for step in checks] == [{"TAG": "${{ github.ref_name }}"}]


def test_every_target_has_a_line_of_help_and_is_phony() -> None:
    targets = re.findall(r"^([a-z0-9]+):", MAKEFILE, re.MULTILINE)
    assert targets == re.findall(r"^([a-z0-9]+):.*## \S", MAKEFILE, re.MULTILINE)
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony.split() == targets


def test_make_generate_makes_exactly_the_files_that_the_page_for_contributors_lists(tmp_path: Path) -> None:
    page = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `(\S+)` \|", page.partition("## Files that are made")[2].partition("\n## ")[0], re.MULTILINE
    )
    copy = shutil.copytree(PROJECT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "runs", "_build"))
    for name in listed:
        (copy / name).write_text("stale")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    (recipe,) = re.findall(r"^generate:.*\n\t@\$\(IN_SETUP\) (.*)$", MAKEFILE, re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(copy)}
    done = subprocess.run(["bash", "-c", recipe], cwd=copy, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    changed = {path for path in copy.rglob("*") if path.is_file() and before.get(path) != path.read_bytes()}
    assert {path.relative_to(copy).as_posix() for path in changed} == set(listed)


def test_the_spark_image_gets_the_extra_and_the_store_and_no_kfp() -> None:
    document = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    extra, image = document["project"]["optional-dependencies"]["spark"], document["dependency-groups"]["spark-image"]
    (store,) = [each for each in document["project"]["dependencies"] if each.startswith("minio")]
    assert image == [*extra, store]
    stage = (PROJECT / "Dockerfile.spark").read_text(encoding="utf-8").partition("AS spark-packages\n")[2]
    assert "sync --frozen --only-group spark-image --no-install-project" in stage.partition("\nFROM ")[0]


def run_tool(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in the project; when make runs the tests, what it was given does not reach the command."""
    of_make = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "ARGS", "TAG", "PREFIX", "PUSH", "BUILD_ARGS")
    variables = {name: value for name, value in os.environ.items() if name not in of_make} | environment
    return subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("tag", "code"),
    [(f"v{VERSION}", 0), (VERSION, 2), (f"v{VERSION}.1", 2), ("v9.9.9", 2), ("main", 2), ("", 2), ("$(touch x)", 2)],
)
def test_a_tag_must_be_the_packages_version(tag: str, code: int) -> None:
    done = run_tool(sys.executable, "tools/check_tag.py", tag)
    assert done.returncode == code
    assert code == 0 or f"the tag is {tag!r}, but pyproject.toml has version {VERSION}" in done.stderr


def test_a_tag_that_looks_like_a_command_is_not_run_by_make(tmp_path: Path) -> None:
    line = run_tool("make", "--no-print-directory", "-n", "tag", TAG=f"'; touch {tmp_path / 'made'}; '").stdout
    assert line.strip().endswith('tools/check_tag.py "$TAG"')


@pytest.mark.parametrize(
    ("prefix", "image"),
    [("", ""), ("registry.example.com/team/", f"--image=registry.example.com/team/spark-kfp-task:{VERSION}")],
)
def test_the_compiled_pipeline_names_the_image_that_is_pushed(prefix: str, image: str) -> None:
    assert (
        run_tool("make", "--no-print-directory", "-n", "compile", PREFIX=prefix)
        .stdout.split("spark-kfp compile")[1]
        .strip()
        == image
    )


def test_the_cluster_tests_on_kind_say_which_program_is_missing_before_anything_is_made(tmp_path: Path) -> None:
    for name in ("docker", "kind", "kubectl"):
        add_program(tmp_path / "bin" / name, f"touch '{tmp_path}/called'")
    done = run_tool("/bin/bash", "tools/kind_tests.sh", PATH=f"{tmp_path / 'bin'}{os.pathsep}/usr/bin")
    assert done.returncode == 2
    assert "helm is not on PATH" in done.stderr
    assert not (tmp_path / "called").exists()


def test_the_root_holds_what_the_readme_lists_and_nothing_else() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"`([^`]+)`", readme.split("## What lies where")[1].split("\n## ")[0])
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]  # a file that was left lying counts too
    tracked = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert sorted(name.rstrip("/") for name in listed) == sorted({line.split("/")[0] for line in tracked.splitlines()})


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder on PATH; `docker` in it writes down its arguments and what it is told on stdin."""
    folder = tmp_path / "bin"
    folder.mkdir()
    add_program(
        folder / "docker",
        f"echo \"$*\" >> '{tmp_path}/calls'; if [ \"$1\" = login ]; then cat > '{tmp_path}/told'; fi",
    )
    return folder


def add_program(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
    path.chmod(0o755)


def build(programs: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """What `make image` says for one image, and the calls of docker."""
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = run_tool("bash", "tools/make_image.sh", PATH=path, TARGETS="task", **environment)
    calls = programs.parent / "calls"
    return done, [line for line in calls.read_text(encoding="utf-8").splitlines() if line != "info"]


def test_images_are_not_pushed_unless_asked_for(programs: Path) -> None:
    done, calls = build(programs, PREFIX="registry.example.com/team/")
    assert done.returncode == 0, done.stderr
    assert [call.split()[0] for call in calls] == ["build"]


def test_an_image_is_pushed_after_a_login_whose_password_is_on_no_command_line(programs: Path) -> None:
    who = {"REGISTRY_USER": "me", "REGISTRY_PASSWORD": "secret word"}
    done, calls = build(programs, PREFIX="registry.example.com/team/", PUSH="true", **who)
    assert done.returncode == 0, done.stderr
    assert calls[0] == "login --username me --password-stdin registry.example.com"
    assert calls[-1] == f"push registry.example.com/team/spark-kfp-task:{VERSION}"
    assert (programs.parent / "told").read_text(encoding="utf-8") == "secret word"
    assert "secret" not in "\n".join([*calls, done.stdout, done.stderr])


@pytest.mark.parametrize("prefix", ["", "registry.example.com"])
def test_a_push_without_a_registry_is_refused_before_anything_is_built(programs: Path, prefix: str) -> None:
    done, calls = build(programs, PREFIX=prefix, PUSH="true")
    assert done.returncode == 2
    assert "PUSH=true needs PREFIX" in done.stderr
    assert calls == []


@pytest.fixture
def cluster_tests(tmp_path: Path) -> Callable[[int], tuple[subprocess.CompletedProcess[str], list[str]]]:
    """Runs .ci/cluster with made-up programs and free GiB of the disk; returns what it says, and the calls of all programs but kubectl.

    The store of images has three untagged ones, of which the build names two.
    """
    folder, calls = tmp_path / "project", tmp_path / "calls"
    shutil.copytree(PROJECT / ".ci", folder / ".ci")
    shutil.copy(PROJECT / "pyproject.toml", folder)
    note = f"echo \"${{0##*/}} $*\" >> '{calls}'"
    for script in ("up", "down", "minio", "spark-operator", "base-image", "load-image", "env"):
        add_program(tmp_path / "shared" / "cluster" / script, note if script != "env" else "")
    add_program(folder / "tools" / "make_image.sh", "echo '--> Using cache aaaaaaaaaaa01'; echo '--> ccccccccccc' >&2")
    add_program(folder / "tools" / "with_setup.sh", note)
    untagged = "if [ $1 = images ]; then printf '%s\\n' aaaaaaaaaaa0 bbbbbbbbbbb0 ccccccccccc0; fi"
    add_program(tmp_path / "bin" / "buildah", f"{note}; {untagged}; [ $1 != info ]")
    add_program(tmp_path / "bin" / "kubectl", "cat > /dev/null < /dev/null")

    def run(free_gib: int) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        add_program(tmp_path / "bin" / "df", f"echo Avail; echo {free_gib << 20}")
        variables = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        command = ["bash", str(folder / ".ci" / "cluster")]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        return done, calls.read_text(encoding="utf-8").splitlines()

    return run


def test_the_cluster_tests_want_room_on_the_disk_before_anything_is_made(cluster_tests: Any) -> None:
    done, calls = cluster_tests(7)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "has 7 GiB free, and the cluster tests need 8; make room" in done.stderr
    assert [call.split()[0] for call in calls] == ["buildah"]


def test_the_cluster_tests_remove_the_layers_of_earlier_builds_and_keep_those_of_this_one(cluster_tests: Any) -> None:
    done, calls = cluster_tests(8)
    assert done.returncode == 0, done.stderr
    assert [call for call in calls if call.startswith("buildah rmi")] == ["buildah rmi bbbbbbbbbbb0"]
    loaded = [call.split()[1] for call in calls if call.startswith("load-image")]
    assert loaded == [f"localhost/spark-kfp-{image}:{VERSION}" for image in ("spark", "task", "serving")]
    assert [call.split()[0] for call in calls][-2:] == ["with_setup.sh", "down"]


def test_renovate_moves_what_belongs_together_together() -> None:
    settings = json.loads((PROJECT / "renovate.json").read_text(encoding="utf-8"))
    groups = {rule["groupName"]: rule.get("matchPackageNames", []) for rule in settings["packageRules"]}
    assert "pyspark" in groups["spark"]
    assert {"kfp", "kfp-*"} <= set(groups["kfp"])
    assert "helpers:pinGitHubActionDigests" in settings["extends"]
