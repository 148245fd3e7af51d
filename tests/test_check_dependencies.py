"""`tools/check_dependencies.py`: what it tries and what it says, with a made-up `uv` that installs nothing."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).parents[1]
SCRIPT = PROJECT / "tools" / "check_dependencies.py"
# Writes down its arguments; makes an environment whose Python writes down its own; counts two packages. FAULTY is a word of the
# arguments at which it fails, SAID what it then says.
FAKE_UV = """#!/bin/bash
note() { echo "$*" >> "$CALLS"; case "$*" in *"$FAULTY"*) printf '%s\\n' "$SAID" >&2; exit 1;; esac; }
if [ "$(basename "$0")" = python ]; then note tests of "$(dirname "$(dirname "$0")" | xargs basename)" "$@"; exit 0; fi
note uv "$@"
place=$UV_PROJECT_ENVIRONMENT
case "$1 $2" in
"sync --frozen" | "venv --python") mkdir -p "$place/bin"; cp "$0" "$place/bin/python" ;;
"pip list") echo '[{"name": "one"}, {"name": "two"}]' ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(FAKE_UV, encoding="utf-8")
    uv.chmod(0o755)
    return tmp_path


def check(
    folder: Path, *arguments: str, faulty: str = "nothing", said: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs the program; its outcome and the calls that it has made."""
    variables = {"PATH": f"{folder / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin", "CALLS": str(folder / "calls")}
    variables |= {"FAULTY": faulty, "SAID": said, "TMPDIR": str(folder), "VIRTUAL_ENV": "/of/the/caller"}
    line = [sys.executable, str(SCRIPT), *arguments]
    done = subprocess.run(line, env=variables, capture_output=True, text=True, check=False)
    calls = folder / "calls"
    return done, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("check_dependencies", SCRIPT)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_both_resolutions_are_installed_tested_and_told_in_a_line_each(folder: Path) -> None:
    done, calls = check(folder)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("locked: 2 packages, passed in ")
    assert second.startswith("oldest: 2 packages, passed in ")
    assert [call for call in calls if call.startswith(("uv lock", "uv sync"))] == [
        "uv lock --check",
        "uv sync --frozen --extra spark",
    ]
    assert [call.split(" -m pytest")[0] for call in calls if call.startswith("tests of")] == [
        "tests of locked",
        "tests of oldest",
    ]
    assert all(
        call.endswith("-m not spark and not cluster and not slow") for call in calls if call.startswith("tests of")
    )


def test_the_oldest_are_what_every_extra_and_the_developers_group_allow_on_the_oldest_python(folder: Path) -> None:
    _, calls = check(folder, "--only", "oldest")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (made,) = [call for call in calls if call.startswith("uv venv")]
    (installed,) = [call for call in calls if call.startswith("uv pip install")]
    assert f"--python {project['requires-python'].removeprefix('>=')} " in made
    assert installed.endswith(
        f"--resolution lowest-direct -e .[{','.join(project['optional-dependencies'])}] --group dev"
    )
    assert not any(call.startswith(("uv lock", "uv sync")) for call in calls)


def test_nothing_is_left_in_the_temporary_folder(folder: Path) -> None:
    check(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "calls"]


@pytest.mark.parametrize(
    ("faulty", "said", "line"),
    [
        (
            "lock --check",
            "Resolved 9 packages\nerror: The lockfile needs to be updated\nmore",
            "locked: nothing installed, did not pass: uv lock --check: error: The lockfile needs to be updated",
        ),
        (
            "sync",
            "one\ntwo",
            "locked: nothing installed, did not pass: uv sync --frozen --extra spark: two",
        ),
        ("sync", "", "locked: nothing installed, did not pass: uv sync --frozen --extra spark: exit code 1"),
        (
            "tests of locked",
            "....F\nFAILED tests/test_x.py::test_y - assert 1 == 2\nFAILED tests/test_x.py::test_z",
            "locked: 2 packages, did not pass: quick tests: FAILED tests/test_x.py::test_y - assert 1 == 2",
        ),
    ],
)
def test_the_first_failing_line_is_told_and_the_other_resolution_is_still_tried(
    folder: Path, faulty: str, said: str, line: str
) -> None:
    done, _ = check(folder, faulty=faulty, said=said)
    first, second = done.stdout.splitlines()
    assert first == line
    assert second.startswith("oldest: 2 packages, passed in ")
    assert done.returncode == 1


def test_when_the_first_resolution_passes_the_second_can_still_fail_the_whole(folder: Path) -> None:
    done, _ = check(folder, faulty="lowest-direct", said="  No solution found\n  ╰─▶ Because kfp==9 was not found")
    first, second = done.stdout.splitlines()
    assert first.startswith("locked: 2 packages, passed")
    assert second.startswith("oldest: nothing installed, did not pass: uv pip install")
    assert second.endswith("╰─▶ Because kfp==9 was not found")
    assert done.returncode == 1


def test_without_uv_nothing_is_tried_and_a_sentence_says_so(folder: Path) -> None:
    (folder / "bin" / "uv").unlink()
    (folder / "bin" / "env").symlink_to("/usr/bin/env")
    line = [sys.executable, str(SCRIPT)]
    done = subprocess.run(line, env={"PATH": str(folder / "bin")}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "uv is not on PATH; run `make deps`" in done.stderr


def test_an_unknown_resolution_is_refused(folder: Path) -> None:
    done, calls = check(folder, "--only", "newest")
    assert (done.returncode, calls) == (2, [])


def test_a_long_line_is_cut(script: ModuleType) -> None:
    assert len(script.first_fault("error: " + "x" * 1000)) == script.MOST_CHARACTERS


def test_an_index_that_does_not_answer_is_given_up(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "LIMIT_SECONDS", 0.2)
    with pytest.raises(script.FaultError, match=r"took more than 0\.2 s"):
        script.run(["sleep", "5"], tmp_path)


@pytest.mark.parametrize(("specifier", "version"), [(">=3.11", "3.11"), ("<4,>= 3.12.1", "3.12.1")])
def test_the_oldest_python_is_the_lower_bound(script: ModuleType, specifier: str, version: str) -> None:
    assert script.oldest_python(specifier) == version
