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

from spark_jobs.contract import TRAINING
from spark_jobs.dataset import OWN_PREFIX

PROJECT = Path(__file__).resolve().parents[2]
SAMPLE, SPECIFICATION = PROJECT / "data/bank_sample.csv", PROJECT / "data/bank.toml"
RunSteps = Callable[..., dict[str, Any]]


def first_rows(path: Path, rows: int, times: int = 1) -> Path:
    """The first rows of the sample, one or more times."""
    header, *lines = SAMPLE.read_text().splitlines()
    path.write_text("\n".join([header, *lines[:rows] * times]) + "\n")
    return path


def partitioned(spark: Any, data: Path, path: Path, partitions: int) -> Path:
    """A table as Parquet in that many files, of which each has rows from everywhere."""
    spark.read.csv(str(data), header=True).repartition(partitions).write.parquet(str(path))
    return path


def shuffled(data: Path, folder: Path) -> Path:
    """A table in five files in another order."""
    header, *lines = data.read_text().splitlines()
    random.Random(3).shuffle(lines)
    folder.mkdir()
    for i in range(5):
        (folder / f"{9 - i}.csv").write_text("\n".join([header, *lines[i::5]]) + "\n")
    return folder


def features(spark: Any, output: Path) -> list[Any]:
    """What train and evaluate read: every value of every row, in order."""
    rows = []
    for name in ("train", "validation", "test"):
        table = spark.read.parquet(str(output / f"features/set={name}")).coalesce(1)
        rows += [(name, row["row_hash"], row["label"], row["features"].toArray().tolist()) for row in table.collect()]
    return rows


@pytest.fixture(scope="module")
def read(spark: Any, run_step: Callable[..., Any]) -> Callable[[Path, Path], tuple[str, list[Any]]]:
    """Loads and preprocesses a table below a directory: the digest of its rows, and its features."""

    def run(data: Path, output: Path) -> tuple[str, list[Any]]:
        loaded = run_step("load", data_uri=data, specification_uri=SPECIFICATION, output_uri=output / "load")
        run_step("preprocess", load_uri=output / "load", output_uri=output / "preprocess")
        return loaded.digest, features(spark, output / "preprocess")

    return run


@pytest.fixture(scope="module")
def of_one_file(read: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[Any]]:
    """A file, its digest and its features."""
    folder = tmp_path_factory.mktemp("one")
    data = first_rows(folder / "one.csv", 1000)
    return data, *read(data, folder)


@pytest.mark.parametrize("layout", ["files", pytest.param("partitions", marks=pytest.mark.slow)])
def test_split_and_features_do_not_depend_on_files_order_or_partitions(
    spark: Any, read: Callable[..., Any], of_one_file: tuple[Path, str, list[Any]], tmp_path: Path, layout: str
) -> None:
    data, *expected = of_one_file
    assert len(expected[1]) == 1000
    turned = shuffled(data, tmp_path / "t") if layout == "files" else partitioned(spark, data, tmp_path / "t", 16)
    assert [*read(turned, tmp_path)] == expected


@pytest.mark.slow
def test_metrics_do_not_depend_on_cores_processes_files_or_their_order(
    spark: Any, run_steps: RunSteps, tmp_path: Path
) -> None:
    """Shuffled Parquet in 64 partitions on two cores of this process, and the file as it is with `spark-kfp run` on one core."""
    run_steps(
        tmp_path / "here",
        data_uri=partitioned(spark, SAMPLE, tmp_path / "64.parquet", 64),
        specification_uri=SPECIFICATION,
    )
    here = json.loads((tmp_path / "here/evaluate/evaluation.json").read_text())["metrics"]
    command = [
        sys.executable,
        "-m",
        "kfp_pipeline",
        "run",
        str(SAMPLE),
        "--json",
        "--spark=local[1]",
    ]
    command += [f"--spec={SPECIFICATION}", f"--runs={tmp_path}/runs"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    there = json.loads(done.stdout)["evaluation"]["metrics"]
    for one, other in zip(here, there, strict=True):
        assert one["name"] == other["name"]
        for key in ("value", "low", "high"):
            assert one[key] == pytest.approx(other[key], abs=1e-9), one["name"]
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/pipeline/**/result.json")]
    assert len(results) == len(TRAINING.steps_of({}))
    for result in results:  # a driver had started before the step was known
        assert result["seconds"]["startup"] < 1, result["step"]


@pytest.fixture(scope="module")
def loaded(run_step: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, loaded."""
    output = tmp_path_factory.mktemp("loaded")
    run_step("load", data_uri=SAMPLE, specification_uri=SPECIFICATION, output_uri=output)
    return output


@pytest.mark.parametrize("order_by", ["", "day", "age"])
def test_an_ordered_split_puts_the_last_rows_into_the_test_set(spark: Any, loaded: Path, order_by: str) -> None:
    from pyspark.sql import functions as F

    from spark_jobs.contract import PreprocessArgs
    from spark_jobs.split import assign_sets

    table = spark.read.parquet(str(loaded / "rows"))
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


@pytest.mark.slow
def test_equal_rows_fall_on_one_side(spark: Any, run_step: Callable[..., Any], tmp_path: Path) -> None:
    data = first_rows(tmp_path / "double.csv", 1000, times=2)
    run_step("load", data_uri=data, specification_uri=SPECIFICATION, output_uri=tmp_path / "load")
    run_step("preprocess", load_uri=tmp_path / "load", output_uri=tmp_path / "preprocess")
    sides = {(name, row_hash) for name, row_hash, *_ in features(spark, tmp_path / "preprocess")}
    assert len(sides) == len({row_hash for _, row_hash in sides})
    assert len(sides) >= 970
