"""Files that are no table, or that Spark cannot read: told before Spark starts, in one sentence."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from spark_jobs import storage
from spark_jobs.__main__ import describe_failure
from spark_jobs.contract import LoadArgs
from spark_jobs.dataset import find_dialect
from spark_jobs.errors import InputError


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
    ],
)
def test_a_file_of_another_format_is_named(head: bytes, what: str) -> None:
    with pytest.raises(InputError, match=rf"^t\.csv {what}"):
        find_dialect(head, "t.csv", whole=True, given={}, label="label")


@pytest.mark.parametrize("header", ["ORC,label", "BZh,label", "[a],label", "{x},label"])
def test_a_header_that_looks_like_another_format_is_a_header(header: str) -> None:
    found = find_dialect(f"{header}\n1,yes\n2,no\n".encode(), "t.csv", whole=True, given={}, label="label")
    assert found.names == tuple(header.split(","))


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
    assert describe_failure(RuntimeError(text)).message == (
        "No space left on device: the disk is full; free some space, then run again"
    )
