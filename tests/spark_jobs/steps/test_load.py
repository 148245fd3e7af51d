"""Load's own decisions: classes with few rows, and how work grows with the number of columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.wide_tables import processor_seconds, write_table
from spark_jobs.errors import InputError

WINE = "acid,sugar,quality\n" + "".join(f"{i % 17},{i * 7 % 23},{5 + (i * 7 % 23 > 11)}\n" for i in range(200))
"""As the wine table: grades, of which one or two have hardly a row."""


def load_wine(run_step: Callable[..., Any], tmp_path: Path, more: str, **settings: Any) -> Any:
    (tmp_path / "wine.csv").write_text(WINE + more)
    return run_step("load", data_uri=tmp_path / "wine.csv", label="quality", output_uri=tmp_path / "o", **settings)


def classes(spark: Any, tmp_path: Path) -> dict[str, int]:
    rows = spark.read.parquet(str(tmp_path / "o/rows")).groupBy("quality").count().collect()
    return {row["quality"]: row["count"] for row in rows}


def test_a_class_with_too_few_rows_for_three_sets_is_named(run_step: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"classes of label 'quality' with too few rows, .*: '9' \(1\); give --min-class-rows"
    ):
        load_wine(run_step, tmp_path, "1,2,9\n")


def test_a_row_with_one_bad_cell_is_written_apart_as_it_came(
    run_step: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    bad = {
        "2027-01-31,7,5": "column 'acid' is not a number",
        "3,1e200,6": "column 'sugar' is infinite or beyond 1e+100",
    }
    settings = {"max_rejected_fraction": 2 / 202}
    result = load_wine(run_step, tmp_path, "NA,,5\n" + "\n".join(bad) + "\n", **settings)
    assert result.rows_out == {"rows": 201, "rejected": 2}
    rejected = spark.read.parquet(str(tmp_path / "o/rejected")).collect()
    assert {row["line"]: row["reason"] for row in rejected} == bad
    assert {row["file"].rsplit("/", 1)[-1] for row in rejected} == {"wine.csv"}
    rows = spark.read.parquet(str(tmp_path / "o/rows"))
    assert rows.where("acid IS NULL AND sugar IS NULL").count() == 1
    assert rows.where("sugar > 1000").count() == 0


def test_small_classes_become_one_on_request(run_step: Callable[..., Any], spark: Any, tmp_path: Path) -> None:
    result = load_wine(run_step, tmp_path, "1,2,9\n3,4,3\n5,6,3\n", min_class_rows=5)
    assert {value: count for value, count in classes(spark, tmp_path).items() if count < 10} == {"other": 3}
    assert any("2 classes of 'quality' with fewer than --min-class-rows=5" in warning for warning in result.warnings)


def test_small_classes_are_kept_apart_on_request(run_step: Callable[..., Any], spark: Any, tmp_path: Path) -> None:
    settings = {"min_class_rows": 5, "small_classes": "drop", "max_rejected_fraction": 0.0}
    result = load_wine(run_step, tmp_path, "1,2,9\n3,4,3\n5,6,3\n", **settings)
    assert set(classes(spark, tmp_path)) == {"5", "6"}
    assert result.rows_out == {"rows": 200, "rejected": 3}
    rejected = spark.read.parquet(str(tmp_path / "o/rejected")).collect()
    assert {row["line"] for row in rejected} == {"1,2,9", "3,4,3", "5,6,3"}
    assert {row["reason"] for row in rejected} == {"its class has fewer than 5 rows"}


@pytest.mark.slow
def test_a_wine_table_runs_whole_once_its_rare_grade_is_left_out(run_steps: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "wine.csv").write_text(WINE.replace("sugar", "sweet") + "1,2,9\n")
    noisy = (tmp_path / "wine.csv").read_text().replace("\n3,", "\n3,1").replace("0,6\n", "0,5\n")
    (tmp_path / "wine.csv").write_text(noisy)
    settings = {"min_class_rows": 3, "small_classes": "drop", "bootstrap_samples": 50}
    results = run_steps(tmp_path / "run", data_uri=tmp_path / "wine.csv", label="quality", **settings)
    assert results["evaluate"].status == "succeeded"


def test_a_table_of_too_many_columns_is_refused_at_once(run_step: Callable[..., Any], tmp_path: Path) -> None:
    header = ",".join(f"x{i}" for i in range(5_001))
    (tmp_path / "t.csv").write_text(f"{header}\n" + ",".join("1" * 5_001) + "\n")
    with pytest.raises(InputError, match=r"t\.csv has 5,001 columns, at most 5,000 are supported"):
        run_step("load", data_uri=tmp_path / "t.csv", label="x0", output_uri=tmp_path / "o")


@pytest.mark.slow
def test_work_grows_no_faster_than_the_columns(run_step: Callable[..., Any], spark: Any, tmp_path: Path) -> None:
    seconds = {}
    for columns in (40, 40, 400):  # the first one warms Java up
        data = write_table(tmp_path / f"{columns}.csv", columns, rows=60)
        began = processor_seconds(spark)
        run_step("load", data_uri=data, label="label", output_uri=tmp_path / "o")
        seconds[columns] = processor_seconds(spark) - began
    assert seconds[400] < 15 * seconds[40], seconds
