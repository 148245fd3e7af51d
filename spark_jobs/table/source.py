"""Reads the user's table, CSV or Parquet, as a DataFrame whose CSV columns are still text.

Spark's own CSV types would turn a bad cell into a silent null. With text columns, `typed_cells` can reject the row and say which cell was
wrong. This module does not know the roles of the columns.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType, DecimalType, FractionalType, LongType, StringType, StructField, StructType

from spark_jobs import storage
from spark_jobs.cells import BLANKS, INFINITE, MISSING_NUMBERS, NUMBER, full_match
from spark_jobs.contract import TableArgs
from spark_jobs.dataset import own_prefix
from spark_jobs.dialect import PARQUET_MAGIC, Dialect, check_width, describe_differences, find_dialect
from spark_jobs.errors import InputError

POSITION: Mapping[str, DataType] = {"file": StringType(), "block": LongType(), "row": LongType()}
"""Columns that load adds, under the prefix of the table: the position of a row, as file, block of the file, row in the block."""
VISIBLE_ASCII = "".join(map(chr, range(33, 127)))
"""The ASCII characters that are neither blanks nor control characters."""


@dataclass(frozen=True)
class Source:
    """The input table before load types it.

    Attributes:
        rows: the columns of the table, text for a CSV and typed for Parquet, and load's own columns `position` and `corrupt_record`.
        columns: the names of the table's columns.
        dialect: the dialect of the CSV files; None for Parquet.
    """

    rows: DataFrame
    columns: tuple[str, ...]
    dialect: Dialect | None

    @functools.cached_property
    def prefix(self) -> str:
        """The prefix of load's own columns; no column of the table begins with it. Finding it compares all names."""
        return own_prefix(self.columns)

    @functools.cached_property
    def types(self) -> Mapping[str, DataType]:
        """The types of all columns by name. A lookup in Spark's schema would search through all columns each time."""
        return {field.name: field.dataType for field in self.rows.schema}

    @functools.cached_property
    def nested(self) -> Mapping[str, str]:
        """The columns whose values are not single texts, numbers or dates, and their types: arrays, maps, structs and binary."""
        kinds = {name: kind.simpleString() for name, kind in self.types.items()}
        return {
            name: kind for name, kind in kinds.items() if kind.split("<")[0] in ("array", "map", "struct", "binary")
        }

    @property
    def corrupt_record(self) -> str:
        """The column with the text of a line that Spark could not parse; null in any other row."""
        return corrupt_record_column(self.prefix)

    @property
    def position(self) -> tuple[str, ...]:
        """The columns of `POSITION` under the prefix of this table."""
        return position_columns(self.prefix)


def position_columns(prefix: str) -> tuple[str, ...]:
    """Returns the names of the columns of `POSITION` in a table with this prefix."""
    return tuple(prefix + name for name in POSITION)


def corrupt_record_column(prefix: str) -> str:
    """Returns the name of the column `Source.corrupt_record` in a table with this prefix."""
    return f"{prefix}line"


def quoted(name: str) -> Column:
    """Returns the column of this name, which may hold any characters, such as dots or backticks."""
    return F.col(quoted_name(name))


def quoted_name(name: str) -> str:
    """Returns a column name quoted for Spark SQL."""
    return "`" + name.replace("`", "``") + "`"


def check_not_nested(source: Source, names: Iterable[str], where: str) -> None:
    """Refuses nested columns.

    Raises:
        InputError: one of the columns is an array, a map, a struct or binary.
    """
    for name in names:
        if name in source.nested:
            raise InputError(
                f"{where}: column {name!r} is nested ({source.nested[name][:60]}); give its fields columns of their own, or drop it"
            )


