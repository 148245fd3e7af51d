"""Measures how often the alarm of drift comes, without drift and with known shifts, by seeded simulation.

    python -m benchmarks.drift [RUNS]

A run draws 2,400 reference rows and some current rows of a table like the bank's: six numbers, of which one is mostly 0, eight categories
of 2 to 12 values, and a score. The bins are the tenths of the reference. What is printed is the share of the runs with an alarm.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spark_jobs.monitoring.alarm import Limits, compare
from spark_jobs.monitoring.histograms import Histogram

REFERENCE_ROWS = 2400
CURRENT_ROWS = (50, 200, 1000, 5000, 50_000)
NUMBERS = 6
CATEGORIES = (2, 2, 2, 3, 4, 4, 12, 12)
TENTHS = np.arange(1, 10) / 10


@dataclass(frozen=True)
class Shift:
    """What is different in the current rows.

    Attributes:
        name: the shift in words.
        mean: by how many standard deviations the first number rises.
        factor: by what the first number is multiplied: a changed unit.
        missing: share of the cells of the second number that are lost.
        new: share of the cells of the last category that have a value never seen.
        moved: share of the cells of the first category that become its rarest value.
        score: by how many standard deviations the score rises.
    """

    name: str
    mean: float = 0.0
    factor: float = 1.0
    missing: float = 0.0
    new: float = 0.0
    moved: float = 0.0
    score: float = 0.0


SHIFTS = (
    Shift("a number 0.75 standard deviations higher", mean=0.75),
    Shift("a number in another unit (times 100)", factor=100.0),
    Shift("a tenth of a number missing", missing=0.1),
    Shift("a tenth of a category new values", new=0.1),
    Shift("half of a category moved to its rarest value", moved=0.5),
    Shift("the score 0.75 standard deviations higher", score=0.75),
)
SMALLER = (
    Shift("a number 0.25 standard deviations higher", mean=0.25),
    Shift("a number 0.5 standard deviations higher", mean=0.5),
    Shift("3 % of a number missing", missing=0.03),
    Shift("a fifth of a category moved to its rarest value", moved=0.2),
)


def numeric(values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]) -> Histogram:
    """Counts numbers; NaN is missing."""
    present = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    missing = len(values) - len(present)
    return Histogram(
        name="x", kind="numeric", edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), missing=missing
    )


def categorical(places: npt.NDArray[np.int64], size: int) -> Histogram:
    """Counts categories, given by their place; `size` is the place of a new one."""
    counts = np.bincount(places, minlength=size + 1).tolist()
    values = tuple(map(str, range(size)))
    return Histogram(name="x", kind="categorical", values=values, counts=tuple(counts[:size]), other=counts[size])


def draw_numbers(generator: np.random.Generator, rows: int, shift: Shift) -> list[npt.NDArray[np.float64]]:
    """Draws the numeric columns and, as the last one, the score."""
    columns = [generator.normal(40.0, 10.0, rows) for _ in range(NUMBERS)]
    columns[0] = (columns[0] + 10.0 * shift.mean) * shift.factor
    columns[1] = np.exp(columns[1] / 10.0)
    columns[1][generator.random(rows) < shift.missing] = np.nan
    columns[2] = np.where(generator.random(rows) < 0.75, 0.0, np.abs(columns[2]))
    columns[3] = np.floor(columns[3] / 10.0)
    return [*columns, generator.normal(shift.score, 1.0, rows)]


def draw_categories(generator: np.random.Generator, rows: int, shift: Shift) -> list[npt.NDArray[np.int64]]:
    """Draws the categorical columns; the share of a value falls with its place."""
    columns = []
    for size in CATEGORIES:
        weights = 1.0 / np.arange(1, size + 1)
        columns.append(generator.choice(size, rows, p=weights / weights.sum()))
    columns[-1][generator.random(rows) < shift.new] = CATEGORIES[-1]
    columns[0][generator.random(rows) < shift.moved] = CATEGORIES[0] - 1
    return columns


def has_alarm(generator: np.random.Generator, shift: Shift, rows: int, limits: Limits) -> bool:
    """Draws a reference and current rows, and compares them."""
    none = Shift("none")
    before, now = draw_numbers(generator, REFERENCE_ROWS, none), draw_numbers(generator, rows, shift)
    edges = [np.unique(np.quantile(column, TENTHS, method="inverted_cdf")) for column in before]
    edges = [found[found > column.min()] for found, column in zip(edges, before, strict=True)]
    reference, current = (
        [numeric(column, ends) for column, ends in zip(columns, edges, strict=True)] for columns in (before, now)
    )
    score = reference.pop(), current.pop()
    for columns, histograms in (
        (draw_categories(generator, REFERENCE_ROWS, none), reference),
        (draw_categories(generator, rows, shift), current),
    ):
        histograms += [categorical(column, size) for column, size in zip(columns, CATEGORIES, strict=True)]
    return any(finding.alarm for finding in compare(reference, current, limits, score))


def alarm_share(shift: Shift, rows: int, runs: int, *, seed: int, limits: Limits | None = None) -> float:
    """Returns the share of simulated runs with an alarm."""
    generator = np.random.default_rng(seed)
    return sum(has_alarm(generator, shift, rows, limits or Limits()) for _ in range(runs)) / runs


def main(runs: int = 2000) -> None:
    """Prints the table."""
    print(f"share of {runs:,} runs with an alarm, by the number of current rows; {REFERENCE_ROWS:,} reference rows")
    print(f"{'shift':<48}" + "".join(f"{rows:>9,}" for rows in CURRENT_ROWS))
    for shift in (Shift("none"), *SMALLER, *SHIFTS):
        shares = [alarm_share(shift, rows, runs, seed=rows) for rows in CURRENT_ROWS]
        print(f"{shift.name:<48}" + "".join(f"{share:>9.4f}" for share in shares), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
