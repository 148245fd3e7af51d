"""The quality gate: passes, fails, or too few rows to tell; a leak is refused; wrong files are told apart from all of these."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from kfp_pipeline.commands.main import main
from kfp_pipeline.local import runs
from spark_jobs import gate
from spark_jobs.errors import InputError
from spark_jobs.gate import (
    Bound,
    Decision,
    Metric,
    Rules,
    check_bounds,
    decide,
    describe,
    leaks,
    read_metrics,
    read_rules,
)

SAMPLE_RULES = Path(__file__).parents[3] / "data" / "gate.toml"
ROC = Metric("areaUnderROC", 0.71, 0.69, 0.74)
LOSS = Metric("logLoss", 0.5, 0.45, 0.55)
# One run of `spark-kfp run` on the sample: its model, and the one without the column that is known only afterwards.
MEASURED = {
    "areaUnderROC": (0.8841, 0.8608, 0.9074),
    "areaUnderPR": (0.8845, 0.8581, 0.9099),
    "accuracy": (0.8107, 0.7825, 0.8360),
    "precision": (0.7963, 0.7528, 0.8338),
    "recall": (0.7921, 0.7485, 0.8299),
    "f1": (0.7942, 0.7604, 0.8273),
    "logLoss": (0.4200, 0.3833, 0.4598),
    "brierScore": (0.1335, 0.1194, 0.1478),
    "liftTopDecile": (2.1684, 2.0296, 2.3211),
}
WITHOUT_DURATION = {
    "areaUnderROC": (0.6831, 0.6467, 0.7194),
    "areaUnderPR": (0.6879, 0.6434, 0.7307),
    "accuracy": (0.5364, 0.5023, 0.5702),
    "precision": (0.4985, 0.4612, 0.5359),
    "recall": (0.8974, 0.8628, 0.9240),
    "f1": (0.6410, 0.6066, 0.6748),
    "logLoss": (0.6251, 0.5968, 0.6516),
    "brierScore": (0.2192, 0.2071, 0.2312),
    "liftTopDecile": (1.9053, 1.7285, 2.0746),
}


def evaluation(metrics: dict[str, tuple[Any, Any, Any]]) -> dict[str, Any]:
    """An evaluation.json's part that the gate reads, from name to value, low and high."""
    listed = [{"name": name, "value": value, "low": low, "high": high} for name, (value, low, high) in metrics.items()]
    return {"binary": True, "metrics": listed}


def one(metric: Metric, kind: gate.Kind, bound: float, by: str = "interval") -> gate.BoundCheck:
    (check,) = check_bounds({metric.name: metric}, Rules([Bound(metric.name, kind, bound)], by), "gate.toml")
    return check


PASSES, FAILS, UNSURE = Decision.PASSES, Decision.FAILS, Decision.TOO_FEW_ROWS
SMALL = Metric("areaUnderROC", 0.62, 0.40, 0.84)


@pytest.mark.parametrize(
    ("metric", "kind", "bound", "by_interval", "by_value"),
    [
        (SMALL, "minimum", 0.80, UNSURE, FAILS),  # a weak model on a small test set
        (SMALL, "minimum", 0.60, UNSURE, PASSES),
        (ROC, "minimum", 0.60, PASSES, PASSES),
        (ROC, "minimum", 0.69, PASSES, PASSES),  # the lower end is exactly the bound
        (ROC, "minimum", 0.69 + 1e-12, UNSURE, PASSES),
        (ROC, "minimum", 0.71, UNSURE, PASSES),
        (ROC, "minimum", 0.72, UNSURE, FAILS),
        (ROC, "minimum", 0.74, UNSURE, FAILS),  # the upper end is exactly the bound
        (ROC, "minimum", 0.74 + 1e-12, FAILS, FAILS),
        (LOSS, "maximum", 0.60, PASSES, PASSES),
        (LOSS, "maximum", 0.55, PASSES, PASSES),
        (LOSS, "maximum", 0.52, UNSURE, PASSES),
        (LOSS, "maximum", 0.48, UNSURE, FAILS),
        (LOSS, "maximum", 0.45, UNSURE, FAILS),
        (LOSS, "maximum", 0.30, FAILS, FAILS),
    ],
)
def test_a_bound_is_met_by_the_whole_interval_or_by_choice_by_the_value(
    metric: Metric, kind: gate.Kind, bound: float, by_interval: Decision, by_value: Decision
) -> None:
    assert one(metric, kind, bound).decision is by_interval
    assert one(metric, kind, bound, "value").decision is by_value


