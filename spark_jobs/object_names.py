"""Names in an object store: which URIs point into one, what a pattern finds there, what lies below a name. Asks no store."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from urllib.parse import urlparse

from spark_jobs.contract import OBJECT_STORE_SCHEMES
from spark_jobs.errors import InputError

Listed = tuple[str, int, str, str]
"""An object's name, bytes, ETag and version."""


def scheme_of(uri: str) -> str:
    """One of `OBJECT_STORE_SCHEMES`, or `file` for a file or directory of this machine.

    Raises:
        InputError: it is none of these.
    """
    scheme = urlparse(uri).scheme if "://" in uri else "file"
    if scheme not in (*OBJECT_STORE_SCHEMES, "file"):
        raise InputError(
            f"{uri}: {scheme}:// is not supported; give a path, or a URI that starts with {', '.join(OBJECT_STORE_SCHEMES)} or file"
        )
    return scheme


def is_stored(uri: str) -> bool:
    """Whether a URI points into an object store."""
    return urlparse(uri).scheme in OBJECT_STORE_SCHEMES


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The bucket and the name in it.

    Raises:
        InputError: it names no bucket, or a part of it is `..`.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket or ".." in key.split("/"):
        raise InputError(f"{uri}: not a URI like s3://BUCKET/NAME")
    return bucket, key


def at_or_below(listed: Sequence[Listed], prefix: str, *, whole_names: bool) -> list[Listed]:
    """Those of the objects that have a name or lie in its folder; without `whole_names` all whose name begins with it."""
    folder = prefix.rstrip("/") + "/"
    found = [item for item in listed if item[0].startswith(prefix)]
    return sorted(item for item in found if not whole_names or item[0] == prefix or item[0].startswith(folder))


def start_of(key: str) -> str:
    """What every name begins with that a name or a pattern can mean."""
    signs = [key.find(sign) for sign in "*?[" if sign in key]
    return key[: min(signs)] if signs else key


def tables_at(names: Sequence[str], key: str, suffixes: Sequence[str]) -> list[str] | None:
    """Which of the objects a key means that names one, a folder (then those with one of the suffixes) or a pattern.

    Returns:
        Their names; None if there is nothing of that name, not even a folder without tables.
    """
    base = f"{key.rstrip('/')}/" if key.strip("/") else ""
    below = [name.removeprefix(base) for name in names if name.startswith(base) and name != base]
    if key in names and not key.endswith("/"):
        return [key]
    if start_of(key) != key:
        return sorted(name for name in names if matches(name, key) and not name.endswith("/")) or None
    visible = [name for name in below if not any(part.startswith((".", "_")) for part in name.split("/"))]
    found = sorted(f"{base}{name}" for name in visible if name.endswith(tuple(suffixes)))
    return found if found or below or base in names else None


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches as it would on a disk: a star crosses no slash, two stars do, and hidden names must be asked for."""
    return _match(name.split("/"), pattern.split("/"))


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not parts or not patterns:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _match(parts, patterns[1:]) or (not _hidden(parts[0], "") and _match(parts[1:], patterns))
    first = not _hidden(parts[0], patterns[0]) and fnmatch.fnmatchcase(parts[0], patterns[0])
    return first and _match(parts[1:], patterns[1:])


def _hidden(part: str, pattern: str) -> bool:
    return part.startswith((".", "_")) and not pattern.startswith(part[0])
