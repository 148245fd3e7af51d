"""The rows as they came: finds how a table is laid out and reads it without typing anything.

A CSV is read as text, so that whoever types it can say which cell of which row was wrong. Knows nothing of roles of columns.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DecimalType, FractionalType, LongType, StringType, StructField, StructType

from spark_jobs import storage
from spark_jobs.cells import BLANKS, INFINITE, MISSING_NUMBERS, NUMBER, whole
from spark_jobs.contract import LoadArgs
from spark_jobs.dataset import own_prefix
from spark_jobs.dialect import PARQUET, Dialect, check_width, differences, find_dialect
from spark_jobs.errors import InputError

POSITION: Mapping[str, DataType] = {"file": StringType(), "block": LongType(), "row": LongType()}
"""Columns that load adds, their names behind the table's own prefix: where a row stood, as file, block of the file and row in it."""
VISIBLE = "".join(map(chr, range(33, 127)))
"""The characters of ASCII that are no blanks."""


@dataclass(frozen=True)
class Source:
    """The rows as they came: every column of a CSV as text, of Parquet as it was typed; load's own columns beside them."""

    rows: DataFrame
    columns: tuple[str, ...]
    dialect: Dialect | None

    @property
    def prefix(self) -> str:
        """With it begin the names of load's own columns: no column of the table begins with it."""
        return own_prefix(self.columns)

    @functools.cached_property
    def types(self) -> Mapping[str, DataType]:
        """The columns' types, which a schema finds by going through all of its columns."""
        return {field.name: field.dataType for field in self.rows.schema}

    @functools.cached_property
    def nested(self) -> Mapping[str, str]:
        """The columns that hold something else than single values with a text, and their types."""
        kinds = {name: kind.simpleString() for name, kind in self.types.items()}
        return {
            name: kind for name, kind in kinds.items() if kind.split("<")[0] in ("array", "map", "struct", "binary")
        }

    @property
    def line(self) -> str:
        """The column with the text of a line that does not parse, else null."""
        return f"{self.prefix}line"

    @property
    def position(self) -> tuple[str, ...]:
        """The columns of `POSITION`."""
        return position_columns(self.prefix)


def position_columns(prefix: str) -> tuple[str, ...]:
    """The names of the columns of `POSITION` in a table with this prefix."""
    return tuple(prefix + name for name in POSITION)


def quoted(name: str) -> Column:
    """The column of exactly this name, whatever characters are in it."""
    return F.col(escaped(name))


def escaped(name: str) -> str:
    """A name as SQL takes it, whatever characters are in it."""
    return "`" + name.replace("`", "``") + "`"


def open_source(session: SparkSession, args: LoadArgs, label: str) -> Source:
    """Finds out how the data is laid out.

    Raises:
        InputError: there is no data, or its layout is unusable.
    """
    files = storage.data_files(args.data_uri)
    if _is_parquet(storage.read_start(files[0], len(PARQUET))):
        for path in files[1:]:
            if not _is_parquet(storage.read_start(path, len(PARQUET))):
                raise InputError(f"{path} is no Parquet file, and {files[0]} is one; load them apart")
        return _parquet(session, files)
    return _csv(session, find_layout(files, args, label))


def _is_parquet(head: bytes) -> bool:
    return head.startswith(PARQUET)


@dataclass(frozen=True)
class Layout:
    """How CSV files are laid out, all in one way but for the order of their columns.

    Attributes:
        files: those that hold something, by the order of their columns; the first one's order is the table's.
        dialect: of all of them, with the names in the first one's order.
        open_quotes: whether a line has an odd number of quotes; None if a file is too long to tell from its head.
    """

    files: Mapping[tuple[str, ...], Sequence[str]]
    dialect: Dialect
    open_quotes: bool | None


def find_layout(files: Sequence[str], args: LoadArgs, label: str) -> Layout:
    """Finds the layout of CSV files; holds the head of one file at a time, however many there are.

    Raises:
        InputError: none holds anything, one cannot be read, or they are not laid out in one way.
    """
    given = {name: getattr(args, name) for name in ("encoding", "delimiter", "quote", "header")}
    by_order: dict[tuple[str, ...], list[str]] = {}
    dialect: Dialect | None = None
    open_quotes: bool | None = False
    for path in files:
        head, whole = storage.read_head(path)
        if not head.strip():
            continue
        if _is_parquet(head):
            raise InputError(f"{path} is a Parquet file, and {files[0]} is none; load them apart")
        found = find_dialect(head, path, whole=whole, given=given, label=label)
        dialect = dialect or found
        by_order.setdefault(found.names, []).append(path)
        if unlike := differences(found, dialect):
            raise InputError(f"{path} is laid out unlike {by_order[dialect.names][0]}: {unlike}; load them apart")
        if not open_quotes:
            open_quotes = _odd_quotes(head, found.quote) if whole and open_quotes is not None else None
    if dialect is None:
        dialect = find_dialect(b"", files[0], whole=True, given=given, label=label)  # says that it is empty
    return Layout(by_order, dialect, open_quotes)


def _odd_quotes(content: bytes, quote: str) -> bool:
    """Whether a line of a whole file has an odd number of quotes."""
    return any(line.count(quote.encode()) % 2 for line in content.splitlines())


