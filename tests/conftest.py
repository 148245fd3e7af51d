"""One Spark session for all tests, and a way to run steps in it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """A shell's background job starts with SIGINT ignored, and so would all that the tests start; a loaded machine is slow.

    Every Spark that a Python process of the tests starts has the Java options of a short step on this machine.
    """
    from kfp_pipeline.runtime.spark_submit.runner import COLLECTOR, SparkSubmitRunner
    from kfp_pipeline.settings import Settings
    from spark_jobs import object_store_settings
    from spark_jobs.errors import InputError

    with contextlib.suppress(InputError):  # without Java or Spark the tests that need them say so
        options = SparkSubmitRunner("local[2]", Settings.from_environment()).java_options(short=True)
        options = [option for option in options if option != COLLECTOR]
        options.append("-XX:+UseSerialGC")  # tables are tiny, and the processors have other workers' tests to run
        words = ["--driver-java-options", shlex.join(options), "pyspark-shell"]
        os.environ["PYSPARK_SUBMIT_ARGS"] = shlex.join(words)
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # no test asks the machine on which it runs for keys of a cloud,
    object_store_settings.CREDENTIALS_FILE = "/dev/null/none"  # nor takes those of whoever runs it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    hypothesis.settings.register_profile("no deadline", deadline=None)
    hypothesis.settings.load_profile("no deadline")


@pytest.fixture
def time_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives a module a `time` of its own with other functions: threads of this process, such as py4j's, go on with the real one."""

    def replace(module: Any, **functions: Any) -> None:
        monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(module.time), **functions}))

    return replace


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    from pyspark.sql import SparkSession

    from spark_jobs.contract import Step
    from spark_jobs.session import START, build_session

    builder = SparkSession.builder.master("local[2]")
    for key, value in {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.log.level": "ERROR",
    }.items():
        builder = builder.config(key, value)
    for key, value in START.items():
        builder = builder.config(key, value)
    builder.getOrCreate()
    session = build_session(Step.LOAD)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def run_step(spark: Any) -> Callable[..., Any]:
    """Runs a step in the shared session, as the command line does in its own."""

    def run(step: str, **arguments: Any) -> Any:
        from spark_jobs.contract import ARGUMENTS, Step
        from spark_jobs.step_execution import remove_outputs, run_in_session

        if step == Step.TUNE:
            arguments = {"report_uri": Path(arguments["output_uri"]) / "tuning.html", **arguments}
        args = ARGUMENTS[Step(step)](
            **{name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()}
        )
        remove_outputs(Step(step), args)
        return run_in_session(spark, Step(step), args, time.perf_counter())

    return run


@pytest.fixture(scope="session")
def run_steps(run_step: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Runs load, preprocess, train and evaluate, or up to a `last` step, below a directory; settings go to the step that has them."""

    def run(directory: Path, last: str = "evaluate", **settings: Any) -> dict[str, Any]:
        from spark_jobs.contract import ARGUMENTS

        uris = {f"{name}_uri": directory / name for name in ("load", "preprocess", "train")}
        uris["report_uri"] = directory / "report.html"
        results = {}
        for step, kind in ARGUMENTS.items():
            known = kind.__dataclass_fields__
            given = {name: value for name, value in {**uris, **settings}.items() if name in known}
            results[str(step)] = run_step(step, output_uri=directory / step, **given)
            if step == last:
                break
        return results

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes the session carries the marker `spark`.

    The files with such tests come first: they are the longest, and short ones at the end let all workers end together.
    """
    for item in items:
        if "spark" in getattr(item, "fixturenames", ()):
            item.add_marker("spark")
    first = {item.path for item in items if item.get_closest_marker("spark")}
    items.sort(key=lambda item: item.path not in first)
