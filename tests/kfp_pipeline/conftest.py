"""A Spark installation that is quick and does as it is told, so that the task side is tested without a JVM."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAM = '''
"""Stands for spark-submit. FAKE_SPARK says what it does: BEHAVIOUR for every step, or STEP:BEHAVIOUR for one.
"""
import hashlib, json, os, signal, subprocess, sys, time
from dataclasses import asdict
from pathlib import Path
from spark_jobs.arguments import from_argv
from spark_jobs.contract import ARGUMENTS, Step
from spark_jobs.result import Failure, Result

start = next(i for i, word in enumerate(sys.argv) if word in list(Step))
step, args = Step(sys.argv[start]), from_argv(ARGUMENTS[Step(sys.argv[start])], sys.argv[start + 1:])
output = Path(args.output_uri)
if os.environ.get("FAKE_SPARK_CALLS"):
    with open(os.environ["FAKE_SPARK_CALLS"], "a") as calls:
        calls.write(json.dumps([step, sys.argv[1:]]) + "\\n")
told = os.environ.get("FAKE_SPARK", "")
told = told if ":" not in told else told.partition(":")[2] if told.startswith(step + ":") else ""


def tell(kind, error, trace):
    # As a real step, whose main tells what the machine says of files in one sentence and ends with 2.
    if isinstance(error, OSError):
        print(f"spark-kfp: error: {error}", flush=True)
        os._exit(2)
    sys.__excepthook__(kind, error, trace)


sys.excepthook = tell


def leave(result):
    output.mkdir(parents=True, exist_ok=True)
    (output / "result.json").write_text(result.to_json())


def sleep():
    print("asleep", flush=True)
    time.sleep(120)


print(f"log of {step}", flush=True)
if told == "no_result":
    raise SystemExit(0)
if told == "fault":
    for number in range(40):
        print(f"log line {number}")
    raise SystemExit(1)
if told == "fault_told":
    print("log line before the end", flush=True)
    leave(Result(step=step, status="failed", failure=Failure(kind="fault", type="Oops", message="the step said oops")))
    raise SystemExit(1)
if told == "input":
    print("spark-kfp: error: no such file; name another", flush=True)
    raise SystemExit(2)
if told == "input_told":
    failure = Failure(kind="input", type="InputError", message="column x is not there; name another")
    leave(Result(step=step, status="failed", failure=failure))
    raise SystemExit(2)
if told == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if told == "nap":
    time.sleep(2)
if told == "sleep":
    (output / "half").mkdir(parents=True, exist_ok=True)
    sleep()
if told == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleep()
if told == "grandchild":
    subprocess.Popen(["sleep", "120"])
    sleep()

contents = {}
for name, value in vars(args).items():
    if name.endswith("_uri") and name not in ("output_uri", "report_uri", "registry_uri") and value:
        path = Path(value)
        contents[name] = (
            json.loads((path / "result.json").read_text())["digest"] if path.is_dir() else path.read_text()
        )
settings = {name: value for name, value in vars(args).items() if not name.endswith("_uri")}
digest = hashlib.sha256(json.dumps([step, contents, settings], sort_keys=True).encode()).hexdigest()
(output / "rows").mkdir(parents=True, exist_ok=True)
(output / "rows/part-0.txt").write_text(digest)
metrics = {}
if step == "tune":
    Path(args.report_uri).write_text("<html>trials</html>")
    best = {"estimator": "logistic_regression", "settings": {"reg_param": 0.25}}
    trial = {**best, "metrics": {"areaUnderROC": 0.81}, "seconds": 1.0, "stopped": ""}
    found = {"objective": "areaUnderROC", "algorithms": [{}], "trials": [trial], "untuned": {"metrics": {}}}
    (output / "trials.json").write_text(json.dumps(found))
    (output / "best.json").write_text(json.dumps(best))
if step == "evaluate":
    metrics = {"accuracy": 0.75}
    item = {"name": "accuracy", "value": 0.75, "low": 0.7, "high": 0.8}
    document = {
        "title": "a fake", "metrics": [item], "baseline": {"metrics": {"accuracy": 0.5}}, "without_known_afterwards": None,
        "warnings": ["small data"], "curves": {"roc": [[0.0, 0.0, 1.0], [0.25, 0.75, 0.5], [1.0, 1.0, 0.0]]},
        "confusion": {"labels": ["no", "yes"], "matrix": [[3, 1], [1, 3]]},
    }
    (output / "evaluation.json").write_text(json.dumps(document))
    Path(args.report_uri).parent.mkdir(parents=True, exist_ok=True)
    Path(args.report_uri).write_text("<html>a report</html>")
facts = {}
if step == "promote":
    verdict = {"rule": "floors", "passed": False, "sentence": "accuracy is too low", "numbers": {}}
    facts = {"outcome": f"a version of {args.model_name} does not pass", "verdicts": [verdict]}
    (output / "verdict.json").write_text(json.dumps(facts))
uris = {"output": str(output), "rows": f"{output}/rows"}
leave(Result(step=step, status="succeeded", arguments=asdict(args), rows_in=8, rows_out={"rows": 8}, metrics=metrics, facts=facts,
             digest=digest, uris=uris, columns=(("x", "double"),), seconds={"total": 0.1}))
'''


@dataclass
class FakeSpark:
    """A folder that looks like an installed pyspark, and the record of what was submitted to it."""

    home: Path
    calls_path: Path

    def steps(self) -> list[str]:
        """The steps that were submitted so far."""
        return [step for step, _ in self.calls()]

    def calls(self) -> list[Any]:
        """Step and command line of each submission."""
        return [json.loads(line) for line in self.calls_path.read_text().splitlines()]

    def environment(self) -> dict[str, str]:
        """An environment in which another process finds this installation first."""
        path = os.pathsep.join([str(self.home.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "FAKE_"))}
        return {**kept, "PYTHONPATH": path, "FAKE_SPARK_CALLS": str(self.calls_path)}


def install_fake_spark(folder: Path) -> FakeSpark:
    """Makes the installation in a folder."""
    home = folder / "site" / "pyspark"
    (home / "bin").mkdir(parents=True)
    (home / "jars").mkdir()
    (home / "__init__.py").write_text('raise ImportError("the task side must not import pyspark")\n')
    (home / "jars" / "spark.jar").write_text("")
    submit = home / "bin" / "spark-submit"
    submit.write_text(f"#!{sys.executable}\n{PROGRAM}")
    submit.chmod(0o755)
    about = home.parent / "pyspark-4.3.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: pyspark\nVersion: 4.3.0\n")
    calls_path = folder / "calls.jsonl"
    calls_path.touch()
    return FakeSpark(home, calls_path)


@pytest.fixture
def fake_spark(tmp_path: Path) -> FakeSpark:
    return install_fake_spark(tmp_path)


@pytest.fixture(scope="module")
def fake_spark_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> FakeSpark:
    """One for tests that look at the same run."""
    return install_fake_spark(tmp_path_factory.mktemp("fake_spark"))


@pytest.fixture(scope="session")
def make_java(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a JAVA_HOME whose java says that it is of a version."""

    def make(version: str) -> Path:
        home = tmp_path_factory.mktemp(f"java-{version}")
        (home / "bin").mkdir()
        program = home / "bin" / "java"
        program.write_text(
            textwrap.dedent(f"""\
                #!/bin/sh
                echo 'openjdk version "{version}" 2018-10-16' >&2
                """)
        )
        program.chmod(0o755)
        return home

    return make


@pytest.fixture
def submit_here(fake_spark: FakeSpark, make_java: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> FakeSpark:
    """Makes the runners of this process use the fake installation."""
    monkeypatch.setattr("kfp_pipeline.runtime.spark_submit.runner.spark_home", lambda: fake_spark.home)
    monkeypatch.setenv("FAKE_SPARK_CALLS", str(fake_spark.calls_path))
    monkeypatch.setenv("JAVA_HOME", str(make_java("17.0.15")))
    monkeypatch.delenv("FAKE_SPARK", raising=False)
    return fake_spark
