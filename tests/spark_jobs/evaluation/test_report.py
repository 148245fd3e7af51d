"""The report: self-contained, escaped, and with no number but the evaluation's."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from spark_jobs.contract import METRICS
from spark_jobs.evaluation import charts, metrics
from spark_jobs.evaluation.cautions import cautions
from spark_jobs.evaluation.report import MEANINGS, render_report

HOSTILE = "<script>alert(1)</script> & $x$ 'q\""


def evaluation(binary: bool = True, name: str = "yes") -> dict[str, Any]:
    """An evaluation of generated predictions."""
    generator = np.random.default_rng(4)
    labels = ["no", name] if binary else ["a", "b", name]
    truth = generator.random(800) < 0.4
    margin = np.round(generator.normal(0, 1, 800) + 1.5 * truth - 0.6, 3)
    p = metrics.logistic(margin)
    loss = -np.log(np.where(truth, p, 1 - p))
    counts = metrics.PredictionCounts(margin, truth, p > 0.45, np.ones(800), loss, (p - truth) ** 2, p, np.zeros(800))
    margins, negatives, positives = counts.by_margin()
    falling = np.concatenate([[1.0], metrics.logistic(margins)[::-1]])
    roc = metrics.thin_curve(*metrics.roc_curve(negatives, positives), falling)
    pr = metrics.thin_curve(*metrics.precision_recall_curve(negatives, positives), falling)
    calibration = metrics.calibration(metrics.logistic(margins), negatives, positives)
    found = metrics.binary_metrics(counts, 50)
    counts = {"train": 2000, "validation": 700, "test": 800}
    classes = len(labels)
    return {
        "title": f"Predicting {name}",
        "binary": binary,
        "labels": labels,
        "positive": name if binary else None,
        "data": {
            "uri": f"/data/{name}.csv",
            "rows": 3500,
            "rejected": 3,
            "rejected_reasons": [[f"column {name} is not a number", 3]],
            "columns": [{"name": name, "role": "numeric", "missing": 0, "distinct": 80, "known_afterwards": True}],
            "class_counts": dict.fromkeys(labels, 3500 // classes),
            "suspicious": [{"column": name, "reason": "has one value in all rows"}],
        },
        "split": {"method": "hash", "seed": 42, "order_by": "", "rows": counts,
                  "class_fractions": {key: dict.fromkeys(labels, 1 / classes) for key in counts}},
        "model": {"kind": "logistic regression", "settings": {"reg_param": 0.0}, "iterations": 9, "converged": True,
                  "threshold": 0.45 if binary else None, "threshold_rule": "max_f1", "features": 2,
                  "when_too_sure": "Fit with a penalty."},
        "metrics": found,
        "clipped": {"rows": 0.0, "smallest": 1e-15, "of_log_loss": 0.0},
        "baseline": {"label": "no", "metrics": {"accuracy": 0.6, "logLoss": 0.67, "areaUnderROC": 0.5}},
        "permutation_importance": {
            "metric": "areaUnderROC" if binary else "logLoss", "rows": 800, "repeats": 5,
            "columns": [{"column": name, "importance": 0.1, "deviation": 0.01}],
        },
        "without_known_afterwards": {"columns": [name], "metrics": found, "roc": roc} if binary else None,
        "curves": {"roc": roc, "pr": pr} if binary else None,
        "confusion": {"labels": labels, "matrix": (np.eye(classes, dtype=int) * 100 + 7).tolist()},
        "calibration": calibration if binary else [],
        "correction": {"base_rate": 0.117, "sample_rate": 0.4, "shift": -1.6, "calibration": calibration, "before": calibration,
                       "mean_before": 0.3, "mean_after": 0.12} if binary else None,
        "deciles": [{"decile": i + 1, "rows": 80, "positives": 40, "rate": 0.5, "lift": 2 - i / 5} for i in range(10)] if binary else [],
        "per_class": [] if binary else [{"label": label, "precision": 0.9, "recall": 0.8, "f1": 0.85, "rows": 9, "areaUnderROC": 0.9}
                                        for label in labels],
        "explanation": {"intercepts": [0.1], "coefficients": [
            {"class": None if binary else label, "feature": f"job = {name}", "column": "job", "category": name, "kind": "category",
             "coefficient": 0.5, "odds_ratio": 1.6487, "odds_ratio_per_sd": None, "deviation": None}
            for label in (labels[:1] if binary else labels)]},
        "reference_categories": {"job": name},
        "warnings": [f"something about {name}"],
        "versions": {"spark-kfp": "0"},
        "digests": {"data": "d", "model": "m"},
    }  # fmt: skip


class Page(HTMLParser):
    """Collects what a browser would load or run, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_name_in_any_script_stays_a_text_that_the_browser_draws() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = charts.importance_chart([("過去の取引残高", 0.5), ("balance", 0.1)], "importance")
    assert ">過去の取引残高</text>" in svg


def test_the_contract_names_every_metric_and_the_report_says_what_each_is() -> None:
    of_two = {item["name"] for item in evaluation()["metrics"]}
    of_more = {"areaUnderROC", "logLoss", *metrics.multiclass_estimates(np.eye(3))}
    assert of_two | of_more == set(METRICS) == set(MEANINGS)


@pytest.mark.parametrize("binary", [True, False])
def test_report_loads_nothing_and_runs_nothing(binary: bool) -> None:
    page = Page(render_report(evaluation(binary)))
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)


@pytest.mark.parametrize("binary", [True, False])
def test_what_comes_from_the_data_is_escaped_everywhere(binary: bool) -> None:
    page = Page(render_report(evaluation(binary, HOSTILE)))
    assert "script" not in page.tags
    assert HOSTILE in page.text


