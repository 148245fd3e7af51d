"""What a server counted is added up, and damaged or foreign lines are told by their number."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from spark_jobs.errors import InputError
from spark_jobs.monitoring.capture import read_capture
from spark_jobs.monitoring.histograms import Histogram, Reference

AGE = Histogram(name="age", kind="numeric", edges=(30.0,), counts=(5, 5))
SCORE = Histogram(name="probability", kind="numeric", edges=(0.5,), counts=(6, 4))
REFERENCE = Reference(rows=10, columns=(AGE,), score=SCORE, model="abc")


def line(at: str, version: str = "v1", **changed: Any) -> str:
    document = {"at": at, "version": version, "columns": [asdict(AGE)], "score": asdict(SCORE), **changed}
    return json.dumps(document)


def test_the_minutes_of_a_version_add_up() -> None:
    lines = [line("2026-11-28T10:00:00Z"), "", line("2026-11-28T10:01:00Z"), line("2026-11-28T10:01:00Z", "v2")]
    counted = read_capture(lines, REFERENCE, "v1", "c.jsonl")
    assert counted.columns == (replace(AGE, counts=(10, 10)),)
    assert counted.score == replace(SCORE, counts=(12, 8))
    assert (counted.rows, counted.since, counted.until) == (20, "2026-11-28T10:00:00Z", "2026-11-28T10:01:00Z")
    assert read_capture([line("t", score=None)], REFERENCE, "v1", "c.jsonl").score is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"at": "t", "ver', "c.jsonl, line 2 is not JSON"),
        (line("t", columns=[]), "c.jsonl, line 2: a damaged line: 'age' is missing; remove it"),
        (line("t", columns=5), "c.jsonl, line 2: a damaged line"),
        (line("t", columns=[asdict(replace(AGE, edges=(31.0,)))]), "line 2: 'age' is counted in other bins"),
        (line("t", columns=[{**asdict(AGE), "counts": [1]}]), "line 2: 'age' has 1 counts for 2 bins"),
    ],
)
def test_a_damaged_line_is_told_by_its_number(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_capture([line("t"), text], REFERENCE, "v1", "c.jsonl")
    assert said in str(error.value)
    assert "Error" not in str(error.value)


def test_a_capture_of_other_versions_names_them() -> None:
    with pytest.raises(InputError, match=r"c\.jsonl counts nothing of version v1; it has v2, v3"):
        read_capture([line("t", "v3"), line("t", "v2")], REFERENCE, "v1", "c.jsonl")
    with pytest.raises(InputError, match=r"counts nothing of version v1$"):
        read_capture([], REFERENCE, "v1", "c.jsonl")
