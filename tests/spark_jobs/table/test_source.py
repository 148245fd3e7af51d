"""How the layout of many files is found: with the head of one file in memory, and four bytes of a Parquet file."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spark_jobs import storage
from spark_jobs.contract import LoadArgs
from spark_jobs.errors import InputError
from spark_jobs.table import source
from spark_jobs.table.source import find_layout, open_source

if TYPE_CHECKING:
    from fake_s3 import FakeS3

ARGS = LoadArgs(data_uri="", output_uri="")
HEAD = 1 << 18


@pytest.fixture
def parquet(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Spark would be told to read as Parquet."""
    told: list[str] = []
    monkeypatch.setattr(source, "_parquet", lambda _, files: told.extend(files))
    return told


def write(folder: Path, *contents: str | bytes) -> list[str]:
    """Numbered files."""
    for number, content in enumerate(contents):
        (folder / f"{number:03d}.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return sorted(map(str, folder.iterdir()))


def peak_bytes(files: list[str]) -> int:
    tracemalloc.start()
    find_layout(files, ARGS, "y")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_many_files_take_no_more_memory_than_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "HEAD_BYTES", HEAD)
    rows = f"x,y\n{'a' * 100_000},no\n"
    files = write(tmp_path, *[rows * 2] * 60)  # short enough to be read whole
    assert peak_bytes(files) < peak_bytes(files[:2]) + HEAD


def test_of_parquet_files_in_a_store_four_bytes_are_asked_for(door: FakeS3, parquet: list[str]) -> None:
    names = [f"t/{number:03d}.parquet" for number in range(60)]
    door.objects = {name: b"PAR1" + bytes(100_000) for name in names}
    args = LoadArgs(data_uri="s3://kfp/t", output_uri="")
    door.sent = 0
    storage.data_files("s3://kfp/t")
    listing, door.sent = door.sent, 0
    open_source(None, args, "")  # type: ignore[arg-type] - Spark is not asked here
    assert parquet == [f"s3://kfp/{name}" for name in names]
    assert door.sent <= listing + 4 * len(names)


def test_of_an_object_no_more_than_its_head_is_asked_for(door: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "HEAD_BYTES", 1000)
    door.objects = {
        "a.csv": b"x" * 10**6,
        "b.csv": b"x" * 1000,
        "empty.csv": b"",
        "c.csv.gz": gzip.compress(b"y" * 5000),
    }
    assert storage.read_head("s3://kfp/a.csv") == (b"x" * 1000, False)
    assert door.sent == 1001
    assert storage.read_head("s3://kfp/b.csv") == (b"x" * 1000, True)
    assert storage.read_head("s3://kfp/empty.csv") == (b"", True)
    assert storage.read_head("s3://kfp/c.csv.gz") == (b"y" * 1000, False)


@pytest.mark.parametrize("contents", [(b"PAR1", b"x,y\n1,2\n"), (b"x,y\n1,2\n", b"PAR1"), (b"", b"PAR1")])
def test_parquet_beside_csv_is_told_by_the_file(tmp_path: Path, contents: tuple[bytes, ...]) -> None:
    write(tmp_path, *contents)
    args = LoadArgs(data_uri=str(tmp_path), output_uri="")
    with pytest.raises(
        InputError, match=r"001\.csv is (no|a) Parquet file, and .*000\.csv is (one|none); load them apart"
    ):
        open_source(None, args, "")  # type: ignore[arg-type] - Spark is not asked here


def layout_of(folder: Path, *contents: str | bytes, **given: Any) -> source.Layout:
    return find_layout(write(folder, *contents), LoadArgs(data_uri="", output_uri="", **given), "y")


def test_files_without_content_are_left_out_and_only_such_are_told(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, "", "x,y\n1,2\n", " \n", "x,y\n3,4\n")
    assert [Path(file).name for file in layout.files["x", "y"]] == ["001.csv", "003.csv"]
    with pytest.raises(InputError, match=r"000\.csv is empty"):
        layout_of(tmp_path, "", "\n", "", "")


def test_a_file_that_is_laid_out_otherwise_is_told_wherever_it_stands(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"003\.csv is laid out unlike .*000\.csv: delimiter ';' against ','; load them apart"
    ):
        layout_of(tmp_path, "x,y\n1,2\n", "x,y\n1,2\n", "", "x;y\n1;2\n", "x,y\n1,2\n")


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ("x,z,y\n1,3,2\n", "only here 'z'; load"),
        ("y\n2\n", "only there 'x'; load"),
        ("y,z\n2,3\n", "only here 'z', only there 'x'; load"),
        ("1,2\n3,4\n", "no header against one, only here '_c0', '_c1', only there 'x', 'y'; load"),
        ("x,y\n1,\xe9\n".encode("latin-1"), "encoding 'ISO-8859-1' against 'UTF-8'; load"),
    ],
)
def test_what_is_laid_out_otherwise_is_told_in_words(tmp_path: Path, second: str | bytes, told: str) -> None:
    with pytest.raises(InputError, match=rf"001\.csv is laid out unlike .*000\.csv: {told}"):
        layout_of(tmp_path, "x,y\n1,2\n", second)


def test_files_that_differ_in_the_order_of_their_columns_only_are_one_table(tmp_path: Path) -> None:
    layout = layout_of(tmp_path, "x,y\n1,2\n", "y,x\n2,1\n", "x,y\n3,4\n")
    assert layout.dialect.names == ("x", "y")
    named = {names: [Path(file).name for file in files] for names, files in layout.files.items()}
    assert named == {("x", "y"): ["000.csv", "002.csv"], ("y", "x"): ["001.csv"]}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_open_quote_in_any_file_is_seen(tmp_path: Path, place: int) -> None:
    contents = ["x,y\n1,2\n"] * 3
    assert layout_of(tmp_path, *contents).open_quotes is False
    contents[place] = 'x,y\n"a\nb",2\n'
    assert layout_of(tmp_path, *contents).open_quotes is True


def test_open_quotes_at_the_end_of_one_file_and_the_start_of_the_next_do_not_close_each_other(tmp_path: Path) -> None:
    assert layout_of(tmp_path, 'x,y\n1,"2', 'x,y"\n1,2\n', header="no").open_quotes is True


def test_where_a_file_is_longer_than_its_head_spark_must_look_for_open_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEAD_BYTES", 100)
    long = "x,y\n" + "1,2\n" * 100
    assert layout_of(tmp_path, "x,y\n1,2\n", long, "x,y\n1,2\n").open_quotes is None
    assert layout_of(tmp_path, 'x,y\n"a\nb",2\n', long, "x,y\n1,2\n").open_quotes is True
