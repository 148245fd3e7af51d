"""Removes old versions of a model: never the champion, the canary, or the champion before.

That is the version to which `rollback` would go, and the one that was champion just before: after a rollback these are two.
"""

from __future__ import annotations

from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import Place
from spark_jobs.registry.version_document import VERSION_NAME
from spark_jobs.registry.versions import folder_of

ROLLBACKS_KEPT = 1
"""How many of the champions before this one are kept."""


def prunable(registry: Place, name: str, keep: int) -> list[str]:
    """Returns the versions that may go: all but the newest ones and those that serve or may serve again.

    Args:
        registry: the registry.
        name: name of the model.
        keep: how many of the newest versions stay.
    """
    return _prunable(versions.versions_of(registry, name), pointer.read(registry, name), keep)


def _prunable(known: list[str], champion: pointer.Champion, keep: int) -> list[str]:
    replaced = [move.previous for move in champion.history if move.previous != move.version]
    needed = {*pointer.served(champion), *pointer.champions_before(champion.history)[-ROLLBACKS_KEPT:], *replaced[-1:]}
    newest = known[-keep:] if keep else []
    return [version for version in known if version not in needed and version not in newest]


def prune(registry: Place, name: str, keep: int) -> list[str]:
    """Removes the versions that may go; returns their IDs.

    The pointer records it first, so that a promotion that was decided before is refused. A version whose version.json is gone is not
    there any more, so a process that is killed in between leaves only files that the next call removes.

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
    for version in gone:
        if version not in left:
            registry.remove(folder_of(name, version))
    return [version for version in gone if version not in left]
