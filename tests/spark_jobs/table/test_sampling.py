"""A small table is collected and counted in Python; what is said of it is the same as what Spark's queries count."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from spark_jobs.contract import LoadArgs
from spark_jobs.dataset import Specification, read_specification
from spark_jobs.steps import load
from spark_jobs.table import inference, profiling, sampling
from spark_jobs.table.profiling import describe
from spark_jobs.table.sampling import collect_cells
from spark_jobs.table.source import Source, open_source

pytestmark = pytest.mark.spark
HARD = [
    "", " ", "\u00a01\u2003", "NA", "n/a", "#N/A", "NULL", "None", "nan", "-", "--", "?", "0", "-0", "-0.0", "+.5", "5.", "1e5", "1e-400",
    "007", "1F", "0x10", "1_000", "\uff11\uff12", "\u0661/\u0662/\u0662\u0660\u0662\u0660", "Infinity", "-inf", "1e101", "9" * 60,
    "9007199254740993", "-9007199254740992", "1e17", "1,000.50", "1.000,5", "1'000", "1\u00a0000", "$12", "\u20ac 5", "12 %", "-$5",
    "2024-01-02", "03/04/21", "2024-01-02T10:00:00Z", "12:30 pm", "1 Jan 2020", "May 4, 2020", "1/1/2020x", "caf\u00e9", 'a"b', "x,y",
    "a\\b", "\U0001f600", "\ufb01", "\u0130", "\u212a", "\u00df", "true", "null ", "\u2028z", "a\tb", "\x7f1", "\x1f2",
]  # fmt: skip
"""Cells that are hard to read; sorted by code points they are in the order of their UTF-8 bytes, which Spark sorts by."""


@pytest.fixture(scope="module")
def hard(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A table of random hard cells: in each column a few of them often, others among plain numbers, dates or words."""
    chance, path = random.Random(17), tmp_path_factory.mktemp("hard") / "t.csv"
    plain = (["1", "2.5"], ["2024-01-02", "1/2/24"], ["a", "b"], [""], ["$1,000", "12 %"])
    columns = [chance.choice(plain) + chance.choices(HARD, k=chance.randint(0, 12)) for _ in range(60)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{place}" for place in range(60)), "label"])
        writer.writerows([*map(chance.choice, columns), chance.choice(["yes", "no", "NA", ""])] for _ in range(80))
    return open_source(spark, LoadArgs(data_uri=str(path), output_uri=""), "label")


def test_the_cells_of_a_small_table_are_counted_as_the_query_counts_them(hard: Source) -> None:
    collected = inference._collect(hard, hard.columns)
    assert collected is not None
    counted = {name: inference._count_texts(texts) for name, texts in collected.items()}
    by_query = inference._statistics(hard, hard.columns)
    for kind in ("values", "numbers", "missing", "dates", "formatted", "large", "placeholder", "word"):
        assert sum(counts[kind] for counts in counted.values()) > 20, kind
    for name, counts in counted.items():
        expected = by_query.get(name)
        assert ({**counts, "place": expected["place"]} == expected) if expected else (counts["values"] == 0), name


def test_a_specification_is_inferred_alike_from_collected_cells_and_by_queries(
    hard: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected = inference.infer_specification(hard, "label", 0.3)
    monkeypatch.setattr(sampling, "CELL_CHARACTERS", 0)  # no table is small
    assert inference.infer_specification(hard, "label", 0.3) == replace(collected, cells=None)


def test_a_profile_is_the_same_from_collected_values_and_by_queries(
    spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)
    numbers = [None, 0.1, 1e100, -1e100, 5e-324, 2.0**53, 1 / 3, 7.0]
    rows = [
        (chance.choice(numbers), float(place), None, "\u00e9\"\\\n" if place % 2 else None, f"k{place}", "yes" if place % 3 else "no")
        for place in range(150)
    ]  # fmt: skip
    table = spark.createDataFrame(rows, "n double, row double, e double, c string, d string, y string")
    kind = Specification(label="y", numeric=("n", "row", "e"), categorical=("c",), dropped=("d",))
    collected = describe(table, kind, 150, leaks_are_out=True)
    monkeypatch.setattr(sampling, "CELL_CHARACTERS", 0)  # no table is small
    by_query = describe(table, kind, 150, leaks_are_out=True)
    for column, expected in zip(collected["columns"], by_query["columns"], strict=True):
        if column.get("mean") is not None:
            # Spark's sum of doubles depends on the order of the rows.
            assert column.pop("mean") == pytest.approx(expected.pop("mean"), rel=1e-12)
    assert collected == by_query
    assert [item["column"] for item in collected["suspicious"]] == ["row"]


def test_load_profiles_a_small_table_from_the_cells_that_it_has_inferred_from(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, path = random.Random(5), tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"c{place}" for place in range(10)), "n", "same", "label"])
        for row in range(120):
            numbers = [chance.choice(["1", " 2.50 ", "-0", "1e5", "NA", ""]), "9007199254740993"]
            writer.writerow([*chance.choices(HARD, k=10), *numbers, ("yes", "no", "no")[row % 3]])
    args = LoadArgs(data_uri=str(path), label="label", output_uri=str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.delattr(profiling, "_collect")  # the table is not read again
        rows = load.run(spark, args).rows_out
    assert rows == {"rows": 120, "rejected": 0}
    profile = json.loads((tmp_path / "out/profile.json").read_text())
    kind = read_specification((tmp_path / "out/specification.toml").read_text(), "specification.toml")
    assert kind.numeric == ("n", "same")
    read_again = describe(spark.read.parquet(str(tmp_path / "out/rows")), kind, 120, leaks_are_out=True)
    assert {name: profile[name] for name in read_again} == read_again


def test_a_table_of_many_rows_or_of_long_texts_is_not_collected(spark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "SAMPLE_ROWS", 100)
    text = F.array(F.col("id").cast("string"))
    assert collect_cells(spark.range(199), text, 1) is not None
    assert collect_cells(spark.range(200), text, 1) is None
    assert collect_cells(spark.range(3), F.array(F.repeat(F.lit("x"), F.lit(70))), 1) is None
    assert collect_cells(spark.range(0), text, 1) == [()]
