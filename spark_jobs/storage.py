"""Reads and writes all files of the steps: small documents, and the tables and models that Spark reads and writes.

Only this module knows whether a URI is a path of this machine (`file:` or no scheme) or an object in an object store (`s3://`, `s3a://`,
`minio://`). So a step is the same program on a laptop and on a cluster.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from pyspark.ml import Model, PipelineModel
from pyspark.ml.pipeline import PipelineSharedReadWrite
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType
from pyspark.sql.utils import is_remote

from spark_jobs import object_store
from spark_jobs.dialect import HEAD_BYTES, TEXT_SUFFIXES
from spark_jobs.errors import InputError
from spark_jobs.local_files import LocalFiles
from spark_jobs.object_names import is_object_store_uri, scheme_of
from spark_jobs.result import RESULT_NAME, Result

MODEL_METADATA = "metadata"
"""Folder of a saved model's own metadata, without which Spark does not load it."""
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")


class Files(Protocol):
    """The file operations that local paths and object stores have in common."""

    def read(self, uri: str) -> bytes:
        """Reads a whole document; raises FileNotFoundError if it does not exist."""

    def open(self, uri: str, length: int = 0) -> IO[bytes]:
        """Opens a document for reading; with a length, only the first `length` bytes are requested from an object store."""

    def write(self, uri: str, content: bytes) -> None:
        """Writes a document completely or not at all."""

    def check(self, uri: str) -> None:
        """Checks that files can be written below a URI."""

    def remove(self, uri: str) -> None:
        """Removes a document, or everything below a URI, if it exists."""

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        """Lists the files of a URI, sorted: one file, the files of a directory with one of the suffixes, or the matches of a pattern."""

    def version(self, uri: str) -> str:
        """Returns a text that changes whenever the content of a file changes."""

    def spark_uri(self, uri: str) -> str:
        """Converts a URI to the form that Spark's writers accept."""


LOCAL = LocalFiles()


def files_of(uri: str) -> Files:
    """Returns the file operations for a URI.

    Raises:
        InputError: the scheme is unknown.
    """
    return LOCAL if scheme_of(uri) == "file" else object_store.from_environment()


def check_reachable(uris: Sequence[str]) -> None:
    """Checks, before Spark starts, that the object store answers and has the buckets of these URIs.

    Raises:
        InputError: the key is refused, or there is no such bucket.
        UnavailableError: it does not answer.
    """
    for uri in uris:
        if is_object_store_uri(uri):
            object_store.from_environment().check(uri)


def session_settings(uris: Sequence[str]) -> dict[str, str]:
    """Returns the Spark settings that a session needs to read and write these URIs; empty if all are local."""
    stored = any(map(is_object_store_uri, uris))
    return object_store.from_environment().settings.s3a_settings() if stored else {}


def join(uri: str, *parts: str) -> str:
    """Appends parts to a URI."""
    return "/".join((uri.rstrip("/"), *parts))


def read_text(uri: str) -> str:
    """Reads a small text document.

    Raises:
        InputError: it does not exist or is not UTF-8.
    """
    try:
        return files_of(uri).read(uri).decode("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{uri}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{uri} is a directory; name a file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{uri} is not UTF-8 text") from error


def read_text_if_there(uri: str) -> str | None:
    """Reads a small text document; None if it does not exist.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return files_of(uri).read(uri).decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError as error:
        raise InputError(f"{uri} is not UTF-8 text") from error


def version_of_file(uri: str) -> str:
    """Returns a text that changes whenever the content of a file changes: its SHA-256, or what the object store says of it."""
    return files_of(uri).version(uri)


def write_text(uri: str, text: str) -> None:
    """Writes a small text document completely or not at all."""
    files_of(uri).write(uri, text.encode("utf-8"))


def make_directory(uri: str) -> None:
    """Checks that files can be written below a URI."""
    files_of(uri).check(uri)


def remove(uri: str) -> None:
    """Removes a document or a directory, if it exists."""
    files_of(uri).remove(uri)


def read_result(uri: str) -> Result:
    """Reads the result document of an earlier step.

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
    """Lists the files of a table, sorted: one file, the files of a directory, or the matches of a glob.

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
    """Reads the first bytes of a file, decompressed if it is gzip, and whether they are the whole file.

    Raises:
        InputError: it cannot be read.
    """
    head = read_start(uri, HEAD_BYTES + 1)
    return head[:HEAD_BYTES], len(head) <= HEAD_BYTES


def read_start(uri: str, length: int) -> bytes:
    """Reads the first `length` bytes of a file, decompressed if it is gzip; no more is requested from an object store.

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
    """Converts URIs to the form that Spark's readers accept, which take some characters for a pattern unless they are escaped."""
    return ["".join(f"\\{c}" if c in "\\{}[]*?" else c for c in spark_uri(uri)) for uri in uris]


def spark_uri(uri: str) -> str:
    """Converts a URI to the form that Spark's writers accept."""
    return files_of(uri).spark_uri(uri)


def read_table(session: SparkSession, uri: str, schema: StructType | None = None) -> DataFrame:
    """Reads a Parquet table; without a schema, Spark runs a job to find it."""
    reader = session.read.schema(schema) if schema else session.read
    return reader.parquet(*spark_paths([uri]))


def write_table(table: DataFrame, uri: str, partition_by: Sequence[str] = ()) -> None:
    """Writes a table as Parquet and replaces an earlier one."""
    table.write.mode("overwrite").partitionBy(*partition_by).parquet(spark_uri(uri))


def read_model(uri: str) -> PipelineModel:
    """Loads a saved PipelineModel."""
    model: PipelineModel = _load(PipelineModel, uri)
    return model


def read_classifier(kind: Any, uri: str) -> Any:
    """Loads a saved classifier; `kind` is its class."""
    return _load(kind, uri)


def _load(kind: Any, uri: str) -> Any:
    if not _goes_by_disk(uri):
        return kind.load(spark_paths([uri])[0])
    with tempfile.TemporaryDirectory(prefix="spark-kfp-model-") as folder:
        object_store.from_environment().download_folder(uri, Path(folder))
        return kind.load(f"file:{folder}")


def stage_path(model: PipelineModel, stage: Model) -> str:
    """Returns the path of a stage relative to its saved PipelineModel, so that the stage can be loaded without the others."""
    return str(PipelineSharedReadWrite.getStagePath(stage.uid, model.stages.index(stage), len(model.stages), "stages"))


def write_model(model: Any, uri: str) -> None:
    """Saves a model and replaces an earlier one. Each part of each stage is a Spark job of its own.

    S3A needs about 45 requests to commit one part. So, if Spark can write to this machine's disk, the parts are saved there, and then
    uploaded whole. The model's own metadata come last, so that what is left of a killed step cannot be loaded.
    """
    if not _goes_by_disk(uri):
        model.write().overwrite().save(spark_uri(uri))
        return
    with tempfile.TemporaryDirectory(prefix="spark-kfp-model-") as folder:
        model.write().overwrite().save(f"file:{folder}")
        remove(uri)
        object_store.from_environment().upload_folder(Path(folder), uri, last=MODEL_METADATA)


def _goes_by_disk(uri: str) -> bool:
    """Returns whether a model at this URI passes through a folder of this machine.

    That needs a Spark whose tasks run on this machine: an executor in another pod would write to the disk of its own.
    """
    if not is_object_store_uri(uri) or is_remote():
        return False
    return str(SparkSession.builder.getOrCreate().conf.get("spark.master")).startswith("local")
