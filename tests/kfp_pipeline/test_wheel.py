"""What a stranger gets by `pip install spark-kfp`: the wheel in an empty environment, called from another folder.

The wheel is built and installed once. The command is tried without pyspark, the whole run with the quick Spark of conftest.py, and the real
Spark with a single step, so that all of this takes seconds.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_pipeline.commands.local_runs import SAMPLE, SAMPLE_SPECIFICATION
from kfp_pipeline.settings import Settings

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
PACKAGES = ("kfp_pipeline", "serving", "spark_jobs")
NO_INDEX = re.compile("error sending request|[Ff]ailed to fetch|dns error|[Cc]onnection refused|timed out|network")
LIMIT_SECONDS = 600
IMPORT_ALL = """
import importlib, pkgutil, spark_jobs
for module in pkgutil.iter_modules(spark_jobs.__path__):
    if module.name not in ("__main__", "rehearsal"):  # programs, which begin at once
        importlib.import_module(f"spark_jobs.{module.name}")
"""


def uv(*words: str) -> str:
    """Calls uv; skips the test where no package index answers."""
    program = shutil.which("uv") or shutil.which(PROJECT / ".tools/uv/bin/uv")
    if not program:
        pytest.skip("uv is not on PATH")
    done = subprocess.run(
        [program, *words], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
    )
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip(f"no package index answers: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


class Installation:
    """An environment that holds the wheel and what it depends on, in the locked versions, and a folder to work in."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.environment, self.work = folder / "environment", folder / "work"
        self.work.mkdir(parents=True)
        self.python = self.environment / "bin/python"
        self._locked = folder / "locked.txt"
        self._locked.write_text(
            uv("export", "--quiet", "--frozen", "--no-dev", "--all-extras", "--no-hashes", "--no-emit-project")
        )
        uv("venv", "--quiet", "--python", sys.executable, str(self.environment))
        self.install("--quiet", str(wheel))

    def install(self, *words: str) -> str:
        """Calls the installer, which keeps to the locked versions; what it says."""
        return uv("pip", "install", "--python", str(self.python), "--constraint", str(self._locked), *words)

    @property
    def packages(self) -> Path:
        """Where Python finds the packages."""
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found

    def call(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Calls a program of the environment in the folder, with nothing of this project around it."""
        program, *rest = words
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PYSPARK", "SPARK_", "FAKE_"))
        }
        return subprocess.run(
            [str(self.environment / "bin" / program), *rest],
            cwd=self.work,
            env={**kept, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    uv("build", "--quiet", "--wheel", "--out-dir", str(folder))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def plain(wheel: Path) -> Installation:
    """The wheel without its extra, so without Spark."""
    return Installation(wheel.parent / "plain", wheel)


def test_the_command_of_the_plain_wheel_works(plain: Installation) -> None:
    assert not (plain.packages / "pyspark").exists()
    assert plain.call("spark-kfp", "--help").returncode == 0
    done = plain.call("spark-kfp", "compile")
    assert done.returncode == 0, done.stderr
    compiled = (plain.work / "training_pipeline.yaml").read_text(encoding="utf-8")
    assert next(yaml.safe_load_all(compiled))["pipelineInfo"]["name"]


def test_without_spark_the_extra_is_named(plain: Installation) -> None:
    done = plain.call("spark-kfp", "run", "--runs=none")
    assert done.returncode == 2
    assert "no data is named: the synthetic sample is taken, " in done.stderr
    assert re.search("pyspark is not installed; install it with `pip install .*pyspark==", done.stderr)
    assert not (plain.work / "none").exists()


def test_the_wheel_carries_the_manifests(plain: Installation) -> None:
    done = plain.call("spark-kfp", "manifests", "cluster")
    assert done.returncode == 0, done.stderr
    assert len(differing(PROJECT / "spark-operator", plain.work / "cluster")) == 0
    assert len(files(plain.work / "cluster")) == len(files(PROJECT / "spark-operator")) > 20


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_carries_every_file_of_a_package(plain: Installation, package: str) -> None:
    assert files(PROJECT / package)
    assert differing(PROJECT / package, plain.packages / package) == []


def test_the_bundled_sample_runs_outside_a_clone(
    plain: Installation, fake_spark: Any, make_java: Callable[[str], Path]
) -> None:
    """By the fake Spark, whose steps take their contract from the wheel."""
    submit = fake_spark.home / "bin/spark-submit"
    submit.write_text(submit.read_text().replace(f"#!{sys.executable}", f"#!{plain.python}", 1))
    spark = {"PYTHONPATH": str(fake_spark.home.parent), "FAKE_SPARK_CALLS": str(fake_spark.calls_path)}
    done = plain.call("spark-kfp", "run", "--run-id=one", **spark, JAVA_HOME=str(make_java("17.0.15")))
    assert done.returncode == 0, done.stderr
    assert fake_spark.steps() == ["load", "preprocess", "train", "evaluate"]
    sample, specification = (plain.packages / "kfp_pipeline/bundled" / name for name in (SAMPLE, SAMPLE_SPECIFICATION))
    assert {f"--data-uri={sample}", f"--specification-uri={specification}"} <= set(fake_spark.calls()[0][1])
    assert {path.name for path in files(sample.parent)} == {"bank_sample.csv", "bank.toml", "gate.toml"}
    assert differing(sample.parent, PROJECT / "data") == []
    assert (plain.work / "runs/one/report.html").exists()


def test_the_extra_names_all_that_the_steps_import(wheel: Path, plain: Installation, tmp_path: Path) -> None:
    """What an installer would add for the extra is taken from the environment of the tests: pyspark alone is 400 MB."""
    for name in re.findall(r"^ \+ ([\w.-]+)==", plain.install("--dry-run", f"{wheel}[spark]"), re.MULTILINE):
        for top in {file.parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            (tmp_path / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    assert (tmp_path / "pyspark").exists()
    done = plain.call("python", "-c", IMPORT_ALL, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.spark
def test_a_step_of_the_wheel_runs_in_the_real_spark(plain: Installation) -> None:
    """In that of the tests' environment, for which there is an archive of classes; the specification spares the inference."""
    sample, specification = (
        str(plain.packages / "kfp_pipeline/bundled" / name) for name in (SAMPLE, SAMPLE_SPECIFICATION)
    )
    own = {
        "PYTHONPATH": str(distribution("pyspark").locate_file("")),
        "SPARK_KFP_CACHE": str(Settings.from_environment().cache),
    }
    done = plain.call("spark-kfp", "data", "check", sample, "--spec", specification, "-o", "checked.toml", **own)
    assert done.returncode == 0, done.stderr
    assert "4,000 rows, 0 rejected" in done.stdout
    assert "known_afterwards" in (plain.work / "checked.toml").read_text(encoding="utf-8")


def files(folder: Path) -> list[Path]:
    """The files below a folder, but for what Python leaves there."""
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(folder) for path in found]


def differing(one: Path, other: Path) -> list[str]:
    """The files of a folder that another folder lacks or has with other content."""
    _, different, missing = filecmp.cmpfiles(one, other, files(one), shallow=False)
    return [*map(str, different), *map(str, missing)]
