"""The rule of the alarm: what counts as drift of a table and of a model's scores.

A finding is an alarm if its test is significant after the correction for all tests of the comparison, *and* the change is larger than a
limit. The test alone would raise an alarm for changes of no importance as soon as there are many rows; the limit alone would for the
noise of few rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spark_jobs.monitoring.formulas import (
    LEAST_EXPECTED,
    chi_square_test,
    holm,
    population_stability_index,
    shares_test,
)
from spark_jobs.monitoring.histograms import CATEGORICAL, Histogram, merged_bins

VALUES, MISSING, NEW, SCORE = "values", "missing", "new categories", "score"
"""What a finding is about: the distribution of a column's values, its share of missing cells, its share of values that are not in the
reference, and the distribution of the model's scores."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large a change must be to count.

    Attributes:
        significance: the probability of any alarm, at most, if nothing has changed.
        psi: population stability index of a column or of the scores.
        share: change of the share of missing cells, and rise of the share of new categories; 0 to 1.
    """

    significance: float = 0.01
    psi: float = 0.2
    share: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One comparison of the current rows with the reference.

    Attributes:
        column: name of the column; of the histogram of scores for `SCORE`.
        about: `values`, `missing`, `new categories` or `score`.
        change: the population stability index, or the difference of the shares, current less reference.
        limit: the change beyond which it counts.
        p: p value of the test.
        adjusted: the p value after the correction for all tests of the comparison.
        alarm: whether the finding is an alarm.
        before: for shares, that of the reference.
        now: for shares, that of the current rows.
    """

    column: str
    about: str
    change: float
    limit: float
    p: float
    adjusted: float = 1.0
    alarm: bool = False
    before: float | None = None
    now: float | None = None

    def in_words(self) -> str:
        """Returns an alarm as a sentence."""
        if self.before is None:
            what = "the scores" if self.about == SCORE else f"column {self.column!r}"
            return f"drift of {what}: PSI {self.change:.4g}, limit {self.limit:g}"
        return f"drift of column {self.column!r}: {self.about} {self.before:.1%} before, {self.now:.1%} now"


def compare(
    reference: Sequence[Histogram],
    current: Sequence[Histogram],
    limits: Limits,
    score: tuple[Histogram, Histogram] | None,
) -> list[Finding]:
    """Compares the current rows with the reference.

    Args:
        reference: the histograms of the reference.
        current: the histograms of the current rows in the same order, with the same bins.
        limits: how large a change must be.
        score: the histograms of the scores, of the reference and of the current rows; None if the current rows have none.

    Returns:
        The findings, alarms first, then by the adjusted p value.
    """
    tested = [
        finding for before, now in zip(reference, current, strict=True) for finding in _of_column(before, now, limits)
    ]
    tested += [_distribution(*score, SCORE, limits)] if score else []
    adjusted = holm([finding.p for finding in tested])
    judged = [_judged(finding, p, limits) for finding, p in zip(tested, adjusted, strict=True)]
    return sorted(judged, key=lambda finding: (not finding.alarm, finding.adjusted, -abs(finding.change)))


def _judged(finding: Finding, adjusted: float, limits: Limits) -> Finding:
    # Fewer new categories than before are no alarm.
    change = finding.change if finding.about == NEW else abs(finding.change)
    alarm = adjusted <= limits.significance and change > finding.limit
    return Finding(**{**vars(finding), "adjusted": adjusted, "alarm": alarm})


def _of_column(before: Histogram, now: Histogram, limits: Limits) -> Iterator[Finding]:
    yield _distribution(before, now, VALUES, limits)
    yield _share(before.name, MISSING, (before.missing, before.cells), (now.missing, now.cells), limits)
    if before.kind == CATEGORICAL:
        yield _share(before.name, NEW, (before.other, before.cells), (now.other, now.cells), limits)


def _distribution(before: Histogram, now: Histogram, about: str, limits: Limits) -> Finding:
    counts = merged_bins(before, now, LEAST_EXPECTED)
    index = population_stability_index(*counts)
    return Finding(column=before.name, about=about, change=index, limit=limits.psi, p=chi_square_test(*counts)[2])


def _share(name: str, about: str, before: tuple[int, int], now: tuple[int, int], limits: Limits) -> Finding:
    shares = [found / cells if cells else 0.0 for found, cells in (before, now)]
    return Finding(
        column=name,
        about=about,
        change=shares[1] - shares[0],
        limit=limits.share,
        p=shares_test(*before, *now),
        before=shares[0],
        now=shares[1],
    )
