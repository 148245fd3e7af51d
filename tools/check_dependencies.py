"""Tests the project with the locked packages of uv.lock, and with the oldest versions that pyproject.toml allows.

    python tools/check_dependencies.py                  # both, one line each; exit code 1 if one of them fails
    python tools/check_dependencies.py --only oldest

Each resolution is installed into its own virtual environment in a temporary folder and must pass the quick tests, which need neither Java
nor a cluster. The oldest packages are tested with the oldest Python. The project's .venv is not changed. This program uses the standard
library only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
QUICK_TESTS = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile")
WITHOUT_JAVA = ("-m", "not spark and not cluster and not slow")
LIMIT_SECONDS = 1800
"""A command that takes longer is stopped: the package index does not answer, or a test hangs."""
MOST_CHARACTERS = 300
"""Longest part of the first failing line that is printed."""
FAULT = re.compile(r"^(FAILED |ERROR |error|Error|make: |╰─▶)")


class FaultError(Exception):
    """A command has failed; the message is the first line of its output that says why."""


def locked(environment: Path) -> Iterator[list[str]]:
    """Yields the commands that check uv.lock against pyproject.toml, install its packages, and run the tests."""
    yield ["uv", "lock", "--check"]
    yield ["uv", "sync", "--frozen", "--extra", "spark"]
    yield tests(environment)


def oldest(environment: Path) -> Iterator[list[str]]:
    """Yields the commands that install the oldest allowed versions of the packages that pyproject.toml names, and run the tests."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield ["uv", "venv", "--python", oldest_python(project["requires-python"]), str(environment)]
    wanted = ["-e", f".[{','.join(project['optional-dependencies'])}]", "--group", "dev"]
    python = str(environment / "bin" / "python")
    yield ["uv", "pip", "install", "--python", python, "--resolution", "lowest-direct", *wanted]
    yield tests(environment)


RESOLUTIONS: Mapping[str, Callable[[Path], Iterator[list[str]]]] = {"locked": locked, "oldest": oldest}


def tests(environment: Path) -> list[str]:
    """Returns the command that runs the quick tests."""
    return [str(environment / "bin" / "python"), *QUICK_TESTS, *WITHOUT_JAVA]


def is_test(command: Sequence[str]) -> bool:
    """Whether a command is the one that runs the quick tests."""
    return tuple(command[1:]) == (*QUICK_TESTS, *WITHOUT_JAVA)


def oldest_python(specifier: str) -> str:
    """Returns the lower bound of requires-python, such as `3.11` for `>=3.11,<4`."""
    found = re.search(r">=\s*([\d.]+)", specifier)
    if not found:
        raise FaultError(f"requires-python is {specifier!r} in pyproject.toml, and has no lower bound")
    return found[1]


def run(command: Sequence[str], environment: Path) -> str:
    """Runs a command in the project's folder with the given virtual environment, and returns its output.

    Raises:
        FaultError: the exit code is not 0, or the command takes too long.
    """
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    variables |= {
        "UV_PROJECT_ENVIRONMENT": str(environment),
        "PATH": f"{environment / 'bin'}{os.pathsep}{variables.get('PATH', '')}",
        "COLUMNS": str(MOST_CHARACTERS),  # in a narrow terminal pytest omits the reason of a failure
    }
    try:
        done = subprocess.run(
            command, cwd=PROJECT, env=variables, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise FaultError(f"took more than {LIMIT_SECONDS} s") from error
    except OSError as error:
        raise FaultError(str(error)) from error
    if done.returncode:
        raise FaultError(first_fault(done.stdout + "\n" + done.stderr) or f"exit code {done.returncode}")
    return done.stdout


def first_fault(output: str) -> str:
    """Returns the first line of the output that reports a fault, else the last line; empty if there is no output."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = next((line for line in lines if FAULT.match(line)), lines[-1] if lines else "")
    return found[:MOST_CHARACTERS]


def count_packages(environment: Path) -> int:
    """Counts the installed packages."""
    python = environment / "bin" / "python"
    listed: list[Any] = json.loads(run(["uv", "pip", "list", "--python", str(python), "--format", "json"], environment))
    return len(listed)


def check(name: str, folder: Path) -> bool:
    """Installs and tests one resolution, prints one line, and returns whether the tests passed."""
    environment, began, size, command = folder / name, time.monotonic(), "nothing installed", [name]
    try:
        for command in RESOLUTIONS[name](environment):
            if is_test(command):
                size = f"{count_packages(environment)} packages"
            run(command, environment)
    except FaultError as fault:
        shown = "quick tests" if is_test(command) else " ".join(command).replace(str(environment), name)
        print(f"{name}: {size}, did not pass: {shown}: {fault}", flush=True)
        return False
    print(f"{name}: {size}, passed in {time.monotonic() - began:.0f} s", flush=True)
    return True


def main(argv: Sequence[str]) -> int:
    """Checks the resolutions; the exit code is 0 if all pass, 1 if one fails, 2 if uv is missing."""
    parser = argparse.ArgumentParser(prog="check_dependencies", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=tuple(RESOLUTIONS), help="one resolution instead of both")
    only = parser.parse_args(argv).only
    if not shutil.which("uv"):
        print("check_dependencies: uv is not on PATH; run `make deps`, which installs it", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="spark-kfp-deps-") as folder:
        passed = [check(name, Path(folder)) for name in ([only] if only else RESOLUTIONS)]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
