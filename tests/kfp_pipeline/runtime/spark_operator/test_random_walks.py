"""Random walks: whatever the operator's states and the API server's faults, the runner ends, submits once and tells the truth.

`make test` walks forty ways, `make fuzz` ten thousand; SPARK_KFP_WALKS sets how many. A walk is its seed: a failing one is
printed, and is walked again by adding it to SEEDS.
"""

from __future__ import annotations

import os
import random
import tempfile
import threading
from pathlib import Path

import pytest
from fake_kubernetes import FakeKubernetes
from fake_operator import LINES, STATES, Stage
from fake_refusals import Faults
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_operator_runner import NAME, Bench

from kfp_pipeline.runtime import kubernetes_api
from kfp_pipeline.runtime.errors import TemporaryError
from kfp_pipeline.runtime.spark_operator import driver_log
from kfp_pipeline.runtime.spark_operator import watch as watching
from spark_jobs.result import Failure, Result

WALKS = int(os.environ.get("SPARK_KFP_WALKS", "40"))
LONGEST_SECONDS = 60.0
SEEDS = (448, 1201, 8299)
"""Ways that are always walked; those that once found a fault stay here."""
PASSING = [state for state in STATES if state not in ("COMPLETED", "FAILED")]


def walk(dice: random.Random) -> tuple[list[Stage], bool]:
    """A way through the states, and whether the driver ends well on it."""
    stages = [Stage(dice.uniform(0, 3), dice.choice(("", "SUBMITTED", "SUBMISSION_FAILED", "PENDING_RERUN")))]
    stages.append(Stage(dice.uniform(0, 2), "SUBMITTED", "Pending", reason="ContainerCreating"))
    stages.append(Stage(dice.uniform(0, 4), "RUNNING", "Running", log=LINES[: dice.randint(0, 20)]))
    stages += [Stage(dice.uniform(0, 2), dice.choice(PASSING)) for _ in range(dice.randint(0, 4))]
    if dice.random() < 0.3:  # kubeflow/spark-operator#2788
        stages.append(Stage(dice.uniform(0, 3), "FAILED", error="driver pod already exist"))
    well = dice.random() < 0.6
    if well:
        last = "FAILED" if stages[-1].state == "FAILED" else dice.choice(("COMPLETED", "SUCCEEDING"))
        stages.append(
            Stage(dice.uniform(0, 1), "FAILED" if last == "FAILED" else "SUCCEEDING", "Succeeded", reason="Completed")
        )
        stages.append(Stage(0, "FAILED" if last == "FAILED" else "COMPLETED"))
    else:
        code = dice.choice((1, 2, 137))
        stages.append(Stage(dice.uniform(0, 1), "FAILING", "Failed", reason="Error", exit_code=code))
        stages.append(Stage(0, "FAILED", error="driver container failed"))
    return stages, well


@pytest.fixture(scope="module", autouse=True)
def _in_a_hurry() -> None:
    kubernetes_api.FIRST_PAUSE_SECONDS = 0.01
    kubernetes_api.LONGEST_PAUSE_SECONDS = 0.2
    watching.FIRST_PAUSE_SECONDS = 0.01
    watching.LONGEST_PAUSE_SECONDS = 0.2
    driver_log.PAUSE_SECONDS = 0.02


def one_walk(seed: int) -> None:
    dice = random.Random(seed)
    stages, well = walk(dice)
    faults = Faults(seed=seed, rate=dice.choice((0.0, 0.1, 0.3)), seconds=0.05)
    with tempfile.TemporaryDirectory() as folder, FakeKubernetes(speed=100, faults=faults) as server:
        bench = Bench(
            server, Path(folder), watch_request_seconds=0.5, check_interval_seconds=0.05, read_interval_seconds=0.3
        )
        server.operator.script("*", stages)
        if not well:
            bench.failure = Failure(kind="fault", type="ValueError", message="the step says why")
        outcome: list[object] = []

        def attempt() -> None:
            try:
                outcome.append(bench.run(patience_seconds=20.0))
            except Exception as error:
                outcome.append(error)

        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join(LONGEST_SECONDS)
        assert outcome, f"seed {seed}: it hangs: {[stage.state for stage in stages]}"
        assert server.created[NAME] == 1, f"seed {seed}: submitted {server.created[NAME]} times"
        assert server.operator.driver_starts[NAME] <= 1
        wanted = Result if well else TemporaryError
        assert isinstance(outcome[0], wanted), (
            f"seed {seed}: {'good' if well else 'failed'}, but it ends as {outcome[0]!r}"
        )


@settings(max_examples=WALKS, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck))
@given(st.integers(min_value=0, max_value=2**32))
@example(SEEDS[0])
@example(SEEDS[1])
@example(SEEDS[2])
def test_every_walk_ends_submits_once_and_tells_the_truth(seed: int) -> None:
    one_walk(seed)
