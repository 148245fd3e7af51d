"""Detects the dialect of a CSV file (encoding, delimiter, quote character, header) from the first bytes of the file.

It needs only the standard library, because the command line checks a local file before it starts Spark; load checks every file of a table.
A file that is not CSV is refused with an error that says which format it is and how to convert it.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from spark_jobs.cells import is_number
from spark_jobs.dataset import did_you_mean
from spark_jobs.errors import InputError

DELIMITERS = (",", ";", "\t", "|")
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".gz")
"""Suffixes of the files that are read as CSV if the data is a directory."""
PARQUET_MAGIC = b"PAR1"
"""The first bytes of every Parquet file."""
HEAD_BYTES = 4 << 20
"""Number of bytes at the start of a file that dialect detection reads: 4 MiB."""
HEADER_BYTES = 400
"""Number of bytes at the start of a file in which a zero byte means that the file is not text."""
NOT_TEXT = "is not text; give a CSV file, or Parquet in a file whose name ends in .parquet"
OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook (.xlsx); unpack it, or export the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls); export the sheet as CSV",
    b"\x1f\x8b": "packed by gzip; end its name in .gz",
    b"BZh": "packed by bzip2; unpack it",
    b"\xfd7zXZ": "packed by xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it",
    b"ORC": "an ORC file; write it as Parquet",
    b"Obj\x01": "an Avro file; write it as Parquet",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    b"%PDF": "a PDF document; give the table as CSV",
}
"""Formats that load does not read, by the first bytes of the file: the name of the format and what the user should do."""
MAX_COLUMNS = 5_000
"""Maximum number of columns of a table. Spark's plans hold each column several times: with this many, load needs about two minutes of CPU
time for a thousand rows."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """The dialect of a CSV file.

    Attributes:
        encoding: a character set, by a name that both Java and Python know.
        delimiter: one character.
        quote: one character; inside quotes, two of them stand for one.
        header: whether the first row holds the column names.
        names: the column names.
    """

    encoding: str
    delimiter: str
    quote: str
    header: bool
    names: tuple[str, ...]


def describe_differences(one: Dialect, other: Dialect) -> str:
    """Describes how two dialects differ, for an error message; empty if they are equal or differ only in the order of the columns."""
    differences = [
        f"{name} {getattr(one, name)!r} against {getattr(other, name)!r}"
        for name in ("encoding", "delimiter", "quote")
        if getattr(one, name) != getattr(other, name)
    ]
    if one.header != other.header:
        differences.append("no header against one" if other.header else "a header against none")
    for names, where in (
        (set(one.names) - set(other.names), "only here"),
        (set(other.names) - set(one.names), "only there"),
    ):
        if names:
            listed = ", ".join(map(repr, sorted(names)[:5]))
            differences.append(
                f"{len(names):,} columns {where}, such as {listed}" if len(names) > 5 else f"{where} {listed}"
            )
    return ", ".join(differences)


def check_format(head: bytes, where: str) -> None:
    """Refuses a file in a format that load does not read, such as Excel, JSON or HTML.

    Raises:
        InputError: the first bytes are those of such a format.
    """
    for start, kind in OTHER_FORMATS.items():
        # A CSV header may begin with the letters of such a format, as in "ORCHARD"; a binary file also holds a zero byte.
        if head.startswith(start) and (not start.isalpha() or 0 in head[:HEADER_BYTES]):
            raise InputError(f"{where} is {kind}")
    first = head.lstrip(b"\xef\xbb\xbf \t\r\n").split(b"\n", 1)[0].strip()
    if first in (b"[", b"{", b"[{") or _is_json(first):
        raise InputError(f"{where} holds JSON; write it as CSV or Parquet")
    if re.match(rb"<(!doctype\s+html|html)[\s>]", first, re.IGNORECASE):
        raise InputError(f"{where} is an HTML page, not the table itself; open it in a browser to see what it says")


def _is_json(line: bytes) -> bool:
    if not line.startswith((b"{", b"[{")):
        return False
    try:
        json.loads(line.rstrip(b","))
    except ValueError:
        return False
    return True


def check_width(names: Sequence[str], where: str) -> None:
    """Refuses a table with so many columns that planning its queries would take Spark hours.

    Raises:
        InputError: the table has more than `MAX_COLUMNS` columns.
    """
    if len(names) > MAX_COLUMNS:
        raise InputError(
            f"{where} has {len(names):,} columns, at most {MAX_COLUMNS:,} are supported; keep those that matter, or give --delimiter if "
            "they are none"
        )


def check_order_by(order_by: str, columns: Sequence[str]) -> None:
    """Refuses an unknown column in `--order-by`. An empty name means the order of the file and is accepted.

    Raises:
        InputError: the table has no column of this name.
    """
    if order_by and order_by not in columns:
        raise InputError(f"--order-by names no column {order_by!r}{did_you_mean(order_by, columns)}")


def find_dialect(head: bytes, where: str, *, whole: bool, given: Mapping[str, str], label: str) -> Dialect:
    """Detects the dialect of a CSV file from its first bytes.

    Args:
        head: the first bytes of the file.
        where: the file name for error messages.
        whole: whether `head` is the whole file.
        given: the settings `encoding`, `delimiter`, `quote` and `header`; an empty or missing one is detected.
        label: the name of the label column, if known; a first row that contains it is the header.

    Raises:
        InputError: the file is empty, cannot be decoded, does not begin with the table, or its header is unusable.
    """
    if not head.strip():
        raise InputError(f"{where} is empty; give a file with a header and rows")
    check_format(head, where)
    encoding = given.get("encoding") or _find_encoding(head)
    text = _decode(head, encoding, where, whole=whole)
    if not whole and "\n" in text:
        text = text[: text.rindex("\n") + 1]
    if "\0" in text[:HEADER_BYTES]:
        raise InputError(f"{where} {NOT_TEXT}")
    _check_no_separator_line(text, where)
    quote = given.get("quote") or '"'
    delimiter = _delimiter(text, quote, given.get("delimiter", ""), where)
    records = _records(text, delimiter, quote)
    if not records:
        raise InputError(f"{where} has no rows; give a file with a header and rows")
    _check_no_title(_numbered_records(text, delimiter, quote), _score(records)[1], label, where)
    first = [cell.strip() for cell in records[0]]
    header_setting = given.get("header", "auto")
    header = header_setting == "yes" or (
        header_setting == "auto" and (label in first or not any(map(is_number, first)))
    )
    names = _column_names(first, where) if header else tuple(map(default_column_name, range(len(first))))
    check_width(names, where)
    if header and whole and len(records) == 1:
        raise InputError(f"{where} has a header but no rows")
    return Dialect(encoding=encoding, delimiter=delimiter, quote=quote, header=header, names=names)


def _find_encoding(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    if head[:HEADER_BYTES].count(0) > len(head[:HEADER_BYTES]) // 4:
        return "UTF-16LE" if head[1:2] == b"\0" else "UTF-16BE"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # not final: the last character may be cut in two
    except UnicodeDecodeError:
        return "windows-1252" if any(0x80 <= byte <= 0x9F for byte in head) else "ISO-8859-1"
    return "UTF-8"


def _decode(head: bytes, encoding: str, where: str, *, whole: bool) -> str:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head, final=whole).lstrip("\ufeff")
    except LookupError as error:
        raise InputError(f"{where}: unknown encoding {encoding!r}; try UTF-8 or ISO-8859-1") from error
    except UnicodeDecodeError as error:
        found = _find_encoding(head)
        if found == encoding:
            raise InputError(f"{where} {NOT_TEXT}") from error
        raise InputError(f"{where} is not {encoding}; it looks like {found}: give --encoding={found}") from error


def _delimiter(text: str, quote: str, given: str, where: str) -> str:
    scores = {delimiter: _score(_records(text, delimiter, quote)) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: scores[delimiter])
    width = scores[best][1]
    if not given:
        return best if width > 1 else ","
    if len(_records(text, given, quote)[0]) == 1 < width and given != best:
        raise InputError(
            f"{where}: delimiter {given!r} gives one column, {best!r} gives {width}: give --delimiter={best!r}"
        )
    return given


def _score(records: Sequence[Sequence[str]]) -> tuple[float, int]:
    """Rates a delimiter: the share of rows that have the most frequent number of columns, and that number; one column rates lowest."""
    if not records:
        return 0.0, 0
    width, count = Counter(map(len, records)).most_common(1)[0]
    return (count / len(records), width) if width > 1 else (0.0, 1)


def _records(text: str, delimiter: str, quote: str, limit: int = 200) -> list[list[str]]:
    return [record for _, record in itertools.islice(_numbered_records(text, delimiter, quote), limit)]


def _numbered_records(text: str, delimiter: str, quote: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the records that are not empty, each with the line number on which it ends."""
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, quotechar=quote)
    with suppress(csv.Error):  # raised for a field above the reader's size limit; the records before it are enough
        for record in reader:
            if record:
                yield reader.line_num, record


