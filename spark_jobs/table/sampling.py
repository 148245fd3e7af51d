"""Collects rows: all those of a small table, and a sample of a larger one.

For a thousand rows of a thousand columns, Spark takes longer to pass each cell through a query as a row of its own than to read them.
`inference` and `profiling` therefore count the cells of a small table in Python. Their Spark queries are for any other table; a test holds
both to the same results on cells that are hard to read.
"""

from __future__ import annotations

import json

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

SAMPLE_ROWS = 5_000
"""Approximate number of rows that the search for suspicious columns reads; fewer if that would be more than `SAMPLE_CELLS` cells."""
SAMPLE_CELLS = 1_000_000
CELL_CHARACTERS = 64
"""A table with a row of more characters than this for each of its columns is not small, so that the driver's memory stays bounded."""


def sample_rows(columns: int) -> int:
    """Returns the approximate number of rows of a sample."""
    return max(100, min(SAMPLE_ROWS, SAMPLE_CELLS // max(1, columns)))


def most_rows(columns: int) -> int:
    """Returns the largest number of rows of a small table: up to it, a sample holds all rows."""
    return 2 * sample_rows(columns) - 1


def collect_cells(rows: DataFrame, cells: Column, columns: int) -> list[tuple[str | None, ...]] | None:
    """Collects the cells of a table if it is small: if a sample would hold all its rows, and none of them is very long.

    Args:
        rows: the rows; if they are many, Spark reads no more than the first ones.
        cells: an array of the columns, as text.
        columns: the number of columns in `cells`.

    Returns:
        For each column its texts, in the order of the rows; None if the table is not small.
    """
    most = most_rows(columns)
    text = F.to_json("cells")
    short = F.when(F.length(text) <= CELL_CHARACTERS * columns, text).alias("cells")
    collected = rows.select(cells.alias("cells")).select(short).limit(most + 1).collect()
    if len(collected) > most or any(row["cells"] is None for row in collected):
        return None
    return list(zip(*(json.loads(row["cells"]) for row in collected), strict=True)) or [()] * columns


def sample_by_hash(
    table: DataFrame, label: Column, cells: Column, columns: int, rows: int
) -> tuple[list[str], list[tuple[str | None, ...]]]:
    """Collects a sample of rows, chosen by their hash so that it does not depend on the partitions or the order of the table.

    Args:
        table: the rows.
        label: the label column.
        cells: an array of the columns to sample, as text.
        columns: the number of columns in `cells`.
        rows: the number of rows of the table.

    Returns:
        The labels, and for each column its texts in the order of the labels.
    """
    target = sample_rows(columns)
    chosen = table.select(label.alias("label"), cells.alias("cells"))
    every = max(1, rows // target)
    if every > 1:
        chosen = chosen.where(F.pmod(F.xxhash64("label", "cells"), F.lit(every)) == 0)
    # Each row travels as one JSON text, because Spark converts every value of a collected row in a call of its own.
    collected = chosen.select("label", F.to_json("cells").alias("cells")).limit(2 * target).collect()
    texts = [json.loads(row["cells"]) for row in collected]
    return [row["label"] for row in collected], list(zip(*texts, strict=True)) if texts else [()] * columns
