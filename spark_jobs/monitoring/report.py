"""Renders drift.json as one HTML file with pictures that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spark_jobs.evaluation.charts import history_chart, shares_chart
from spark_jobs.evaluation.report import template_environment

TEMPLATE = "drift.html.j2"
MOST_BARS = 14
"""Largest number of bins in a picture: the others are one bar."""
MOST_PICTURES = 12
"""Largest number of columns with a picture, those that changed most."""
MOST_BATCHES = 60
"""Largest number of batches in the picture of a metric, the last ones."""
REST = "all others"


def render_report(document: Mapping[str, Any]) -> str:
    """Renders the report as HTML text.

    Args:
        document: the content of drift.json.
    """
    environment = template_environment(Path(__file__).parent)
    environment.filters["p"] = _p_value
    order = list(dict.fromkeys(finding["column"] for finding in document["findings"]))
    alarms = {finding["column"] for finding in document["findings"] if finding["alarm"]}
    shown = sorted(document["columns"], key=lambda item: order.index(item["reference"]["name"]))[:MOST_PICTURES]
    return environment.get_template(TEMPLATE).render(
        d=document,
        score=document["score"] and picture(document["score"]),
        history=history(document["batches"]),
        columns=[(item["reference"]["name"], item["reference"]["name"] in alarms, picture(item)) for item in shown],
        hidden=len(document["columns"]) - len(shown),
    )


def history(batches: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Draws the first metric of the batches whose labels have arrived, as SVG; None if there are none.

    Args:
        batches: the oldest first, each with its time `at` and its `metrics`.
    """
    judged = [batch for batch in batches if batch["metrics"]][-MOST_BATCHES:]
    if not judged:
        return None
    name = judged[-1]["metrics"][0]["name"]
    times = [batch["at"][:16].replace("T", "\n") for batch in judged]
    return Markup(history_chart(times, name, [batch["metrics"][0] for batch in judged]))  # noqa: S704 - matplotlib escapes its text


def picture(item: Mapping[str, Any]) -> Markup:
    """Draws the shares of the bins, before and now, as SVG.

    Args:
        item: the histograms `reference` and `current`, and the names of their `bins`.
    """
    reference, current = item["reference"], item["current"]
    names = [*item["bins"], "another value", "missing"]
    before, now = ([*each["counts"], each["other"], each["missing"]] for each in (reference, current))
    kept = [place for place in range(len(names)) if place < len(item["bins"]) or before[place] + now[place]]
    if len(kept) > MOST_BARS:
        kept = _largest(kept, before, now)
    rest = [place for place in range(len(names)) if place not in kept and before[place] + now[place]]
    bars = [(names[place], before[place], now[place]) for place in kept]
    if rest:
        bars.append((REST, sum(before[place] for place in rest), sum(now[place] for place in rest)))
    totals = max(1, sum(before)), max(1, sum(now))
    svg = shares_chart(
        [name for name, _, _ in bars],
        ([one / totals[0] for _, one, _ in bars], [other / totals[1] for _, _, other in bars]),
    )
    return Markup(svg)  # noqa: S704 - matplotlib escapes its text


def _largest(places: Sequence[int], before: Sequence[int], now: Sequence[int]) -> list[int]:
    """Returns the places with the largest shares, in their own order."""
    totals = max(1, sum(before)), max(1, sum(now))
    by_share = sorted(places, key=lambda place: -max(before[place] / totals[0], now[place] / totals[1]))
    return sorted(by_share[: MOST_BARS - 1])


def _p_value(value: float) -> str:
    return "below 0.0001" if value < 0.0001 else f"{value:.4f}"
