"""Same rows, same seed: the same split and the same metrics, whatever the machine, the files and their order."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RunSteps = Callable[..., dict[str, Any]]


def layouts(spark: Any, directory: Path) -> dict[str, Path]:
    """The sample as one file, shuffled, in many files, and as Parquet of 1, 7 and 64 partitions."""
    header, *lines = (PROJECT / "data/bank_sample.csv").read_text().splitlines()
    found = {"one file": PROJECT / "data/bank_sample.csv"}
    shuffled = lines[:]
    random.Random(3).shuffle(shuffled)
    (directory / "shuffled.csv").write_text("\n".join([header, *shuffled]) + "\n")
    found["shuffled"] = directory / "shuffled.csv"
    (directory / "many").mkdir()
    for i in range(5):
        (directory / f"many/{9 - i}.csv").write_text("\n".join([header, *shuffled[i::5]]) + "\n")
    found["many files"] = directory / "many"
    table = spark.read.csv(str(found["one file"]), header=True)
    for partitions in (1, 64):
        found[f"{partitions} partitions"] = directory / f"p{partitions}.parquet"
        table.repartition(partitions).write.parquet(str(found[f"{partitions} partitions"]))
    return found


def test_split_and_metrics_do_not_depend_on_files_order_or_partitions(
    spark: Any, run_steps: RunSteps, tmp_path: Path
) -> None:
    runs = {}
    for name, data in layouts(spark, tmp_path).items():
        output = tmp_path / "runs" / name
        results = run_steps(output, data_uri=data, specification_uri=PROJECT / "data/bank.toml", bootstrap_samples=50)
        hashes = {s: frozenset(row["row_hash"] for row in spark.read.parquet(str(output / f"preprocess/features/set={s}")).collect())
                  for s in ("train", "validation", "test")}  # fmt: skip
        document = json.loads((output / "evaluate/evaluation.json").read_text())
        numbers = [value for item in document["metrics"] for value in (item["value"], item["low"], item["high"])]
        runs[name] = (hashes, numbers, results["load"].digest)
    first = runs["one file"]
    for name, (hashes, numbers, digest) in runs.items():
        assert hashes == first[0], name
        assert numbers == pytest.approx(first[1], abs=1e-9), name
        assert digest == first[2], name


@pytest.mark.parametrize("order_by", ["", "day", "age"])
def test_an_ordered_split_puts_the_last_rows_into_the_test_set(
    spark: Any, run_step: Callable[..., Any], tmp_path: Path, order_by: str
) -> None:
    data = PROJECT / "data/bank_sample.csv"
    run_step("load", data_uri=data, specification_uri=PROJECT / "data/bank.toml", output_uri=tmp_path / "load")
    from pyspark.sql import functions as F

    from spark_jobs.contract import PreprocessArgs
    from spark_jobs.split import assign_sets

    table = spark.read.parquet(str(tmp_path / "load/rows"))
    args = PreprocessArgs(load_uri="-", output_uri="-", split="ordered", order_by=order_by)
    key = {"": F.col("_row"), "day": F.col("day").cast("double"), "age": F.col("age")}[order_by]
    rows = (
        assign_sets(table, args)
        .groupBy("set")
        .agg(F.min(key).alias("low"), F.max(key).alias("high"), F.count("*").alias("n"))
        .collect()
    )
    by_set = {row["set"]: row for row in rows}
    assert by_set["train"]["high"] < by_set["validation"]["low"] <= by_set["validation"]["high"] < by_set["test"]["low"]
    if not order_by:
        assert [by_set[name]["n"] for name in ("train", "validation", "test")] == [2400, 800, 800]


def test_equal_rows_fall_on_one_side(spark: Any, run_steps: RunSteps, tmp_path: Path) -> None:
    header, *lines = (PROJECT / "data/bank_sample.csv").read_text().splitlines()
    (tmp_path / "double.csv").write_text("\n".join([header, *lines, *lines]) + "\n")
    run_steps(
        tmp_path, data_uri=tmp_path / "double.csv", specification_uri=PROJECT / "data/bank.toml", bootstrap_samples=50
    )
    seen: dict[int, str] = {}
    for name in ("train", "validation", "test"):
        for row in spark.read.parquet(str(tmp_path / f"preprocess/features/set={name}")).collect():
            assert seen.setdefault(row["row_hash"], name) == name