def test_every_metric_stands_in_the_table_with_its_interval() -> None:
    document = evaluation()
    text = Page(render_report(document)).text
    for item in document["metrics"]:
        assert re.search(rf"{item['name']}\s*{item['value']:.4f}\s*{item['low']:.4f} to {item['high']:.4f}", text), (
            item["name"]
        )


def test_verdict_and_warnings_are_those_of_the_evaluation() -> None:
    document = evaluation()
    text = Page(render_report(document)).text
    assert f"{document['metrics'][0]['value'] * 100:.1f} % of the time" in text
    assert "something about yes" in text[text.index("What to beware of") :]


def test_the_metrics_of_more_than_two_classes_are_explained_as_means_over_the_classes() -> None:
    two, three = (re.sub(r"\s+", " ", Page(render_report(evaluation(binary))).text) for binary in (True, False))
    assert "how often a random positive ranks above a random negative" in two
    assert "harmonic mean of precision and recall" in two
    assert "a random positive" not in three
    assert "mean of the classes' areas" in three
    assert "mean of the classes' f1, weighted by their rows" in three


def test_a_nested_column_has_no_counts() -> None:
    document = evaluation()
    document["data"]["columns"][0] |= {"missing": None, "distinct": None}
    assert re.search(r"numeric, known only afterwards\s*-\s*-", Page(render_report(document)).text)


def test_a_leak_is_the_first_line_in_red_before_any_number() -> None:
    document = evaluation()
    document["data"]["suspicious"] = [
        {"column": "alive", "kind": "leak", "reason": "all but tells the label; is it known before the outcome?"}
    ]
    document["warnings"] = cautions(document, ["few rows"])
    html = render_report(document)
    assert html.count("This result is probably a leak") == 1
    first, headline = html.index('<p class="leak"'), html.index("<h1>")
    assert html.index("<main") < first < headline < html.index('class="verdict"')
    assert re.search(r"\.leak \{[^}]*color: var\(--red\)", html)
    text = re.sub(r"\s+", " ", Page(html[first:]).text).strip()
    assert text.startswith("This result is probably a leak. alive all but tells the label")
    assert "Do not trust this before alive is explained: The model ranks" in text


def test_a_single_chart_of_a_row_is_as_wide_as_one_of_two_and_what_is_too_wide_scrolls() -> None:
    html = render_report(evaluation())
    assert re.search(r"\.pair \{[^}]*repeat\(auto-fill, minmax\(min\(19rem, 100%\), 1fr\)\)", html)
    assert ".pair > * { min-width: 0; }" in html  # else a wide table widens its cell instead of scrolling in it
    assert re.search(r"\.scroll, \.wide, \.natural \{ overflow-x: auto", html)


EFFECTS = [[0.05, -0.02], [0.4, -0.3], [0.7, 0.1], [2.2, -0.2], [1.2, -0.7], [2.5, -2.5], [6.0, 0.1], [36.2, -20.0]]


@pytest.mark.parametrize("effects", EFFECTS)
def test_the_axis_of_odds_ratios_has_a_whole_title_and_ticks_that_stand_apart(
    effects: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn: list[Any] = []
    monkeypatch.setattr(charts, "svg_text", lambda figure: drawn.append(figure) or "")
    charts.odds_chart([(f"occupation of the customer = number {i}", effect) for i, effect in enumerate(effects)])
    (figure,) = drawn
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    title = axes.xaxis.label.get_window_extent()
    assert figure.bbox.x0 <= title.x0
    assert title.x1 <= figure.bbox.x1
    low, high = axes.get_xlim()
    boxes = [label.get_window_extent() for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
             if low <= tick <= high]  # fmt: skip
    assert boxes
    assert all(one.x1 + 4 <= other.x0 for one, other in pairwise(boxes))
    texts = [text.get_window_extent() for text in axes.texts]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in texts)


def test_a_ratio_off_the_axis_is_marked_with_its_true_value() -> None:
    svg = charts.odds_chart([("x", 36.2), ("y", -20.0), ("z", 0.5)])
    assert "off the axis: 5.3e+15" in svg
    assert "off the axis: 2.1e-09" in svg
    assert svg.count("off the axis") == 2


def test_what_drives_a_model_of_three_classes_is_drawn() -> None:
    document = evaluation(binary=False)
    for item, coefficient in zip(document["explanation"]["coefficients"], (0.5, 2.0, -1.0), strict=True):
        item["coefficient"] = coefficient
    html = render_report(document)
    drivers = html[html.index('id="drivers"') :]
    assert "<svg" in drivers
    # The mean of the classes, 0.5, moves all alike and says nothing.
    for shown in ("job = yes", "+1.5", "-1.5", "+0"):
        assert shown in drivers


def test_a_model_without_coefficients_shows_the_importances_of_its_features() -> None:
    document = evaluation()
    rows = [
        {"feature": "age", "column": "age", "importance": 0.75},
        {"feature": "job = x", "column": "job", "importance": 0.0},
    ]
    document["explanation"] = {"importances": rows}
    document["model"] |= {"iterations": None, "converged": None}
    html = render_report(document)
    drivers = html[html.index('id="drivers"') :]
    assert ">age<" in drivers
    assert "job = x" not in drivers, "a feature that the model does not use is not drawn"
    assert "coefficients" not in drivers
    assert "iterations" not in html


def test_the_same_evaluation_gives_the_same_bytes_and_is_small() -> None:
    assert render_report(evaluation()) == render_report(evaluation())
    assert len(render_report(evaluation())) < 500_000
