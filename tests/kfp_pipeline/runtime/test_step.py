"""What a task records for Kubeflow, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kfp import dsl

from kfp_pipeline.runtime.errors import PermanentError
from kfp_pipeline.runtime.events import all_events, emit, read_events
from kfp_pipeline.runtime.step import check_paths, record_curves, record_result, run_task, step_arguments
from spark_jobs.contract import EvaluateArgs, LoadArgs, PredictArgs, PreprocessArgs, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Result


def artifacts(folder: Path) -> dict[str, Any]:
    """The output artifacts of evaluate as KFP hands them to a task."""
    return {
        "evaluation": dsl.Artifact(name="evaluation", uri=f"{folder}/evaluation", metadata={}),
        "metrics": dsl.Metrics(name="metrics", uri=f"{folder}/metrics", metadata={}),
        "curves": dsl.ClassificationMetrics(name="curves", uri=f"{folder}/curves", metadata={}),
        "report": dsl.HTML(name="report", uri=f"{folder}/report", metadata={}),
        "summary": dsl.Markdown(name="summary", uri=f"{folder}/summary", metadata={}),
    }


def evaluation(folder: Path, document: dict[str, Any], metrics: dict[str, float]) -> Result:
    """A finished evaluation below a folder."""
    output = folder / "evaluation"
    output.mkdir()
    (output / "evaluation.json").write_text(json.dumps(document))
    return Result(
        step="evaluate",
        status="succeeded",
        metrics=metrics,
        rows_out={"test": 8},
        columns=(("x", "double"),),
        digest="abc",
        inputs={"train_uri": "def"},
        warnings=("few rows",),
        reused_from="/earlier",
        uris={"output": str(output)},
    )


DOCUMENT = {
    "title": "Predicting label",
    "metrics": [{"name": "accuracy", "value": 0.75, "low": 0.5, "high": 0.9}],
    "baseline": {"metrics": {}},
    "without_known_afterwards": None,
    "warnings": [],
    "curves": {"roc": [[0.0, 0.0, 1.0], [0.25, 0.75, 0.5], [1.0, 1.0, 0.0]]},
    "confusion": {"labels": ["no", "yes"], "matrix": [[3, 1], [2, 4]]},
}


def test_metrics_that_are_not_finite_are_not_logged(tmp_path: Path) -> None:
    found = artifacts(tmp_path)
    metrics = {"accuracy": 0.75, "logLoss": float("inf"), "f1": float("nan"), "zero": 0.0}
    record_result(evaluation(tmp_path, DOCUMENT, metrics), found)
    assert found["metrics"].metadata == {"accuracy": 0.75, "zero": 0.0}


def test_the_curve_and_the_confusion_matrix_are_recorded(tmp_path: Path) -> None:
    found = artifacts(tmp_path)
    record_result(evaluation(tmp_path, DOCUMENT, {}), found)
    points = found["curves"].metadata["confidenceMetrics"]
    assert [(p["falsePositiveRate"], p["recall"], p["confidenceThreshold"]) for p in points] == [
        (0.0, 0.0, 1.0),
        (0.25, 0.75, 0.5),
        (1.0, 1.0, 0.0),
    ]
    matrix = found["curves"].metadata["confusionMatrix"]
    assert [item["displayName"] for item in matrix["annotationSpecs"]] == ["no", "yes"]
    assert [row["row"] for row in matrix["rows"]] == [[3, 1], [2, 4]]


@pytest.mark.parametrize("curves", [None, {}, {"roc": []}])
def test_without_a_curve_the_confusion_matrix_is_recorded_alone(tmp_path: Path, curves: Any) -> None:
    found = artifacts(tmp_path)["curves"]
    record_curves({**DOCUMENT, "curves": curves}, found)
    assert list(found.metadata) == ["confusionMatrix"]


def test_the_summary_is_written_where_kfps_launcher_looks_for_it(tmp_path: Path) -> None:
    found = artifacts(tmp_path)
    record_result(evaluation(tmp_path, DOCUMENT, {}), found)
    assert Path(found["summary"].path).read_text().startswith("# Predicting label\n")


def test_the_artifacts_keep_their_uris_and_gain_metadata(tmp_path: Path) -> None:
    found = artifacts(tmp_path)
    before = {name: artifact.uri for name, artifact in found.items()}
    record_result(evaluation(tmp_path, DOCUMENT, {"accuracy": 0.75}), found)
    assert {name: artifact.uri for name, artifact in found.items()} == before
    assert found["evaluation"].metadata == {
        "rows": {"test": 8},
        "columns": [["x", "double"]],
        "digest": "abc",
        "inputs": {"train_uri": "def"},
        "reused_from": "/earlier",
        "warnings": ["few rows"],
    }


def test_the_date_of_the_run_is_filled_into_what_the_user_gave() -> None:
    given = {
        **vars(PredictArgs(data_uri="s3://b/{{date}}.csv", model_uri="s3://b/m", output_uri="-")),
        "keep_columns": "*",
    }
    given |= {"predictions": SimpleNamespace(uri="minio://b/p/run-1/out"), "scheduled_time": "2027-01-02T23:00:00Z"}
    args = step_arguments(Step.PREDICT, {**given, "predictions_uri": "s3://b/kept/{{date:%Y}}"})
    assert (vars(args)["data_uri"], vars(args)["predictions_uri"]) == ("s3://b/2027-01-02.csv", "s3://b/kept/2027")


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    """The inputs of the component load."""
    (tmp_path / "data.csv").write_text("x,label\n1,yes\n")
    defaults = vars(LoadArgs(data_uri="-", output_uri="-"))
    table = SimpleNamespace(uri=str(tmp_path / "pipeline" / "table"), metadata={})
    return {
        **defaults,
        "data_uri": str(tmp_path / "data.csv"),
        "spark": "local[1]",
        "spark_settings": {},
        "scheduled_time": "",
        "task_config": dsl.TaskConfig(),
        "table": table,
    }


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a run that this process is a task of."""
    (tmp_path / "runs" / "one").mkdir(parents=True)
    monkeypatch.setenv("SPARK_KFP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SPARK_KFP_RUN", str(tmp_path / "runs" / "one"))
    monkeypatch.setattr("kfp_pipeline.runtime.step.die_with_parent", lambda: None)
    return tmp_path / "runs" / "one"


