"""Files that are no table, or that Spark cannot read: told before Spark starts, in one sentence."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from spark_jobs import storage
from spark_jobs.contract import LoadArgs
from spark_jobs.dialect import Dialect, find_dialect
from spark_jobs.errors import InputError
from spark_jobs.failure_reasons import describe_failure


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("t.csv", "a,label\n1,yes\n")
    return content.getvalue()


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (zipped(), "is a zip archive or an Excel workbook"),
        (b"\x1f\x8b\x08\x00abc", r"is packed by gzip; end its name in \.gz"),
        (b"ORC\x00\x01\x02", "is an ORC file"),
        (b'{"age": 1, "label": "yes"}\n{"age": 2, "label": "no"}\n', "holds JSON"),
        (b'[\n  {"age": 1},\n  {"age": 2}\n]\n', "holds JSON"),
        (b'[{"age": 1}, {"age": 2}]', "holds JSON"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in, please</body></html>\n", "is an HTML page"),
        (b'<HTML lang="en">\n<table><tr><td>1,2</td></tr></table>\n', "is an HTML page"),
    ],
)
def test_a_file_of_another_format_is_named(head: bytes, what: str) -> None:
    with pytest.raises(InputError, match=rf"^t\.csv {what}"):
        find_dialect(head, "t.csv", whole=True, given={}, label="label")


@pytest.mark.parametrize("header", ["ORC,label", "BZh,label", "[a],label", "{x},label", "<html5>,label"])
def test_a_header_that_looks_like_another_format_is_a_header(header: str) -> None:
    found = find_dialect(f"{header}\n1,yes\n2,no\n".encode(), "t.csv", whole=True, given={}, label="label")
    assert found.names == tuple(header.split(","))


ROWS = "".join(f"{age};b;{'yes' if age % 2 else 'no'}\n" for age in range(9))


def dialect(text: str, label: str = "label", **given: str) -> Dialect:
    return find_dialect(text.encode(), "t.csv", whole=True, given=given, label=label)


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;\r"])
def test_excels_note_on_the_delimiter_is_to_be_removed(line: str) -> None:
    with pytest.raises(InputError, match=r"^t\.csv: line 1 is .*, Excel's note.*; remove it and give --delimiter=';'"):
        dialect(f"{line}\nage;job;label\n{ROWS}")


@pytest.mark.parametrize(
    ("above", "said"),
    [
        ("# made by hand\n", "line 1, '# made by hand', .*; remove the first line"),
        ("# made by hand\n# on; Monday\n", "line 1, '# made by hand', .*; remove the first 2 lines"),
        ("Customers of 2026\n", "line 1, 'Customers of 2026', .*; remove the first line"),
        ("Customers of 2026;;\n;;\n", "line 1, 'Customers of 2026', .*; remove the first 2 lines"),
        ('\n"Customers\nof 2026"\n\n', r"line 3, 'Customers\\nof 2026', .*; remove the first 3 lines"),
        ("2026\n", "line 1, '2026', .*; remove the first line"),
    ],
)
@pytest.mark.parametrize("header", ["age;job;label\n", ""])
def test_lines_above_the_table_are_to_be_removed(above: str, said: str, header: str) -> None:
    with pytest.raises(InputError, match=rf"^t\.csv: {said}, so that the table comes first"):
        dialect(above + header + ROWS)


@pytest.mark.parametrize(
    "first", ["#age;job;label", ";;label", "\nage;job;label", "age;job;#", "age;label", ";label", "1;;", "#1;2;3"]
)
def test_a_first_row_that_is_as_wide_as_the_table_or_has_names_is_no_title(first: str) -> None:
    names = dialect(f"{first}\n{ROWS}").names
    assert len(names) == first.count(";") + 1


def test_a_column_of_texts_below_its_name_has_no_title() -> None:
    assert dialect("note\nnice, really\ngood\nbad\n").names == ("note",)


def test_a_fifo_is_told_as_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t\.csv is a FIFO and no file"):
        storage.data_files(str(tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("_under.csv", "names begin with '_'; rename it"),
        (".hidden.csv", r"names begin with '\.'; rename it"),
        ("co:lon.csv", "name has a colon; rename it"),
    ],
)
def test_a_name_that_spark_does_not_read_is_refused(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / name).write_text("a,label\n1,yes\n2,no\n")
    with pytest.raises(InputError, match=why):
        storage.data_files(str(tmp_path / name))


def test_a_delimiter_of_two_characters_says_what_is_allowed() -> None:
    with pytest.raises(InputError, match="--delimiter is 'ab'; allowed: one character, such as ';'"):
        LoadArgs(data_uri="t.csv", output_uri="o", delimiter="ab")


def test_a_full_disk_is_told_without_the_classes_of_java() -> None:
    text = (
        "An error occurred in o1.\n: org.apache.hadoop.fs.FSError: java.io.IOException: No space left on device\n\tat x"
    )
    message = describe_failure(RuntimeError(text), "train", [Path("/out"), Path("/tmp")]).message
    assert (
        message
        == "step train: No space left on device: the disk of /out or /tmp is full; free some space, then run again"
    )


def test_of_two_disks_the_full_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    free = {tmp_path: 10**12, Path("/tmp"): 4096}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free[path]))
    message = describe_failure(
        OSError(28, "No space left on device"), "load", [tmp_path / "not/made", Path("/tmp")]
    ).message
    assert "the disk of /tmp is full" in message
