"""A run whose steps share a session: the real driver's loop as the program of a fake operator's driver, and an S3 over real HTTP between.

Only Spark itself is missing: `steps` says how the steps end. The tests of `tests/e2e` have all of it.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from fake_operator import COMPLETED, NEW, SUBMITTED, SUCCEEDED, Stage
from test_operator_runner import Bench

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.spark_operator.manifest import application_name
from kfp_pipeline.runtime.spark_operator.session_runner import SharedSessionRunner
from spark_jobs import cluster_session, result, storage
from spark_jobs import object_store as client
from spark_jobs.arguments import from_argv
from spark_jobs.contract import ARGUMENTS, Step
from spark_jobs.result import Failure, Result

if TYPE_CHECKING:
    import pytest
    from fake_kubernetes import FakeKubernetes

sys.path.append(str(Path(__file__).parents[3] / "spark_jobs"))
RUN_FOLDER = "s3://kfp/runs/run-1"
NAME = application_name("session", RUN_FOLDER)
DIED = [
    Stage(
        1,
        "FAILING",
        "Failed",
        "driver container failed with ExitCode: 137, Reason: Error",
        reason="Error",
        exit_code=137,
    ),
    Stage(0, "FAILED", error="driver container failed with ExitCode: 137, Reason: Error"),
]


class Killed(BaseException):
    """The driver's process is killed."""


@dataclass
class SessionPlace(Bench):
    """A runner in front of the fake API server, and a session behind it.

    Attributes:
        steps: what a step does, by its name: returns its exit code.
        ran: the steps that were started.
        silent: the driver takes no request.
        spark_range: `SparkSession.range`; it raises once Spark has ended.
    """

    server: FakeKubernetes
    folder: Path
    patch: pytest.MonkeyPatch
    steps: dict[str, Callable[[Any], int]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    silent: bool = False
    spark_range: Callable[[int], Any] = field(default=lambda rows: SimpleNamespace(count=lambda: rows))
    limits: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from fake_s3 import FakeS3

        super().__init__(self.server, self.folder, **self.limits)
        self.s3, self.closed, self.drivers = FakeS3(), threading.Event(), list[threading.Thread]()
        threading.Thread(target=self.s3.serve_forever, args=(0.02,), daemon=True).start()
        for name, value in self.s3.environment.items():
            self.patch.setenv(name, value)
        client.from_environment.cache_clear()
        self.patch.setattr(cluster_session, "POLL_SECONDS", 0.02)
        self.documents = object_store
        self.server.operator.speed = 50
        self.server.operator.script("spark-kfp-session-*", [NEW, SUBMITTED, Stage(1, "RUNNING", "Running")])
        self.server.operator.programs["spark-kfp-session-*"] = self._drive

    def close(self) -> None:
        self.closed.set()
        for driver in self.drivers:  # else it would look for the store's answer, and for the clock, in the next test
            driver.join(20)
        self.s3.shutdown()
        client.from_environment.cache_clear()

    def end_driver(self, _: str, application: dict[str, Any]) -> str | None:  # noqa: ARG002 - the steps have left their results
        return None

    def runner(self, **more: Any) -> SharedSessionRunner:
        given = {"documents": self.documents, "log_line": self.said.append, "run": "run-1", **more}
        return SharedSessionRunner(self.cluster(given.pop("patience_seconds", 5.0)), **given)

    def _drive(self, application: dict[str, Any], write: Callable[[str], bool]) -> list[Stage]:
        """The driver: the loop of `cluster_session`, whose log goes to the pod's."""
        self.drivers.append(threading.current_thread())
        handler = logging.Handler()

        def emit(record: logging.LogRecord) -> None:
            if not write(f"26/11/28 20:00:00 INFO spark_jobs: {record.getMessage()}"):
                raise Killed

        handler.emit = emit  # type: ignore[method-assign]
        handler.handleError = lambda _: None  # type: ignore[method-assign]
        log = logging.getLogger("spark_jobs")
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        write("26/11/28 20:00:00 INFO SparkContext: Running Spark version 4.3.0")
        session = SimpleNamespace(catalog=SimpleNamespace(clearCache=lambda: None), range=self._range_now)
        _, uri = application["spec"]["arguments"]

        termination_log = self.folder / "termination-log"
        termination_log.write_text("")
        self.patch.setattr(result, "TERMINATION_LOG", termination_log)
        serving = cluster_session.ClusterSession(uri, session, self._run_step)
        look, driver = serving._next, f"{application['metadata']['name']}-driver"

        def look_while_alive() -> str | None:
            if self.closed.is_set() or self.server.get("pods", driver) is None:
                raise Killed
            return None if self.silent else look()

        self.patch.setattr(serving, "_next", look_while_alive)
        try:
            code = serving.serve(idle_seconds=20)
        except Killed:
            return list(DIED)
        except (OSError, ValueError):  # the test has ended, and its object store with it
            assert self.closed.is_set()
            return list(DIED)
        finally:
            log.removeHandler(handler)
        if code == 0:
            return [SUCCEEDED, COMPLETED]
        error, told = f"driver container failed with ExitCode: {code}, Reason: Error", termination_log.read_text()
        return [
            Stage(1, "FAILING", "Failed", error, reason="Error", message=told, exit_code=code),
            Stage(0, "FAILED", error=error),
        ]

    def _range_now(self, rows: int) -> Any:
        return self.spark_range(rows)  # a test may change it while a step runs

    def _run_step(self, argv: list[str], _: Any) -> int:
        step, *words = argv
        args = from_argv(ARGUMENTS[Step(step)], words)
        self.ran.append(step)
        logging.getLogger("spark_jobs").info("step %s works", step)
        return self.steps.get(step, succeed)(args)


def succeed(args: Any) -> int:
    """Leaves a result document."""
    step = next(step for step, kind in ARGUMENTS.items() if isinstance(args, kind))
    result = Result(
        step=step,
        status="succeeded",
        arguments=dict(vars(args)),
        rows_out={"rows": 7},
        uris={"output": args.output_uri},
        metrics={"areaUnderROC": 0.9} if step == Step.EVALUATE else {},
    )
    storage.write_text(f"{args.output_uri}/result.json", result.to_json())
    return 0


def fail(kind: str, message: str) -> Callable[[Any], int]:
    """A step that leaves a failure."""

    def run(args: Any) -> int:
        step = next(step for step, kind in ARGUMENTS.items() if isinstance(args, kind))
        failure = Failure(kind=kind, type="Oops", message=message)
        result = Result(step=step, status="failed", arguments=dict(vars(args)), failure=failure)
        storage.write_text(f"{args.output_uri}/result.json", result.to_json())
        return {"input": 2, "fault": 1}[kind]

    return run


def killed(_: Any) -> int:
    """A step in which the driver's process is killed."""
    raise Killed


def states(place: SessionPlace) -> dict[str, Any]:
    """What the session has told of its steps."""
    (name,) = (name for name in place.s3.objects if name.endswith("/steps.json"))
    found: dict[str, Any] = json.loads(place.s3.objects[name])
    return found
