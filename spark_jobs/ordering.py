"""What an ordered split sorts by: the place in the file, or a column of numbers or of dates.

Rows in time order judge a model as it will be used: fitted on the past, applied to what comes after. A date sorted as text gives another
order (`02/01/2024` before `15/12/2023`), and the "last rows" would be no last rows; so a text column is read as dates in the one format
that fits every row, or refused. Knows nothing of sets or shares.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.dialect import check_order_by
from spark_jobs.errors import InputError
from spark_jobs.table.source import number_from, position_columns, quoted

TIMES = "[' ']['T'][H:m[:s[.SSSSSS][.SSS]]][XXX]"
"""May follow each date: a time of day, and a zone (UTC if none). Brackets are optional parts in Spark's datetime patterns."""
SEPARATORS = ("/", ".", "-")
DATE_FORMATS: Mapping[str, tuple[str, ...]] = {
    "year, month, day": ("yyyy-M-d", "yyyy/M/d", "yyyy.M.d"),
    "day, month, year": (*(f"d{sign}M{sign}yyyy" for sign in SEPARATORS), "d MMM yyyy", "d-MMM-yyyy"),
    "month, day, year": (*(f"M{sign}d{sign}yyyy" for sign in SEPARATORS), "MMM d, yyyy"),
}
"""How a date may be read, and the patterns of it, in which all rows of a column must be written alike.

https://spark.apache.org/docs/latest/sql-ref-datetime-pattern.html
"""


def order_key(table: DataFrame, order_by: str, prefix: str) -> Column:
    """The value that an ordered split sorts by: the column as a number or as microseconds since 1970, or the place in the file.

    Args:
        table: the typed rows with the columns of `POSITION`.
        order_by: name of a column; empty for the order of the file.
        prefix: with it begin the names of the columns that are not the user's.

    Raises:
        InputError: there is no such column, it has no value in some rows, or its texts are not dates that can be read in one way only.
    """
    if not order_by:
        return F.struct(*position_columns(prefix))
    columns = [name for name in table.columns if name not in position_columns(prefix)]
    check_order_by(order_by, columns)
    column = quoted(order_by)
    number = column if dict(table.dtypes)[order_by] == "double" else number_from(column)
    found = table.agg(
        F.count(F.lit(1)).alias("rows"), F.count(column).alias("values"), F.count(number).alias("numbers")
    ).first()
    assert found is not None
    if found["values"] < found["rows"]:
        raise InputError(
            f"--order-by: column {order_by!r} has no value in {found['rows'] - found['values']:,} rows; name another column"
        )
    return number if found["numbers"] == found["rows"] else _date_key(table, order_by, found["rows"])


def _date_key(table: DataFrame, order_by: str, rows: int) -> Column:
    """The dates of a text column as microseconds since 1970."""
    text = quoted(order_by).cast("string")
    patterns = [pattern for found in DATE_FORMATS.values() for pattern in found]
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