def test_the_miss_of_what_fails_is_from_the_bound_to_the_nearest_end_or_to_the_value() -> None:
    assert one(ROC, "minimum", 0.85).miss == pytest.approx(0.11)
    assert one(ROC, "minimum", 0.85, "value").miss == pytest.approx(0.14)
    assert one(LOSS, "maximum", 0.3).miss == pytest.approx(0.15)
    assert one(ROC, "minimum", 0.72).miss == 0.0


@pytest.mark.parametrize(
    ("metric", "kind", "bound", "by", "line"),
    [
        (ROC, "minimum", 0.85, "interval", "fails: areaUnderROC 0.71 (0.69 to 0.74) is below 0.85 with its whole interval, by 0.11"),
        (ROC, "minimum", 0.85, "value", "fails: areaUnderROC 0.71 (0.69 to 0.74) is below 0.85, by 0.14"),
        (ROC, "minimum", 0.72, "interval", "too few rows to tell: areaUnderROC 0.71 (0.69 to 0.74) may be below or above 0.72"),
        (ROC, "minimum", 0.69, "interval", "passes: areaUnderROC 0.71 (0.69 to 0.74) is not below 0.69"),
        (LOSS, "maximum", 0.3, "interval", "fails: logLoss 0.5 (0.45 to 0.55) is above 0.3 with its whole interval, by 0.15"),
        (LOSS, "maximum", 0.5, "interval", "too few rows to tell: logLoss 0.5 (0.45 to 0.55) may be above or below 0.5"),
        (LOSS, "maximum", 0.6, "interval", "passes: logLoss 0.5 (0.45 to 0.55) is not above 0.6"),
        (ROC, "minimum", 0.741, "interval", "fails: areaUnderROC 0.71 (0.69 to 0.74) is below 0.741 with its whole interval, by 0.001"),
    ],
)  # fmt: skip
def test_a_check_is_one_line(metric: Metric, kind: gate.Kind, bound: float, by: str, line: str) -> None:
    assert describe(one(metric, kind, bound, by)) == line


def test_bounds_keep_their_order_and_the_worst_decision_is_the_candidates() -> None:
    rules = read_rules({"minimum": {"areaUnderROC": 0.7}, "maximum": {"logLoss": 1}}, "gate.toml")
    assert rules.bounds == [Bound("areaUnderROC", "minimum", 0.7), Bound("logLoss", "maximum", 1.0)]
    checks = check_bounds({ROC.name: ROC, LOSS.name: LOSS}, rules, "f")
    assert [check.decision for check in checks] == [UNSURE, PASSES]
    assert decide(checks, []) is UNSURE
    assert decide(checks[1:], []) is PASSES
    assert decide([*checks, one(LOSS, "maximum", 0.1)], []) is FAILS
    assert decide(checks[1:], ["alive"]) is FAILS


def test_the_metrics_of_more_than_two_classes_are_judged_by_their_own_names() -> None:
    metrics = read_metrics(
        {"binary": False, **evaluation({"weightedPrecision": (0.9, 0.88, 0.92), "logLoss": (0.3, 0.2, 0.4)})}, "e"
    )
    rules = read_rules({"minimum": {"weightedPrecision": 0.95}}, "gate.toml")
    assert [check.miss for check in check_bounds(metrics, rules, "f")] == [pytest.approx(0.03)]


