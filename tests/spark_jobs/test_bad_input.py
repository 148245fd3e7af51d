"""Bad input: each case ends with an error that names what is wrong and the next thing to do, or with the right rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.contract import LoadArgs
from spark_jobs.errors import EXIT_INPUT, InputError
from spark_jobs.result import Result
from spark_jobs.step_command import run_step as run_words
from spark_jobs.table.source import open_source, quoted

Load = Callable[..., tuple[Any, Path]]
Read = Callable[..., list[tuple[str, ...]]]
ROWS = "".join(f"{i},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}\n" for i in range(60))
TABLE = "age,job,label\n" + ROWS


@pytest.fixture
def load(run_step: Callable[..., Any], tmp_path: Path) -> Load:
    def run(content: str | bytes, name: str = "t.csv", **settings: Any) -> tuple[Any, Path]:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        if "specification_uri" not in settings:
            settings.setdefault("label", "label")
        return run_step("load", data_uri=path, output_uri=tmp_path / "out", **settings), tmp_path / "out"

    return run


@pytest.fixture
def read(spark: Any, tmp_path: Path) -> Read:
    """The cells of each row of a file, or of a path below it, as load finds them before it types them."""

    def run(content: str | bytes = b"", path: str = "t.csv") -> list[tuple[str, ...]]:
        if content:
            (tmp_path / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        source = open_source(spark, LoadArgs(data_uri=str(tmp_path / path), output_uri="-"), "label")
        assert source.columns == ("age", "job", "label")
        return [tuple(row) for row in source.rows.select(*map(quoted, source.columns)).collect()]

    return run


def rows_of(spark: Any, out: Path) -> list[Any]:
    return spark.read.parquet(str(out / "rows")).collect()  # type: ignore[no-any-return]


def specification(tmp_path: Path, **roles: list[str]) -> Path:
    path = tmp_path / "s.toml"
    lines = [f"{role} = {json.dumps(names)}" for role, names in roles.items()]
    path.write_text('[label]\nname = "label"\n[columns]\n' + "\n".join(lines))
    return path


def test_no_such_file_names_the_nearest(run_step: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "bank.csv").write_text(TABLE)
    with pytest.raises(InputError, match=r"bnak\.csv: no such file; did you mean 'bank\.csv'"):
        run_step("load", data_uri=tmp_path / "bnak.csv", label="label", output_uri=tmp_path / "out")


def test_directory_without_csv(run_step: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InputError, match="no CSV or Parquet file in this directory"):
        run_step("load", data_uri=tmp_path, label="label", output_uri=tmp_path / "out")


def test_empty_file(load: Load) -> None:
    with pytest.raises(InputError, match=r"t\.csv is empty"):
        load("")


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(9) + b"x" * 300, b"\x7fELF" + bytes(397) + b"\xd8\0" * 9]
)
def test_a_file_that_is_no_text(load: Load, content: bytes) -> None:
    with pytest.raises(InputError, match=r"t\.csv is not text; give a CSV file, or Parquet"):
        load(content)


def test_a_directory_as_specification(load: Load, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory; name a file"):
        load(TABLE, specification_uri=tmp_path)


def test_header_only(load: Load) -> None:
    with pytest.raises(InputError, match="has a header but no rows"):
        load("age,job,label\n")


def test_no_label_column_names_the_nearest(load: Load) -> None:
    with pytest.raises(InputError, match="no label column 'lable'; did you mean 'label'"):
        load(TABLE, label="lable")


def test_label_with_one_class(load: Load) -> None:
    with pytest.raises(InputError, match="label 'label' has one class, 'yes'"):
        load("age,label\n" + "".join(f"{i},yes\n" for i in range(9)))


def test_label_with_100_classes(load: Load) -> None:
    with pytest.raises(InputError, match="label 'label' has 100 values, at most 50 are classes"):
        load("age,label\n" + "".join(f"{i},c{i % 100}\n" for i in range(300)))


def test_label_missing_in_some_rows_rejects_them(load: Load, spark: Any) -> None:
    result, out = load(TABLE + "7,a,\n", max_rejected_fraction=0.05)
    assert result.rows_out == {"rows": 60, "rejected": 1}
    rejected = spark.read.parquet(str(out / "rejected")).collect()[0]
    assert (rejected["line"], rejected["reason"]) == ("7,a,", "label 'label' is missing")
    assert rejected["file"].endswith("t.csv")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("7,a,\n" * 9, r"leave out the 9 rows without a label, which no model learns from, or accept that with "),
        (
            "7,a,\n" * 7 + "7\n" * 2,
            r"leave out the 7 rows without a label, which no model learns from, and mend the others",
        ),
    ],
)
def test_rows_to_be_scored_later_are_told_as_rows_without_a_label(load: Load, more: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"9 of 69 rows rejected, more than 1\.00%: .*; {said}") as caught:
        load(TABLE + more)
    assert str(caught.value).endswith("--max-rejected-fraction=0.14")
    result, _ = load(TABLE + more, max_rejected_fraction=0.14)
    assert result.rows_out == {"rows": 60, "rejected": 9}


def test_text_in_a_numeric_column_fails_with_the_reason(load: Load, tmp_path: Path) -> None:
    given = specification(tmp_path, numeric=["age"], categorical=["job"])
    with pytest.raises(
        InputError, match=r"5 of 65 rows rejected, more than 1\.00%: column 'age' is not a number \(5 rows\)"
    ):
        load(TABLE + "old,a,no\n" * 5, specification_uri=given)


def test_rejected_reasons_are_the_three_commonest(load: Load, tmp_path: Path) -> None:
    given = specification(tmp_path, numeric=["age"], categorical=["job"])
    bad = "old,a,no\n" * 4 + "1,a\n" * 3 + "1,a,\n" * 2 + "inf,a,no\n"
    with pytest.raises(
        InputError,
        match=r"not a number \(4 rows\); row does not have 3 columns \(3 rows\); label 'label' is missing \(2 rows\);",
    ):
        load(TABLE + bad, specification_uri=given)


def test_duplicate_header_names(load: Load) -> None:
    with pytest.raises(InputError, match="the header has 'job' more than once"):
        load("job,job,label\n" + ROWS)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_encodings_are_found(read: Read, encoding: str) -> None:
    accented = "é“" if encoding == "cp1252" else "é"
    rows = read(TABLE.replace(",a,", f",{accented},").encode(encoding))
    assert {job for _, job, _ in rows} == {accented, "b"}
    assert len(rows) == 60


def test_wrong_encoding_names_the_right_one(load: Load) -> None:
    with pytest.raises(InputError, match="is not UTF-8; it looks like ISO-8859-1: give --encoding=ISO-8859-1"):
        load(TABLE.replace(",a,", ",é,").encode("latin-1"), encoding="UTF-8")


@pytest.mark.parametrize("in_quotes", [False, True])
def test_crlf(read: Read, in_quotes: bool) -> None:
    text = TABLE.replace(",a,", ',"a\r\nz",') if in_quotes else TABLE
    rows = read(
        "\r\n".join(text.split("\n")) if not in_quotes else text.replace("no\n", "no\r\n").replace("yes\n", "yes\r\n")
    )
    assert len(rows) == 60
    assert {label for *_, label in rows} == {"yes", "no"}


def test_quoted_newlines_delimiters_and_quotes(read: Read) -> None:
    rows = read(TABLE.replace(",a,", ',"a, ""x""\nz",'))
    assert len(rows) == 60
    assert {job for _, job, _ in rows} == {'a, "x"\nz', "b"}


def test_a_stray_quote_costs_one_row_and_not_the_rest_of_the_file(load: Load) -> None:
    result, _ = load(TABLE.replace("\n5,b,no", '\n5,"b,no'), max_rejected_fraction=0.1)
    assert result.rows_out == {"rows": 59, "rejected": 1}


def test_wrong_delimiter_says_which_fits(load: Load) -> None:
    with pytest.raises(InputError, match=r"delimiter ';' gives one column, ',' gives 3: give --delimiter=','"):
        load(TABLE, delimiter=";")


def test_when_every_row_is_rejected_a_larger_fraction_is_no_advice(load: Load, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"60 of 60 rows rejected.*; mend the data or the specification$"):
        load(TABLE, specification_uri=specification(tmp_path, numeric=["job"]))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiters_are_found(read: Read, delimiter: str) -> None:
    assert len(read(TABLE.replace(",", delimiter))) == 60


def test_rows_too_short_and_too_long_are_kept_apart(load: Load, spark: Any) -> None:
    result, out = load(TABLE + "1,a\n1,a,no,more\n", max_rejected_fraction=0.05)
    assert result.rows_out == {"rows": 60, "rejected": 2}
    assert {row["line"] for row in spark.read.parquet(str(out / "rejected")).collect()} == {"1,a", "1,a,no,more"}
    assert any("2 of 62 rows were rejected" in warning for warning in result.warnings)


def test_a_column_of_nulls_is_dropped_and_told(load: Load) -> None:
    result, _ = load("empty," + "x,job,label\n" + "".join("," + line + "\n" for line in ROWS.splitlines()))
    assert any("column 'empty' has no value in any row; it is dropped" in warning for warning in result.warnings)


def test_a_column_of_nulls_that_the_specification_names(load: Load, tmp_path: Path) -> None:
    given = specification(tmp_path, numeric=["empty"], categorical=["job"])
    with pytest.raises(InputError, match=r"column 'empty' has no value in any row; list it under columns\.dropped"):
        load(
            "empty,job,label\n" + "".join(f",a,{'no' if i % 3 else 'yes'}\n" for i in range(30)),
            specification_uri=given,
        )


def test_inf_is_rejected_and_nan_is_missing(load: Load, spark: Any) -> None:
    result, out = load(TABLE + "inf,a,no\n-Infinity,a,no\nNaN,a,no\n", max_rejected_fraction=0.05)
    assert result.rows_out == {"rows": 61, "rejected": 2}
    assert sum(row["age"] is None for row in rows_of(spark, out)) == 1


def test_one_category_with_40_000_values(run_steps: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "id,x,label\n" + "".join(f"k{i},{i % 9},{'no' if i % 7 else 'yes'}\n" for i in range(40_000))
    )
    given = specification(tmp_path, numeric=["x"], categorical=["id"])
    with pytest.raises(
        InputError, match=r"--max-categories=100: 'id' \([\d,]+\); in the specification list identifiers"
    ):
        run_steps(tmp_path / "run", data_uri=tmp_path / "t.csv", specification_uri=given)


def test_paths_with_spaces_brackets_and_percent(run_step: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "my data [1] 50%20 {x}"
    folder.mkdir()
    (folder / "b *.csv").write_text(TABLE)
    load = run_step("load", data_uri=folder / "b *.csv", label="label", output_uri=folder / "out")
    assert load.rows_out["rows"] == 60
    assert run_step("preprocess", load_uri=folder / "out", output_uri=folder / "pre").rows_in == 60


def test_gzip_directory_and_glob(read: Read, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.csv", "b.csv"):
        (data / name).write_text(TABLE)
    (data / "c.csv.gz").write_bytes(gzip.compress(TABLE.encode()))
    assert len(read(path="data")) == 180
    assert len(read(path="data/*.csv")) == 120


def test_damaged_gzip(load: Load) -> None:
    with pytest.raises(InputError, match="damaged gzip file"):
        load(b"\x1f\x8b but not gzip", name="t.csv.gz")


def test_files_whose_columns_stand_in_another_order_are_read_by_name(
    run_step: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(TABLE)
    turned = [f"{job},{label},{age}" for age, job, label in (line.split(",") for line in TABLE.splitlines())]
    (tmp_path / "b.csv").write_text("\n".join([*turned, "a,yes"]) + "\n")
    result = run_step("load", data_uri=tmp_path, label="label", max_rejected_fraction=0.1, output_uri=tmp_path / "o")
    assert result.rows_out == {"rows": 120, "rejected": 1}
    rows = [(row["age"], row["job"], row["label"]) for row in rows_of(spark, tmp_path / "o")]
    assert {rows.count(row) for row in rows} == {2}
    assert sorted(rows)[0] == (0.0, "a", "yes")
    rejected = spark.read.parquet(str(tmp_path / "o/rejected")).collect()
    assert [(Path(row["file"]).name, row["line"]) for row in rejected] == [("b.csv", "a,yes")]


def test_unknown_column_in_the_specification_names_the_nearest(load: Load, tmp_path: Path) -> None:
    given = specification(tmp_path, numeric=["agee"], categorical=["job"])
    with pytest.raises(InputError, match="no column 'agee'; did you mean 'age'"):
        load(TABLE, specification_uri=given)


def test_rows_outside_the_limits_are_rejected(load: Load, tmp_path: Path) -> None:
    given = specification(tmp_path, numeric=["age"], categorical=["job"])
    given.write_text(given.read_text() + "\n[limits]\nage = [0, 40]\n")
    result, _ = load(TABLE, specification_uri=given, max_rejected_fraction=0.5)
    assert result.rows_out == {"rows": 41, "rejected": 19}


def test_positive_value_that_is_not_there(load: Load) -> None:
    with pytest.raises(InputError, match="label 'label' has no value 'Yes'; did you mean 'yes'"):
        load(TABLE, positive="Yes")


def test_parquet_is_loaded_too(run_step: Callable[..., Any], spark: Any, tmp_path: Path) -> None:
    spark.createDataFrame(
        [(i, i % 2 == 0, "ab"[i % 2], float("nan") if i == 3 else i / 2, i % 3) for i in range(60)],
        "n int, flag boolean, job string, x double, label int",
    ).write.parquet(str(tmp_path / "t.parquet"))
    result = run_step("load", data_uri=tmp_path / "t.parquet", label="label", output_uri=tmp_path / "o")
    assert result.columns == (
        ("n", "double"),
        ("flag", "string"),
        ("job", "string"),
        ("x", "double"),
        ("label", "string"),
    )
    assert result.rows_out["rows"] == 60


def test_distinct_values_are_those_of_the_table_whether_csv_or_parquet(
    run_step: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    """An estimate of 1.6 % standard error would be off for one of these, and above the rows for some."""
    rows = [
        (i, i * 37 % 901 / 4, f"c{i * 13 % 1201}" if i % 5 else None, "no" if i % 3 else "yes") for i in range(2400)
    ]
    spark.createDataFrame(rows, "n int, x double, job string, label string").write.parquet(str(tmp_path / "parquet"))
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    (tmp_path / "csv").write_text("n,x,job,label\n" + "\n".join(lines) + "\n")
    found = {}
    for kind in ("csv", "parquet"):
        specification_uri = specification(tmp_path, numeric=["n", "x"], categorical=["job"])
        run_step("load", data_uri=tmp_path / kind, specification_uri=specification_uri, output_uri=tmp_path / "o")
        columns = json.loads((tmp_path / "o/profile.json").read_text())["columns"]
        found[kind] = {column["name"]: (column["distinct"], column["missing"]) for column in columns}
    expected = {
        name: (len({row[place] for row in rows} - {None}), 480 if name == "job" else 0)
        for place, name in enumerate(("n", "x", "job", "label"))
    }
    assert found == {"csv": expected, "parquet": expected}


@pytest.mark.parametrize(("label", "numeric"), [("s", ["n"]), ("label", ["n", "s"])])
def test_a_nested_label_or_feature_is_told(
    run_step: Callable[..., Any], spark: Any, tmp_path: Path, label: str, numeric: list[str]
) -> None:
    rows = [(i, (i, "a"), "ab"[i % 2]) for i in range(20)]
    spark.createDataFrame(rows, "n int, s struct<x: int, y: string>, label string").write.parquet(str(tmp_path / "t"))
    given = specification(tmp_path, numeric=numeric)
    with pytest.raises(InputError, match=r"column 's' is nested \(struct<x:int,y:string>\); give its fields columns"):
        run_step("load", data_uri=tmp_path / "t", specification_uri=given, label=label, output_uri=tmp_path / "o")


def test_a_nested_column_is_dropped_and_shown_with_its_type(
    run_step: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    rows = [(i, (i, "a"), "ab"[i % 2]) for i in range(40)]
    spark.createDataFrame(rows, "n int, s struct<x: int, y: string>, label string").write.parquet(str(tmp_path / "t"))
    result = run_step("load", data_uri=tmp_path / "t", label="label", output_uri=tmp_path / "o")
    (told,) = [warning for warning in result.warnings if "'s'" in warning]
    assert told.endswith("it is dropped. To use it, give its fields columns of their own")
    columns = {item["name"]: item for item in json.loads((tmp_path / "o/profile.json").read_text())["columns"]}
    assert (columns["s"]["type"], columns["s"]["missing"], columns["s"]["distinct"]) == (
        "struct<x:int,y:string>",
        None,
        None,
    )


def test_a_nested_label_without_a_specification_is_told(
    run_step: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    rows = [(i, (i, "a")) for i in range(20)]
    spark.createDataFrame(rows, "n int, s struct<x: int, y: string>").write.parquet(str(tmp_path / "t"))
    with pytest.raises(InputError, match="column 's' is nested"):
        run_step("load", data_uri=tmp_path / "t", label="s", output_uri=tmp_path / "o")


@pytest.mark.parametrize(("whole", "cut_at"), [(0, 0.5), (1, 0.5), (0, 0.99)])
def test_a_parquet_file_that_was_cut_off_is_told_by_its_name(
    spark: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], whole: int, cut_at: float
) -> None:
    table = spark.range(300).selectExpr("id AS n", "if(id % 3 = 0, 'yes', 'no') AS label")
    table.coalesce(1).write.parquet(str(tmp_path / "written"))
    content = next((tmp_path / "written").glob("*.parquet")).read_bytes()
    data, out = tmp_path / "a table", tmp_path / "out"
    data.mkdir()
    for number in range(whole):
        (data / f"{number}.parquet").write_bytes(content)
    (data / "cut.parquet").write_bytes(content[: int(len(content) * cut_at)])
    words = ["load", f"--data-uri={data}", "--label=label", f"--output-uri={out}"]
    assert run_words(words, spark) == EXIT_INPUT
    said = f"{data}/cut.parquet: Spark cannot read it; it is damaged or was cut off: write it again"
    assert capfd.readouterr().err.splitlines()[-1] == f"spark-kfp: error: {said}"
    failure = Result.from_json((out / "result.json").read_text()).failure
    assert failure is not None
    assert (failure.kind, failure.message, failure.frames) == ("input", said, ())
