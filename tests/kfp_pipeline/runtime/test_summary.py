"""The texts for the panes of KFP's UI."""

from __future__ import annotations

from typing import Any

from kfp_pipeline.runtime.summary import evaluation_summary, plain, run_summary

EVALUATION: dict[str, Any] = {
    "title": "Predicting deposit",
    "metrics": [
        {"name": "areaUnderROC", "value": 0.8841, "low": 0.86, "high": 0.9074},
        {"name": "logLoss", "value": 0.42, "low": None, "high": None},
    ],
    "baseline": {"metrics": {"areaUnderROC": 0.5}},
    "without_known_afterwards": {"columns": ["duration"], "metrics": [{"name": "areaUnderROC", "value": 0.6831}]},
    "warnings": [],
}


def test_the_metrics_stand_beside_the_majority_class_and_the_other_model() -> None:
    lines = evaluation_summary(EVALUATION).splitlines()
    assert lines[0] == "# Predicting deposit"
    assert lines[2] == "| metric | value | 95 % interval | majority class | without duration |"
    assert lines[3] == "| --- | --- | --- | --- | --- |"
    assert lines[4] == "| areaUnderROC | 0.8841 | 0.8600 to 0.9074 | 0.5000 | 0.6831 |"
    assert lines[5] == "| logLoss | 0.4200 | - to - | - | - |"


def test_without_the_other_model_its_column_is_not_there() -> None:
    document = {**EVALUATION, "without_known_afterwards": None, "warnings": ["few rows"]}
    text = evaluation_summary(document)
    assert "| areaUnderROC | 0.8841 | 0.8600 to 0.9074 | 0.5000 |\n" in text
    assert text.endswith("- warning: few rows\n")


def test_a_runs_end_tells_state_reason_applications_metrics_and_report() -> None:
    application = {"step": "load", "name": "spark-kfp-load-1", "state": "FAILED", "error": "no column | nobody"}
    document = {
        "status": "FAILED",
        "message": "load failed",
        "applications": [application],
        "metrics": {},
        "report": "",
    }
    assert run_summary(document).splitlines() == [
        "# FAILED",
        "",
        "load failed",
        "",
        "| step | SparkApplication | state | error |",
        "| --- | --- | --- | --- |",
        r"| load | spark-kfp-load-1 | FAILED | no column \| nobody |",
    ]
    good = {"status": "SUCCEEDED", "message": "", "applications": [], "metrics": {"f1": 0.5}, "report": "s3://b/r"}
    assert "| f1 | 0.5000 |" in run_summary(good)
    assert "report: `s3://b/r`" in run_summary(good)


def test_what_data_say_is_shown_as_it_is() -> None:
    assert plain("<script>\n# *x* [a](b) `c`") == r"&lt;script\> \# \*x\* \[a\]\(b\) \`c\`"
