"""What a stranger gets by `pip install spark-kfp`: the wheel in an empty environment, called from another folder."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
NO_INDEX = re.compile("error sending request|[Ff]ailed to fetch|dns error|[Cc]onnection refused|timed out|network")
LIMIT_SECONDS = 600


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
    return done.stdout


class Installation:
    """An environment that holds the wheel and what it depends on, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.environment, self.work = folder / "environment", folder / "work"
        self.work.mkdir()
        uv("build", "--quiet", "--wheel", "--out-dir", str(folder))
        (self.wheel,) = folder.glob("*.whl")
        self._locked = folder / "locked.txt"
        self._locked.write_text(
            uv("export", "--quiet", "--frozen", "--no-dev", "--all-extras", "--no-hashes", "--no-emit-project")
        )
        uv("venv", "--quiet", str(self.environment))
        self.install(str(self.wheel))

    def install(self, wanted: str) -> None:
        """Installs with the locked versions, which this machine has in its cache."""
        python = str(self.environment / "bin/python")
        uv("pip", "install", "--quiet", "--python", python, "--constraint", str(self._locked), wanted)

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Calls `spark-kfp` in the folder, with nothing of this project around it."""
        variables = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PYSPARK", "SPARK_KFP_RUN"))
        }
        return subprocess.run(
            [str(self.environment / "bin/spark-kfp"), *words],
            cwd=self.work,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("wheel"))


def test_the_command_of_the_plain_wheel_works(installation: Installation) -> None:
    assert installation.call("--help").returncode == 0
    done = installation.call("compile")
    assert done.returncode == 0, done.stderr
    compiled = (installation.work / "training_pipeline.yaml").read_text(encoding="utf-8")
    assert next(yaml.safe_load_all(compiled))["pipelineInfo"]["name"]


def test_without_spark_the_extra_is_named(installation: Installation) -> None:
    done = installation.call("run")
    assert done.returncode == 2
    assert "no data is named: the synthetic sample is taken, " in done.stderr
    assert "pyspark is not installed; install it with `pip install 'spark-kfp[spark]'`" in done.stderr
    assert not (installation.work / "runs").exists()


def test_the_wheel_carries_the_manifests(installation: Installation) -> None:
    done = installation.call("manifests", "cluster")
    assert done.returncode == 0, done.stderr
    names = [
        path.relative_to(PROJECT / "spark-operator")
        for path in (PROJECT / "spark-operator").rglob("*")
        if path.is_file()
    ]
    found = [path for path in (installation.work / "cluster").rglob("*") if path.is_file()]
    assert len(found) == len(names) > 20
    same, *_ = filecmp.cmpfiles(PROJECT / "spark-operator", installation.work / "cluster", names, shallow=False)
    assert len(same) == len(names)


@pytest.mark.spark
def test_with_spark_the_bundled_sample_runs_outside_a_clone(installation: Installation) -> None:
    installation.install(f"{installation.wheel}[spark]")
    done = installation.call("run")
    assert done.returncode == 0, done.stderr
    assert "areaUnderROC   0.8841" in done.stdout
