"""Counts the rows that the server scores in the bins of the model's reference.json, and writes the counts as JSON lines for the step drift.

A line is a minute of one version: how many cells of each column, and how many scores, were in which bin. No line holds a value of a row.
A request only hands its rows over; a thread counts them. If the disk is full, the server goes on, keeps the counts, and writes them later.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving.model_source import ServedModel
from serving.scorer import RowError, Score, Scorer
from serving.settings import SettingsError

REFERENCE_VERSION = 1
"""The version of reference.json that this module reads."""
SECONDS = 60.0
"""Time between two lines of a version."""
PAUSE_SECONDS = 0.25
SLICE, SLICE_SECONDS = 50, 0.001
"""The thread counts so many rows, then lets requests go on for so long: else they would wait for Python's lock."""
MOST_PENDING = 100_000
"""Most rows that wait to be counted; further ones are not."""
MOST_BYTES = 256 << 20
"""Largest file; what would make it larger waits for the next day's file."""
MOST_VERSIONS = 20
"""Most versions that are counted between two writes."""
CATEGORICAL = "categorical"
FILE = re.compile(r"(\d{4}-\d{2}-\d{2})-.+\.jsonl")
Row = Mapping[str, Any]
log = logging.getLogger(__name__)


class Histogram:
    """Counts of cells in given bins; see `spark_jobs.monitoring.histograms`, whose documents it reads and writes."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Takes the bins of a histogram, without its counts.

        Raises:
            KeyError, TypeError: the document is no histogram.
        """
        self.name, self._categorical = str(document["name"]), document["kind"] == CATEGORICAL
        self._bins = {name: document[name] for name in ("name", "kind", "edges", "values")}
        self._edges = [float(edge) for edge in document["edges"]]
        self._places = {str(value): place for place, value in enumerate(document["values"])}
        self.counts = [0] * (len(self._places) if self._categorical else len(self._edges) + 1)
        self.missing = self.other = 0

    def add(self, cell: float | str | None) -> None:
        if cell is None:
            self.missing += 1
        elif not self._categorical:
            self.counts[bisect_right(self._edges, cell)] += 1
        elif (place := self._places.get(str(cell))) is not None:
            self.counts[place] += 1
        else:
            self.other += 1

    def document(self) -> dict[str, Any]:
        return {**self._bins, "counts": self.counts, "missing": self.missing, "other": self.other}


