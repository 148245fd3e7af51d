"""Draws the charts of the report as SVG text with matplotlib.

The functions take plain numbers and texts. They use matplotlib's `Figure` without pyplot, which keeps all figures in global state.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import matplotlib.colors
import matplotlib.ticker
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLUE, ORANGE, GREY, INK = "#1f5fa8", "#c65a11", "#9aa3ad", "#26323d"
"""Two colours that people with any kind of colour blindness can tell apart, and two greys."""
STYLE: Any = {
    "svg.fonttype": "none",  # write text as text, not as paths: smaller files, and the font of the page
    "svg.hashsalt": "spark-kfp",  # else ids are random, and equal numbers give different bytes
    "text.parse_math": False,  # else matplotlib takes text between dollar signs for a formula
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
LARGEST_RATIO = 1000.0
"""Largest odds ratio on the axis; a larger one would leave hardly any space to the others."""
LEAST_GAP = 0.1
"""Smallest distance of two ticks as a share of the axis, so that their labels do not overlap."""
LONGEST_NAME = 34
"""Largest number of characters of a feature's name on an axis."""
MOST_TIMES = 8
"""Up to so many times have space for their texts on an axis."""
MOST_CLASSES_WITH_NUMBERS = 10
"""Up to this many classes, the cells of the effects chart are wide enough for numbers."""
Points = Sequence[Sequence[float]]


def curve_chart(curves: Mapping[str, Points], labels: tuple[str, str], diagonal: Sequence[float] | None) -> str:
    """Draws one or two curves in the unit square, such as ROC curves.

    Args:
        curves: name to points (x, y, ...).
        labels: labels of the x and the y axis.
        diagonal: y at x = 0 and at x = 1 of the line that shows random guessing; None: no line.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.2, 3.8)
        if diagonal:
            axes.plot([0, 1], diagonal, color=GREY, linestyle=(0, (4, 3)), linewidth=1, label="guessing")
        for (name, points), color in zip(curves.items(), (BLUE, ORANGE), strict=False):
            axes.plot(
                [point[0] for point in points], [point[1] for point in points], color=color, linewidth=2, label=name
            )
        _unit_square(axes, labels)
        axes.legend(loc="best", fontsize=9)
        return svg_text(figure)


def calibration_chart(groups: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Draws the observed share of positives against the predicted probability, with 95 % intervals.

    Args:
        groups: name of a series to its points (`predicted`, `observed`, `low`, `high`).
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.2, 3.8)
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
        return svg_text(figure)


def bar_chart(bars: Sequence[tuple[str, float]], label: str, line: float) -> str:
    """Draws vertical bars and a horizontal line to compare them with.

    Args:
        bars: name and height of each bar.
        label: label of the y axis.
        line: height of the line.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.2, 3.0)
        axes.bar([name for name, _ in bars], [height for _, height in bars], color=BLUE, width=0.72)
        axes.axhline(line, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.set_ylabel(label)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        return svg_text(figure)


def odds_chart(effects: Sequence[tuple[str, float]]) -> str:
    """Draws odds ratios on a logarithmic axis, one line per feature, starting from 1.

    Args:
        effects: name and logarithm of the odds ratio of each feature, the largest effect first. A ratio beyond `LARGEST_RATIO` is drawn as
            an arrow at the edge, with the ratio as text.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(6.4, 0.9 + 0.3 * len(effects))
        places = list(range(len(effects), 0, -1))
        most = math.log(LARGEST_RATIO)
        shown = [min(max(effect, -most), most) for _, effect in effects]
        for place, (_, effect), bounded in zip(places, effects, shown, strict=True):
            color, ratio = BLUE if effect >= 0 else ORANGE, math.exp(bounded)
            inside = effect == bounded
            axes.plot([1, ratio], [place, place], color=color, linewidth=2.2)
            axes.plot([ratio], [place], color=color, marker="o" if inside else ">" if effect > 0 else "<", markersize=6)
            if not inside:
                axes.annotate(
                    f"off the axis: {_ratio(effect)}", (ratio, place), xytext=(-9 if effect > 0 else 9, 3), color=color,
                    textcoords="offset points", ha="right" if effect > 0 else "left", va="bottom", fontsize=8,
                )  # fmt: skip
        axes.axvline(1, color=GREY, linewidth=1)
        axes.set_xscale("log")
        axes.set_xlim(*_odds_limits(shown))
        axes.set_xticks(_odds_ticks(*axes.get_xlim()))
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_yticks(places, [_shortened(name) for name, _ in effects])
        axes.set_xlabel("odds ratio (log scale)")
        axes.grid(axis="x", linewidth=0.8)
        return svg_text(figure)


def importance_chart(bars: Sequence[tuple[str, float]], label: str, spreads: Sequence[float] | None = None) -> str:
    """Draws importances as horizontal bars.

    Args:
        bars: name and importance of each feature or column, the largest first.
        label: what the importance is.
        spreads: for each bar, half the length of the line that shows its spread.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(6.4, 0.9 + 0.3 * len(bars))
        places = list(range(len(bars), 0, -1))
        axes.barh(places, [importance for _, importance in bars], xerr=spreads, color=BLUE, ecolor=GREY, height=0.62)
        axes.set_yticks(places, [_shortened(name) for name, _ in bars])
        axes.set_xlabel(label)
        axes.grid(axis="x", linewidth=0.8)
        axes.set_axisbelow(True)
        return svg_text(figure)


def shares_chart(names: Sequence[str], shares: tuple[Sequence[float], Sequence[float]]) -> str:
    """Draws for each bin of a histogram its share before and now, as two horizontal bars.

    Args:
        names: names of the bins, from top to bottom.
        shares: the shares of the bins, 0 to 1, of the reference and of the current rows.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(4.6, 0.95 + 0.34 * len(names))
        places = list(range(len(names), 0, -1))
        for series, offset, color, name in zip(shares, (0.19, -0.19), (GREY, BLUE), ("before", "now"), strict=True):
            axes.barh([place + offset for place in places], series, height=0.36, color=color, label=name)
        axes.set_yticks(places, [_shortened(name, 26) for name in names])
        axes.set_xlim(0, 1.08 * max(0.02, *shares[0], *shares[1]))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axes.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes.grid(axis="x", linewidth=0.8)
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper right", ncols=2, fontsize=9)
        return svg_text(figure)


def history_chart(times: Sequence[str], metric: str, found: Sequence[Mapping[str, float]]) -> str:
    """Draws a metric of one batch after another with its interval.

    Args:
        times: of the batches, the oldest first, as texts.
        metric: its name.
        found: of each batch its `value`, and `low` and `high`, the ends of its interval.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.2, 3.0)
        places = list(range(len(times)))
        values = [item["value"] for item in found]
        axes.fill_between(
            places, [item["low"] for item in found], [item["high"] for item in found], color=BLUE, alpha=0.15
        )
        axes.vlines(places, [item["low"] for item in found], [item["high"] for item in found], color=BLUE, linewidth=1)
        axes.plot(places, values, color=BLUE, marker="o", markersize=4, linewidth=1.2)
        every = max(1, math.ceil(len(times) / MOST_TIMES))
        axes.set_xticks(places[::every], times[::every], fontsize=8)
        axes.set_xlim(-0.5, len(times) - 0.5)
        axes.set_ylabel(metric)
        axes.grid(axis="y", linewidth=0.8)
        axes.set_axisbelow(True)
        return svg_text(figure)