def _check_no_separator_line(text: str, where: str) -> None:
    """Refuses a first line such as `sep=;`. It tells Excel the delimiter, but Spark would read it as the header."""
    line = text.partition("\n")[0].strip(" \r")
    note = re.fullmatch('"?sep=(.)"?', line, re.IGNORECASE)
    if note:
        raise InputError(
            f"{where}: line 1 is {line!r}, Excel's note on the delimiter; remove it and give --delimiter={note[1]!r}"
        )


def _check_no_title(records: Iterable[tuple[int, Sequence[str]]], width: int, label: str, where: str) -> None:
    """Refuses titles and comments above the table, because Spark would read the first one as the header.

    Args:
        records: each record with the line number on which it ends.
        width: the number of columns that most records have.
        label: the name of the label column, if known.
        where: the file name for error messages.

    Raises:
        InputError: the first record is a title or a comment.
    """
    above = list(itertools.takewhile(lambda item: _is_title(item[1], width, label), records))
    if above:
        line, record = above[0]
        title = next((cell.strip() for cell in record if cell.strip()), "")
        lines = "line" if above[-1][0] == 1 else f"{above[-1][0]} lines"
        raise InputError(
            f"{where}: line {line}, {title[:60]!r}, is a title or a comment; remove the first {lines}, so that the table comes first"
        )


def _is_title(record: Sequence[str], width: int, label: str) -> bool:
    """Returns whether a record is a comment, or has at most one filled cell where the other records have several."""
    cells = [cell.strip() for cell in record if cell.strip()]
    if width == 1 or label in cells:
        return False
    if len(record) != width:
        return len(cells) <= 1 or cells[0].startswith("#")
    return width > 2 and len(cells) <= 1 and not any(map(is_number, cells))


def default_column_name(index: int) -> str:
    """Returns the name of a column that the header does not name: Spark's own, so that a saved model works on tables read by Spark."""
    return f"_c{index}"


def _column_names(first: Sequence[str], where: str) -> tuple[str, ...]:
    names = tuple(name or default_column_name(index) for index, name in enumerate(first))
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{where}: the header has {repeated[0]!r} more than once; rename one of them")
    return names
