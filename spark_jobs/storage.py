"""The one door to files: small documents, and the tables and models that Spark reads and writes.

Nothing above this module knows where a URI points. Local paths and `file:` URIs work; object stores are refused with a clear error
until the runner for the cluster is there.
"""

from __future__ import annotations

import glob
import gzip
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from pyspark.ml import PipelineModel
from pyspark.ml.classification import LogisticRegressionModel
from pyspark.sql import DataFrame, SparkSession

from spark_jobs.contract import RESULT_NAME, InputError, Result
from spark_jobs.dataset import similar

HEAD_BYTES = 4 << 20
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".data", ".parquet", ".gz")


def local_path(uri: str) -> Path:
    """The path behind a local URI.

    Raises:
        InputError: the URI has another scheme than `file`.
    """
    scheme = urlparse(uri).scheme
    if scheme == "file":
        return Path(unquote(urlparse(uri).path))
    if "://" in uri:
        raise InputError(f"{uri}: {scheme}:// is not supported yet; give a local path or a file: URI")
    return Path(uri).absolute()


def join(uri: str, *parts: str) -> str:
    """A URI below another."""
    return "/".join((uri.rstrip("/"), *parts))


def read_text(uri: str) -> str:
    """A small document.

    Raises:
        InputError: it is not there or is not UTF-8.
    """
    try:
        return local_path(uri).read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{uri}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{uri} is not UTF-8 text") from error


def write_text(uri: str, text: str) -> None:
    """Writes a small document whole or not at all."""
    path = local_path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def make_directory(uri: str) -> None:
    """Makes a directory, if it is not there."""
    local_path(uri).mkdir(parents=True, exist_ok=True)


def remove(uri: str) -> None:
    """Removes a document or a directory, if it is there."""
    path = local_path(uri)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def read_result(uri: str) -> Result:
    """The result document of an earlier step.

    Raises:
        InputError: the step has not finished, or failed.
    """
    document = join(uri, RESULT_NAME)
    if not local_path(document).exists():
        raise InputError(f"{uri} holds no finished step ({RESULT_NAME} is missing); run the step that writes it first")
    try:
        result = Result.from_json(read_text(document))
    except ValueError as error:
        raise InputError(f"{document}: {error}") from error
    if result.status != "succeeded":
        raise InputError(f"{uri}: step {result.step} failed there; mend and repeat it first")
    return result


def data_files(uri: str) -> list[Path]:
    """The files of a table: one file, the files of a directory, or what a glob matches, sorted.

    Raises:
        InputError: there are none.
    """
    path = local_path(uri)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(entry for entry in path.rglob("*") if entry.is_file() and entry.name.endswith(TABLE_SUFFIXES))
        visible = [entry for entry in found if not entry.relative_to(path).as_posix().startswith((".", "_"))]
        visible = [entry for entry in visible if not entry.name.startswith((".", "_"))]
        if not visible:
            raise InputError(f"{uri}: no CSV or Parquet file in this directory ({', '.join(TABLE_SUFFIXES)})")
        return visible
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())  # noqa: PTH207 - of any root
    if not matches:
        beside = sorted(entry.name for entry in path.parent.glob("*")) if path.parent.is_dir() else []
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if (close := similar(path.name, beside)) else ""
        raise InputError(f"{uri}: no such file{hint}")
    return matches


def read_head(path: Path) -> tuple[bytes, bool]:
    """The first bytes of a file, unpacked if it is gzip, and whether that is all of it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            return head, not file.read(1)
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{path}: damaged gzip file: {error}") from error
    except PermissionError as error:
        raise InputError(f"{path}: permission denied") from error


def spark_paths(files: Sequence[Path]) -> list[str]:
    """Paths for a Spark reader, whose own path syntax would take some characters for a pattern."""
    return ["file:" + "".join(f"\\{c}" if c in "\\{}[]*?" else c for c in str(path)) for path in files]


def spark_uri(uri: str) -> str:
    """The URI as Spark takes it to write."""
    return "file:" + str(local_path(uri))


def read_table(session: SparkSession, uri: str) -> DataFrame:
    """A Parquet table."""
    return session.read.parquet(*spark_paths([local_path(uri)]))


def write_table(table: DataFrame, uri: str, partition_by: Sequence[str] = ()) -> None:
    """Writes Parquet, in place of what was there."""
    table.write.mode("overwrite").partitionBy(*partition_by).parquet(spark_uri(uri))


def read_model(uri: str) -> PipelineModel:
    """A saved PipelineModel."""
    return PipelineModel.load(spark_paths([local_path(uri)])[0])


def read_classifier(uri: str) -> LogisticRegressionModel:
    """The classifier of a saved PipelineModel; the stages that compute its features are left unread."""
    return LogisticRegressionModel.load(spark_paths([local_path(uri)])[0] + "/stages/*_LogisticRegression_*")


def write_model(model: PipelineModel, uri: str) -> None:
    """Saves a PipelineModel, in place of what was there."""
    model.write().overwrite().save(spark_uri(uri))
