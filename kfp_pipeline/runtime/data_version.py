"""Resolves the data of a run: fills the run's date into a URI, and computes a version that changes whenever the data change.

KFP's cache compares the inputs of a task, and a URI stays the same when the data behind it change. With the data's version among its
inputs, a task is reused only if the data are the same.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

from kfp_pipeline.runtime import object_store
from spark_jobs.errors import InputError

DATE = re.compile(r"\{\{\s*date(?::(?P<format>[^{}]*))?\s*\}\}")
DATE_FORMAT = "%Y-%m-%d"
ALLOWED_FORMAT = re.compile(r"(%[YmdHMj]|[\w/=-])+")
UNFILLED_PLACEHOLDERS = ("[[", "{{$")
"""How a placeholder begins that the KFP server did not replace: KFP 2.15 and 2.16 do not know the placeholder of the scheduled time."""
GLOB = re.compile(r"[*?\[{]")


def fill_date(uri: str, scheduled_time: str) -> str:
    """Replaces `{{date}}` or `{{date:%Y/%m/%d}}` in a URI by the day for which the run was scheduled, in UTC.

    Args:
        uri: any URI.
        scheduled_time: like 2026-12-31T23:59:59Z, as KFP fills it in. If it is empty or still a placeholder, the current time counts.

    Returns:
        The URI; unchanged if it has no placeholder.

    Raises:
        InputError: the time or the format is not valid, or the URI has a placeholder of another kind.
    """
    if "{{" not in uri:
        return uri
    due = parse_scheduled_time(scheduled_time) or datetime.now(UTC)

    def formatted(placeholder: re.Match[str]) -> str:
        date_format = placeholder["format"] or DATE_FORMAT
        if not ALLOWED_FORMAT.fullmatch(date_format):
            raise InputError(f"{uri}: {placeholder[0]} is no format of a date; one is {{{{date:%Y/%m/%d}}}}")
        return due.strftime(date_format)

    filled = DATE.sub(formatted, uri)
    if "{{" in filled or "}}" in filled:
        raise InputError(f"{uri}: only {{{{date}}}} and {{{{date:%Y/%m/%d}}}} are filled in")
    return filled


def parse_scheduled_time(scheduled_time: str) -> datetime | None:
    """Parses the time for which KFP scheduled the run.

    Returns:
        The time in UTC; None if KFP did not fill it in.

    Raises:
        InputError: the text is not a time.
    """
    if not scheduled_time or scheduled_time.startswith(UNFILLED_PLACEHOLDERS):
        return None
    try:
        due = datetime.fromisoformat(scheduled_time)
    except ValueError as error:
        raise InputError(f"scheduled_time is {scheduled_time!r}; it must be like 2026-12-31T23:59:59Z") from error
    return due.astimezone(UTC) if due.tzinfo else due.replace(tzinfo=UTC)


def version_of(*uris: str) -> str:
    """Computes a digest of name, size, ETag and version of every object below the URIs, without reading the objects.

    For a glob it lists the whole folder in which the glob starts. An object that the glob does not match can change the version; the
    step then runs once more than necessary, but never reuses old data.

    Raises:
        InputError: there is no object at one of the URIs, or the URI is not in an object store.
    """
    digest = hashlib.sha256()
    for uri in filter(None, uris):
        if not object_store.is_object_store_uri(uri):
            raise InputError(f"{uri}: a task reads no file of a machine; first: spark-kfp data upload FILE URI")
        objects = object_store.list_objects(GLOB.split(uri)[0], whole_names=not GLOB.search(uri))
        if not objects:
            raise InputError(f"{uri}: there is nothing in the object store; see: spark-kfp data upload FILE {uri}")
        digest.update("".join([uri, *map(str, objects)]).encode())
    return digest.hexdigest()[:32]