def test_a_leak_is_refused_unless_the_file_allows_the_column() -> None:
    suspicious = [
        {"column": "alive", "kind": "leak", "reason": "all but tells the label"},
        {"column": "same", "kind": "constant", "reason": "has one value in all rows"},
    ]
    document = {**evaluation(MEASURED), "data": {"suspicious": suspicious}}
    bounds = {"minimum": {"f1": 0.1}}
    assert leaks(document, read_rules(bounds, "f")) == ["alive"]
    assert leaks(document, read_rules({**bounds, "allow_leaks": ["other"]}, "f")) == ["alive"]
    assert leaks(document, read_rules({**bounds, "allow_leaks": ["alive"]}, "f")) == []
    assert leaks(evaluation(MEASURED), read_rules(bounds, "f")) == []


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "has no bound"),
        ({"minimum": {}}, "has no bound"),
        ({"floor": {"f1": 0.5}}, "'floor' is not known"),
        ({"minimum": 0.5}, "make it a table"),
        ({"minimum": {"f1": "0.5"}}, "minimum.f1 is '0.5'; it must be a finite number"),
        ({"minimum": {"f1": True}}, "must be a finite number"),
        ({"minimum": {"f1": float("nan")}}, "must be a finite number"),
        ({"maximum": {"logLoss": float("inf")}}, "must be a finite number"),
        ({"minimum": {"area": {"UnderROC": 0.5}}}, "must be a finite number"),  # area.UnderROC = 0.5
        ({"minimum": {"logLoss": 0.5}}, "lower is better for logLoss; move it to [maximum]"),
        ({"maximum": {"f1": 0.5}}, "higher is better for f1; move it to [minimum]"),
        ({"judge_by": "luck", "minimum": {"f1": 0.5}}, "judge_by is 'luck'; allowed: interval, value"),
        ({"allow_too_few_rows": "no", "minimum": {"f1": 0.5}}, "allow_too_few_rows is 'no'; make it true or false"),
        ({"allow_leaks": "alive", "minimum": {"f1": 0.5}}, "make it a list of columns"),
        ({"allow_leaks": ["alive"]}, "has no bound"),
    ],
)
def test_wrong_bounds_are_refused(document: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=r"^mine\.toml") as error:
        read_rules(document, "mine.toml")
    assert said in str(error.value)


@pytest.mark.parametrize("document", [[], {}, None, {"metrics": {}}, {"metrics": [1]}, {"metrics": [{"value": 1}]}])
def test_what_is_no_evaluation_is_refused(document: Any) -> None:
    with pytest.raises(InputError, match=r"^e\.json is not an evaluation"):
        read_metrics(document, "e.json")


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ((0.5, None, 0.6), "low of f1 is None"),
        ((0.5, 0.4, float("nan")), "high of f1 is nan"),
        ((float("inf"), 0.4, 0.6), "value of f1 is inf"),
        ((True, 0.4, 0.6), "value of f1 is True"),
        ((0.5, 0.6, 0.4), "the interval of f1 ends before it begins"),
    ],
)
def test_a_metric_without_a_sound_interval_is_refused(metric: tuple[Any, Any, Any], said: str) -> None:
    with pytest.raises(InputError, match=r"^e\.json: ") as error:
        read_metrics(evaluation({"f1": metric}), "e.json")
    assert said in str(error.value)


def test_a_bound_for_a_metric_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(InputError, match=r"^gate\.toml: the evaluation has no metric 'auc'; it has areaUnderROC$"):
        check_bounds({ROC.name: ROC}, Rules([Bound("auc", "minimum", 0.5)]), "gate.toml")


def test_the_rules_of_the_sample_let_its_model_pass_and_stop_one_that_has_lost_its_best_column() -> None:
    rules = read_rules(tomllib.loads(SAMPLE_RULES.read_text(encoding="utf-8")), str(SAMPLE_RULES))
    whole = check_bounds(read_metrics(evaluation(MEASURED), "whole"), rules, "f")
    assert {each.decision for each in whole} == {PASSES}
    lost = check_bounds(read_metrics(evaluation(WITHOUT_DURATION), "lost"), rules, "f")
    assert {each.bound.metric for each in lost if each.decision is not FAILS} == {"liftTopDecile"}
    assert {each.decision for each in lost if each.bound.metric == "liftTopDecile"} == {UNSURE}


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    path = tmp_path / "gate.toml"
    path.write_text("[minimum]\nareaUnderROC = 0.86\n[maximum]\nlogLoss = 0.46\n", encoding="utf-8")
    return path


