"""The rows as they came: finds how a table is laid out and reads it without typing anything.

A CSV is read as text, so that whoever types it can say which cell of which row was wrong. Knows nothing of roles of columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from spark_jobs import storage
from spark_jobs.contract import InputError, LoadArgs
from spark_jobs.dataset import MISSING_NUMBERS, Dialect, find_dialect

LINE, FILE, BLOCK, ROW = "_line", "_file", "_block", "_row"
"""Columns that load adds: text of a line that does not parse; where a row stood, as file, block of the file and row in it."""
POSITION = (FILE, BLOCK, ROW)


@dataclass(frozen=True)
class Source:
    """The rows as they came: every column of a CSV as text, of Parquet as it was typed, and the columns of `POSITION`."""

    rows: DataFrame
    columns: tuple[str, ...]
    dialect: Dialect | None

    def __post_init__(self) -> None:
        """Refuses columns whose names load needs for itself."""
        taken = [name for name in self.columns if name in (LINE, *POSITION)]
        if taken:
            raise InputError(f"column {taken[0]!r} has a name that load uses itself; rename it")


def quoted(name: str) -> Column:
    """The column of exactly this name, whatever characters are in it."""
    return F.col("`" + name.replace("`", "``") + "`")


def open_source(session: SparkSession, args: LoadArgs, label: str) -> Source:
    """Finds out how the data is laid out.

    Raises:
        InputError: there is no data, or its layout is unusable.
    """
    files = storage.data_files(args.data_uri)
    heads = [(path, *storage.read_head(path)) for path in files]
    if all(head.startswith(b"PAR1") for _, head, _ in heads):
        return _parquet(session, files)
    filled = [item for item in heads if item[1].strip()] or heads[:1]
    given = {name: getattr(args, name) for name in ("encoding", "delimiter", "quote", "header")}
    found = [find_dialect(head, path, whole=whole, given=given, label=label) for path, head, whole in filled]
    for (path, _, _), dialect in zip(filled, found, strict=True):
        if dialect != found[0]:
            raise InputError(f"{path} is laid out unlike {filled[0][0]}: {dialect} against {found[0]}; load them apart")
    whole = b"".join(head for _, head, _ in filled) if all(whole for _, _, whole in filled) else None
    return _csv(session, [path for path, _, _ in filled], found[0], whole)


def _parquet(session: SparkSession, files: Sequence[str]) -> Source:
    table = session.read.parquet(*storage.spark_paths(files))
    return Source(_with_position(table.withColumn(LINE, F.lit(None).cast("string"))), tuple(table.columns), None)


def _csv(session: SparkSession, files: Sequence[str], dialect: Dialect, content: bytes | None) -> Source:
    """Reads line by line, which any number of tasks can share; only if quotes stay open, by records that span lines."""
    if dialect.encoding.upper().startswith("UTF-16"):
        records = _read_csv(session, files, dialect, multi_line=True)
        return Source(_with_position(records), dialect.names, dialect)
    lines = _read_csv(session, files, dialect, multi_line=False)
    if _has_open_quotes(session, files, dialect, content):
        records = _read_csv(session, files, dialect, multi_line=True)
        # A stray quote swallows the lines after it: then the lines are the better reading.
        lines = records if _good(records) >= _good(lines) else lines
    return Source(_with_position(lines), dialect.names, dialect)


def _has_open_quotes(session: SparkSession, files: Sequence[str], dialect: Dialect, content: bytes | None) -> bool:
    """Whether a line has an odd number of quotes; without Spark where the content was read already."""
    if content is not None:
        quote = dialect.quote.encode()
        return any(line.count(quote) % 2 for line in content.splitlines())
    line = F.col("value")
    quotes = F.length(line) - F.length(F.replace(line, F.lit(dialect.quote)))
    found = session.read.text(storage.spark_paths(files)).agg(F.count_if(quotes % 2 == 1).alias("open")).first()
    return bool(found and found["open"])


def _good(rows: DataFrame) -> int:
    """How many rows parse."""
    observation = Observation()
    rows.observe(observation, F.count_if(F.col(LINE).isNull()).alias("good")).write.format("noop").mode(
        "overwrite"
    ).save()
    return int(observation.get["good"])


def _read_csv(session: SparkSession, files: Sequence[str], dialect: Dialect, *, multi_line: bool) -> DataFrame:
    schema = StructType([StructField(name, StringType()) for name in (*dialect.names, LINE)])
    reader = session.read.option("columnPruning", False)  # a row is judged by all of its columns
    return reader.csv(
        storage.spark_paths(files),
        schema=schema,
        header=dialect.header,
        sep=dialect.delimiter,
        quote=dialect.quote,
        escape=dialect.quote,
        encoding=dialect.encoding,
        multiLine=multi_line,
        mode="PERMISSIVE",
        columnNameOfCorruptRecord=LINE,
        ignoreLeadingWhiteSpace=True,
        ignoreTrailingWhiteSpace=True,
        maxColumns=max(20480, len(dialect.names) + 1),
    )


def _with_position(rows: DataFrame) -> DataFrame:
    # Inside one block the identifiers rise in the order of the rows.
    return rows.select(
        "*",
        F.col("_metadata.file_path").alias(FILE),
        F.col("_metadata.file_block_start").alias(BLOCK),
        F.monotonically_increasing_id().alias(ROW),
    )


def text_of(source: Source, name: str) -> Column:
    """A column as trimmed text, null where it is empty or holds something that is no single value."""
    text = quoted(name).cast("string") if _is_flat(source, name) else F.lit(None).cast("string")
    return F.nullif(F.trim(text), F.lit(""))


def _is_flat(source: Source, name: str) -> bool:
    return source.rows.schema[name].dataType.simpleString().split("<")[0] not in ("array", "map", "struct", "binary")


def is_missing_number(text: Column) -> Column:
    """Whether a text stands for a missing number."""
    return text.isin(*[word for word in MISSING_NUMBERS if word])


def number_from(text: Column) -> Column:
    """A text as double, null where it is missing or is no number; -0.0 and 0.0 are one value."""
    return F.nanvl(text.try_cast("double"), F.lit(None).cast("double")) + F.lit(0.0)