def _ratio(effect: float) -> str:
    """Formats exp(effect) with two digits, also where it overflows a double."""
    exponent = effect / math.log(10)
    return f"{math.exp(effect):.2g}" if abs(exponent) < 300 else f"1e{exponent:+.0f}"


def _odds_limits(effects: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of the axis: they include all effects and the ratio 1, with a margin."""
    low, high = min(0.0, *effects), max(0.0, *effects)
    room = 0.06 * max(high - low, 0.1)
    return math.exp(low - room), math.exp(high + room)


def _odds_ticks(low: float, high: float) -> list[float]:
    """Returns round ratios between the ends, including 1, as many as their labels have space for."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    least = LEAST_GAP * math.log(high / low)
    for mantissas in (
        (1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0), (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0),
        (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0),
    ):  # fmt: skip
        ticks = [mantissa * 10.0**decade for decade in decades for mantissa in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if all(math.log(other / one) >= least for one, other in pairwise(ticks)):
            return ticks
    return [10.0**decade for decade in decades if low <= 10.0**decade <= high]


def effects_chart(rows: Sequence[tuple[str, Sequence[float]]], classes: Sequence[str]) -> str:
    """Draws the effects of features on more than two classes as a heat map: one cell per feature and class.

    Args:
        rows: name of each feature and its effects on the log-odds of the classes, the largest effect first; shape (features, classes).
        classes: names of the classes.
    """
    with mpl.rc_context(STYLE):
        cell = 0.72 if len(classes) <= MOST_CLASSES_WITH_NUMBERS else 0.34
        figure, axes = new_figure(2.6 + cell * len(classes), 1.3 + 0.3 * len(rows))
        values = [list(effects) for _, effects in rows]
        most = max(abs(value) for row in values for value in row) or 1.0
        colors = mpl.colors.LinearSegmentedColormap.from_list("effects", [ORANGE, "#ffffff", BLUE])
        axes.pcolormesh(values, cmap=colors, vmin=-most, vmax=most, edgecolors="white", linewidth=1)
        if len(classes) <= MOST_CLASSES_WITH_NUMBERS:
            for y, row in enumerate(values):
                for x, value in enumerate(row):
                    strong = abs(value) > 0.6 * most
                    axes.text(
                        x + 0.5,
                        y + 0.5,
                        _signed(value),
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if strong else INK,
                    )
        axes.invert_yaxis()
        axes.set_yticks([place + 0.5 for place in range(len(rows))], [_shortened(name) for name, _ in rows])
        names = [_shortened(name, 16) for name in classes]
        axes.set_xticks(
            [place + 0.5 for place in range(len(classes))], names, rotation=35, ha="left", rotation_mode="anchor"
        )
        axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg_text(figure)


def _signed(value: float) -> str:
    """Formats a number with its sign and two digits, short enough for a cell of the heat map."""
    return f"{value:+.2g}" if abs(value) < 1000 else f"{value:+.0e}"


def _shortened(name: str, most: int = LONGEST_NAME) -> str:
    """Shortens a long name in its middle, as names of one column's categories begin alike and differ at their ends."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - 1) // 2 :]}"


def new_figure(width: float, height: float) -> tuple[Figure, Any]:
    """Returns an empty figure of a size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _unit_square(axes: Any, labels: tuple[str, str]) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=labels[0], ylabel=labels[1])
    axes.grid(linewidth=0.8)


def svg_text(figure: Figure) -> str:
    """Returns a figure as SVG text."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # matplotlib only measures texts; the browser draws them, with a font of its own that has the characters.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font", category=UserWarning)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
