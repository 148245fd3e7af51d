"""An ordered split follows numbers and dates, never the spelling of a date."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from spark_jobs.dataset import OWN_PREFIX
from spark_jobs.errors import InputError


def ordered(spark: Any, values: Sequence[str | None]) -> list[str]:
    """The values in the order that `order_key` gives them."""
    from spark_jobs.ordering import order_key

    table = spark.createDataFrame([(value,) for value in values], "when string")
    return [
        row["when"] for row in table.withColumn("key", order_key(table, "when", OWN_PREFIX)).orderBy("key").collect()
    ]


@pytest.mark.parametrize(
    "dates",
    [
        ["15/12/2023", "02/01/2024", "13/01/2024"],
        ["12/15/2023", "1/2/2024", "11/1/2024"],
        ["15.12.2023 23:59", "02.01.2024 07:05", "02.01.2024 13:00"],
        ["2023-12-15", "2024-01-02", "2024-11-01"],
        ["2023-12-15T23:59:59Z", "2023-12-15T23:59:59-01:00", "2024-01-02T00:00:00Z"],
        ["2023-12-15 10:00:00.5", "2023-12-15 10:00:00.75", "2024-01-02 00:00:00"],
        ["15 Dec 2023", "2 Jan 2024", "1 Nov 2024"],
        ["9", "10", "100"],
    ],
)
def test_rows_are_sorted_by_what_a_date_or_number_says(spark: Any, dates: list[str]) -> None:
    assert ordered(spark, [dates[1], dates[2], dates[0]]) == dates


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["02/01/2024", "03/02/2024"], "can be read as day, month, year or as month, day, year"),
        (["02/01/2024", "13/02/2024", "2024-02-14"], "written differently, such as '2024-02-14'"),
        (["1F", "2F"], "neither numbers nor dates, but texts such as '1F'"),
        (["early", "late"], "neither numbers nor dates, but texts such as 'early'"),
        (["2024-01-01", None], "has no value in 1 rows"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused(spark: Any, values: list[str | None], said: str) -> None:
    with pytest.raises(InputError, match=r"--order-by: .*'when'") as raised:
        ordered(spark, values)
    assert said in str(raised.value)