def write_run(directory: Path, name: str, started: float, metrics: dict[str, tuple[Any, Any, Any]]) -> None:
    output = directory / name / "pipeline" / "evaluation"
    output.mkdir(parents=True)
    (output / "evaluation.json").write_text(json.dumps(evaluation(metrics)), encoding="utf-8")
    steps = {"evaluate": {"step": "evaluate", "state": "done", "uri": str(output)}}
    runs.save(directory / name, runs.Run(id=name, status="succeeded", inputs={}, started=started, steps=steps))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The runs: `good`, then `bad`, which is the last that ended well, then one that was killed."""
    write_run(tmp_path / "runs", "good", 1.0, MEASURED)
    write_run(tmp_path / "runs", "bad", 2.0, MEASURED | {"areaUnderROC": (0.71, 0.69, 0.74)})
    (tmp_path / "runs" / "killed").mkdir()
    return tmp_path / "runs"


def gate_of(candidate: str, directory: Path, rules_file: Path, *more: str) -> int:
    return main(["gate", candidate, "--runs", str(directory), "--rules", str(rules_file), *more])


@pytest.mark.parametrize("candidate", ["good", "go", "FILE"])
def test_a_run_its_beginning_or_a_file_that_is_good_enough_ends_with_0(
    candidate: str, directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory / "good" / "pipeline" / "evaluation" / "evaluation.json"
    assert gate_of(str(path) if candidate == "FILE" else candidate, directory, rules_file) == 0
    assert capsys.readouterr().out.splitlines() == [
        "passes: areaUnderROC 0.8841 (0.8608 to 0.9074) is not below 0.86",
        "passes: logLoss 0.42 (0.3833 to 0.4598) is not above 0.46",
        f"the run passes ({rules_file})",
    ]


def test_a_run_of_a_pipeline_that_evaluates_no_model_is_refused(
    directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = {"count": {"step": "count", "state": "done", "uri": str(directory)}}
    counted = runs.Run(id="counted", pipeline="counting", status="succeeded", inputs={}, started=9.0, steps=steps)
    runs.save(directory / "counted", counted)
    assert gate_of("counted", directory, rules_file) == 2
    assert "run counted of the pipeline counting has no evaluation; name another run" in capsys.readouterr().err
    assert main(["runs", "compare", "counted", "good", "--runs", str(directory)]) == 0


def test_the_last_run_that_is_not_good_enough_ends_with_1(
    directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate_of("last", directory, rules_file) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "fails: areaUnderROC 0.71 (0.69 to 0.74) is below 0.86 with its whole interval, by 0.12",
        "passes: logLoss 0.42 (0.3833 to 0.4598) is not above 0.46",
        f"the run does not pass ({rules_file})",
    ]
    assert shown.err == ""


def test_json_is_one_document_with_every_check(
    directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate_of("bad", directory, rules_file, "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["decision"], document["passed"], document["rules"]) == ("fails", False, str(rules_file))
    assert [(each["bound"]["metric"], each["decision"]) for each in document["checks"]] == [
        ("areaUnderROC", "fails"),
        ("logLoss", "passes"),
    ]
    assert document["checks"][0]["miss"] == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ("missing", "0 runs match 'missing'"),
        ("killed", "0 runs match 'killed'"),
        ("failed", "run failed is failed, so it has no evaluation"),
        ("odd", "run odd of the pipeline training has no evaluation"),
        ("./nothing.json", "nothing.json: No such file or directory"),
        ("text.json", "text.json is not JSON"),
        ("bytes.json", "bytes.json is not text in UTF-8"),
        ("list.json", "list.json is not an evaluation"),
        ("./runs", "runs: Is a directory"),
    ],
)
def test_a_candidate_that_cannot_be_judged_ends_with_2(
    candidate: str, said: str, directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(directory.parent)
    for name, status in (("failed", "failed"), ("odd", "succeeded")):
        (directory / name).mkdir()
        runs.save(directory / name, runs.Run(id=name, status=status, inputs={}, started=time.time()))
    Path("text.json").write_text("no", encoding="utf-8")
    Path("bytes.json").write_bytes(b"\xff")
    Path("list.json").write_text("[]", encoding="utf-8")
    assert gate_of(candidate, directory, rules_file) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file or directory; name the file with the bounds: --rules FILE"),
        ("minimum", "is not TOML"),
        ("[minimum]\nareaUnderROC = 'high'", "minimum.areaUnderROC is 'high'; it must be a finite number"),
        ("[minimum]\nauc = 0.8", "the evaluation has no metric 'auc'; it has areaUnderROC, areaUnderPR"),
        ("", "has no bound"),
    ],
)
def test_rules_that_cannot_be_used_end_with_2(
    text: str | None, said: str, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert gate_of("good", directory, path) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert str(path) in shown.err


def test_too_few_rows_end_with_3_unless_they_are_allowed(
    directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(directory, "small", 3.0, MEASURED | {"areaUnderROC": (0.88, 0.70, 0.99)})
    assert gate_of("small", directory, rules_file) == 3
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "too few rows to tell: areaUnderROC 0.88 (0.7 to 0.99) may be below or above 0.86"
    assert shown[-1].startswith("the run does not pass")
    assert gate_of("small", directory, rules_file, "--allow-too-few-rows") == 0
    assert "too few rows to tell are allowed" in capsys.readouterr().out
    rules_file.write_text("allow_too_few_rows = true\n" + rules_file.read_text())
    assert gate_of("small", directory, rules_file) == 0
    rules_file.write_text('judge_by = "value"\n' + rules_file.read_text())
    capsys.readouterr()
    assert gate_of("small", directory, rules_file) == 0
    assert capsys.readouterr().out.startswith("passes")


def test_a_leak_ends_with_1_and_names_the_column(
    directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory / "good" / "pipeline" / "evaluation" / "evaluation.json"
    document = json.loads(path.read_text())
    document["data"] = {
        "uri": "x.csv",
        "suspicious": [{"column": "alive", "kind": "leak", "reason": "tells the label"}],
    }
    path.write_text(json.dumps(document))
    assert gate_of("good", directory, rules_file) == 1
    assert capsys.readouterr().out.startswith("fails: column 'alive' all but tells the label")
    rules_file.write_text('allow_leaks = ["alive"]\n' + rules_file.read_text())
    assert gate_of("good", directory, rules_file) == 0


def test_a_forbidden_column_that_the_table_lacks_is_a_warning(
    directory: Path, rules_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = directory / "good" / "pipeline" / "evaluation" / "evaluation.json"
    data = {"uri": "x.csv", "columns": [{"name": "gender", "role": "numeric"}, {"name": "day", "role": "dropped"}]}
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": data}))
    text = rules_file.read_text()
    rules_file.write_text('forbidden = ["gendr", "day"]\n' + text)
    assert gate_of("good", directory, rules_file) == 0
    told = "the table has no column 'gendr' that could be forbidden; did you mean 'gender'?"
    assert capsys.readouterr().out.startswith(f"warning: {told} ({rules_file})\n")
    assert gate_of("good", directory, rules_file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["warnings"] == [told]
    rules_file.write_text('forbidden = ["gender"]\n' + text)
    assert gate_of("good", directory, rules_file) == 1


def test_without_rules_named_the_file_beside_the_data_counts_wherever_the_command_is_typed(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, data = tmp_path / "elsewhere", tmp_path / "data"
    elsewhere.mkdir()
    data.mkdir()
    path = directory / "good" / "pipeline" / "evaluation" / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "data": {"uri": str(data / "table.csv")}}))
    monkeypatch.chdir(elsewhere)
    judged = ["gate", "good", "--runs", str(directory)]
    assert main(judged) == 2
    assert f"no gate.toml lies in {data} or in this folder" in capsys.readouterr().err
    (elsewhere / "gate.toml").write_text("[minimum]\nf1 = 0.99\n")
    assert main(judged) == 1
    (data / "gate.toml").write_text("[minimum]\nf1 = 0.5\n")
    assert main(judged) == 0
