"""What every runner does the same: one suite over all of them. A new runner gets a class below and stands in RUNNERS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from session_place import RUN_FOLDER, SessionPlace, fail, killed
from test_operator_runner import NAME, Bench

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.runner import Runner
from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner
from kfp_pipeline.settings import Settings
from spark_jobs.contract import LoadArgs, Step
from spark_jobs.result import Failure

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

SCRIPTS = {"input_told": "python_error", "fault_told": "python_error", "killed": "driver_killed"}
MESSAGES = {"input_told": "column x is not there; name another", "fault_told": "the step said oops"}


class OnThisMachine:
    """spark-submit."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._fake = request.getfixturevalue("submit_here")
        self._patch = request.getfixturevalue("monkeypatch")
        (folder / "data.csv").write_text("x,label\n1,yes\n")
        self.args = LoadArgs(data_uri=str(folder / "data.csv"), output_uri=str(folder / "out"))
        self.runner: Runner = SparkSubmitRunner("local[1]", Settings(runs=folder / "runs", cache=folder / "cache"))

    def behave(self, how: str) -> None:
        self._patch.setenv("FAKE_SPARK", how)

    def starts(self) -> int:
        return len(self._fake.steps())


class OnACluster:
    """The Spark operator."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        server: FakeKubernetes = request.getfixturevalue("server")
        server.operator.speed = 50
        self._bench = Bench(server, folder)
        self.args = LoadArgs(data_uri="s3://data/data.csv", output_uri="minio://kfp/run-1/load/table")
        self.runner: Runner = self._bench.runner()

    def behave(self, how: str) -> None:
        self._bench.server.operator.script("*", SCRIPTS.get(how, how))
        if how in MESSAGES:
            kind = how.partition("_")[0]
            self._bench.failure = Failure(kind=kind, type="Oops", message=MESSAGES[how])

    def starts(self) -> int:
        return self._bench.server.operator.driver_starts[NAME]


class InASharedSession:
    """One SparkApplication for a run, whose session its steps share."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        server: FakeKubernetes = request.getfixturevalue("server")
        self._place = SessionPlace(server, folder, request.getfixturevalue("monkeypatch"))
        request.addfinalizer(self._place.close)
        self.args = LoadArgs(data_uri="s3://data/data.csv", output_uri=f"{RUN_FOLDER}/load/table")
        self.runner: Runner = self._place.runner()

    def behave(self, how: str) -> None:
        kind = how.partition("_")[0]
        told = {"killed": killed, "no_result": lambda _: 0}
        self._place.steps["load"] = told.get(how) or fail(kind, MESSAGES[how])

    def starts(self) -> int:
        return len(self._place.ran)


RUNNERS: dict[str, Any] = {"spark-submit": OnThisMachine, "operator": OnACluster, "shared": InASharedSession}


@pytest.fixture(params=RUNNERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return RUNNERS[request.param](request, tmp_path)


def test_a_step_that_ends_well_brings_its_result_and_its_log(place: Any, tmp_path: Path) -> None:
    result = place.runner.run(Step.LOAD, place.args, tmp_path / "logs" / "load.log")
    assert result.status == "succeeded"
    assert result.uris["output"] == place.args.output_uri
    assert (tmp_path / "logs" / "load.log").read_text().strip()
    assert place.starts() == 1


@pytest.mark.parametrize(
    ("how", "kind", "told"),
    [
        ("input_told", "input", MESSAGES["input_told"]),
        ("fault_told", "fault", MESSAGES["fault_told"]),
        ("killed", "fault", "killed"),
        ("no_result", "fault", "result"),
    ],
)
def test_a_step_that_ends_badly_says_why(place: Any, tmp_path: Path, how: str, kind: str, told: str) -> None:
    place.behave(how)
    with pytest.raises(StepError) as caught:
        place.runner.run(Step.LOAD, place.args, tmp_path / "load.log")
    assert caught.value.failure.kind == kind
    assert told in str(caught.value).replace("SIGKILL", "killed").replace("result.json", "result")
    assert caught.value.log_path == str(tmp_path / "load.log")
    if how in ("input_told", "killed"):
        assert type(caught.value) is {"input_told": PermanentError, "killed": TemporaryError}[how]
    assert place.starts() == 1
