"""What can be known of a run's data and specification before Spark starts, in the words of the command that was typed.

Reads local files only, and of the data no more than the head of one file. What it cannot tell it leaves to `load`, which looks at all.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kfp_pipeline.runtime.spark_submit.runner import files_of, local_path
from spark_jobs.contract import LoadArgs
from spark_jobs.dataset import Specification, beside, nearest, read_specification
from spark_jobs.dialect import HEAD_BYTES, PARQUET, TEXT_SUFFIXES, check_order_by, find_dialect
from spark_jobs.errors import InputError
from spark_jobs.object_names import scheme_of


def check_inputs(args: LoadArgs, spec_flag: str = "--spec", order_by: str = "", *, on_a_cluster: bool = False) -> None:
    """Refuses what `load` would refuse after its Spark has started, as far as it can be seen without.

    Args:
        args: what `load` will get.
        spec_flag: how the command at hand calls the specification.
        order_by: what `preprocess` will get.
        on_a_cluster: whether the steps run there, where an object store can be read.

    Raises:
        InputError: no label is named, the specification is wrong, the data are not there or lie where the steps cannot read them, or a
            column is not in their header.
    """
    _check_places((args.data_uri, args.specification_uri), on_a_cluster=on_a_cluster)
    specification = _specification(args, spec_flag)
    columns = _columns(args, specification.label if specification else args.label)
    if not args.specification_uri and not args.label:
        listed = f": {', '.join(columns)}" if columns else ""
        raise InputError(
            f"which column is the label? Give --label NAME, with one of the columns{listed}, or {spec_flag} FILE"
        )
    if not columns:
        return
    check_order_by(order_by, columns)
    if specification:
        specification.check(columns, args.data_uri)
    elif not args.specification_uri and args.label not in columns:
        raise InputError(f"{args.data_uri}: no label column {args.label!r}{nearest(args.label, columns)}")


def _check_places(uris: Sequence[str], *, on_a_cluster: bool) -> None:
    """Refuses a URI that no step could read, or none on this machine."""
    for uri in uris:
        if scheme_of(uri) != "file" and not on_a_cluster:
            raise InputError(
                f"{uri}: this command reads files of this machine only; copy it here, or run on a cluster: spark-kfp run --kfp URL, or "
                "spark-kfp submit pipeline"
            )


def _specification(args: LoadArgs, spec_flag: str) -> Specification | None:
    """The specification; None if there is none, or it lies in an object store, where only the step reads it."""
    uri = args.specification_uri
    if not uri or scheme_of(uri) != "file":
        return None
    path = local_path(uri)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{spec_flag} {uri}: no such file{beside(path)}") from error
    except IsADirectoryError as error:
        raise InputError(f"{spec_flag} {uri} is a directory; name a file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{spec_flag} {uri} is not UTF-8 text; is it the data specification?") from error
    found = read_specification(text, uri)
    return replace(found, label=args.label) if args.label else found


def _columns(args: LoadArgs, label: str) -> tuple[str, ...]:
    """The columns by the header of the first file; empty if the data are elsewhere, are no CSV, or the head does not tell."""
    if scheme_of(args.data_uri) != "file":
        return ()
    path = local_path(args.data_uri)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{args.data_uri} is no file but a pipe or a device, which can be read only once; write it to a file first"
        )
    files = files_of(args.data_uri)
    if not files:
        empty = path.is_dir()
        raise InputError(
            f"{args.data_uri}: " + ("no file in this directory" if empty else f"no such file{beside(path)}")
        )
    for file in files:
        below = file.relative_to(path).parts if path in file.parents else file.parts[-1:]
        hidden = any(part.startswith(("_", ".")) for part in below)
        if file == path or (file.name.endswith(TEXT_SUFFIXES) and not hidden):
            return _header(file, args, label)
    return ()


def _header(file: Path, args: LoadArgs, label: str) -> tuple[str, ...]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as content:
            head = content.read(HEAD_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, PermissionError):  # load names the fault
        return ()
    if head.startswith(PARQUET) or not head.strip():
        return ()
    given = {name: getattr(args, name) for name in ("encoding", "delimiter", "quote", "header")}
    whole = len(head) <= HEAD_BYTES
    return find_dialect(head[:HEAD_BYTES], str(file), whole=whole, given=given, label=label).names
