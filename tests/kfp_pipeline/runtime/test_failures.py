"""A task that fails leaves its reason below its run, whatever it was that went wrong."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from fake_documents import Store
from kfp import dsl

from kfp_pipeline.runtime import failures
from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.step import run_task
from spark_jobs.contract import Step, TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.result import Failure

PLACE = "minio://b/training/run-1"
OUTPUT = f"{PLACE}/train/salt/model"
REASON = "b/training/run-1/failures/train.json"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    return Store.instead(monkeypatch)


def train(**changed: Any) -> dict[str, Any]:
    """The inputs of the component train."""
    given = vars(TrainArgs(preprocess_uri=f"{PLACE}/preprocess/salt/features", output_uri="-"))
    model = SimpleNamespace(uri=OUTPUT, metadata={})
    more = {"spark": "operator", "spark_settings": {}, "task_config": dsl.TaskConfig(), "model": model}
    return {**given, **more, **changed}


def test_a_task_that_fails_before_it_has_submitted_anything_leaves_its_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARK_KFP_RUN_ID", "run-1")
    monkeypatch.setattr("kfp_pipeline.runtime.step.die_with_parent", lambda: None)
    with pytest.raises(SystemExit) as end:
        run_task("train", train(elastic_net_param=1.5))
    assert end.value.code == 2
    found = failures.read_failures(store, PLACE)
    assert list(found) == [Step.TRAIN]
    assert found[Step.TRAIN].kind == "input"
    assert f"spark-kfp: error: {found[Step.TRAIN].message}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (
            StepError(Failure(kind="fault", type="Killed", message="the driver was killed")),
            "fault",
            "the driver was killed",
        ),
        (InputError("no column x"), "input", "no column x"),
        (KeyError("x"), "fault", "KeyError: 'x'; the task's log shows where"),
    ],
)
def test_the_last_attempt_counts_and_one_that_succeeds_removes_the_reason(
    store: Store, error: Exception, kind: str, told: str
) -> None:
    with pytest.raises(type(error)), failures.save_on_error(Step.TRAIN, OUTPUT, "run-1"):
        raise error
    document = json.loads(store.kept[REASON])
    assert (document["kind"], document["message"]) == (kind, told)
    with failures.save_on_error(Step.TRAIN, OUTPUT, "run-1"):
        pass
    assert store.kept == {}


def test_a_store_that_is_away_does_not_change_how_a_task_ends(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.away = True
    with pytest.raises(InputError, match="no column x"), failures.save_on_error(Step.TRAIN, OUTPUT, "run-1"):
        raise InputError("no column x")
    with failures.save_on_error(Step.TRAIN, OUTPUT, "run-1"):
        pass
    told = "the failure document of this task could not be updated: the store does not answer"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("uri", ["/runs/one/train", "minio://b/training/another/train/salt/model"])
def test_outside_of_a_runs_own_place_nothing_is_written(store: Store, uri: str) -> None:
    with pytest.raises(KeyError), failures.save_on_error(Step.TRAIN, uri, "run-1"):
        raise KeyError("x")
    assert store.kept == {}
