"""Draws the charts of the report as SVG text. Takes plain numbers; knows nothing of where they came from."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#1f5fa8", "#c65a11", "#9aa3ad", "#26323d"
"""Two colours that stay apart for every kind of colour blindness, and two greys."""
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small files, the page's own font
    "svg.hashsalt": "spark-kfp",  # the same numbers draw the same bytes
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e3e7eb",
    "legend.frameon": False,
}
LARGEST_EFFECT = math.log(1e6)
Points = Sequence[Sequence[float]]


def curve_chart(curves: Mapping[str, Points], labels: tuple[str, str], diagonal: Sequence[float] | None) -> str:
    """Curves in the unit square.

    Args:
        curves: name to points, each (x, y, ...); the first is drawn strongest.
        labels: of the axes.
        diagonal: y at x = 0 and x = 1 of the line of guessing.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.2, 3.8)
        if diagonal:
            axes.plot([0, 1], diagonal, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label="guessing")
        for (name, points), color in zip(curves.items(), (BLUE, ORANGE), strict=False):
            axes.plot(
                [point[0] for point in points], [point[1] for point in points], color=color, linewidth=2, label=name
            )
        _unit_square(axes, labels)
        axes.legend(loc="best", fontsize=9)
        return _svg(figure)


def calibration_chart(groups: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Observed share against predicted probability, with 95 % intervals.

    Args:
        groups: name of a series to its groups (`predicted`, `observed`, `low`, `high`).
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.2, 3.8)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1, label="as predicted")
        for (name, series), color, marker in zip(
            groups.items(), (ORANGE, BLUE) if len(groups) > 1 else (BLUE,), "so", strict=False
        ):
            x, y = [item["predicted"] for item in series], [item["observed"] for item in series]
            below = [max(0.0, item["observed"] - item["low"]) for item in series]
            above = [max(0.0, item["high"] - item["observed"]) for item in series]
            axes.errorbar(
                x,
                y,
                yerr=[below, above],
                color=color,
                marker=marker,
                markersize=4.5,
                linewidth=1.4,
                elinewidth=1,
                label=name,
            )
        _unit_square(axes, ("predicted probability", "observed share"))
        axes.legend(loc="best", fontsize=9)
        return _svg(figure)


def bar_chart(bars: Sequence[tuple[str, float]], label: str, line: float) -> str:
    """Upright bars, with a line to compare them to.

    Args:
        bars: name and height.
        label: of the upright axis.
        line: height of the line.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(4.2, 3.0)
        axes.bar([name for name, _ in bars], [height for _, height in bars], color=BLUE, width=0.72)
        axes.axhline(line, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_ylabel(label)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        return _svg(figure)


def odds_chart(effects: Sequence[tuple[str, float]]) -> str:
    """Odds ratios on a log scale, one line each, around 1.

    Args:
        effects: name and log odds ratio, strongest first; beyond a factor of a million the point stands at the edge.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(6.4, 0.9 + 0.3 * len(effects))
        names = [name if len(name) <= 34 else name[:33] + "…" for name, _ in effects]
        places = list(range(len(effects), 0, -1))
        for place, (_, effect) in zip(places, effects, strict=True):
            ratio = math.exp(min(max(effect, -LARGEST_EFFECT), LARGEST_EFFECT))
            color = BLUE if ratio >= 1 else ORANGE
            axes.plot([1, ratio], [place, place], color=color, linewidth=2.2)
            axes.plot([ratio], [place], color=color, marker="o", markersize=6)
        axes.axvline(1, color=GREY, linewidth=1)
        axes.set_xscale("log")
        axes.set_yticks(places, names)
        axes.set_xlabel("odds ratio (log scale): above 1 raises the odds, below 1 lowers them")
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(
            mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}" if str(value)[-1] in "25" else "")
        )
        axes.grid(axis="x", linewidth=0.8)
        return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _unit_square(axes: Any, labels: tuple[str, str]) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=labels[0], ylabel=labels[1])
    axes.grid(linewidth=0.8)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
