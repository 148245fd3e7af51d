"""The alarm is rare without drift, and comes with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.drift import SHIFTS, Shift, alarm_share
from spark_jobs.monitoring.alarm import Limits, compare
from spark_jobs.monitoring.histograms import Histogram

AGE = Histogram(name="age", kind="numeric", edges=(30.0, 40.0), counts=(400, 300, 300))
JOB = Histogram(name="job", kind="categorical", values=("admin", "clerk"), counts=(600, 400))
NONE = Shift("none")


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "runs"), [(20, 400), (200, 1000), (2000, 1000), (20_000, 300)])
def test_without_drift_fewer_than_one_run_in_a_hundred_alarms(rows: int, runs: int) -> None:
    assert alarm_share(NONE, rows, runs, seed=rows) < 0.01


@pytest.mark.slow
def test_the_tests_alone_keep_their_level_too() -> None:
    """Without a limit of size the rate of false alarms is that of Holm's correction: the level, and not far below it."""
    tests_only = Limits(significance=0.05, psi=-1.0, share=-1.0)
    share = alarm_share(NONE, 500, 2000, seed=5, limits=tests_only)
    assert 0.01 < share < 0.06


@pytest.mark.parametrize("shift", SHIFTS, ids=lambda shift: shift.name)
def test_a_clear_shift_is_found_in_a_thousand_rows(shift: Shift) -> None:
    assert alarm_share(shift, 1000, 100, seed=7) > 0.9


def alarms(current: list[Histogram], **limits: float) -> list[tuple[str, str]]:
    found = compare([AGE, JOB], current, Limits(**limits), None)
    return [(finding.column, finding.about) for finding in found if finding.alarm]


def test_each_kind_of_change_is_told_by_name() -> None:
    older, empty = replace(AGE, counts=(100, 300, 600)), replace(AGE, counts=(300, 225, 225), missing=250)
    assert alarms([older, JOB]) == [("age", "values")]
    assert ("age", "missing") in alarms([empty, JOB])
    assert ("job", "new categories") in alarms([AGE, replace(JOB, counts=(500, 340), other=160)])
    assert alarms([AGE, JOB]) == []


def test_a_change_must_be_both_significant_and_large() -> None:
    many, slight = replace(AGE, counts=(40_000, 30_000, 30_000)), replace(AGE, counts=(43_000, 30_000, 27_000))
    (first, *_) = compare([many], [slight], Limits(), None)
    assert first.adjusted < 1e-6
    assert (first.column, first.alarm) == ("age", False)
    assert 0 < first.change < first.limit
    few = replace(AGE, counts=(1, 4, 7))
    assert alarms([few, JOB]) == []
    assert compare([many], [slight], Limits(psi=0.001), None)[0].alarm


def test_fewer_new_categories_than_before_are_no_alarm() -> None:
    before = replace(JOB, counts=(500, 300), other=200)
    found = compare([before], [replace(JOB, counts=(625, 375))], Limits(psi=9.0), None)
    assert [finding.alarm for finding in found] == [False] * 3
    assert min(finding.adjusted for finding in found) < 1e-6


def test_scores_are_compared_like_a_column() -> None:
    found = compare([JOB], [JOB], Limits(), (AGE, replace(AGE, counts=(300, 300, 1400))))
    assert (found[0].about, found[0].column, found[0].alarm) == ("score", "age", True)


def test_a_batch_without_rows_raises_no_alarm() -> None:
    assert alarms([AGE.empty, JOB.empty]) == []
