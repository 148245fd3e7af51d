"""The pointer to a model's champion, champion.json: one small document that moves by compare-and-swap and holds its own history.

The history is part of the document, so that the two never disagree. Of two moves at once one wins; the other is told and changes nothing.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from spark_jobs.errors import InputError, UnavailableError
from spark_jobs.promotion import percent
from spark_jobs.registry import versions
from spark_jobs.registry.places import Place
from spark_jobs.registry.version_document import REGISTRY_VERSION

POINTER_NAME = "champion.json"
PROMOTE, ROLLBACK, CANARY, PRUNE = MOVES = ("promote", "rollback", "canary", "prune")


class ConflictError(InputError):
    """Somebody else moved the pointer meanwhile; nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Move:
    """One move of the pointer.

    Attributes:
        move: its number, from 1.
        kind: one of `MOVES`.
        version: the champion after the move.
        previous: the champion before it; empty for the first.
        at: time in UTC, ISO 8601 with microseconds.
        by: user and machine.
        why: reason, for the reader.
    """

    move: int
    kind: str
    version: str
    previous: str
    at: str
    by: str
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A second version that gets a share of the requests.

    Attributes:
        version: its ID.
        share: of the requests, above 0 and below 1.
        passed_beside: the champion beside which it has passed the gate of the step promote; empty: it has not.
    """

    version: str
    share: float
    passed_beside: str = ""


@dataclass(frozen=True, kw_only=True)
class Champion:
    """The pointer: the champion's version, a canary or none, and all moves so far.

    Attributes:
        tag: of the document as it was read, for the comparison; empty for a pointer that is not written yet.
    """

    name: str
    version: str = ""
    canary: Canary | None = None
    history: tuple[Move, ...] = ()
    tag: str = ""

    @property
    def move(self) -> int:
        return self.history[-1].move if self.history else 0

    def to_json(self) -> str:
        document = {
            "registry_version": REGISTRY_VERSION,
            "name": self.name,
            "version": self.version,
            "move": self.move,
            "canary": asdict(self.canary) if self.canary else None,
            "history": [asdict(move) for move in self.history],
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def read(registry: Place, name: str) -> Champion:
    """Reads the pointer of a model; without one, the champion's version is empty.

    Raises:
        InputError: the document is damaged.
    """
    versions.check_name(name)
    content, tag = registry.read_tagged(f"{name}/{POINTER_NAME}")
    if not tag:
        return Champion(name=name)
    where = f"{registry.uri}/{name}/{POINTER_NAME}"
    try:
        document = json.loads(content)
        if document["registry_version"] != REGISTRY_VERSION:
            raise InputError(f"{where} is of another release of spark-kfp")
        canary = Canary(**document["canary"]) if document["canary"] else None
        history = tuple(Move(**item) for item in document["history"])
        return Champion(name=name, version=str(document["version"]), canary=canary, history=history, tag=tag)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is damaged ({error!r}); put back a copy of it") from error


def promote(registry: Place, name: str, version: str, *, why: str = "", seen: Champion | None = None) -> Champion:
    """Makes a version the champion; a canary of this version ends, another one stays.

    Args:
        registry: the registry.
        name: name of the model.
        version: a version of it; all its files are checked first.
        why: reason, for the reader of the history.
        seen: the pointer on which the decision was based; None: as it is now.

    Raises:
        ConflictError: somebody else moved the pointer since.
        InputError: there is no such version, or its files were changed.
    """
    return _point(registry, seen or read(registry, name), PROMOTE, version, why)


def rollback(registry: Place, name: str, *, to: str = "", why: str = "") -> Champion:
    """Makes the champion before this one the champion again, and ends a canary.

    Args:
        registry: the registry.
        name: name of the model.
        to: an earlier version; empty: the one before.
        why: reason, for the reader of the history.

    Raises:
        ConflictError: somebody else moved the pointer meanwhile.
        InputError: there was none before, or its version is not there any more.
    """
    seen = read(registry, name)
    earlier = champions_before(seen.history)
    if not to and not earlier:
        raise InputError(
            f"model {name!r} has had no champion before {seen.version or 'this one'}; name an earlier version"
        )
    return _point(registry, replace(seen, canary=None), ROLLBACK, to or earlier[-1], why)


def champions_before(history: Sequence[Move]) -> list[str]:
    """Returns the champions to which one can go back, the nearest last.

    A rollback to one of them takes off those after it; one to a version that was none of them goes on top, as a promotion does.
    """
    stack: list[str] = []
    for move in history:
        if move.kind == ROLLBACK and move.version in stack:
            while stack[-1] != move.version:
                stack.pop()
        elif move.kind in (PROMOTE, ROLLBACK) and stack[-1:] != [move.version]:
            stack.append(move.version)
    return stack[:-1]


def _point(registry: Place, seen: Champion, kind: str, version: str, why: str) -> Champion:
    if version == seen.version and kind == PROMOTE:
        return seen
    versions.verify(registry, seen.name, version)
    canary = None if seen.canary and seen.canary.version == version else seen.canary
    moved = move_pointer(registry, seen, kind, why, version=version, canary=canary)
    if version not in versions.versions_of(registry, seen.name):  # pruned between the check and the move
        if seen.version:
            move_pointer(registry, moved, ROLLBACK, f"{version} was pruned meanwhile", version=seen.version)
        raise ConflictError(f"version {version} of {seen.name!r} was pruned meanwhile; register it again")
    return moved


def set_canary(
    registry: Place, name: str, canary: Canary | None, *, why: str = "", seen: Champion | None = None
) -> Champion:
    """Gives a version a share of the requests beside the champion.

    Args:
        registry: the registry.
        name: name of the model.
        canary: the version and its share; None ends the canary.
        why: reason, for the reader of the history.
        seen: the pointer on which the decision was based; None: as it is now.

    Raises:
        ConflictError: somebody else moved the pointer since.
        InputError: there is no champion or no such version, the version is the champion, or the share is out of range.
    """
    seen = seen or read(registry, name)
    if not seen.version:
        raise InputError(f"model {name!r} has no champion, so there is nothing to share with; promote a version first")
    if canary is None:
        return move_pointer(registry, seen, CANARY, why or "ended", canary=None) if seen.canary else seen
    if not 0.0 < canary.share < 1.0:
        raise InputError(f"the share of a canary is {canary.share:g}; allowed: above 0 and below 1, such as 0.1")
    if canary.version == seen.version:
        raise InputError(f"version {canary.version} is the champion of {name!r} already, so it has all requests")
    versions.verify(registry, name, canary.version)
    return move_pointer(registry, seen, CANARY, why or f"{canary.version} gets {percent(canary.share)}", canary=canary)


def move_pointer(registry: Place, seen: Champion, kind: str, why: str, **changes: Any) -> Champion:
    """Writes the next state of a pointer if it is still the one that was seen.

    Args:
        registry: the registry.
        seen: the pointer as it was read.
        kind: one of `MOVES`.
        why: reason.
        changes: the fields of `Champion` that change.

    Raises:
        ConflictError: somebody else moved it since.
        UnavailableError: the object store did not answer, so the move may or may not have been made.
    """
    moved = replace(seen, **changes)
    entry = Move(
        move=seen.move + 1, kind=kind, version=moved.version, previous=seen.version, at=_now(), by=_who(), why=why
    )
    moved = replace(moved, history=(*seen.history, entry))
    path = f"{seen.name}/{POINTER_NAME}"
    try:
        won = registry.swap(path, moved.to_json().encode(), seen.tag)
    except UnavailableError as error:
        raise UnavailableError(
            f"{error}; the move may have been made or not: `spark-kfp models show {seen.name}` says"
        ) from error
    now = read(registry, seen.name)
    # The answer to a request that was made can be lost, and the repeated one refused: then our entry stands in the history.
    if not won and entry not in now.history:
        last = now.history[-1] if now.history else None
        told = f"{last.by} moved it to {last.version} at {last.at[:19]}" if last else "it was removed"
        raise ConflictError(
            f"the pointer of {seen.name!r} was moved meanwhile ({told}); nothing was changed: look, and try again"
        )
    return now if now.move == moved.move else replace(moved, tag=now.tag)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a pod's user has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def served(champion: Champion) -> Mapping[str, float]:
    """Returns the versions that get requests, and the share of each."""
    if not champion.version:
        return {}
    share = champion.canary.share if champion.canary else 0.0
    return {champion.version: 1.0 - share} | ({champion.canary.version: share} if champion.canary else {})
