"""What a mirror of the registry shows: the champion and the canary of a model, where a version comes from, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_jobs.errors import InputError
from spark_jobs.registry.pointer import Champion

CHAMPION, CANARY = ALIASES = ("champion", "canary")
SPECIFICATION = "specification.toml"


def versions_by_alias(champion: Champion) -> dict[str, str]:
    """Returns the version of each alias: the champion's, and the canary's if there is one.

    Raises:
        InputError: the model has no champion.
    """
    if not champion.version:
        raise InputError(
            f"model {champion.name!r} has no champion, so there is nothing to show; promote a version first"
        )
    return {CHAMPION: champion.version} | ({CANARY: champion.canary.version} if champion.canary else {})


def origin(document: Mapping[str, Any]) -> dict[str, str]:
    """Returns where a version comes from, as far as its version.json says: the run, the data, the SHA-256 of code and specification."""
    digests = {item["path"]: item["sha256"] for item in document["files"]}
    facts = {
        "run": document["run"],
        "label": document["label"],
        "data": document["data"]["uri"],
        "model": document["model"]["kind"],
        "code": document["made_by"].get("code_sha256", ""),
        "specification": digests.get(SPECIFICATION, ""),
    }
    return {name: str(value) for name, value in facts.items() if value}


def metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of a version, and as `_low` and `_high` the ends of their intervals."""
    return {
        f"{item['name']}{suffix}": float(item[key])
        for item in document["metrics"]
        for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
        if isinstance(item.get(key), int | float)
    }
