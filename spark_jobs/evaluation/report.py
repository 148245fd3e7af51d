"""The report: one self-contained HTML file that says how good a model is, compared with what, and what to beware of.

Takes the evaluation document and returns text; every number in the page comes from that document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from spark_jobs.contract import LEAK
from spark_jobs.evaluation import charts

TEMPLATE = "report.html.j2"
MOST_EFFECTS = 15
KEY_FIGURES = ("areaUnderROC", "accuracy", "f1", "logLoss")
MEANINGS = {
    "areaUnderROC": "how often a random positive ranks above a random negative",
    "areaUnderPR": "mean precision over all recalls",
    "accuracy": "share of rows predicted right",
    "precision": "share of predicted positives that are positive",
    "recall": "share of positives that are found",
    "f1": "harmonic mean of precision and recall",
    "logLoss": "mean surprise in nats, lower is better",
    "brierScore": "mean squared error of the probability, lower is better",
    "liftTopDecile": "positives in the best-ranked tenth, against a random tenth",
    "weightedPrecision": "precision of the classes, weighted by their rows",
    "weightedRecall": "recall of the classes, weighted by their rows",
}


def render_report(evaluation: Mapping[str, Any]) -> str:
    """The report of an evaluation, as `evaluate` makes it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = share
    environment.filters["number"] = number
    metrics = {item["name"]: item for item in evaluation["metrics"]}
    without = evaluation["without_known_afterwards"]
    return environment.get_template(TEMPLATE).render(
        e=evaluation,
        metrics=metrics,
        keys=[metrics[name] for name in KEY_FIGURES if name in metrics],
        without={item["name"]: item for item in without["metrics"]} if without else {},
        meanings=MEANINGS,
        leaks=[item["column"] for item in evaluation["data"]["suspicious"] if item.get("kind") == LEAK],
        verdict=verdict(evaluation, metrics),
        cautions=cautions(evaluation, metrics),
        charts={name: Markup(svg) for name, svg in draw(evaluation).items()},  # noqa: S704 - matplotlib escapes its text
        effects=strongest(evaluation["explanation"].get("coefficients", [])),
    )


def share(value: float) -> str:
    """A share as percentage."""
    return f"{value * 100:.1f} %"


def number(value: float | None) -> str:
    """A number in four digits, or a dash."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"


def verdict(evaluation: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """What a reader should remember."""
    right, guessed = metrics["accuracy"], evaluation["baseline"]["metrics"]["accuracy"]
    always = f"always saying “{evaluation['baseline']['label']}” gets {share(guessed)}"
    compared = f"It predicts {share(right['value'])} of unseen rows right; {always}."
    area = metrics["areaUnderROC"]
    interval = f"{share(area['value'])} of the time (95 % interval {share(area['low'])} to {share(area['high'])})"
    if evaluation["binary"]:
        return f"The model ranks a random “{evaluation['positive']}” above a random “{evaluation['labels'][0]}” {interval}. {compared}"
    classes = f"On average over the {len(evaluation['labels'])} classes"
    return f"{classes}, the model ranks a row of the class above another {interval}. {compared}"


def cautions(evaluation: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to beware of, each with its number."""
    found = []
    without, correction = evaluation["without_known_afterwards"], evaluation["correction"]
    if without:
        other = next(item for item in without["metrics"] if item["name"] == "areaUnderROC")
        found.append(
            f"Known only after the outcome: {', '.join(without['columns'])}. A decision made beforehand cannot use it: without it "
            f"areaUnderROC is {number(other['value'])} instead of {number(metrics['areaUnderROC']['value'])}."
        )
    if correction:
        found.append(
            f"The rows are rebalanced: {share(correction['sample_rate'])} are “{evaluation['positive']}”, in the population "
            f"{share(correction['base_rate'])}. Raw probabilities average {share(correction['mean_before'])} there; corrected they "
            f"average {share(correction['mean_after'])}."
        )
    if metrics["areaUnderROC"]["low"] <= 0.5:
        found.append("The interval of areaUnderROC reaches 0.5: the model may be no better than guessing.")
    if metrics["logLoss"]["value"] > evaluation["baseline"]["metrics"]["logLoss"]:
        found.append(
            f"logLoss is {number(metrics['logLoss']['value'])}, worse than {number(evaluation['baseline']['metrics']['logLoss'])} of the "
            f"classes' shares alone: the probabilities are far too sure. {evaluation['model']['when_too_sure']}"
        )
    if evaluation["clipped"]["rows"]:
        found.append(
            clipped_rows(evaluation["clipped"], metrics["logLoss"]["value"], evaluation["model"]["when_too_sure"])
        )
    if evaluation["split"]["method"] == "hash":
        found.append(
            "The split is random. If the model will meet later data than it has seen, judge it on an ordered split as well."
        )
    found += [f"Column {item['column']} {item['reason']}" for item in evaluation["data"]["suspicious"]]
    return found + list(evaluation["warnings"])


def clipped_rows(clipped: Mapping[str, float], log_loss: float, advice: str) -> str:
    """What rows with a probability of nearly 0 for what happened do to logLoss."""
    count = int(clipped["rows"])
    rows = "1 test row" if count == 1 else f"{count:,} test rows"
    return (
        f"In {rows} the model gave what happened a probability below {clipped['smallest']:g}; it counts as that, since logLoss would be "
        f"infinite else. {number(clipped['of_log_loss'])} of the {number(log_loss)} of logLoss come from there: another limit would give "
        f"another number. Judge by the other metrics. {advice}"
    )


def strongest(coefficients: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Coefficients by the size of their effect, a number's over one standard deviation."""
    return sorted(coefficients, key=lambda item: -abs(effect(item)))


def effect(item: Mapping[str, Any]) -> float:
    """The log of the odds ratio: over a standard deviation for a number, else for the value against the reference."""
    coefficient = float(item["coefficient"])
    return coefficient if item["deviation"] is None else coefficient * float(item["deviation"])


def draw(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """The charts by name."""
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
    shown = [item for item in strongest(coefficients) if item["coefficient"]][:MOST_EFFECTS]
    if evaluation["binary"] and shown:
        drawn["odds"] = charts.odds_chart([(item["feature"], effect(item)) for item in shown])
    if not evaluation["binary"] and shown:
        drawn["effects"] = charts.effects_chart(
            effects_by_class(coefficients, evaluation["labels"]), evaluation["labels"]
        )
    important = [item for item in evaluation["explanation"].get("importances", []) if item["importance"]]
    if important:
        bars = [(item["feature"], item["importance"]) for item in important[:MOST_EFFECTS]]
        drawn["importances"] = charts.importance_chart(bars)
    return drawn


def effects_by_class(coefficients: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[tuple[str, list[float]]]:
    """The strongest features, each with its effect on every class; what moves all classes alike changes no probability and is taken off."""
    found: dict[str, dict[str, float]] = {}
    for item in coefficients:
        found.setdefault(item["feature"], {})[item["class"]] = effect(item)
    rows = []
    for name, by_class in found.items():
        mean = sum(by_class.values()) / len(by_class)
        rows.append((name, [by_class[label] - mean for label in labels]))
    return sorted(rows, key=lambda row: -max(map(abs, row[1])))[:MOST_EFFECTS]