class VersionCounts:
    """The counts of one version since the last line."""

    def __init__(self, model: ServedModel) -> None:
        """Starts at 0.

        Raises:
            KeyError, TypeError, ValueError: the version has no reference that this server can read.
        """
        reference = model.reference
        if not reference or reference["reference_version"] != REFERENCE_VERSION:
            raise ValueError(f"reference.json is missing or not of version {REFERENCE_VERSION}")
        self._scorer: Scorer = model.scorer
        histograms = {item["name"]: Histogram(item) for item in reference["columns"]}
        self.columns = [histograms[name] for name in self._scorer.columns]
        self._in_order = list(histograms.values())
        self.score = Histogram(reference["score"])
        self._positive = self._scorer.labels[1] if self._scorer.threshold is not None else ""
        self.rows = 0

    def add(self, row: Row, score: Score) -> None:
        """Counts a row and its score.

        Raises:
            RowError: the row cannot be read.
        """
        for histogram, cell in zip(self.columns, self._scorer.cells(row), strict=True):
            histogram.add(cell)
        self.score.add(score.probabilities[self._positive] if self._positive else score.label)
        self.rows += 1

    def line(self, version: str, now: datetime) -> bytes:
        document = {
            "at": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "version": version,
            "columns": [each.document() for each in self._in_order],
            "score": self.score.document(),
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


class Capture:
    """Counts what one server process scores.

    Attributes:
        failures: how often the counts could not be written; they are kept and written later.
        dropped: rows that were not counted: too many waited, or their version has no reference.
    """

    def __init__(self, folder: Path, days: int) -> None:
        """Makes the folder and starts the thread.

        Args:
            folder: where the files go, one for each day and process.
            days: files of earlier days are removed.

        Raises:
            SettingsError: the folder cannot be written.
        """
        self._folder, self._days = folder, days
        self.failures = self.dropped = 0
        self._pending: deque[tuple[ServedModel, Sequence[Row], Sequence[Score]]] = deque()
        self._added = self._taken = 0  # each is written by one thread only
        self._counts: dict[str, VersionCounts] = {}
        self._without: set[str] = set()
        self._failing, self._stopped = False, threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f".{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise SettingsError(
                f"--capture {folder} cannot be written: {error.strerror}; give another folder"
            ) from error
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def add(self, model: ServedModel, rows: Sequence[Row], scores: Sequence[Score]) -> None:
        """Hands the rows of an answered request over; called by the thread of the requests alone."""
        if self._added - self._taken + len(rows) > MOST_PENDING:
            self.dropped += len(rows)
            return
        self._added += len(rows)
        self._pending.append((model, rows, scores))

    def close(self) -> None:
        """Counts and writes what is left, and ends the thread."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic() + SECONDS
        while not self._stopped.wait(PAUSE_SECONDS):
            self._count_pending()
            if time.monotonic() >= due:
                due = time.monotonic() + SECONDS
                self.write(datetime.now(UTC))
        self._count_pending()
        self.write(datetime.now(UTC))

    def _count_pending(self) -> None:
        while self._pending:
            model, rows, scores = self._pending.popleft()
            counts = self._of(model)
            for start in range(0, len(rows), SLICE):
                for row, score in zip(rows[start : start + SLICE], scores[start : start + SLICE], strict=True):
                    try:
                        if counts:
                            counts.add(row, score)
                    except RowError:  # it was scored, so it can be read
                        log.exception("a scored row could not be counted")
                self._stopped.wait(SLICE_SECONDS)
            self._taken += len(rows)
            if not counts:
                self.dropped += len(rows)

    def _of(self, model: ServedModel) -> VersionCounts | None:
        version = model.version
        if version not in self._counts and version not in self._without:
            try:
                self._counts[version] = VersionCounts(model)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                self._without.add(version)
                log.warning(
                    "rows of this version are not counted", extra={"model_version": version, "error": str(error)}
                )
            while len(self._counts) > MOST_VERSIONS:  # only if nothing could be written for long
                self.dropped += self._counts.pop(next(iter(self._counts))).rows
        return self._counts.get(version)

    def write(self, now: datetime) -> None:
        """Appends a line for each version that has answered; on trouble the counts stay for the next time."""
        lines = b"".join(counts.line(version, now) for version, counts in self._counts.items() if counts.rows)
        if not lines:
            return
        try:
            self._remove_old(now)
            append(self._folder / f"{now:%Y-%m-%d}-{socket.gethostname()}-{os.getpid()}.jsonl", lines)
        except OSError as error:
            self.failures += 1
            if not self._failing:
                log.error(
                    "counts cannot be written; they are kept, and the server goes on", extra={"error": str(error)}
                )
            self._failing = True
            return
        if self._failing:
            log.info("counts are written again")
        self._failing, self._counts = False, {}

    def _remove_old(self, now: datetime) -> None:
        first = f"{now - timedelta(days=self._days - 1):%Y-%m-%d}"
        for path in self._folder.iterdir():
            if (found := FILE.fullmatch(path.name)) and found[1] < first:
                path.unlink(missing_ok=True)


def append(path: Path, lines: bytes) -> None:
    """Appends whole lines or nothing; what a killed process left of a line is removed first.

    Raises:
        OSError: the disk is full, the file is too large or cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"\n", b""):
            file.seek(0)
            size = file.read().rfind(b"\n") + 1
        if size + len(lines) > MOST_BYTES:
            raise OSError(f"{path} would be larger than {MOST_BYTES >> 20} MiB")
        file.truncate(size)
        file.seek(size)
        try:
            if file.write(lines) != len(lines):
                raise OSError(f"{path}: the disk is full")
        except OSError:
            file.truncate(size)
            raise