def test_kfps_floats_become_the_contracts_whole_numbers(tmp_path: Path) -> None:
    given = {**vars(PreprocessArgs(load_uri="-", output_uri="-")), "features": SimpleNamespace(uri=str(tmp_path))}
    args = step_arguments(Step.PREPROCESS, {**given, "seed": 7.0, "train_fraction": 0.5})
    assert repr(vars(args)["seed"]) == "7"
    with pytest.raises(InputError, match=r"--seed is 42\.5; it must be a whole number"):
        step_arguments(Step.PREPROCESS, {**given, "seed": 42.5})


@pytest.mark.parametrize("uri", ["minio://b/q/run-1/load/t", "s3://elsewhere/x", "minio://b/p/run-1/../other/t"])
def test_a_step_reads_nothing_outside_its_own_pipeline(uri: str) -> None:
    output = "minio://b/p/run-1/preprocess/f"
    check_paths(PreprocessArgs(load_uri="minio://b/p/run-1/load/t", output_uri=output), "run-1")
    check_paths(PreprocessArgs(load_uri="minio://b/p/run-0/load/t", output_uri=output), "run-1")  # KFP's cache
    with pytest.raises(InputError, match="--load-uri is"):
        check_paths(PreprocessArgs(load_uri=uri, output_uri=output), "run-1")


def test_a_step_writes_nothing_outside_its_own_run() -> None:
    given = {"preprocess_uri": "minio://b/p/run-1/f", "train_uri": "minio://b/p/run-1/m"}
    output = "minio://b/p/run-1/evaluate/e"
    check_paths(EvaluateArgs(**given, output_uri=output, report_uri="minio://b/p/run-1/evaluate/r"), "run-1")
    with pytest.raises(InputError, match="--report-uri is"):
        check_paths(EvaluateArgs(**given, output_uri=output, report_uri="minio://b/p/run-0/evaluate/r"), "run-1")
    with pytest.raises(PermanentError, match="does not lie in a folder named after the run"):
        check_paths(LoadArgs(data_uri="s3://x/y", output_uri="minio://b/p/run-0/load/t"), "run-1")


@pytest.mark.usefixtures("submit_here")
def test_a_task_returns_its_uri_and_tells_how_it_went(inputs: dict[str, Any], run: Path) -> None:
    assert run_task("load", inputs) == inputs["table"].uri
    assert inputs["table"].metadata["rows"] == {"rows": 8}
    events = list(all_events(run))
    assert [(event["step"], event["state"]) for event in events] == [("load", "running"), ("load", "done")]
    assert events[1]["rows"] == {"rows": 8}
    assert events[1]["uri"] == inputs["table"].uri


@pytest.mark.usefixtures("run")
def test_a_task_takes_a_finished_step_over(submit_here: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    run_task("load", inputs)
    later = SimpleNamespace(uri=str(tmp_path / "later" / "table"), metadata={})
    assert run_task("load", {**inputs, "table": later}) == later.uri
    assert later.metadata["reused_from"] == inputs["table"].uri
    assert submit_here.steps() == ["load"]


def test_outside_a_run_nothing_is_reused_or_told(
    submit_here: Any, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SPARK_KFP_RUN", raising=False)
    monkeypatch.setenv("SPARK_KFP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("kfp_pipeline.runtime.step.die_with_parent", lambda: None)
    run_task("load", inputs)
    run_task("load", inputs)
    assert submit_here.steps() == ["load", "load"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("submit_here")
@pytest.mark.parametrize(
    ("behaviour", "code", "kind"), [("input_told", 2, "input"), ("fault", 1, "fault"), ("killed", 1, "fault")]
)
def test_a_task_that_fails_ends_with_the_kind_of_failure(
    inputs: dict[str, Any],
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    behaviour: str,
    code: int,
    kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_SPARK", behaviour)
    with pytest.raises(SystemExit) as end:
        run_task("load", inputs)
    assert end.value.code == code
    *_, event = all_events(run)
    assert event["state"] == "failed"
    assert event["kind"] == kind
    assert event["log_path"] == str(run / "logs" / "load.log")
    assert f"spark-kfp: error: {event['message']}" in capsys.readouterr().out


def test_a_setting_out_of_its_range_is_told(submit_here: Any, inputs: dict[str, Any], run: Path) -> None:
    with pytest.raises(SystemExit) as end:
        run_task("load", {**inputs, "max_rejected_fraction": 1.5})
    assert end.value.code == 2
    *_, event = all_events(run)
    assert event["message"].startswith("--max-rejected-fraction is 1.5; allowed: ")
    assert submit_here.steps() == []


def test_a_line_that_is_not_whole_yet_is_read_later(tmp_path: Path) -> None:
    emit(str(tmp_path), "load", "running")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"step": "load", "st')
    events, position = read_events(tmp_path, 0)
    assert [event["state"] for event in events] == ["running"]
    assert read_events(tmp_path, position) == ([], position)
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('ate": "done"}\n')
    assert [event["state"] for event in read_events(tmp_path, position)[0]] == ["done"]