def open_source(session: SparkSession, args: TableArgs, label: str, files: Sequence[str] = ()) -> Source:
    """Finds the files of the data, detects their format and dialect, and opens them as one table.

    Args:
        session: the Spark session.
        args: the arguments of the step.
        label: the name of a column, best that of the label; it helps to recognise a header.
        files: the files, if only some of the data are to be read.

    Raises:
        InputError: there are no files, or they cannot be read as one table.
    """
    files = files or storage.data_files(args.data_uri)
    if _is_parquet(storage.read_start(files[0], len(PARQUET_MAGIC))):
        for path in files[1:]:
            if not _is_parquet(storage.read_start(path, len(PARQUET_MAGIC))):
                raise InputError(f"{path} is no Parquet file, and {files[0]} is one; load them apart")
        return _parquet(session, files)
    return _csv(session, find_layout(files, args, label))


def _is_parquet(head: bytes) -> bool:
    return head.startswith(PARQUET_MAGIC)


@dataclass(frozen=True)
class Layout:
    """The layout of the CSV files of one table. They have the same dialect, but the order of their columns may differ.

    Attributes:
        files: the files that are not empty, grouped by the order of their columns; the first order is that of the table.
        dialect: the dialect of all files, with the column names in the order of the table.
        open_quotes: whether a line has an odd number of quotes; None if unknown, because only the head of a long file was read.
    """

    files: Mapping[tuple[str, ...], Sequence[str]]
    dialect: Dialect
    open_quotes: bool | None


