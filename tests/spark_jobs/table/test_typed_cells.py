"""The typed cells of a row: values, missing values, the reason for a rejected row, and the hash that the split and the digest share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from py4j.clientserver import JavaClient
from pyspark.sql import functions as F

from spark_jobs.contract import LoadArgs
from spark_jobs.dataset import Specification
from spark_jobs.table import profiling
from spark_jobs.table.source import open_source, raw_texts
from spark_jobs.table.typed_cells import CellArrays, row_hash, type_rows

pytestmark = pytest.mark.spark
SPECIFICATION = Specification(
    label="b",
    numeric=("z", "a", "m"),
    categorical=("k",),
    limits={"z": (-math.inf, 9.0), "m": (0.0, math.inf)},
)


def cells_of(spark: Any, path: Path, text: str, specification: Specification = SPECIFICATION) -> CellArrays:
    path.write_text(text)
    return opened(spark, path, specification)


def opened(spark: Any, path: Path, specification: Specification) -> CellArrays:
    args = LoadArgs(data_uri=str(path), output_uri="")
    return CellArrays(open_source(spark, args, specification.label), specification)


def typed(cells: CellArrays) -> list[tuple[Any, ...]]:
    """The rows in their order: the values of the table's columns, then the reason for a rejected row."""
    rows = type_rows(cells).orderBy(*cells.source.position)
    return [tuple(row) for row in rows.selectExpr(*cells.column_expressions(), cells.reason).collect()]


NUMBER_AND_TEXT = Specification(label="b", numeric=("z",), categorical=("k",))


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
    assert [row[-1] for row in typed(cells)] == list(rows.values())


def test_a_word_for_missing_is_no_number_but_a_category_of_its_own(spark: Any, tmp_path: Path) -> None:
    words = ["NA", "n/a", "#N/A", "NaN", "Null", "NONE", "?", "-", "--"]
    cells = cells_of(
        spark, tmp_path / "t.csv", "z,k,b\n" + "".join(f"{word},{word},yes\n" for word in words), NUMBER_AND_TEXT
    )
    assert typed(cells) == [(None, word, "yes", None) for word in words]


@pytest.mark.parametrize("empty", ["", "   ", '""', '" "', "\u00a0", "\u2003\t"])
def test_an_empty_cell_is_missing_in_every_role(spark: Any, tmp_path: Path, empty: str) -> None:
    lines = ["z,k,b", f"{empty},{empty},yes", f"1,u,{empty}"]
    cells = cells_of(spark, tmp_path / "t.csv", "\n".join(lines) + "\n", NUMBER_AND_TEXT)
    assert typed(cells) == [(None, None, "yes", None), (1.0, "u", None, "label 'b' is missing")]


def test_a_number_up_to_1e100_is_good_and_one_beyond_is_rejected(spark: Any, tmp_path: Path) -> None:
    numbers = {"1e100": 1e100, "-1e100": -1e100, " 9007199254740993 ": 2.0**53, "1e-400": 0.0}
    too_large = ["1.0000001e100", "-1e101", "1e999", "9" * 400, "Infinity", "-inf"]
    lines = ["z,k,b", *(f"{text},u,yes" for text in (*numbers, *too_large))]
    found = typed(cells_of(spark, tmp_path / "t.csv", "\n".join(lines) + "\n", NUMBER_AND_TEXT))
    assert [(row[0], row[-1]) for row in found[: len(numbers)]] == [(number, None) for number in numbers.values()]
    assert {row[-1] for row in found[len(numbers) :]} == {"column 'z' is infinite or beyond 1e+100"}


def test_a_date_is_no_number_and_stays_as_it_is_in_a_text_column(spark: Any, tmp_path: Path) -> None:
    dates = ["2027-01-31", "31.01.2027", "20270131T120000", "12:30"]
    lines = ["z,k,b", *(f"1,{date},yes\n{date},u,yes" for date in dates)]
    found = typed(cells_of(spark, tmp_path / "t.csv", "\n".join(lines) + "\n", NUMBER_AND_TEXT))
    assert found[::2] == [(1.0, date, "yes", None) for date in dates]
    assert [row[-1] for row in found[1::2]] == ["column 'z' is not a number"] * len(dates)


@pytest.mark.slow
def test_typed_columns_of_parquet_become_the_texts_and_numbers_that_a_csv_of_them_would_have(
    spark: Any, tmp_path: Path
) -> None:
    values = {
        "CAST(0.1 AS FLOAT)": ("0.1", 0.1), "CAST(1.50 AS DECIMAL(9,2))": ("1.5", 1.5), "CAST(7 AS DECIMAL(38,0))": ("7", 7.0),
        "CAST('NaN' AS DOUBLE)": (None, None), "CAST(NULL AS INT)": (None, None), "-7L": ("-7", -7.0),
        "true": ("true", None), "DATE'2027-01-31'": ("2027-01-31", None), "array(1)": (None, None),
    }  # fmt: skip
    for number, (expression, (text, value)) in enumerate(values.items()):
        path = tmp_path / f"{number}.parquet"
        spark.sql(f"SELECT {expression} AS z, {expression} AS k, 'yes' AS b").write.parquet(str(path))
        reason = "column 'z' is not a number" if text and value is None else None
        assert typed(opened(spark, path, NUMBER_AND_TEXT)) == [(value, text, "yes", reason)], expression


def test_the_hash_of_typed_cells_is_that_of_the_written_row(spark: Any, tmp_path: Path) -> None:
    lines = ["z,a,m,k,b", "1,2,3,u,yes", "-0.0,,NA,,no", ",2,3, v ,no", "1,2,3,u,None"]
    cells = cells_of(spark, tmp_path / "t.csv", "\n".join(lines) + "\n")
    hashed = type_rows(cells).withColumn("hash", row_hash(cells)).selectExpr("hash", *cells.column_expressions())
    found = hashed.select("hash", profiling.row_hash(cells.source.columns).alias("expected")).collect()
    assert len({row["hash"] for row in found}) == 4
    assert all(row["hash"] == row["expected"] for row in found)
    assert hashed.where(F.col("z") == 0).first()["k"] is None


def test_a_query_of_many_columns_takes_no_more_calls_into_the_jvm(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, send = [0], JavaClient.send_command

    def counted(self: Any, *args: Any, **settings: Any) -> Any:
        calls[0] += not args[0].startswith("m\n")  # Py4J frees an object of an earlier test whenever Python collects it
        return send(self, *args, **settings)

    monkeypatch.setattr(JavaClient, "send_command", counted)
    took = {}
    for columns in (5, 5, 300):  # the first one loads classes
        names = [f"x{i}" for i in range(columns)]
        kind = Specification(label="b", numeric=tuple(names[::2]), categorical=tuple(names[1::2]))
        cells = cells_of(spark, tmp_path / "t.csv", ",".join([*names, "b"]) + "\n" + "1," * columns + "yes\n", kind)
        began = calls[0]
        type_rows(cells)
        profiling.melt(cells.source.rows, raw_texts(cells.source, names))
        took[columns] = calls[0] - began
    assert 100 < took[300] < took[5] + 50, took
