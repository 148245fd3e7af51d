"""Reads what a server counted: a file of JSON lines (`.jsonl`), one for each minute and version of the model.

A line is an object with `at` (ISO 8601), `version` (of the model), `columns` (histograms with the bins of the model's reference.json) and
`score` (a histogram likewise, or null). No line holds a value of a row. The lines of other versions are passed over: their bins differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from spark_jobs.errors import InputError, damage
from spark_jobs.monitoring.histograms import Histogram, Reference, parsed_object, read_histogram

SUFFIX = ".jsonl"


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Current rows, as counts.

    Attributes:
        columns: histograms with the bins and in the order of the reference.
        score: the histogram of the scores; None if there are none.
        rows: the number of rows.
        since: of a capture, time of the first line; else empty.
        until: of a capture, time of the last line; else empty.
    """

    columns: tuple[Histogram, ...]
    score: Histogram | None
    rows: int
    since: str = ""
    until: str = ""


def read_capture(lines: Iterable[str], reference: Reference, version: str, where: str) -> Counted:
    """Adds up the lines of a version of the model.

    Args:
        lines: the lines of the file.
        reference: the reference of the model.
        version: the version of the model.
        where: name of the file, for messages.

    Raises:
        InputError: a line is damaged, has other bins than the reference, or none is of this version.
    """
    columns, score = [histogram.empty for histogram in reference.columns], reference.score.empty
    times: list[str] = []
    others: set[str] = set()
    for number, line in enumerate(lines, start=1):
        place = f"{where}, line {number}"
        if not line.strip():
            continue
        document = parsed_object(line, place)
        if document.get("version") != version:
            others.add(str(document.get("version")))
            continue
        try:
            found = {item["name"]: read_histogram(item, place) for item in document["columns"]}
            columns = [_added(histogram, found[histogram.name], place) for histogram in columns]
            if document["score"]:
                score = _added(score, read_histogram(document["score"], place), place)
            times.append(str(document["at"]))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{place}: a damaged line: {damage(error)}; remove it, or the file") from error
    if not times:
        listed = f"; it has {', '.join(sorted(others)[:5])}" if others else ""
        raise InputError(f"{where} counts nothing of version {version}{listed}")
    rows = columns[0].cells if columns else score.cells
    counted_score = score if score.cells else None
    return Counted(columns=tuple(columns), score=counted_score, rows=rows, since=min(times), until=max(times))


def _added(total: Histogram, more: Histogram, where: str) -> Histogram:
    if replace(more, counts=(), missing=0, other=0) != replace(total, counts=(), missing=0, other=0):
        raise InputError(f"{where}: {total.name!r} is counted in other bins than those of the model's reference")
    return total.plus(more)
