"""Counting cells by Spark gives what counting them by hand gives."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.ml.linalg import Vectors

from spark_jobs.monitoring.counting import (
    SCORE_GRID,
    column_histograms,
    count_cells,
    count_scores,
    reference_scores,
    sample,
)

pytestmark = pytest.mark.spark
COLUMNS = {"probability": "probability", "prediction": "prediction"}


def test_bins_are_quantiles_and_vocabularies_and_each_cell_is_counted_once(spark: Any) -> None:
    rows = [(float(i), 0.0 if i < 80 else float(i), "ab"[i % 2]) for i in range(100)]
    rows += [(None, 1.5, "rare"), (7.5, None, None)]
    table = spark.createDataFrame(rows, "`a.b` double, zeros double, kind string")
    even, zeros, kind = column_histograms(table, ["a.b", "zeros"], {"kind": ["a", "b"]})
    assert (even.name, len(even.counts), even.missing, even.cells) == ("a.b", 10, 1, 102)
    assert max(even.counts) - min(even.counts) <= 1
    assert zeros.edges[0] <= 80.0
    assert zeros.counts[0] >= 80
    assert (zeros.missing, zeros.cells) == (1, 102)
    assert (kind.counts, kind.other, kind.missing) == ((50, 50), 1, 1)
    for histogram, place in ((even, 0), (zeros, 1)):
        by_hand = [0] * len(histogram.counts)
        for row in rows:
            if row[place] is not None:
                by_hand[histogram.bin_of(row[place])] += 1
        assert list(histogram.counts) == by_hand


def test_another_table_is_counted_in_the_same_bins(spark: Any) -> None:
    table = spark.createDataFrame([(float(i), "ab"[i % 2]) for i in range(50)], "x double, kind string")
    bins = column_histograms(table, ["x"], {"kind": ["a", "b"]})
    other = spark.createDataFrame([("c", -1e9), ("a", 1e9), (None, None)], "kind string, x double")
    kind, x = count_cells(other, bins[::-1])
    assert (kind.counts, kind.other, kind.missing) == ((1, 0), 1, 1)
    assert (x.counts[0], x.counts[-1], x.missing, x.cells) == (1, 1, 1, 3)
    assert [histogram.cells for histogram in count_cells(other.limit(0), bins)] == [0, 0]


def test_a_column_without_values_or_with_one_value_has_one_bin(spark: Any) -> None:
    table = spark.createDataFrame([(None, 5.0)] * 4, "none double, one double")
    none, one = column_histograms(table, ["none", "one"], {})
    assert (none.counts, none.missing) == ((0,), 4)
    assert (one.edges, one.counts) == ((), (4,))


def test_scores_are_counted_exactly_in_tenths(spark: Any) -> None:
    scores = [i / 200 for i in range(200)] + [1.0, 1.0]
    rows = spark.createDataFrame(
        [(Vectors.dense(1 - p, p), float(p > 0.5)) for p in scores], ["probability", "prediction"]
    )
    histogram = reference_scores(rows, COLUMNS, ["no", "yes"])
    assert (len(histogram.counts), histogram.cells) == (10, 202)
    assert max(histogram.counts) - min(histogram.counts) <= 3
    by_hand = [0] * 10
    for p in scores:
        by_hand[histogram.bin_of(p)] += 1
    assert list(histogram.counts) == by_hand
    assert all((edge * SCORE_GRID).is_integer() for edge in histogram.edges)
    assert count_scores(rows.limit(0), COLUMNS, histogram, ["no", "yes"]) == histogram.empty


def test_of_more_than_two_classes_the_predicted_labels_are_counted(spark: Any) -> None:
    rows = spark.createDataFrame(
        [(Vectors.dense(0.1, 0.2, 0.7), float(i % 2)) for i in range(5)], ["probability", "prediction"]
    )
    histogram = reference_scores(rows, COLUMNS, ["x", "y", "z"])
    assert dict(zip(histogram.values, histogram.counts, strict=True)) == {"x": 3, "y": 2, "z": 0}


def test_a_sample_does_not_depend_on_the_partitions(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spark_jobs.monitoring.counting.REFERENCE_ROWS", 100)
    table = spark.range(1000)
    drawn = [sorted(row["id"] for row in sample(table.repartition(n), 1000, table["id"]).collect()) for n in (1, 3)]
    assert drawn[0] == drawn[1]
    assert 60 < len(drawn[0]) < 140
    assert sample(table, 150, table["id"]) is table
