"""What becomes of a fit that fails: a trial with the reason, or, if the session or its jobs were ended from outside, none at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from spark_jobs.estimator import Shape
from spark_jobs.trials import Trial
from spark_jobs.tuning import fitting
from spark_jobs.tuning.fitting import Portion, Rows

CALL = "An error occurred while calling o2463.fit.\n: org.apache.spark.SparkException: "


class Session:
    """A Spark session that answers, or one whose JVM has gone."""

    def __init__(self, *, gone: bool) -> None:
        self.gone = gone

    def range(self, _: int) -> Any:
        return self

    def collect(self) -> list[int]:
        if self.gone:
            raise ConnectionRefusedError
        return [0]


class UnreadableError(Exception):
    """As an error of the JVM whose text only that JVM knows."""

    def __str__(self) -> str:
        raise ConnectionRefusedError


def try_fit(monkeypatch: pytest.MonkeyPatch, failure: Exception, *, gone: bool = False) -> Trial:
    def fails(*_: Any) -> Any:
        raise failure

    monkeypatch.setattr(fitting, "judge_fit", fails)
    rows: Any = SimpleNamespace(sparkSession=Session(gone=gone))
    return fitting.run_trial(Rows([Portion("", 1, rows, rows)], Shape(1, 2)), "gbt", {}, "areaUnderROC")


@pytest.mark.parametrize(
    ("failure", "gone"),
    [
        (RuntimeError(f"{CALL}[SPARK_JOB_CANCELLED] Job 7 cancelled . SQLSTATE: XXKDA"), False),
        (RuntimeError(f"{CALL}Job 7 cancelled because SparkContext was shut down"), True),
        (RuntimeError("[OPERATION_CANCELED] Operation has been canceled."), False),
        (RuntimeError("An error occurred while calling o2463.fit"), True),
        (UnreadableError(), True),
    ],
    ids=["cancelled", "shut down", "cancelled by Connect", "JVM gone", "JVM gone before it told why"],
)
def test_a_fit_that_was_interrupted_is_no_trial(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, gone: bool
) -> None:
    with pytest.raises(type(failure)):
        try_fit(monkeypatch, failure, gone=gone)


@pytest.mark.parametrize("gone", [False, True])
def test_a_fit_that_ran_out_of_memory_is_a_failed_trial_even_if_it_took_the_session_with_it(
    monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    trace = f"{CALL}Job aborted due to stage failure\n\tat a.b\nCaused by: java.lang.OutOfMemoryError: Java heap space"
    trial = try_fit(monkeypatch, RuntimeError(trace), gone=gone)
    assert not trial.finished
    assert trial.error == (
        "org.apache.spark.SparkException: Job aborted due to stage failure, "
        "caused by java.lang.OutOfMemoryError: Java heap space"
    )


def test_a_fit_that_failed_for_a_reason_of_its_own_is_a_failed_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_fit(monkeypatch, ArithmeticError("no such luck\nat all")).error == "no such luck"