def find_layout(files: Sequence[str], args: TableArgs, label: str) -> Layout:
    """Finds the common layout of CSV files. It holds the head of only one file in memory, however many files there are.

    Raises:
        InputError: all files are empty, one is not CSV, or two have different dialects or columns.
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
        if unlike := describe_differences(found, dialect):
            raise InputError(f"{path} is laid out unlike {by_order[dialect.names][0]}: {unlike}; load them apart")
        if not open_quotes:
            open_quotes = _odd_quotes(head, found.quote) if whole and open_quotes is not None else None
    if dialect is None:
        dialect = find_dialect(b"", files[0], whole=True, given=given, label=label)  # raises: the file is empty
    return Layout(by_order, dialect, open_quotes)


def _odd_quotes(content: bytes, quote: str) -> bool:
    """Returns whether a line has an odd number of quotes, so that a quoted field may go on in the next line."""
    return any(line.count(quote.encode()) % 2 for line in content.splitlines())


def _parquet(session: SparkSession, files: Sequence[str]) -> Source:
    table = session.read.parquet(*storage.spark_paths(files))
    check_width(table.columns, files[0])
    columns = tuple(table.columns)
    prefix = own_prefix(columns)
    rows = _with_position(table, prefix).withColumn(corrupt_record_column(prefix), F.lit(None).cast("string"))
    return Source(rows, columns, None)


def _csv(session: SparkSession, layout: Layout) -> Source:
    """Reads CSV files; records may span lines only if a line has an open quote.

    Where each record is one line, Spark splits a large file between tasks; with `multiLine` one task reads a whole file.
    """
    dialect = layout.dialect
    if dialect.encoding.upper().startswith("UTF-16"):
        return Source(_read_all(session, layout, multi_line=True), dialect.names, dialect)
    lines = _read_all(session, layout, multi_line=False)
    if _has_open_quotes(session, layout):
        records = _read_all(session, layout, multi_line=True)
        # A stray quote would swallow the lines after it, so the reading with more good rows counts.
        lines = records if _count_parsed(records, dialect) >= _count_parsed(lines, dialect) else lines
    return Source(lines, dialect.names, dialect)


def _has_open_quotes(session: SparkSession, layout: Layout) -> bool:
    """Returns whether a line has an odd number of quotes. Spark reads the files for this only if their heads were not enough."""
    if layout.open_quotes is not None:
        return layout.open_quotes
    line = F.col("value")
    quotes = F.length(line) - F.length(F.replace(line, F.lit(layout.dialect.quote)))
    files = [path for paths in layout.files.values() for path in paths]
    found = session.read.text(storage.spark_paths(files)).agg(F.count_if(quotes % 2 == 1).alias("open")).first()
    return bool(found and found["open"])


def _count_parsed(rows: DataFrame, dialect: Dialect) -> int:
    """Counts the rows that Spark could parse."""
    observation, corrupt_record = Observation(), F.col(corrupt_record_column(own_prefix(dialect.names)))
    observed = rows.observe(observation, F.count_if(corrupt_record.isNull()).alias("good"))
    observed.write.format("noop").mode("overwrite").save()
    return int(observation.get["good"])


def _read_all(session: SparkSession, layout: Layout, *, multi_line: bool) -> DataFrame:
    """Reads all files, each with the column order of its own header, and unites them by column name."""
    tables = [
        _read_csv(session, files, replace(layout.dialect, names=names), multi_line=multi_line)
        for names, files in layout.files.items()
    ]
    return functools.reduce(DataFrame.unionByName, tables)


def _read_csv(session: SparkSession, files: Sequence[str], dialect: Dialect, *, multi_line: bool) -> DataFrame:
    prefix = own_prefix(dialect.names)
    corrupt_record = corrupt_record_column(prefix)
    schema = StructType([StructField(name, StringType()) for name in (*dialect.names, corrupt_record)])
    # With pruning, a row with too many or too few cells would count as good if the query needs only some columns.
    reader = session.read.option("columnPruning", False)
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
        columnNameOfCorruptRecord=corrupt_record,
        ignoreLeadingWhiteSpace=True,
        ignoreTrailingWhiteSpace=True,
        maxColumns=max(20480, len(dialect.names) + 1),
    )
    return _with_position(rows, prefix)


def _with_position(rows: DataFrame, prefix: str) -> DataFrame:
    metadata = rows.metadataColumn("_metadata")  # Spark's, even if the table has a column of this name
    # The identifiers are not consecutive, but inside one block they rise in the order of the rows.
    position = (metadata["file_path"], metadata["file_block_start"], F.monotonically_increasing_id())
    names = position_columns(prefix)
    return rows.select("*", *[column.alias(name) for column, name in zip(position, names, strict=True)])


def raw_text(source: Source, name: str) -> Column:
    """Returns a column as untrimmed text; all null if the column is nested."""
    return F.expr(_raw_text(source, name))


def raw_texts(source: Source, names: Iterable[str]) -> Column:
    """Returns an array of columns as untrimmed texts, in the order of `names`."""
    return array_of(_raw_text(source, name) for name in names)


def _raw_text(source: Source, name: str) -> str:
    if name in source.nested:
        return "CAST(NULL AS string)"
    kind, column = source.types[name], quoted_name(name)
    if isinstance(kind, FractionalType) and not (isinstance(kind, DecimalType) and kind.scale == 0):
        # Cast by way of text, so that a float 0.1 does not become 0.10000000149; a decimal 1.50 becomes 1.5.
        column = f"nanvl(CAST(CAST({column} AS string) AS double), CAST(NULL AS double))"
    return column if isinstance(kind, StringType) else f"CAST({column} AS string)"


def array_of(expressions: Iterable[str]) -> Column:
    """Returns an array of SQL expressions. PySpark would make a thousand columns by thousands of calls into the JVM, SQL takes one."""
    return F.expr(f"array({', '.join(expressions)})")


def trimmed(raw: Column) -> Column:
    """Returns the text of a cell without `BLANKS` at its ends; null if nothing is left."""
    # Trimming 29 kinds of blanks takes Spark 200 ns a cell. Nearly all cells begin and end with a visible ASCII character and need none;
    # the comparisons that find this out work on the bytes of the text and copy nothing.
    visible = (raw >= "!") & (raw < "\x7f") & F.substring(raw, -1, 1).isin(*VISIBLE_ASCII)
    return F.when(visible, raw).otherwise(F.nullif(F.trim(raw, F.lit(BLANKS)), F.lit("")))


def is_missing_number(text: Column) -> Column:
    """Returns whether a trimmed text means a missing number."""
    return F.lower(text).isin(*MISSING_NUMBERS)


def to_double(text: Column) -> Column:
    """Converts a trimmed text to a double; null if it is not a number. -0.0 becomes 0.0, so that both are one value."""
    return F.when(text.rlike(full_match(f"{NUMBER}|{INFINITE}")), text.try_cast("double")) + F.lit(0.0)
