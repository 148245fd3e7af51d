"""How the text of a CSV file is laid out: encoding, delimiter, quote, header; found from the first bytes of the file.

Standard library only: the command line looks at a local file before anything starts, and load looks at every file of a table. A file that
is no CSV is refused here, with what it is and what to do with it.
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
from spark_jobs.dataset import nearest
from spark_jobs.errors import InputError

DELIMITERS = (",", ";", "\t", "|")
TEXT_SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".gz")
"""Endings of the names that mark the CSV files of a directory."""
PARQUET = b"PAR1"
"""The first bytes of every Parquet file."""
HEAD_BYTES = 4 << 20
"""Bytes of the beginning of a file from which its dialect is found: 4 MiB."""
HEADER_BYTES = 400
"""Bytes of the beginning of a file in which a zero byte means that it is no text."""
NOT_TEXT = "is not text; give a CSV file, or Parquet in a file whose name ends in .parquet"
FORMATS = {
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
"""What a file that is neither CSV nor Parquet is, by its first bytes, and what to do with it."""
MAX_COLUMNS = 5_000
"""Most columns of a table. Spark's plans hold each column several times: a thousand rows of this width take load two minutes of the
processors."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How the text of a CSV file is laid out.

    Attributes:
        encoding: a character set that Java and Python both know by this name.
        delimiter: one character.
        quote: one character; a doubled one stands for itself.
        header: whether the first row holds the names.
        names: the column names.
    """

    encoding: str
    delimiter: str
    quote: str
    header: bool
    names: tuple[str, ...]


def differences(one: Dialect, other: Dialect) -> str:
    """How two files are laid out unlike each other, in words; empty if they differ in the order of their columns at most."""
    found = [
        f"{name} {getattr(one, name)!r} against {getattr(other, name)!r}"
        for name in ("encoding", "delimiter", "quote")
        if getattr(one, name) != getattr(other, name)
    ]
    if one.header != other.header:
        found.append("no header against one" if other.header else "a header against none")
    for names, where in (
        (set(one.names) - set(other.names), "only here"),
        (set(other.names) - set(one.names), "only there"),
    ):
        if names:
            listed = ", ".join(map(repr, sorted(names)[:5]))
            found.append(f"{len(names):,} columns {where}, such as {listed}" if len(names) > 5 else f"{where} {listed}")
    return ", ".join(found)


def check_format(head: bytes, where: str) -> None:
    """Refuses a file that is something else than text.

    Raises:
        InputError: it is of a known other format.
    """
    for start, kind in FORMATS.items():
        # Letters alone may well begin a header.
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
    """Refuses a table that Spark would plan for hours.

    Raises:
        InputError: it has more than `MAX_COLUMNS` columns.
    """
    if len(names) > MAX_COLUMNS:
        raise InputError(
            f"{where} has {len(names):,} columns, at most {MAX_COLUMNS:,} are supported; keep those that matter, or give --delimiter if "
            "they are none"
        )


def check_order_by(order_by: str, columns: Sequence[str]) -> None:
    """Refuses to sort by a column that is not there.

    Raises:
        InputError: it is not among the columns; an empty name stands for the order of the file.
    """
    if order_by and order_by not in columns:
        raise InputError(f"--order-by names no column {order_by!r}{nearest(order_by, columns)}")


def find_dialect(head: bytes, where: str, *, whole: bool, given: Mapping[str, str], label: str) -> Dialect:
    """Finds the dialect from the first bytes of a file.

    Args:
        head: the first bytes.
        where: file name for messages.
        whole: whether `head` is all of the file.
        given: `encoding`, `delimiter`, `quote`, `header` as far as the caller knows them; empty means find it.
        label: the label column if known: a first row that holds it is the header.

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
    _check_excels_note(text, where)
    quote = given.get("quote") or '"'
    delimiter = _delimiter(text, quote, given.get("delimiter", ""), where)
    records = _records(text, delimiter, quote)
    if not records:
        raise InputError(f"{where} has no rows; give a file with a header and rows")
    _check_top(_numbered(text, delimiter, quote), _fit(records)[1], label, where)
    first = [cell.strip() for cell in records[0]]
    wanted = given.get("header", "auto")
    header = wanted == "yes" or (wanted == "auto" and (label in first or not any(map(is_number, first))))
    names = _column_names(first, where) if header else tuple(map(unnamed, range(len(first))))
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
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character that the head cuts in two is no error
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
    scores = {delimiter: _fit(_records(text, delimiter, quote)) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=lambda delimiter: scores[delimiter])
    width = scores[best][1]
    if not given:
        return best if width > 1 else ","
    if len(_records(text, given, quote)[0]) == 1 < width and given != best:
        raise InputError(
            f"{where}: delimiter {given!r} gives one column, {best!r} gives {width}: give --delimiter={best!r}"
        )
    return given


def _fit(records: Sequence[Sequence[str]]) -> tuple[float, int]:
    """How well a delimiter fits: share of rows with the commonest width, and that width; one column fits worst."""
    if not records:
        return 0.0, 0
    width, count = Counter(map(len, records)).most_common(1)[0]
    return (count / len(records), width) if width > 1 else (0.0, 1)


def _records(text: str, delimiter: str, quote: str, most: int = 200) -> list[list[str]]:
    return [record for _, record in itertools.islice(_numbered(text, delimiter, quote), most)]


def _numbered(text: str, delimiter: str, quote: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not empty, each with the number of its last line."""
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, quotechar=quote)
    with suppress(csv.Error):  # a field over the reader's size limit: what was read before it is enough
        for record in reader:
            if record:
                yield reader.line_num, record


def _check_excels_note(text: str, where: str) -> None:
    """Refuses `sep=;` as the first line: it tells Excel the delimiter, and Spark would take it for the header."""
    line = text.partition("\n")[0].strip(" \r")
    note = re.fullmatch('"?sep=(.)"?', line, re.IGNORECASE)
    if note:
        raise InputError(
            f"{where}: line 1 is {line!r}, Excel's note on the delimiter; remove it and give --delimiter={note[1]!r}"
        )


def _check_top(records: Iterable[tuple[int, Sequence[str]]], width: int, label: str, where: str) -> None:
    """Refuses titles and comments above the table: Spark would take the first of them for the header.

    Args:
        records: each with the number of its last line.
        width: of most records.
        label: the label column if known.
        where: file name for messages.
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
    """Whether a record has one cell at most where others have several, or is a comment."""
    cells = [cell.strip() for cell in record if cell.strip()]
    if width == 1 or label in cells:
        return False
    if len(record) != width:
        return len(cells) <= 1 or cells[0].startswith("#")
    return width > 2 and len(cells) <= 1 and not any(map(is_number, cells))


def unnamed(place: int) -> str:
    """The name of a column without one: the name that Spark gives it, so that a saved model finds it in what Spark reads."""
    return f"_c{place}"


def _column_names(first: Sequence[str], where: str) -> tuple[str, ...]:
    names = tuple(name or unnamed(place) for place, name in enumerate(first))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{where}: the header has {twice[0]!r} more than once; rename one of them")
    return names
