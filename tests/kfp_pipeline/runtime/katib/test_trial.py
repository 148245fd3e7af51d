"""The program of a trial: what it trains, what it prints for Katib's collector, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_documents import Store
from katib_bench import OUTPUT, PREPROCESS, experiment_of, tune
from kubernetes import client, config

from kfp_pipeline.runtime.errors import PermanentError
from kfp_pipeline.runtime.katib import trial
from kfp_pipeline.runtime.katib.experiment import plan_of
from kfp_pipeline.runtime.kubernetes_api import Cluster
from kfp_pipeline.settings import Settings
from spark_jobs.contract import Step, TrainArgs
from spark_jobs.result import Failure, Result

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

DEFAULT_FILTER = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")
"""Katib's own, pkg/metricscollector/v1beta1/common/const.go, which it applies to each line that holds the name of a metric."""
METRICS = ["areaUnderROC", "logLoss", "f1"]


class Bench:
    """A trial whose runner is the test's."""

    def __init__(self, server: FakeKubernetes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = Store.instead(monkeypatch)
        self.trained: list[TrainArgs] = []
        self.made: dict[str, Any] = {}
        self.outcomes: list[Any] = []
        self.termination: list[Failure] = []
        settings = client.Configuration()
        config.load_kube_config(str(server.kubeconfig(folder / "kubeconfig")), client_configuration=settings)
        monkeypatch.setattr(trial, "connect", lambda *_: Cluster(client.ApiClient(settings), server.namespace))
        monkeypatch.setattr(trial, "runner_for", self.runner_for)
        monkeypatch.setattr(trial, "write_termination_message", self.termination.append)
        monkeypatch.setattr(trial, "die_with_parent", lambda: None)
        self.server = server
        server.put("experiments", experiment_of(tune()))

    def runner_for(self, spark: str, settings: Settings, **more: Any) -> Bench:
        self.made = {"spark": spark, "settings": settings, **more}
        return self

    def run(self, step: Step, args: TrainArgs, _: Path) -> Result:
        assert step == Step.TRAIN
        self.trained.append(args)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return Result(step="train", status="succeeded", facts={"validation_metrics": outcome})

    def main(self, *argv: str, parts: list[int] | None = None, **settings: Any) -> int:
        args = tune(**settings)
        plan = plan_of(args, "random", "areaUnderROC", METRICS, parts or [], run="r1", overrides={"train": {}})
        return trial.main(["--trial=t-1", *argv], plan.to_variable().replace("$$", "$"))


@pytest.fixture
def bench(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(server, tmp_path, monkeypatch)


def collected(output: str) -> list[tuple[str, str]]:
    """What Katib's collector makes of an output: `parseLogsInTextFormat` in its file-metricscollector.go."""
    lines = [line for line in output.splitlines() if any(name in line for name in METRICS)]
    found = [match.group(1, 2) for line in lines for match in DEFAULT_FILTER.finditer(line)]
    return [(name, value) for name, value in found if name in METRICS]


def test_it_trains_with_the_settings_that_katib_chose_and_prints_the_validation_metrics(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.outcomes = [{"areaUnderROC": 0.9123456789012345, "logLoss": 1.5e-05, "f1": 0.5, "precision": 0.1}]
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5") == 0
    (args,) = bench.trained
    assert (args.reg_param, args.elastic_net_param, args.estimator) == (0.01, 0.5, "logistic_regression")
    assert (args.preprocess_uri, args.output_uri, args.threshold_rule) == (PREPROCESS, f"{OUTPUT}/trials/t-1", "half")
    found = [(name, float(value)) for name, value in collected(capsys.readouterr().out)]
    assert found == [("areaUnderROC", 0.9123456789012345), ("logLoss", 1.5e-05), ("f1", 0.5)]


def test_its_application_belongs_to_the_experiment_and_has_a_short_lease(bench: Bench) -> None:
    bench.outcomes = [{"areaUnderROC": 0.9}]
    bench.main("--reg-param=0.01", "--elastic-net-param=0.5")
    (owner,) = bench.made["owners"]
    found = bench.server.list("experiments")[0]
    assert (owner["kind"], owner["uid"]) == ("Experiment", found["metadata"]["uid"])
    assert (bench.made["settings"].lease_seconds, bench.made["run"], bench.made["overrides"]) == (
        120,
        "r1",
        {"train": {}},
    )


def test_of_several_estimators_it_takes_the_settings_of_its_own(bench: Bench) -> None:
    bench.outcomes = [{"areaUnderROC": 0.9}]
    words = ["--estimator=gbt", "--reg-param=3", "--elastic-net-param=0.5", "--max-depth=4"]
    assert (
        bench.main(*words, estimators="logistic_regression,gbt", search="max_depth=2:5") == 2
    )  # the others of gbt are missing
    every = [
        "--max-bins=16",
        "--min-instances-per-node=5",
        "--num-trees=20",
        "--subsampling-rate=0.5",
        "--step-size=0.1",
    ]
    assert bench.main(*words, *every, estimators="logistic_regression,gbt") == 0
    (args,) = bench.trained
    assert (args.estimator, args.max_depth, args.num_trees, args.reg_param) == ("gbt", 4, 20, 0.0)


def test_with_early_stopping_it_reports_after_each_part_of_the_train_rows(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.outcomes = [{"areaUnderROC": value} for value in (0.7, 0.8, 0.9)]
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5", parts=[1, 3, 9]) == 0
    assert [args.train_parts for args in bench.trained] == [1, 3, 9]
    assert len({args.output_uri for args in bench.trained}) == 3
    assert [value for _, value in collected(capsys.readouterr().out)] == ["0.7", "0.8", "0.9"]


def test_with_hyperband_the_budget_is_a_setting(bench: Bench) -> None:
    bench.outcomes = [{"areaUnderROC": 0.9}]
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5", "--train-parts=3") == 0
    assert bench.trained[0].train_parts == 3


@pytest.mark.parametrize("kind", ["input", "fault"])
def test_a_failed_trial_says_why_everywhere_and_exits_with_an_error(
    bench: Bench, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    bench.outcomes = [PermanentError(Failure(kind=kind, type="OutOfMemory", message="areaUnderROC needs 2 GiB"))]
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5") == (2 if kind == "input" else 1)
    output = capsys.readouterr().out
    assert "spark-kfp: error: areaUnderROC needs 2 GiB" in output
    assert not collected(output)
    assert bench.termination[0].message == "areaUnderROC needs 2 GiB"
    assert json.loads(bench.store.kept["kfp/run/tune/trials/t-1/failure.json"])["type"] == "OutOfMemory"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_an_objective_that_is_no_number_fails_the_trial(
    bench: Bench, capsys: pytest.CaptureFixture[str], value: float | None
) -> None:
    bench.outcomes = [{"logLoss": 0.4} | ({} if value is None else {"areaUnderROC": value})]
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5") == 1
    assert not collected(capsys.readouterr().out)


def test_another_metric_that_is_no_number_is_left_out(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.outcomes = [{"areaUnderROC": 0.9, "logLoss": float("inf")}]
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5") == 0
    assert collected(capsys.readouterr().out) == [("areaUnderROC", "0.9")]


def test_a_cancelled_trial_ends_with_the_code_of_an_interrupt(bench: Bench) -> None:
    bench.outcomes = [KeyboardInterrupt("SIGTERM")]
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5") == 130
    assert not [name for name in bench.store.kept if "failure" in name]


def test_a_trial_of_a_deleted_experiment_starts_nothing(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.server.remove("experiments", experiment_of(tune())["metadata"]["name"])
    assert bench.main("--reg-param=0.01", "--elastic-net-param=0.5") == 1
    assert "is deleted, so the trial ends" in capsys.readouterr().out
    assert not bench.trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reg-param=many", "--elastic-net-param=0"], "invalid float value: 'many'"),
        (["--reg-param=-1", "--elastic-net-param=0"], "--reg-param is -1.0; allowed: 0 or more"),
        (["--reg-param=0.1", "--elastic-net-param=0", "--alpha=1"], "--alpha"),
        (["--reg-param=0.1", "--elastic-net-param=0", "--max-depth=3"], "--max-depth"),
    ],
)
def test_a_wrong_command_is_bad_input(
    bench: Bench, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert bench.main(*words) == 2
    assert message in capsys.readouterr().out


@pytest.mark.parametrize("plan", ["", "[]", '{"a": 1}', "{"])
def test_outside_of_an_experiment_it_says_so(bench: Bench, capsys: pytest.CaptureFixture[str], plan: str) -> None:
    assert trial.main(["--trial=t"], plan) == 2
    assert "holds no plan of a trial" in capsys.readouterr().out
    assert not bench.trained


def test_it_starts_as_a_program(capfd: pytest.CaptureFixture[str]) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "kfp_pipeline.runtime.katib.trial", "--trial=t"], check=False, env={"PATH": ""}
    )
    assert done.returncode == 2
    assert "spark-kfp: error: SPARK_KFP_TRIAL holds no plan of a trial" in capfd.readouterr().out
