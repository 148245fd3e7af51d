"""Histograms of a table's columns and of a model's scores: the numbers that drift is judged by.

A histogram holds counts and no value of a single row. So one of a batch in Parquet and one that a server counted are the same to the
formulas, if both used the bins of the reference. This module reads and writes the documents `reference.json` (train) and the capture of a
server; it does not count rows, which `spark_jobs.monitoring.counting` does.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from spark_jobs.errors import InputError, damage

REFERENCE_VERSION = 1
"""Version of the format of reference.json."""
NUMERIC, CATEGORICAL = "numeric", "categorical"


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often a column has which value.

    Attributes:
        name: name of the column.
        kind: `numeric` or `categorical`.
        edges: for a numeric column, rising: bin k holds the numbers from edge k - 1, included, to below edge k; the first and the last
            bin have no end.
        values: for a categorical column, the values; bin k holds the k-th.
        counts: the number of cells in each bin.
        missing: the number of cells without a value.
        other: for a categorical column, the number of cells with a value that is not among `values`.
    """

    name: str
    kind: str
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    missing: int = 0
    other: int = 0

    @property
    def cells(self) -> int:
        """The number of all cells."""
        return sum(self.counts) + self.missing + self.other

    @property
    def bins(self) -> list[str]:
        """The names of the bins of `counts`, for people."""
        if self.kind == CATEGORICAL:
            return list(self.values)
        if not self.edges:
            return ["any number"]
        ends = [f"{low:.4g} to below {high:.4g}" for low, high in zip(self.edges, self.edges[1:], strict=False)]
        return [f"below {self.edges[0]:.4g}", *ends, f"{self.edges[-1]:.4g} and more"]

    @property
    def empty(self) -> Histogram:
        """The same bins without any cell."""
        size = len(self.values) if self.kind == CATEGORICAL else len(self.edges) + 1
        return replace(self, counts=(0,) * size, missing=0, other=0)

    def bin_of(self, number: float) -> int:
        """Returns the bin of a number."""
        return bisect_right(self.edges, number)

    def plus(self, more: Histogram) -> Histogram:
        """Returns the sum of two histograms with the same bins."""
        return replace(
            self,
            counts=tuple(mine + others for mine, others in zip(self.counts, more.counts, strict=True)),
            missing=self.missing + more.missing,
            other=self.other + more.other,
        )


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a model was trained on: `reference.json`.

    Attributes:
        rows: the number of train rows.
        columns: the histograms of the features' raw columns in the train rows.
        score: the histogram of what the model says of the validation rows, on which it was not fitted: of the probability of the positive
            class, or for more than two classes of the predicted label.
        model: digest of the model.
    """

    rows: int
    columns: tuple[Histogram, ...]
    score: Histogram
    model: str

    def to_json(self) -> str:
        """Formats the document."""
        document = {"reference_version": REFERENCE_VERSION, **asdict(self)}
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Reference:
        """Parses the document.

        Raises:
            InputError: it is no reference, or one of another version.
        """
        document = parsed_object(text, where)
        if document.get("reference_version") != REFERENCE_VERSION:
            raise InputError(f"{where}: no reference of version {REFERENCE_VERSION}; train the model again")
        try:
            return cls(
                rows=int(document["rows"]),
                columns=tuple(read_histogram(item, where) for item in document["columns"]),
                score=read_histogram(document["score"], where),
                model=str(document["model"]),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{where}: a damaged reference: {damage(error)}; train the model again") from error


def parsed_object(text: str, where: str) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        InputError: the text is none.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{where} must hold a JSON object")
    return found


def read_histogram(document: Mapping[str, Any], where: str) -> Histogram:
    """Reads a histogram as `asdict` wrote it.

    Raises:
        InputError: the number of counts is not that of the bins, or a count is negative.
    """
    found = Histogram(
        name=str(document["name"]),
        kind=str(document["kind"]),
        edges=tuple(float(edge) for edge in document["edges"]),
        values=tuple(str(value) for value in document["values"]),
        counts=tuple(int(count) for count in document["counts"]),
        missing=int(document["missing"]),
        other=int(document["other"]),
    )
    if len(found.counts) != len(found.empty.counts):
        raise InputError(f"{where}: {found.name!r} has {len(found.counts)} counts for {len(found.empty.counts)} bins")
    if min(*found.counts, found.missing, found.other, 0) < 0:
        raise InputError(f"{where}: {found.name!r} has a negative count")
    return found


def merged_bins(reference: Histogram, current: Histogram, least: float) -> tuple[list[int], list[int]]:
    """Merges bins until, if both samples came from one population, each would hold at least `least` cells of both.

    Neighbours are merged in a numeric column, the rarest values in a categorical one; the cells with another value and those without one
    are the last two bins. Only the sums of both samples decide, so a test of the merged counts is as valid as without merging.

    Args:
        reference: the histogram of the reference.
        current: one with the same bins.
        least: the smallest expected number of cells.

    Returns:
        The counts of the reference and of the current rows, of equal length; a single bin if there are too few cells for two.
    """
    before, now = [[*histogram.counts, histogram.other, histogram.missing] for histogram in (reference, current)]
    both = [one + other for one, other in zip(before, now, strict=True)]
    order: Iterable[int] = range(len(both))
    if reference.kind == CATEGORICAL:
        order = sorted(order, key=lambda place: both[place])
    smaller, total = min(sum(before), sum(now)), sum(both)
    groups: list[list[int]] = [[]]
    for place in order:
        groups[-1].append(place)
        if total and sum(both[each] for each in groups[-1]) * smaller / total >= least:
            groups.append([])
    if len(groups) > 1:
        rest = groups.pop()
        groups[-1] += rest
    return _sums(before, groups), _sums(now, groups)


def _sums(counts: Sequence[int], groups: Sequence[Sequence[int]]) -> list[int]:
    return [sum(counts[place] for place in group) for group in groups]
