"""Removes old versions of a model: never the champion, the canary, or the champion before.

That is the version to which `rollback` would go, and the one that was champion just before: after a rollback these are two. What killed or
failed writers of versions have left goes, too.
"""

from __future__ import annotations

import time

from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import Place
from spark_jobs.registry.version_document import VERSION_ID, VERSION_NAME
from spark_jobs.registry.versions import folder_of

ROLLBACKS_KEPT = 1
"""How many of the champions before this one are kept."""
LEFTOVER_SECONDS = 24 * 3600.0
"""Files without a version.json, of which none was written for so long, are no import that is going on."""


def prunable(registry: Place, name: str, keep: int) -> list[str]:
    """Returns the versions that may go: all but the newest ones and those that serve or may serve again.

    Args:
        registry: the registry.
        name: name of the model.
        keep: how many of the newest versions stay.
    """
    return _prunable(versions.versions_of(registry, name), pointer.read(registry, name), keep)


def _prunable(known: list[str], champion: pointer.Champion, keep: int) -> list[str]:
    kept = {*_needed(champion), *(known[-keep:] if keep else [])}
    return [version for version in known if version not in kept]


def _needed(champion: pointer.Champion) -> set[str]:
    replaced = [move.previous for move in champion.history if move.previous != move.version]
    before = [*pointer.champions_before(champion.history)[-ROLLBACKS_KEPT:], *replaced[-1:]]
    return {*pointer.served(champion), *before}


def leftovers(registry: Place, name: str) -> list[str]:
    """Returns the IDs of the versions that were not written whole, or not removed whole, a day ago or earlier.

    Args:
        registry: the registry.
        name: name of the model.
    """
    written: dict[str, float] = {}
    for path, written_at in registry.times(f"{name}/versions").items():
        version = path.split("/")[2]
        written[version] = max(written_at, written.get(version, 0.0))
    kept = {*versions.versions_of(registry, name), *_needed(pointer.read(registry, name))}
    before = time.time() - LEFTOVER_SECONDS
    old = sorted(version for version, written_at in written.items() if written_at < before)
    return [version for version in old if VERSION_ID.fullmatch(version) and version not in kept]


def prune(registry: Place, name: str, keep: int) -> list[str]:
    """Removes the versions that may go, and all leftovers; returns the IDs of the versions.

    The pointer records it first, so that a promotion that was decided before is refused. A version whose version.json is gone is not
    there any more, so a process that is killed in between leaves only files that a later call removes.

    Raises:
        ConflictError: somebody else moved the pointer meanwhile.
    """
    seen = pointer.read(registry, name)
    gone = _prunable(versions.versions_of(registry, name), seen, keep)
    if gone and seen.version:
        pointer.move_pointer(registry, seen, pointer.PRUNE, f"removed {', '.join(gone)}")
    for version in gone:
        document = f"{folder_of(name, version)}/{VERSION_NAME}"
        content = registry.read(document)
        registry.remove(document)
        if version in pointer.served(pointer.read(registry, name)):  # promoted in this moment
            registry.write(document, content)
    left = set(versions.versions_of(registry, name))
    removed = [version for version in gone if version not in left]
    for version in (*removed, *leftovers(registry, name)):
        registry.remove(folder_of(name, version))
    return removed
