"""Chooses the bins of histograms on the train rows, and counts the cells of any table in these bins, by Spark.

Each query works on the melted table, one row for each cell, so that its plan does not grow with the number of columns.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.monitoring.histograms import CATEGORICAL, NUMERIC, Histogram
from spark_jobs.table.profiling import melt
from spark_jobs.table.source import array_of, quoted_name

BINS = 10
"""A numeric column has at most so many bins, with about equally many train rows in each: fewer if many rows share a value."""
QUANTILE_ACCURACY = 10_000
"""A quantile is exact to one row in so many."""
REFERENCE_ROWS = 100_000
"""About so many train rows are counted at most: more would not change a comparison with some thousand rows."""
SCORE_GRID = 1024
"""Ends of bins of scores are whole multiples of 1 / SCORE_GRID. It is a power of 2, so that the product with a score is exact."""
MISSING_BIN, OTHER_BIN = -1, -2
SCORE = "probability"
LABEL_SCORE = "predicted label"


def sample(rows: DataFrame, count: int, hashed: Column) -> DataFrame:
    """Returns about `REFERENCE_ROWS` of the rows, chosen by their hash, so that the choice does not depend on partitions or order.

    Args:
        rows: the rows.
        count: their number.
        hashed: a hash of a row.
    """
    every = max(1, count // REFERENCE_ROWS)
    # Hashed once more, because the hash has also decided the set of the row.
    return rows if every == 1 else rows.where(F.pmod(F.xxhash64(hashed), F.lit(every)) == 0)


def column_histograms(
    rows: DataFrame, numeric: Sequence[str], vocabularies: Mapping[str, Sequence[str]]
) -> list[Histogram]:
    """Chooses bins and counts the cells in them.

    Args:
        rows: the train rows.
        numeric: names of the numeric columns; their bins are quantiles.
        vocabularies: by categorical column the values that have a bin of their own.
    """
    bins = [Histogram(name=name, kind=NUMERIC, edges=edges) for name, edges in _edges(rows, numeric).items()]
    bins += [Histogram(name=name, kind=CATEGORICAL, values=tuple(values)) for name, values in vocabularies.items()]
    return count_cells(rows, bins)


def _edges(rows: DataFrame, names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    shares = [k / BINS for k in range(BINS)]
    cells = melt(rows, _array(names, "double")).where(F.col("cell").isNotNull())
    found = cells.groupBy("place").agg(F.percentile_approx("cell", shares, QUANTILE_ACCURACY).alias("quantiles"))
    quantiles = {row["place"]: row["quantiles"] for row in found.collect()} if names else {}
    # The first quantile is the smallest value: no row is below it.
    return {
        name: tuple(sorted({value for value in quantiles.get(place, ()) if value > quantiles[place][0]}))
        for place, name in enumerate(names)
    }


def count_cells(rows: DataFrame, bins: Sequence[Histogram]) -> list[Histogram]:
    """Counts the cells of a table with typed columns in given bins.

    Args:
        rows: a table with the columns of the histograms: numbers as double, categories as text.
        bins: histograms whose bins are taken; their counts do not matter.

    Returns:
        Histograms with the counts of the rows, in the order of `bins`.
    """
    numeric, categorical = (
        [histogram for histogram in bins if histogram.kind == kind] for kind in (NUMERIC, CATEGORICAL)
    )
    edges = _constant([histogram.edges for histogram in numeric], "array<array<double>>")
    values = _constant([histogram.values for histogram in categorical], "array<array<string>>")

    def numeric_bin(number: Column, place: Column) -> Column:
        below = F.filter(F.get(edges, place), lambda edge: edge <= number)
        return F.when(number.isNull(), F.lit(MISSING_BIN)).otherwise(F.size(below))

    def categorical_bin(text: Column, place: Column) -> Column:
        found = F.array_position(F.get(values, place), text).cast("int")
        return F.when(text.isNull(), F.lit(MISSING_BIN)).when(found == 0, F.lit(OTHER_BIN)).otherwise(found - 1)

    cells = F.concat(
        F.transform(_array([item.name for item in numeric], "double"), numeric_bin),
        F.transform(_array([item.name for item in categorical], "string"), categorical_bin),
    )
    counts = {
        (row["place"], row["cell"]): row["count"]
        for row in melt(rows, cells).groupBy("place", "cell").count().collect()
    }
    counted = {
        histogram.name: _with_counts(histogram, {found: n for (at, found), n in counts.items() if at == place})
        for place, histogram in enumerate([*numeric, *categorical])
    }
    return [counted[histogram.name] for histogram in bins]


def _array(names: Sequence[str], kind: str) -> Column:
    return array_of(map(quoted_name, names)).cast(f"array<{kind}>")


def _constant(values: Any, kind: str) -> Column:
    return F.from_json(F.lit(json.dumps(values)), kind)


def _with_counts(histogram: Histogram, counts: Mapping[int, int]) -> Histogram:
    size = len(histogram.empty.counts)
    return replace(
        histogram,
        counts=tuple(counts.get(place, 0) for place in range(size)),
        missing=counts.get(MISSING_BIN, 0),
        other=counts.get(OTHER_BIN, 0),
    )


def reference_scores(predictions: DataFrame, columns: Mapping[str, str], labels: Sequence[str]) -> Histogram:
    """Counts a model's scores in bins chosen on them.

    Args:
        predictions: predicted rows.
        columns: the names of the columns `probability` and `prediction`.
        labels: the classes. Of two, the probability of the second is the score; of more, the predicted label.
    """
    if len(labels) > 2:
        return count_scores(
            predictions, columns, Histogram(name=LABEL_SCORE, kind=CATEGORICAL, values=tuple(labels)), labels
        )
    counts = _grid(predictions, columns)
    total, below = sum(counts.values()), 0
    edges: list[float] = []
    for place in sorted(counts):
        if below >= (len(edges) + 1) * total / BINS:
            edges.append(place / SCORE_GRID)
        below += counts[place]
    return _from_grid(Histogram(name=SCORE, kind=NUMERIC, edges=tuple(edges)), counts)


def count_scores(
    predictions: DataFrame, columns: Mapping[str, str], bins: Histogram, labels: Sequence[str]
) -> Histogram:
    """Counts a model's scores in given bins; for the arguments see `reference_scores`."""
    if bins.kind == NUMERIC:
        return _from_grid(bins, _grid(predictions, columns))
    found = predictions.groupBy(F.col(columns["prediction"]).cast("int").alias("place")).count().collect()
    by_label = {labels[row["place"]]: row["count"] for row in found}
    return _with_counts(bins, {place: by_label.get(value, 0) for place, value in enumerate(bins.values)})


def _grid(predictions: DataFrame, columns: Mapping[str, str]) -> Counter[int]:
    place = F.floor(vector_to_array(F.col(columns["probability"]))[1] * SCORE_GRID).cast("int").alias("place")
    return Counter({row["place"]: row["count"] for row in predictions.groupBy(place).count().collect()})


def _from_grid(bins: Histogram, counts: Mapping[int, int]) -> Histogram:
    sums: Counter[int] = Counter()
    for place, count in counts.items():
        sums[bins.bin_of(place / SCORE_GRID)] += count
    return _with_counts(bins, sums)
