"""Draws the charts of a search as SVG text: how it converged, which settings were tried, and the front of two objectives.

The functions take plain numbers and texts, as those of `spark_jobs.evaluation.charts`, whose style they share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.ticker

from spark_jobs.arguments import SearchRange
from spark_jobs.evaluation.charts import BLUE, GREY, INK, ORANGE, STYLE, new_figure, svg_text

COLOURS = (BLUE, ORANGE, "#1b8a5a", "#8a4fae", "#a08a00", INK)
"""One for each algorithm; the dashes differ, too."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)), (0, (8, 2)))
SHOWN_BELOW = 2.0
"""A value is drawn if it is at most so many times as far from the best one as the median of the worse ones; the others would hide it."""


def convergence_chart(best_so_far: Mapping[str, Sequence[float | None]], objective: str, untuned: float | None) -> str:
    """Draws the best value so far against the number of trials, one line for each algorithm.

    Args:
        best_so_far: by algorithm the best value after each of its trials; None before the first finished one.
        objective: name of the metric.
        untuned: its value with the defaults; None if there is none.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(6.4, 3.6)
        longest = max(map(len, best_so_far.values()))
        for (name, values), colour, dashes in zip(best_so_far.items(), COLOURS, DASHES, strict=False):
            known = [(number, value) for number, value in enumerate(values, 1) if value is not None]
            axes.step(
                *zip(*known, strict=True) if known else ([], []),
                where="post",
                color=colour,
                linestyle=dashes,
                label=name,
                marker=".",
            )
        if untuned is not None:
            axes.axhline(untuned, color=GREY, linestyle=(0, (4, 3)), linewidth=1.2, label="the defaults")
        axes.set(xlabel="trials", ylabel=f"best {objective} so far", xlim=(0.5, longest + 0.5))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(mpl.ticker.ScalarFormatter(useOffset=False))
        axes.grid(linewidth=0.8)
        axes.legend(loc="best", fontsize=9)
        return svg_text(figure)


def parallel_chart(
    ranges: Mapping[str, SearchRange], trials: Sequence[tuple[Mapping[str, float], float]], objective: str
) -> str:
    """Draws parallel coordinates: an axis for each setting and one for the objective, and a line for each trial.

    Args:
        ranges: the range of each setting.
        trials: the settings of each trial and its objective, the worst first; the last line is drawn in another colour.
        objective: name of the metric.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(6.4, 3.9)
        low, high = drawn_range([value for _, value in trials])
        names = [*ranges, objective]
        for place, (settings, value) in enumerate(trials):
            heights = [place_in(settings[name], wanted) for name, wanted in ranges.items()]
            heights.append(min(1.0, max(0.0, (value - low) / ((high - low) or 1.0))))
            best = place == len(trials) - 1
            strength = 0.15 + 0.6 * place / max(1, len(trials) - 1)
            axes.plot(
                range(len(names)),
                heights,
                color=ORANGE if best else BLUE,
                alpha=1.0 if best else strength,
                linewidth=2.4 if best else 1.1,
            )
        ends = [(wanted.low, wanted.high) for wanted in ranges.values()] + [(low, high)]
        for place, (bottom, top) in enumerate(ends):
            axes.axvline(place, color=GREY, linewidth=1)
            axes.text(place, -0.035, f"{bottom:.4g}", ha="center", va="top", fontsize=8.5)
            axes.text(place, 1.035, f"{top:.4g}", ha="center", va="bottom", fontsize=8.5)
        several = len(names) > 5
        labels = [f"{name}\n(log scale)" if name in ranges and ranges[name].log else name for name in names]
        if several:  # else the names overlap
            labels = [("\n\n" if place % 2 else "") + label.replace("\n", " ") for place, label in enumerate(labels)]
        axes.set_xticks(range(len(names)), labels, fontsize=8.5)
        axes.tick_params(axis="x", length=0, pad=14)
        axes.set(xlim=(-0.35, len(names) - 0.65), ylim=(-0.01, 1.01), yticks=[])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg_text(figure)


def drawn_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the ends of an axis of objectives, the worst first value given first: outliers among the worse ones lie beyond it."""
    ordered = list(values)
    best = ordered[-1]
    worse = [value for value in ordered if value != best] or ordered
    reach = SHOWN_BELOW * abs(best - worse[len(worse) // 2])
    inside = [value for value in ordered if abs(best - value) <= reach] or ordered
    return min(inside), max(inside)


def place_in(value: float, wanted: SearchRange) -> float:
    """Returns the place of a value in its range, 0 to 1."""
    low, high, value = (math.log(each) if wanted.log else each for each in (wanted.low, wanted.high, value))
    return (value - low) / (high - low)


def front_chart(
    points: Sequence[tuple[float, float]], front: Sequence[tuple[float, float]], names: tuple[str, str]
) -> str:
    """Draws trials by two objectives.

    Args:
        points: both values of each trial.
        front: those of the trials that no other one beats in both.
        names: names of the metrics.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(6.4, 3.8)
        axes.scatter(*zip(*points, strict=True), color=GREY, s=20, label="trials")
        axes.plot(
            *zip(*sorted(front), strict=True),
            color=ORANGE,
            marker="o",
            markersize=6,
            linewidth=1.4,
            label="Pareto front",
        )
        axes.set(xlabel=names[0], ylabel=names[1])
        for place, set_limits in enumerate((axes.set_xlim, axes.set_ylim)):
            best = {point[place] for point in front}
            low, high = drawn_range([*sorted(point[place] for point in points), *best])
            low, high = min(low, *best), max(high, *best)
            room = 0.06 * (high - low) or 0.01
            set_limits(low - room, high + room)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(mpl.ticker.MaxNLocator(6))
            axis.set_major_formatter(mpl.ticker.ScalarFormatter(useOffset=False))
        axes.grid(linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="best", fontsize=9)
        return svg_text(figure)
