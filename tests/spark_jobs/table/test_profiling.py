"""What is said of a table's columns, on tiny tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spark_jobs.dataset import Specification
from spark_jobs.table.profiling import describe, is_identifier, is_leak, row_hash

SPECIFICATION = Specification(label="y", numeric=("n",), categorical=("c",), dropped=("d",))
ROWS = [(1.0, "a", "no", None), (3.0, "a", "yes", "x"), (None, "b", "no", "x"), (5.0, None, "no", "x")]


@pytest.fixture(scope="module")
def described(spark: Any) -> dict[str, Any]:
    return describe(spark.createDataFrame(ROWS, "n double, c string, y string, d string"), SPECIFICATION, 4)


def test_each_column_has_its_role_and_its_statistics(described: dict[str, Any]) -> None:
    columns = {column["name"]: column for column in described["columns"]}
    assert list(columns) == ["y", "n", "c", "d"]
    assert columns["n"] == {
        "name": "n", "role": "numeric", "type": "double", "missing": 1, "distinct": 3, "min": 1.0, "max": 5.0, "mean": 3.0,
        "known_afterwards": False,
    }  # fmt: skip
    assert (columns["c"]["role"], columns["c"]["missing"], columns["c"]["distinct"]) == ("categorical", 1, 2)
    assert (columns["d"]["role"], columns["d"]["missing"]) == ("dropped", 1)
    assert described["class_counts"] == {"no": 3, "yes": 1}


def test_a_number_that_is_constant_only_as_a_double_is_said_to_be(spark: Any) -> None:
    rows = [(float(2**62 + place), 7.0, "a", label, None) for place, label in enumerate(["no", "yes"] * 10)]
    table = spark.createDataFrame(rows, "n double, m double, c string, y string, d string")
    found = describe(table, replace(SPECIFICATION, numeric=("n", "m")), len(rows))["suspicious"]
    reasons = {item["column"]: item["reason"] for item in found}
    assert reasons["n"] == "has one value in all rows, as a double rounds whole numbers beyond 2^53"
    assert reasons["m"] == "has one value in all rows"


def test_a_nested_column_is_neither_text_nor_missing(spark: Any) -> None:
    table = spark.createDataFrame(ROWS, "n double, c string, y string, d string")
    columns = describe(table, SPECIFICATION, 4, {"d": "array<double>"})["columns"]
    assert columns[-1] == {
        "name": "d", "role": "dropped", "type": "array<double>", "missing": None, "distinct": None, "known_afterwards": False,
    }  # fmt: skip


def test_a_missing_value_and_its_neighbour_do_not_change_places_in_the_hash(spark: Any) -> None:
    table = spark.createDataFrame([(None, "a"), ("a", None)], "x string, y string")
    one, other = (row[0] for row in table.select(row_hash(["x", "y"])).collect())
    assert one != other


@pytest.mark.parametrize(
    ("distinct", "present", "expected"), [(20, 20, False), (21, 21, True), (30, 60, False), (31, 60, True)]
)
def test_a_text_column_with_nearly_as_many_values_as_rows_is_an_identifier(
    distinct: int, present: int, expected: bool
) -> None:
    assert is_identifier(distinct, present) is expected


def test_a_column_that_tells_the_label_is_found_and_one_that_helps_is_not() -> None:
    labels = ["yes" if i % 3 else "no" for i in range(300)]
    assert is_leak([f"is {label}" for label in labels], labels)
    helps = [label if i % 5 else "?" for i, label in enumerate(labels)]
    assert not is_leak(helps, labels)
    assert is_leak([float(label == "yes") for label in labels], labels)
    assert not is_leak([str(i) for i in range(300)], labels), "an identifier tells every label and knows none"
