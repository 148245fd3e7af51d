"""Renders evaluation.json as the report: one HTML file with metrics, charts and warnings that needs no other file and no network.

All numbers of the page are in evaluation.json, so a user can check them and a program need not parse HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spark_jobs.evaluation import charts
from spark_jobs.evaluation.cautions import LEAK_HEADLINE, leak_warning, leaks, number, percentage

TEMPLATE = "report.html.j2"
MOST_EFFECTS = 15
"""Largest number of features in a chart."""
KEY_FIGURES = ("areaUnderROC", "accuracy", "f1", "logLoss")
"""The metrics that are shown large at the top."""
MEANINGS = {
    "areaUnderROC": "how often a random positive ranks above a random negative",
    "areaUnderPR": "mean precision over all recalls",
    "accuracy": "share of rows predicted correctly",
    "precision": "share of predicted positives that are positive",
    "recall": "share of positives that are found",
    "f1": "harmonic mean of precision and recall",
    "logLoss": "mean of -ln(probability of the actual class), lower is better",
    "brierScore": "mean squared error of the probability, lower is better",
    "liftTopDecile": "share of positives in the best-ranked tenth, relative to all rows",
    "weightedPrecision": "mean of the classes' precision, weighted by their rows",
    "weightedRecall": "mean of the classes' recall, weighted by their rows",
}
MEANINGS_MANY_CLASSES = {
    "areaUnderROC": "mean of the classes' areas: how often a random row of the class ranks above a random other row",
    "f1": "mean of the classes' f1, weighted by their rows; f1 is the harmonic mean of precision and recall",
}
"""What a metric is for more than two classes, where that differs from `MEANINGS`."""


def template_environment(folder: Path) -> Environment:
    """Returns the environment of the report templates in a folder: what is filled in is escaped, and a missing value is a fault."""
    environment = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),  # the style of all reports lies here
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = percentage
    return environment


def render_report(evaluation: Mapping[str, Any]) -> str:
    """Renders the report as HTML text.

    Args:
        evaluation: the content of evaluation.json.
    """
    environment = template_environment(Path(__file__).parent)
    environment.filters["number"] = number
    metrics = {item["name"]: item for item in evaluation["metrics"]}
    without = evaluation["without_known_afterwards"]
    return environment.get_template(TEMPLATE).render(
        e=evaluation,
        metrics=metrics,
        keys=[metrics[name] for name in KEY_FIGURES if name in metrics],
        without={item["name"]: item for item in without["metrics"]} if without else {},
        meanings=MEANINGS if evaluation["binary"] else MEANINGS | MEANINGS_MANY_CLASSES,
        leaks=leaks(evaluation),
        leak_headline=LEAK_HEADLINE,
        leak_warning=leak_warning(evaluation),
        verdict=verdict(evaluation, metrics),
        charts={name: Markup(svg) for name, svg in draw_charts(evaluation).items()},  # noqa: S704 - matplotlib escapes its text
        effects=by_size_of_effect(evaluation["explanation"].get("coefficients", [])),
    )


def verdict(evaluation: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the sentence at the top of the page: how well the model ranks rows, compared with the baseline."""
    right, guessed = metrics["accuracy"], evaluation["baseline"]["metrics"]["accuracy"]
    always = f"always saying “{evaluation['baseline']['label']}” gets {percentage(guessed)}"
    compared = f"It predicts {percentage(right['value'])} of unseen rows correctly; {always}."
    area = metrics["areaUnderROC"]
    interval = f"{percentage(area['value'])} of the time (95 % interval {percentage(area['low'])} to {percentage(area['high'])})"
    if evaluation["binary"]:
        return f"The model ranks a random “{evaluation['positive']}” above a random “{evaluation['labels'][0]}” {interval}. {compared}"
    classes = f"On average over the {len(evaluation['labels'])} classes"
    return f"{classes}, the model ranks a row of the class above another {interval}. {compared}"


def by_size_of_effect(coefficients: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sorts coefficients by the size of their effect, the largest first."""
    return sorted(coefficients, key=lambda item: -abs(effect(item)))


def effect(item: Mapping[str, Any]) -> float:
    """Returns the logarithm of the odds ratio of a coefficient.

    For a numeric feature it is that of a change by one standard deviation, so that features of different scales can be compared; for a
    category, that against the reference category.
    """
    coefficient = float(item["coefficient"])
    return coefficient if item["deviation"] is None else coefficient * float(item["deviation"])


def draw_charts(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Draws the charts for which the evaluation has data: SVG text by name."""
    drawn: dict[str, str] = {}
    without = evaluation["without_known_afterwards"]
    if evaluation["curves"]:
        roc = {"the model": evaluation["curves"]["roc"]}
        if without:
            roc[f"without {', '.join(without['columns'])}"[:40]] = without["roc"]
        positives = sum(evaluation["confusion"]["matrix"][1]) / sum(map(sum, evaluation["confusion"]["matrix"]))
        drawn["roc"] = charts.curve_chart(roc, ("false positive rate", "true positive rate"), [0, 1])
        drawn["pr"] = charts.curve_chart(
            {"the model": evaluation["curves"]["pr"]}, ("recall", "precision"), [positives, positives]
        )
    if evaluation["calibration"]:
        drawn["calibration"] = charts.calibration_chart({"test rows": evaluation["calibration"]})
    if evaluation["correction"]:
        series = {
            "uncorrected": evaluation["correction"]["before"],
            "corrected": evaluation["correction"]["calibration"],
        }
        drawn["correction"] = charts.calibration_chart(series)
    if evaluation["deciles"]:
        drawn["lift"] = charts.bar_chart(
            [(str(item["decile"]), item["lift"]) for item in evaluation["deciles"]], "lift", 1.0
        )
    coefficients = evaluation["explanation"].get("coefficients", [])
    shown = [item for item in by_size_of_effect(coefficients) if item["coefficient"]][:MOST_EFFECTS]
    if evaluation["binary"] and shown:
        drawn["odds"] = charts.odds_chart([(item["feature"], effect(item)) for item in shown])
    if not evaluation["binary"] and shown:
        drawn["effects"] = charts.effects_chart(
            effects_by_class(coefficients, evaluation["labels"]), evaluation["labels"]
        )
    important = [item for item in evaluation["explanation"].get("importances", []) if item["importance"]]
    if important:
        bars = [(item["feature"], item["importance"]) for item in important[:MOST_EFFECTS]]
        drawn["importances"] = charts.importance_chart(bars, "importance (all features together: 1)")
    permuted = evaluation["permutation_importance"]
    strongest = permuted["columns"][:MOST_EFFECTS]
    if strongest:
        drawn["permutation"] = charts.importance_chart(
            [(item["column"], item["importance"]) for item in strongest],
            f"{'loss' if permuted['metric'] == 'areaUnderROC' else 'rise'} of {permuted['metric']}",
            [item["deviation"] for item in strongest],
        )
    return drawn


def effects_by_class(coefficients: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[tuple[str, list[float]]]:
    """Returns the features with the largest effects, each with its effect on every class.

    The mean effect over the classes is subtracted, as a shift of all classes alike changes no probability.
    """
    found: dict[str, dict[str, float]] = {}
    for item in coefficients:
        found.setdefault(item["feature"], {})[item["class"]] = effect(item)
    rows = []
    for name, by_class in found.items():
        mean = sum(by_class.values()) / len(by_class)
        rows.append((name, [by_class[label] - mean for label in labels]))
    return sorted(rows, key=lambda row: -max(map(abs, row[1])))[:MOST_EFFECTS]
