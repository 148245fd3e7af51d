"""Histograms: their bins, their documents, and how bins are merged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from spark_jobs.errors import InputError
from spark_jobs.monitoring.histograms import Histogram, Reference, merged_bins

AGE = Histogram(name="age", kind="numeric", edges=(30.0, 40.0), counts=(5, 6, 7), missing=2)
JOB = Histogram(name="job", kind="categorical", values=("admin", "clerk"), counts=(12, 5), missing=1, other=2)
REFERENCE = Reference(rows=20, columns=(AGE, JOB), score=replace(AGE, name="probability"), model="abc")


def test_a_bin_includes_its_lower_end() -> None:
    assert [AGE.bin_of(x) for x in (-1e9, 29.9, 30.0, 39.9, 40.0, 1e9)] == [0, 0, 1, 1, 2, 2]
    assert AGE.bins == ["below 30", "30 to below 40", "40 and more"]
    assert JOB.bins == ["admin", "clerk"]
    assert (AGE.cells, JOB.cells) == (20, 20)


def test_histograms_of_equal_bins_add_up() -> None:
    assert JOB.plus(JOB) == replace(JOB, counts=(24, 10), missing=2, other=4)
    assert AGE.empty.plus(AGE) == AGE
    with pytest.raises(ValueError, match="shorter"):
        AGE.plus(replace(AGE, counts=(1, 2)))


def test_a_reference_is_read_as_it_was_written() -> None:
    assert Reference.from_json(REFERENCE.to_json(), "reference.json") == REFERENCE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reference_version": 9}, "no reference of version 1"),
        ({"columns": [{"name": "age"}]}, "damaged reference: 'kind' is missing"),
        ({"columns": 5}, "damaged reference"),
        ({"score": {**vars(AGE), "counts": [1]}}, "'age' has 1 counts for 3 bins"),
        ({"score": {**vars(AGE), "missing": -1}}, "'age' has a negative count"),
    ],
)
def test_a_damaged_reference_is_named(change: dict[str, object], said: str) -> None:
    document = {**json.loads(REFERENCE.to_json()), **change}
    with pytest.raises(InputError, match=rf"^there/reference\.json: .*{said}"):
        Reference.from_json(json.dumps(document), "there/reference.json")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_json_object_is_no_reference(text: str) -> None:
    with pytest.raises(InputError, match=r"^r\.json"):
        Reference.from_json(text, "r.json")


def test_neighbours_are_merged_in_a_numeric_column_until_each_bin_expects_enough() -> None:
    wide = Histogram(name="x", kind="numeric", edges=(1.0, 2.0, 3.0, 4.0), counts=(1, 9, 40, 40, 10))
    before, now = merged_bins(wide, replace(wide, counts=(0, 2, 8, 9, 1)), 5)
    # Of 20 current rows among 120, bins of 30 rows expect 5: the first three, the fourth, and the rest goes to the last bin.
    assert (before, now) == ([50, 50], [10, 10])


def test_the_rarest_values_are_merged_in_a_categorical_column() -> None:
    values = Histogram(name="x", kind="categorical", values=("a", "b", "c", "d"), counts=(500, 3, 400, 5), other=2)
    before, now = merged_bins(values, replace(values, counts=(480, 9, 420, 1), other=0), 5)
    assert (before, now) == ([0 + 2 + 5 + 3, 400, 500], [0 + 0 + 1 + 9, 420, 480])


def test_too_few_cells_are_one_bin() -> None:
    assert merged_bins(AGE, replace(AGE, counts=(1, 0, 2), missing=0), 5) == ([20], [3])
    assert merged_bins(AGE, AGE.empty, 5) == ([20], [0])
