"""What the step drift has found of each batch, monitoring/VERSION.jsonl beside the pointer of a model: one line a batch, oldest first.

The document is replaced by compare-and-swap, so that of two batches that are judged at once none is lost. A server of the model reads the
last lines and shows them as gauges. A version's own folder never changes, so the document lies outside of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from spark_jobs.errors import InputError
from spark_jobs.registry.places import Place, attempts
from spark_jobs.registry.versions import check_name

FOLDER = "monitoring"
MOST_BATCHES = 1000
"""The document keeps so many batches."""


def record(registry: Place, name: str, version: str, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Appends a batch, or replaces the one of the same `by` if the task is repeated; returns all batches.

    Args:
        registry: the registry.
        name: name of the model.
        version: the version that met the batch.
        batch: plain values; `by` is the URI of the output of the step drift.

    Raises:
        InputError: the document is damaged, or is replaced all the time.
    """
    check_name(name)
    path = f"{name}/{FOLDER}/{version}.jsonl"
    where = f"{registry.uri}/{path}"
    for content, tag in attempts(registry, path):
        batches = _parsed(content, where)
        if batch in batches:
            return batches
        batches = [*(each for each in batches if each["by"] != batch["by"]), dict(batch)][-MOST_BATCHES:]
        lines = "".join(json.dumps(each, ensure_ascii=False, allow_nan=False) + "\n" for each in batches)
        registry.swap(path, lines.encode(), tag)  # the next turn sees whether it was written, though the answer be lost
    raise AssertionError("attempts ends with an error")


def _parsed(content: bytes, where: str) -> list[dict[str, Any]]:
    try:
        batches = [json.loads(line) for line in content.decode().splitlines()]
        if not all(isinstance(each, dict) and "by" in each for each in batches):
            raise ValueError("a line is no batch")
    except ValueError as error:
        raise InputError(f"{where} is damaged ({error}); remove it, or the line") from error
    return batches
