"""Same rows, same seed: the same split and the same metrics, whatever the machine, the files and their order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.contract import ARGUMENTS
from spark_jobs.dataset import OWN_PREFIX

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


def features(spark: Any, output: Path) -> list[Any]:
    """What train and evaluate read: every value of every row, in order."""
    rows = []
    for name in ("train", "validation", "test"):
        table = spark.read.parquet(str(output / f"features/set={name}")).coalesce(1)
        rows += [(name, row["row_hash"], row["label"], row["features"].toArray().tolist()) for row in table.collect()]
    return rows


def test_split_and_features_do_not_depend_on_files_order_or_partitions(
    spark: Any, run_step: Callable[..., Any], tmp_path: Path
) -> None:
    found = {}
    for name, data in layouts(spark, tmp_path).items():
        output = tmp_path / "runs" / name
        loaded = run_step(
            "load", data_uri=data, specification_uri=PROJECT / "data/bank.toml", output_uri=output / "load"
        )
        run_step("preprocess", load_uri=output / "load", output_uri=output / "preprocess")
        found[name] = (loaded.digest, features(spark, output / "preprocess"))
    first = found["one file"]
    assert len(first[1]) == 4000
    for name, layout in found.items():
        assert layout == first, name


def test_metrics_do_not_depend_on_cores_processes_files_or_their_order(
    spark: Any, run_steps: RunSteps, tmp_path: Path
) -> None:
    """Shuffled Parquet in 64 partitions on two cores of this process, and the file as it is with `spark-kfp run` on one core."""
    run_steps(
        tmp_path / "here",
        data_uri=layouts(spark, tmp_path)["64 partitions"],
        specification_uri=PROJECT / "data/bank.toml",
    )
    here = json.loads((tmp_path / "here/evaluate/evaluation.json").read_text())["metrics"]
    command = [
        sys.executable,
        "-m",
        "kfp_pipeline",
        "run",
        str(PROJECT / "data/bank_sample.csv"),
        "--json",
        "--spark=local[1]",
    ]
    command += [f"--spec={PROJECT}/data/bank.toml", f"--runs={tmp_path}/runs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    there = json.loads(done.stdout)["evaluation"]["metrics"]
    for one, other in zip(here, there, strict=True):
        assert one["name"] == other["name"]
        for key in ("value", "low", "high"):
            assert one[key] == pytest.approx(other[key], abs=1e-9), one["name"]
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/pipeline/**/result.json")]
    assert len(results) == len(ARGUMENTS)
    for result in results:  # a driver had started before the step was known
        assert result["seconds"]["startup"] < 1, result["step"]


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
    key = {"": F.col(f"{OWN_PREFIX}row"), "day": F.col("day").cast("double"), "age": F.col("age")}[order_by]
    rows = (
        assign_sets(table, args, OWN_PREFIX)
        .groupBy(F.col(f"{OWN_PREFIX}set").alias("set"))
        .agg(F.min(key).alias("low"), F.max(key).alias("high"), F.count("*").alias("n"))
        .collect()
    )
    by_set = {row["set"]: row for row in rows}
    assert by_set["train"]["high"] < by_set["validation"]["low"] <= by_set["validation"]["high"] < by_set["test"]["low"]
    if not order_by:
        assert [by_set[name]["n"] for name in ("train", "validation", "test")] == [2400, 800, 800]


def test_equal_rows_fall_on_one_side(spark: Any, run_step: Callable[..., Any], tmp_path: Path) -> None:
    header, *lines = (PROJECT / "data/bank_sample.csv").read_text().splitlines()
    (tmp_path / "double.csv").write_text("\n".join([header, *lines, *lines]) + "\n")
    specification = PROJECT / "data/bank.toml"
    run_step("load", data_uri=tmp_path / "double.csv", specification_uri=specification, output_uri=tmp_path / "load")
    run_step("preprocess", load_uri=tmp_path / "load", output_uri=tmp_path / "preprocess")
    sides = {(name, row_hash) for name, row_hash, *_ in features(spark, tmp_path / "preprocess")}
    assert len(sides) == len({row_hash for _, row_hash in sides})
    assert len(sides) >= 3900
