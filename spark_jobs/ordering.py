"""The sort key of an ordered split: the position in the file, or a column of numbers or dates.

An ordered split evaluates a model as it will be used: fitted on the past and applied to later rows. Dates must not be sorted as text
(`02/01/2024` would come before `15/12/2023`). So a text column is parsed as dates if exactly one format fits all its rows; any other
text column is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.dialect import check_order_by
from spark_jobs.errors import InputError
from spark_jobs.table.source import position_columns, quoted, to_double

TIMES = "[' ']['T'][H:m[:s[.SSSSSS][.SSS]]][XXX]"
"""Optional suffix of every date pattern: a time of day and a time zone (UTC if there is none). Brackets mark optional parts."""
SEPARATORS = ("/", ".", "-")
DATE_FORMATS: Mapping[str, tuple[str, ...]] = {
    "year, month, day": ("yyyy-M-d", "yyyy/M/d", "yyyy.M.d"),
    "day, month, year": (*(f"d{sign}M{sign}yyyy" for sign in SEPARATORS), "d MMM yyyy", "d-MMM-yyyy"),
    "month, day, year": (*(f"M{sign}d{sign}yyyy" for sign in SEPARATORS), "MMM d, yyyy"),
}
"""Orders of day, month and year, each with its Spark datetime patterns. All rows of a column must fit the same pattern.

https://spark.apache.org/docs/latest/sql-ref-datetime-pattern.html
"""


def order_key(table: DataFrame, order_by: str, prefix: str) -> Column:
    """Returns the sort key of each row: the column as a number, its date in microseconds since 1970, or the position in the file.

    Args:
        table: the typed rows, with the columns of `POSITION`.
        order_by: name of the column; empty for the order of the file.
        prefix: prefix of the names of columns that steps add; no column of the user has it.

    Raises:
        InputError: the column does not exist, some rows have no value, or its texts are not dates of exactly one format.
    """
    if not order_by:
        return F.struct(*position_columns(prefix))
    columns = [name for name in table.columns if name not in position_columns(prefix)]
    check_order_by(order_by, columns)
    column = quoted(order_by)
    number = column if dict(table.dtypes)[order_by] == "double" else to_double(column)
    counts = table.agg(
        F.count(F.lit(1)).alias("rows"), F.count(column).alias("values"), F.count(number).alias("numbers")
    ).first()
    assert counts is not None
    if counts["values"] < counts["rows"]:
        raise InputError(
            f"--order-by: column {order_by!r} has no value in {counts['rows'] - counts['values']:,} rows; name another column"
        )
    return number if counts["numbers"] == counts["rows"] else _date_key(table, order_by, counts["rows"])


def _date_key(table: DataFrame, order_by: str, rows: int) -> Column:
    """Returns the dates of a text column as microseconds since 1970, if exactly one pattern fits all rows."""
    text = quoted(order_by).cast("string")
    patterns = [pattern for of_one_order in DATE_FORMATS.values() for pattern in of_one_order]
    counts = [F.count(_date(text, pattern)).alias(pattern) for pattern in patterns]
    counted = table.agg(*counts, F.min(text).alias("example")).first()
    assert counted is not None
    fitting = [pattern for pattern in patterns if counted[pattern] == rows]
    if len(fitting) == 1:
        return F.unix_micros(_date(text, fitting[0]))
    column = f"column {order_by!r}"
    if fitting:
        ways = " or as ".join(map(_reading, fitting))
        why = f"the dates of {column}, such as {counted['example']!r}, can be read as {ways}; write them as year-month-day"
    elif not any(counted[pattern] for pattern in patterns):
        why = (
            f"{column} holds neither numbers nor dates, but texts such as {counted['example']!r}; name another column, "
        )
        why += "or write its order as numbers or as dates like 2026-01-31"
    else:
        best = max(patterns, key=lambda pattern: counted[pattern])
        date = _date(text, best)
        shown = table.agg(F.min(F.when(date.isNotNull(), text)), F.min(F.when(date.isNull(), text))).first()
        assert shown is not None
        why = f"{column} holds dates such as {shown[0]!r} (read as {_reading(best)}), and others that are written "
        why += f"differently, such as {shown[1]!r}; write all of them as year-month-day"
    raise InputError(f"--order-by: {why}")


def _date(text: Column, pattern: str) -> Column:
    return F.try_to_timestamp(text, F.lit(pattern + TIMES))


def _reading(pattern: str) -> str:
    return next(reading for reading, patterns in DATE_FORMATS.items() if pattern in patterns)
