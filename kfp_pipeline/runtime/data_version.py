"""Which data a run reads: the date in a URI filled in, and a version that changes whenever the data do.

KFP's cache looks at a task's inputs and not at what lies behind a URI; with the version among its inputs a task is reused only if the
data are the same.
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
"""How a placeholder of KFP's begins that its server has left as it is; the drivers of KFP 2.15 and 2.16 do not know that of the time."""
GLOB = re.compile(r"[*?\[{]")


def fill_date(uri: str, scheduled_time: str) -> str:
    """The URI with `{{date}}`, or `{{date:%Y/%m/%d}}`, replaced by the day for which the run was due, in UTC.

    Args:
        uri: any URI.
        scheduled_time: like 2026-12-31T23:59:59Z, as KFP fills it in; empty, or a placeholder that was not filled in: now.

    Raises:
        InputError: the time, the format or another placeholder cannot be read.
    """
    if "{{" not in uri:
        return uri
    due = parse_scheduled_time(scheduled_time) or datetime.now(UTC)

    def day(found: re.Match[str]) -> str:
        wanted = found["format"] or DATE_FORMAT
        if not ALLOWED_FORMAT.fullmatch(wanted):
            raise InputError(f"{uri}: {found[0]} is no format of a date; one is {{{{date:%Y/%m/%d}}}}")
        return due.strftime(wanted)

    filled = DATE.sub(day, uri)
    if "{{" in filled or "}}" in filled:
        raise InputError(f"{uri}: only {{{{date}}}} and {{{{date:%Y/%m/%d}}}} are filled in")
    return filled


def parse_scheduled_time(scheduled_time: str) -> datetime | None:
    """The time for which a run was due, in UTC; None if KFP does not tell it.

    Raises:
        InputError: it is no time.
    """
    if not scheduled_time or scheduled_time.startswith(UNFILLED_PLACEHOLDERS):
        return None
    try:
        due = datetime.fromisoformat(scheduled_time)
    except ValueError as error:
        raise InputError(f"scheduled_time is {scheduled_time!r}; it must be like 2026-12-31T23:59:59Z") from error
    return due.astimezone(UTC) if due.tzinfo else due.replace(tzinfo=UTC)


def version_of(*uris: str) -> str:
    """A digest of what the object store says of every object below the URIs: name, size, ETag, version; no data are read.

    For a glob it looks at the whole folder in which the glob starts: too much only means that a step is run again.

    Raises:
        InputError: there is nothing at one of them, or it is not in an object store.
    """
    digest = hashlib.sha256()
    for uri in filter(None, uris):
        if not object_store.is_stored(uri):
            raise InputError(f"{uri}: a task reads no file of a machine; first: spark-kfp data upload FILE URI")
        found = object_store.list_objects(GLOB.split(uri)[0], whole_names=not GLOB.search(uri))
        if not found:
            raise InputError(f"{uri}: there is nothing in the object store; see: spark-kfp data upload FILE {uri}")
        digest.update("".join([uri, *map(str, found)]).encode())
    return digest.hexdigest()[:32]
