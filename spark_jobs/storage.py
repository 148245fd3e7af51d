"""The one door to files: small documents, and the tables and models that Spark reads and writes.

Nothing above this module knows where a URI points: to a path of this machine (`file:` or none) or into an object store (`s3://`,
`s3a://`, `minio://`).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import IO, Any, Protocol

from pyspark.ml import Model, PipelineModel
from pyspark.ml.pipeline import PipelineSharedReadWrite
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from spark_jobs import object_store
from spark_jobs.dialect import HEAD_BYTES, TEXT_SUFFIXES
from spark_jobs.errors import InputError
from spark_jobs.local_files import LocalFiles
from spark_jobs.object_names import is_stored, scheme_of
from spark_jobs.result import RESULT_NAME, Result

TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")


class Files(Protocol):
    """Where URIs of one kind point."""

    def read(self, uri: str) -> bytes:
        """A whole document; FileNotFoundError if it is not there."""

    def open(self, uri: str, length: int = 0) -> IO[bytes]:
        """A document as a stream; with a length a store is asked for that many bytes of its beginning only."""

    def write(self, uri: str, content: bytes) -> None:
        """Writes a document whole or not at all."""

    def check(self, uri: str) -> None:
        """Makes sure that something can be written below a URI."""

    def remove(self, uri: str) -> None:
        """Removes a document or all below a URI, if it is there."""

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        """The files behind a URI that names one, a directory (then those with one of the suffixes) or a pattern, sorted."""

    def spark_uri(self, uri: str) -> str:
        """The URI as Spark takes it to write."""


LOCAL = LocalFiles()


def files_of(uri: str) -> Files:
    """Where a URI points.

    Raises:
        InputError: its scheme is unknown.
    """
    return LOCAL if scheme_of(uri) == "file" else object_store.from_environment()


def check_reachable(uris: Sequence[str]) -> None:
    """Makes sure, before Spark starts, that the object store answers and has the buckets of these URIs.

    Raises:
        InputError: the key is refused, or there is no such bucket.
        UnavailableError: it does not answer.
    """
    for uri in uris:
        if is_stored(uri):
            object_store.from_environment().check(uri)


def session_settings(uris: Sequence[str]) -> dict[str, str]:
    """What a Spark session must know to read and write these URIs."""
    stored = any(map(is_stored, uris))
    return object_store.from_environment().settings.s3a_settings() if stored else {}


def join(uri: str, *parts: str) -> str:
    """A URI below another."""
    return "/".join((uri.rstrip("/"), *parts))


def read_text(uri: str) -> str:
    """A small document.

    Raises:
        InputError: it is not there or is not UTF-8.
    """
    try:
        return files_of(uri).read(uri).decode("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{uri}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{uri} is a directory; name a file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{uri} is not UTF-8 text") from error


def write_text(uri: str, text: str) -> None:
    """Writes a small document whole or not at all."""
    files_of(uri).write(uri, text.encode("utf-8"))


def make_directory(uri: str) -> None:
    """Makes sure that something can be written below a URI."""
    files_of(uri).check(uri)


def remove(uri: str) -> None:
    """Removes a document or a directory, if it is there."""
    files_of(uri).remove(uri)


def read_result(uri: str) -> Result:
    """The result document of an earlier step.

    Raises:
        InputError: the step has not finished, or failed.
    """
    document = join(uri, RESULT_NAME)
    try:
        text = files_of(document).read(document).decode("utf-8")
    except FileNotFoundError as error:
        missing = f"{uri} holds no finished step ({RESULT_NAME} is missing); run the step that writes it first"
        raise InputError(missing) from error
    try:
        result = Result.from_json(text)
    except ValueError as error:
        raise InputError(f"{document}: {error}") from error
    if result.status != "succeeded":
        raise InputError(f"{uri}: step {result.step} failed there; mend and repeat it first")
    return result


def data_files(uri: str) -> list[str]:
    """The files of a table: one file, the files of a directory, or what a glob matches, sorted.

    Raises:
        InputError: there are none.
    """
    found = files_of(uri).find(uri, TABLE_SUFFIXES)
    if not found:
        raise InputError(f"{uri}: no CSV or Parquet file in this directory ({', '.join(TABLE_SUFFIXES)})")
    for path in found:
        name = path.rsplit("/", 1)[-1]
        if name.startswith(("_", ".")):
            raise InputError(f"{path}: Spark passes over files whose names begin with {name[0]!r}; rename it")
        if ":" in name:
            raise InputError(f"{path}: Spark cannot read a file whose name has a colon; rename it")
    return found


def read_head(uri: str) -> tuple[bytes, bool]:
    """The first bytes of a file, unpacked if it is gzip, and whether that is all of it.

    Raises:
        InputError: it cannot be read.
    """
    head = read_start(uri, HEAD_BYTES + 1)
    return head[:HEAD_BYTES], len(head) <= HEAD_BYTES


def read_start(uri: str, length: int) -> bytes:
    """The first `length` bytes of a file, unpacked if it is gzip; fewer if it is shorter. No more than that is asked of a store.

    Raises:
        InputError: it cannot be read.
    """
    packed = uri.endswith(".gz")
    try:
        with files_of(uri).open(uri, 0 if packed else length) as plain, gzip.open(plain) if packed else plain as file:
            return file.read(length)
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{uri}: damaged gzip file: {error}") from error
    except PermissionError as error:
        raise InputError(f"{uri}: permission denied") from error


def spark_paths(uris: Sequence[str]) -> list[str]:
    """URIs for a Spark reader, whose own path syntax would take some characters for a pattern."""
    return ["".join(f"\\{c}" if c in "\\{}[]*?" else c for c in spark_uri(uri)) for uri in uris]


def spark_uri(uri: str) -> str:
    """The URI as Spark takes it to write."""
    return files_of(uri).spark_uri(uri)


def read_table(session: SparkSession, uri: str, schema: StructType | None = None) -> DataFrame:
    """A Parquet table; without its schema a Spark job finds it."""
    reader = session.read.schema(schema) if schema else session.read
    return reader.parquet(*spark_paths([uri]))


def write_table(table: DataFrame, uri: str, partition_by: Sequence[str] = ()) -> None:
    """Writes Parquet, in place of what was there."""
    table.write.mode("overwrite").partitionBy(*partition_by).parquet(spark_uri(uri))


def read_model(uri: str) -> PipelineModel:
    """A saved PipelineModel."""
    return PipelineModel.load(spark_paths([uri])[0])


def read_classifier(kind: Any, uri: str) -> Any:
    """A saved classifier, of the class of models that is given."""
    return kind.load(spark_paths([uri])[0])


def stage_path(model: PipelineModel, stage: Model) -> str:
    """Where a stage lies in a saved PipelineModel, from its top: one stage is read without the others."""
    return str(PipelineSharedReadWrite.getStagePath(stage.uid, model.stages.index(stage), len(model.stages), "stages"))


def write_model(model: Any, uri: str) -> None:
    """Saves a model, in place of what was there. Each stage, and its data, is a Spark job of its own and many requests in S3."""
    model.write().overwrite().save(spark_uri(uri))
