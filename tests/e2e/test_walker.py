"""The walker of compiled pipelines walks as KFP does; no cluster is needed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from kfp.compiler import Compiler

sys.path.insert(0, str(Path(__file__).parent))

from ir import Compiled, CompiledTask, PodOutput
from sample_pipeline import sample as sample_pipeline
from walker import FAILED, SKIPPED, SUCCEEDED, Walker

from kfp_pipeline.pipelines.training import make_pipeline
from kfp_pipeline.task_settings import Platform


class Launcher:
    """Runs tasks by a table of what they put out, and notes them; the tasks that `fails` names fail so many times."""

    def __init__(self, **fails: int) -> None:
        self.ran: list[tuple[str, dict[str, Any], int]] = []
        self.fails = fails

    def __call__(self, task: CompiledTask, values: Mapping[str, Any], attempt: int) -> tuple[bool, dict[str, Any]]:
        self.ran.append((task.name, dict(values), attempt))
        if attempt < self.fails.get(task.name.replace("-", "_"), 0):
            return False, {}
        red = "red" if values.get("number") == 1 else "blue"
        return True, {"Output": red, "uri": "s3://b/run/table", "code_version": "v1"}

    def inputs(self, name: str) -> list[dict[str, Any]]:
        return [values for task, values, _ in self.ran if task == name]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path = tmp_path_factory.mktemp("sample") / "sample.yaml"
    Compiler().compile(sample_pipeline, str(path))
    return Compiled.read(path)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path = tmp_path_factory.mktemp("training") / "training.yaml"
    Compiler().compile(make_pipeline(Platform()), str(path))
    return Compiled.read(path)


@pytest.mark.parametrize(
    ("number", "painted"), [(1, ["it is red now"]), (2, ["little"]), (4, ["much"])], ids=["if", "else", "elif"]
)
def test_one_branch_of_a_condition_runs(sample: Compiled, number: int, painted: list[str]) -> None:
    launcher = Launcher()
    walker = Walker(sample, launcher)
    assert walker.run({"number": number}) == SUCCEEDED
    texts = [values["text"] for name, values, _ in launcher.ran if name in ("paint", "paint-2", "paint-3")]
    assert texts == painted
    assert list(walker.states.values()).count(SKIPPED) == 2


def test_a_loop_runs_once_for_each_item(sample: Compiled) -> None:
    launcher = Launcher()
    Walker(sample, launcher).run({"number": 1, "names": ["x", "y", "z"]})
    assert [values["item"] for values in launcher.inputs("count")] == ["x", "y", "z"]
    assert [values["number"] for values in launcher.inputs("colour-2")] == [7, 8]


def test_a_graph_in_a_graph_gives_its_output(sample: Compiled) -> None:
    launcher = Launcher()
    Walker(sample, launcher).run({"number": 1})
    assert launcher.inputs("paint-4") == [{"text": "blue", "coats": 2.0}]


def test_the_exit_task_runs_after_success_and_after_failure_and_is_told_which(sample: Compiled) -> None:
    for fails, state in ((0, SUCCEEDED), (3, FAILED)):
        launcher = Launcher(colour=fails)
        walker = Walker(sample, launcher)
        assert walker.run({"number": 1}) == state
        assert launcher.ran[-1][0] == "tidy"
        assert launcher.inputs("tidy")[0]["status"]["state"] == state
        assert launcher.inputs("tidy")[0]["status"]["error"] == {}


def test_a_task_is_repeated_as_often_as_it_says_and_what_follows_a_failure_is_skipped(sample: Compiled) -> None:
    launcher = Launcher(colour=2)
    assert Walker(sample, launcher).run({"number": 1}) == SUCCEEDED
    assert [attempt for name, _, attempt in launcher.ran if name == "colour"][:3] == [0, 1, 2]
    launcher = Launcher(colour=3)
    walker = Walker(sample, launcher)
    walker.run({"number": 1})
    assert walker.states["exit-handler-1/colour"] == FAILED
    assert walker.states["exit-handler-1/inner"] == SKIPPED


@pytest.mark.parametrize("inputs", [{}, {"number": 1, "nobody": 2}])
def test_missing_and_unknown_inputs_are_refused(sample: Compiled, inputs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the pipeline"):
        Walker(sample, Launcher()).run(inputs)


def test_the_training_pipeline_runs_the_steps_and_finishes(training: Compiled) -> None:
    launcher = Launcher()
    assert Walker(training, launcher).run({"data_uri": "s3://b/{{date}}/bank.csv"}) == SUCCEEDED
    assert [name for name, _, _ in launcher.ran] == ["load", "preprocess", "train", "evaluate", "finish"]
    (preprocess,) = launcher.inputs("preprocess")
    assert (preprocess["load_uri"], preprocess["code_version"]) == ("s3://b/run/table", "v1")


def test_one_input_decides_between_the_branch_that_tunes_first_and_the_other(training: Compiled) -> None:
    given = {"data_uri": "s3://b/bank.csv", "model_name": "bank"}
    fixed, tuned = Launcher(), Launcher()
    assert Walker(training, fixed).run({**given, "reg_param": 0.5}) == SUCCEEDED
    assert Walker(training, tuned).run({**given, "tune_first": True, "trials": 3}) == SUCCEEDED
    before, after = ["load", "preprocess"], ["finish"]
    assert [name for name, _, _ in fixed.ran] == [*before, "train", "evaluate", "promote", *after]
    assert [name for name, _, _ in tuned.ran] == [*before, "tune", "train-2", "evaluate-2", "promote-2", *after]
    assert (fixed.inputs("train")[0]["reg_param"], fixed.inputs("train")[0]["tune_uri"]) == (0.5, "")
    assert tuned.inputs("tune")[0]["trials"] == 3
    (train,), (evaluate,), (promote,) = (tuned.inputs(name) for name in ("train-2", "evaluate-2", "promote-2"))
    assert (train["tune_uri"], train["reg_param"]) == ("blue", 0.0), "tune has put it out"
    assert evaluate["train_uri"] == promote["evaluate_uri"] == "blue"


@pytest.mark.parametrize(
    ("due", "told"),
    [("2026-11-24T02:00:00Z",) * 2, (None, "{{$.pipeline_job_schedule_time_utc}}")],
    ids=["2.17", "2.16"],
)
def test_the_driver_tells_the_time_for_which_the_run_was_due(training: Compiled, due: str | None, told: str) -> None:
    launcher = Launcher()
    Walker(training, launcher, due=due).run({"data_uri": "s3://b/{{date}}/bank.csv"})
    assert launcher.inputs("load")[0]["scheduled_time"] == told


@pytest.mark.parametrize("task", ["load", "preprocess", "train", "evaluate"])
def test_the_training_pipeline_finishes_even_if_a_task_fails_for_good(training: Compiled, task: str) -> None:
    launcher = Launcher(**{task: 3})
    assert Walker(training, launcher).run({"data_uri": "s3://b/x.csv"}) == FAILED
    assert launcher.ran[-1][0] == "finish"
    assert launcher.inputs("finish")[0]["status"]["state"] == FAILED


def test_every_task_of_the_training_pipeline_is_repeated_as_often_as_the_platform_says(tmp_path: Path) -> None:
    Compiler().compile(make_pipeline(Platform(retries=2)), str(tmp_path / "training.yaml"))
    names = ("load", "preprocess", "train", "evaluate", "finish")
    launcher = Launcher(**dict.fromkeys(names, 2))
    assert Walker(Compiled.read(tmp_path / "training.yaml"), launcher).run({"data_uri": "s3://b/x.csv"}) == SUCCEEDED
    assert [attempt for _, _, attempt in launcher.ran] == [0, 1, 2] * 5


def test_with_the_same_table_and_code_the_costly_steps_are_taken_over_and_with_others_they_are_not(
    training: Compiled,
) -> None:
    cache: dict[str, Any] = {}
    first = Walker(training, Launcher(), "one", cache)
    first.run({"data_uri": "s3://b/x.csv"})
    again = Walker(training, Launcher(), "two", cache)
    again.run({"data_uri": "s3://b/x.csv"})
    assert first.reused == []
    assert again.reused == [f"exit-handler-1/{task}" for task in ("preprocess", "condition-2/train")]

    class Changed(Launcher):
        def __call__(self, task: CompiledTask, values: Mapping[str, Any], attempt: int) -> tuple[bool, dict[str, Any]]:
            succeeded, output = super().__call__(task, values, attempt)
            return succeeded, {**output, **changed, "Output": f"of {task.name} {changed}"}

    for changed in ({"uri": "s3://b/another/table"}, {"code_version": "v2"}):
        other = Walker(training, Changed(), "three", cache)
        other.run({"data_uri": "s3://b/x.csv"})
        assert other.reused == [], changed


def test_a_pods_log_is_taken_apart() -> None:
    text = 'a line\n=== executor output ===\n{"a": 1}\n=== upload s3://b/x aGVsbG8=\n\n=== upload s3://b/y d29ybGQ=\n'
    found = PodOutput.parse(text)
    assert found.log == "a line\n"
    assert found.output == {"a": 1}
    assert found.uploads == {"s3://b/x": b"hello", "s3://b/y": b"world"}
