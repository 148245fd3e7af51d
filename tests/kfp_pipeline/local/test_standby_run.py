"""A run of `spark-kfp run` starts the driver of each step before the step is known, where that pays."""

from __future__ import annotations

import os
import signal

import pytest
from machine import PATIENCE_SECONDS, STEPS, Machine, until


def test_a_driver_that_cannot_stand_by_is_not_missed(machine: Machine) -> None:
    code, _, err = machine.run("--label=label", "--run-id=one", FAKE_STANDBY="dies")
    assert code == 0, err
    assert machine.spark.steps() == STEPS
    assert "in a standby" not in (machine.folder / "runs/one/logs/train.log").read_text()


@pytest.mark.parametrize(
    "setting",
    [{"SPARK_KFP_STANDBYS": "false"}, {"SPARK_KFP_COMPILE_TIERS_BYTES": "10"}],
    ids=lambda given: next(iter(given)),
)
def test_none_stands_by_for_large_data_or_where_that_is_not_wanted(machine: Machine, setting: dict[str, str]) -> None:
    code, _, err = machine.run("--label=label", "--run-id=one", **machine.noting, **setting)
    assert code == 0, err
    assert machine.standbys() == []


def test_a_standby_that_is_killed_before_its_step_is_replaced_by_a_driver_of_the_step(machine: Machine) -> None:
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one", FAKE_SPARK="load:nap", **machine.noting)
    assert until(lambda: len(machine.standbys()) == 2)  # one for load, and the next
    os.kill(machine.standbys()[1], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert machine.spark.steps() == STEPS
    assert "in a standby" not in (machine.folder / "runs/one/logs/preprocess.log").read_text()
