"""Parses URIs of an object store and matches object names with folders and patterns; pure functions that need no connection.

An object store has no folders: `data/` is only a common prefix of names. These functions apply the rules of a file system to a list of
names, so that a glob finds the same tables in a store as on a disk.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from urllib.parse import urlparse

from spark_jobs.contract import OBJECT_STORE_SCHEMES
from spark_jobs.errors import InputError

ListedObject = tuple[str, int, str, str]
"""Name, size in bytes, ETag and version of an object."""


def scheme_of(uri: str) -> str:
    """Returns the scheme of a URI: one of `OBJECT_STORE_SCHEMES`, or `file` for a `file:` URI or a path.

    Raises:
        InputError: the scheme is another one.
    """
    scheme = urlparse(uri).scheme if "://" in uri else "file"
    if scheme not in (*OBJECT_STORE_SCHEMES, "file"):
        raise InputError(
            f"{uri}: {scheme}:// is not supported; give a path, or a URI that starts with {', '.join(OBJECT_STORE_SCHEMES)} or file"
        )
    return scheme


def is_object_store_uri(uri: str) -> bool:
    """Returns whether a URI points into an object store; it does not check whether an object is there."""
    return urlparse(uri).scheme in OBJECT_STORE_SCHEMES


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Splits a URI of an object store into bucket and object name.

    Raises:
        InputError: the URI names no bucket, or a part of the name is `..`.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket or ".." in key.split("/"):
        raise InputError(f"{uri}: not a URI like s3://BUCKET/NAME")
    return bucket, key


def at_or_below(listed: Sequence[ListedObject], prefix: str, *, whole_names: bool) -> list[ListedObject]:
    """Selects the objects with a name or in the folder of that name, sorted.

    Args:
        listed: objects.
        prefix: the name of an object or a folder, or the first part of a name.
        whole_names: whether `prefix` is a complete name; else all objects are selected whose names begin with it.
    """
    folder = prefix.rstrip("/") + "/"
    found = [item for item in listed if item[0].startswith(prefix)]
    return sorted(item for item in found if not whole_names or item[0] == prefix or item[0].startswith(folder))


def literal_prefix(key: str) -> str:
    """Returns the part of a pattern before its first wildcard, which is the prefix to list; a name without wildcards as a whole."""
    signs = [key.find(sign) for sign in "*?[" if sign in key]
    return key[: min(signs)] if signs else key


def select_tables(names: Sequence[str], key: str, suffixes: Sequence[str]) -> list[str] | None:
    """Selects the objects that a key means.

    Args:
        names: names of the objects in the bucket that begin with the key's literal prefix.
        key: the name of an object, a folder or a pattern.
        suffixes: if the key is a folder, only objects with one of these suffixes are selected, and hidden ones are not.

    Returns:
        The names, sorted; an empty list for a folder without tables; None if there is no object or folder of that name.
    """
    base = f"{key.rstrip('/')}/" if key.strip("/") else ""
    below = [name.removeprefix(base) for name in names if name.startswith(base) and name != base]
    if key in names and not key.endswith("/"):
        return [key]
    if literal_prefix(key) != key:
        return sorted(name for name in names if matches(name, key) and not name.endswith("/")) or None
    visible = [name for name in below if not is_hidden(name)]
    found = sorted(f"{base}{name}" for name in visible if name.endswith(tuple(suffixes)))
    return found if found or below or base in names else None


def is_hidden(name: str) -> bool:
    """Returns whether a part of a name begins with `.` or `_`: Spark passes over such files."""
    return any(part.startswith((".", "_")) for part in name.split("/"))


def matches(name: str, pattern: str) -> bool:
    """Returns whether a name matches a pattern by the rules of a file system.

    A star matches no slash, and two stars match any number of folders. A name that begins with `.` or `_` matches only a pattern that
    begins with the same character.
    """
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
