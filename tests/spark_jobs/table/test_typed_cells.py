"""A row's typed cells: the first reason by the specification's order, and the hash that the split and the digest share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from spark_jobs.contract import LoadArgs
from spark_jobs.dataset import Specification
from spark_jobs.table import profiling
from spark_jobs.table.source import open_source
from spark_jobs.table.typed_cells import CellArrays, row_hash, type_rows

pytestmark = pytest.mark.spark
SPECIFICATION = Specification(
    label="b",
    numeric=("z", "a", "m"),
    categorical=("k",),
    limits={"z": (-math.inf, 9.0), "m": (0.0, math.inf)},
)


def cells_of(spark: Any, path: Path, text: str) -> CellArrays:
    path.write_text(text)
    args = LoadArgs(data_uri=str(path), output_uri="")
    return CellArrays(open_source(spark, args, SPECIFICATION.label), SPECIFICATION)


def test_the_reason_is_the_first_by_the_order_of_the_specification(spark: Any, tmp_path: Path) -> None:
    rows = {
        "1,-9e99,5,u,yes": None,
        "1,2,5,u,": "label 'b' is missing",
        "oops,2,oops,u,yes": "column 'z' is not a number",
        "9.5,oops,-1,u,yes": "column 'z' is outside -inf to 9",
        "NA,1e200,-1,u,yes": "column 'a' is infinite or beyond 1e+100",
        "?,,-1,u,yes": "column 'm' is outside 0 to inf",
        "oops,2,5,u,nan": "label 'b' is missing",
    }
    cells = cells_of(spark, tmp_path / "t.csv", "\n".join(["z,a,m,k,b", *rows]) + "\n")
    found = type_rows(cells).orderBy(cells.source.position[-1]).select(cells.reason).collect()
    assert [row[0] for row in found] == list(rows.values())


def test_the_hash_of_typed_cells_is_that_of_the_written_row(spark: Any, tmp_path: Path) -> None:
    lines = ["z,a,m,k,b", "1,2,3,u,yes", "-0.0,,NA,,no", ",2,3, v ,no", "1,2,3,u,None"]
    cells = cells_of(spark, tmp_path / "t.csv", "\n".join(lines) + "\n")
    hashed = type_rows(cells).withColumn("hash", row_hash(cells)).selectExpr("hash", *cells.column_expressions())
    found = hashed.select("hash", profiling.row_hash(cells.source.columns).alias("expected")).collect()
    assert len({row["hash"] for row in found}) == 4
    assert all(row["hash"] == row["expected"] for row in found)
    assert hashed.where(F.col("z") == 0).first()["k"] is None
