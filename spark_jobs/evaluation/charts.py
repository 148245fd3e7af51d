"""Draws the charts of the report as SVG text. Takes plain numbers; knows nothing of where they came from."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import matplotlib.colors
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
LARGEST_RATIO = 1000.0
"""The axis of odds ratios ends here: an effect beyond would press all others together."""
LEAST_GAP = 0.1
"""Least distance of two ticks as a share of the axis: their labels do not touch."""
LONGEST_NAME = 34
MOST_CLASSES_WITH_NUMBERS = 10
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
        effects: name and log odds ratio, strongest first; one beyond `LARGEST_RATIO` is an arrow at the edge, with its ratio beside it.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(6.4, 0.9 + 0.3 * len(effects))
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
        return _svg(figure)


def importance_chart(bars: Sequence[tuple[str, float]]) -> str:
    """Importances of features, one lying bar each.

    Args:
        bars: name and importance, 0 to 1, the largest first.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _figure(6.4, 0.9 + 0.3 * len(bars))
        places = list(range(len(bars), 0, -1))
        axes.barh(places, [importance for _, importance in bars], color=BLUE, height=0.62)
        axes.set_yticks(places, [_shortened(name) for name, _ in bars])
        axes.set_xlabel("importance (all features together: 1)")
        axes.grid(axis="x", linewidth=0.8)
        axes.set_axisbelow(True)
        return _svg(figure)


def _ratio(effect: float) -> str:
    """exp(effect) to two digits, however large."""
    exponent = effect / math.log(10)
    return f"{math.exp(effect):.2g}" if abs(exponent) < 300 else f"1e{exponent:+.0f}"


def _odds_limits(effects: Sequence[float]) -> tuple[float, float]:
    """Ends of the axis: all effects, and 1, with a little room."""
    low, high = min(0.0, *effects), max(0.0, *effects)
    room = 0.06 * max(high - low, 0.1)
    return math.exp(low - room), math.exp(high + room)


def _odds_ticks(low: float, high: float) -> list[float]:
    """Round ratios between the ends, as many as stand apart; 1 is one of them."""
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
    """What speaks for and against each of more than two classes: a coloured cell for each feature and class.

    Args:
        rows: name of a feature and its effect on the log-odds of each class, strongest first; shape (features, classes).
        classes: their names.
    """
    with mpl.rc_context(STYLE):
        cell = 0.72 if len(classes) <= MOST_CLASSES_WITH_NUMBERS else 0.34
        figure, axes = _figure(2.6 + cell * len(classes), 1.3 + 0.3 * len(rows))
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
        return _svg(figure)


def _signed(value: float) -> str:
    """A number in two digits with its sign, short enough for a cell."""
    return f"{value:+.2g}" if abs(value) < 1000 else f"{value:+.0e}"


def _shortened(name: str, most: int = LONGEST_NAME) -> str:
    """A name whose middle is left out if it is long: names that begin alike, such as values of one column, differ at the end."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - 1) // 2 :]}"


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
