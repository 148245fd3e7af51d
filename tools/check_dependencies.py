"""Do the packages that pyproject.toml allows work: those of uv.lock, and the oldest that its bounds let in?

    python tools/check_dependencies.py                  # both, a line each; exit code 1 if one does not pass
    python tools/check_dependencies.py --only oldest

Each resolution is installed into an environment of its own in a temporary folder and must pass the quick tests, those that need neither
Java nor a cluster. The oldest packages are tried with the oldest Python. The project's own .venv is not touched. Standard library only.
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
"""A command that takes longer is given up: an index that does not answer, or a test that hangs."""
MOST_CHARACTERS = 300
"""Of the first failing line."""
FAULT = re.compile(r"^(FAILED |ERROR |error|Error|make: |╰─▶)")


class FaultError(Exception):
    """A command has failed; the text is the first line that says why."""


def locked(environment: Path) -> Iterator[list[str]]:
    """The commands that install what uv.lock says, and prove that it fits pyproject.toml."""
    yield ["uv", "lock", "--check"]
    yield ["uv", "sync", "--frozen", "--all-extras"]
    yield tests(environment)


def oldest(environment: Path) -> Iterator[list[str]]:
    """The commands that install the oldest versions that pyproject.toml allows of what it names."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    yield ["uv", "venv", "--python", oldest_python(project["requires-python"]), str(environment)]
    wanted = ["-e", f".[{','.join(project['optional-dependencies'])}]", "--group", "dev"]
    python = str(environment / "bin" / "python")
    yield ["uv", "pip", "install", "--python", python, "--resolution", "lowest-direct", *wanted]
    yield tests(environment)


RESOLUTIONS: Mapping[str, Callable[[Path], Iterator[list[str]]]] = {"locked": locked, "oldest": oldest}


def tests(environment: Path) -> list[str]:
    """The command that runs the quick tests."""
    return [str(environment / "bin" / "python"), *QUICK_TESTS, *WITHOUT_JAVA]


def is_test(command: Sequence[str]) -> bool:
    """Whether a command is the one that runs the quick tests."""
    return tuple(command[1:]) == (*QUICK_TESTS, *WITHOUT_JAVA)


def oldest_python(specifier: str) -> str:
    """The lower bound of requires-python, as `3.11` of `>=3.11,<4`."""
    found = re.search(r">=\s*([\d.]+)", specifier)
    if not found:
        raise FaultError(f"requires-python is {specifier!r} in pyproject.toml, and has no lower bound")
    return found[1]


def run(command: Sequence[str], environment: Path) -> str:
    """Runs a command in the project with another environment than .venv, and returns what it printed.

    Raises:
        FaultError: its exit code is not 0, or it takes too long.
    """
    variables = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    variables |= {
        "UV_PROJECT_ENVIRONMENT": str(environment),
        "PATH": f"{environment / 'bin'}{os.pathsep}{variables.get('PATH', '')}",
        "COLUMNS": str(MOST_CHARACTERS),  # else pytest leaves the reason out
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
    """The first line that names a fault, else the last line; empty if nothing was printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    found = next((line for line in lines if FAULT.match(line)), lines[-1] if lines else "")
    return found[:MOST_CHARACTERS]


def count_packages(environment: Path) -> int:
    """How many packages are installed."""
    python = environment / "bin" / "python"
    listed: list[Any] = json.loads(run(["uv", "pip", "list", "--python", str(python), "--format", "json"], environment))
    return len(listed)


def check(name: str, folder: Path) -> bool:
    """Installs and tests a resolution, and prints its line."""
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
    """Checks the resolutions; the exit code is 0 if all pass, 1 if not, 2 if nothing could be tried."""
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