def _parquet(session: SparkSession, files: Sequence[str]) -> Source:
    table = session.read.parquet(*storage.spark_paths(files))
    check_width(table.columns, files[0])
    columns = tuple(table.columns)
    prefix = own_prefix(columns)
    rows = _with_position(table, prefix).withColumn(f"{prefix}line", F.lit(None).cast("string"))
    return Source(rows, columns, None)


def _csv(session: SparkSession, layout: Layout) -> Source:
    """Reads line by line, which any number of tasks can share; only if quotes stay open, by records that span lines."""
    dialect = layout.dialect
    if dialect.encoding.upper().startswith("UTF-16"):
        return Source(_read_all(session, layout, multi_line=True), dialect.names, dialect)
    lines = _read_all(session, layout, multi_line=False)
    if _has_open_quotes(session, layout):
        records = _read_all(session, layout, multi_line=True)
        # A stray quote swallows the lines after it: then the lines are the better reading.
        lines = records if _good(records, dialect) >= _good(lines, dialect) else lines
    return Source(lines, dialect.names, dialect)


def _has_open_quotes(session: SparkSession, layout: Layout) -> bool:
    """Whether a line has an odd number of quotes; Spark looks only if the heads of the files did not tell."""
    if layout.open_quotes is not None:
        return layout.open_quotes
    line = F.col("value")
    quotes = F.length(line) - F.length(F.replace(line, F.lit(layout.dialect.quote)))
    files = [path for paths in layout.files.values() for path in paths]
    found = session.read.text(storage.spark_paths(files)).agg(F.count_if(quotes % 2 == 1).alias("open")).first()
    return bool(found and found["open"])


def _good(rows: DataFrame, dialect: Dialect) -> int:
    """How many rows parse."""
    observation, line = Observation(), F.col(f"{own_prefix(dialect.names)}line")
    rows.observe(observation, F.count_if(line.isNull()).alias("good")).write.format("noop").mode("overwrite").save()
    return int(observation.get["good"])


def _read_all(session: SparkSession, layout: Layout, *, multi_line: bool) -> DataFrame:
    """Reads the files, each by the names of its own header."""
    tables = [
        _read_csv(session, files, replace(layout.dialect, names=names), multi_line=multi_line)
        for names, files in layout.files.items()
    ]
    return functools.reduce(DataFrame.unionByName, tables)


def _read_csv(session: SparkSession, files: Sequence[str], dialect: Dialect, *, multi_line: bool) -> DataFrame:
    prefix = own_prefix(dialect.names)
    line = f"{prefix}line"
    schema = StructType([StructField(name, StringType()) for name in (*dialect.names, line)])
    reader = session.read.option("columnPruning", False)  # a row is judged by all of its columns
    rows = reader.csv(
        storage.spark_paths(files),
        schema=schema,
        header=dialect.header,
        sep=dialect.delimiter,
        quote=dialect.quote,
        escape=dialect.quote,
        encoding=dialect.encoding,
        multiLine=multi_line,
        mode="PERMISSIVE",
        columnNameOfCorruptRecord=line,
        ignoreLeadingWhiteSpace=True,
        ignoreTrailingWhiteSpace=True,
        maxColumns=max(20480, len(dialect.names) + 1),
    )
    return _with_position(rows, prefix)


def _with_position(rows: DataFrame, prefix: str) -> DataFrame:
    place = rows.metadataColumn("_metadata")  # Spark's, also where the table has a column of this name
    # Inside one block the identifiers rise in the order of the rows.
    found = (place["file_path"], place["file_block_start"], F.monotonically_increasing_id())
    names = position_columns(prefix)
    return rows.select("*", *[column.alias(name) for column, name in zip(found, names, strict=True)])


def text_of(source: Source, name: str) -> Column:
    """A column as trimmed text, null where it is empty or holds something that is no single value."""
    return cell_text(raw_text(source, name))


def raw_text(source: Source, name: str) -> Column:
    """A column as text with what blanks it has, null where it holds something that is no single value."""
    if name in source.nested:
        return F.lit(None).cast("string")
    kind, column = source.types[name], quoted(name)
    if isinstance(kind, FractionalType) and not (isinstance(kind, DecimalType) and kind.scale == 0):
        double = column.cast("string").cast("double")  # a decimal's 1.50 is 1.5, and of a float 0.1 stays 0.1
        column = F.nanvl(double, F.lit(None).cast("double"))
    return column if isinstance(kind, StringType) else column.cast("string")


def cell_text(raw: Column) -> Column:
    """The text of a cell without `BLANKS` at its ends, null where nothing is left."""
    # Spark takes 200 ns to look for the 29 of them; nearly all cells begin and end with a visible ASCII character. Texts are compared
    # by their bytes, which copies nothing.
    visible = (raw >= "!") & (raw < "\x7f") & F.substring(raw, -1, 1).isin(*VISIBLE)
    return F.when(visible, raw).otherwise(F.nullif(F.trim(raw, F.lit(BLANKS)), F.lit("")))


def is_missing_number(text: Column) -> Column:
    """Whether a text stands for a missing number."""
    return F.lower(text).isin(*MISSING_NUMBERS)


def number_from(text: Column) -> Column:
    """A trimmed text as double, null where it is missing or is no number; -0.0 and 0.0 are one value."""
    return F.when(text.rlike(whole(f"{NUMBER}|{INFINITE}")), text.try_cast("double")) + F.lit(0.0)
