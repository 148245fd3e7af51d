"""The trainings that alarms have started for a model, retraining.json beside its pointer: at most one in a cool-down.

The document is replaced by compare-and-swap, as the pointer is. So of two runs that look for drift at once, only one starts a training. A
run that asks again, because its task is repeated, gets the answer that it got before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from spark_jobs.errors import InputError
from spark_jobs.registry.places import Place, attempts
from spark_jobs.registry.version_document import REGISTRY_VERSION
from spark_jobs.registry.versions import check_name

RETRAINING_NAME = "retraining.json"
MOST_KEPT = 100
"""The document keeps so many trainings."""


@dataclass(frozen=True, kw_only=True)
class StartedTraining:
    """A training that an alarm has started.

    Attributes:
        by: the run that started it: the URI of the output of its step drift, which is the same if the task is repeated.
        at: time in UTC, ISO 8601.
        why: the alarms, for the reader.
    """

    by: str
    at: str
    why: str

    @property
    def time(self) -> datetime:
        return datetime.fromisoformat(self.at)


def claim(
    registry: Place, name: str, by: str, cooldown: timedelta, why: str, now: datetime
) -> tuple[StartedTraining, bool]:
    """Records that a run starts a training, unless another one has in the cool-down.

    Args:
        registry: the registry.
        name: name of the model.
        by: the run; see `StartedTraining`.
        cooldown: time in which no second training is started.
        why: the alarms.
        now: the time, with a zone.

    Returns:
        The record, or that of the other run; and whether it is the own one.

    Raises:
        InputError: the document is damaged, or is replaced all the time.
        UnavailableError: the object store does not answer. A repeated claim of the same run then tells whether this one was made.
    """
    check_name(name)
    path = f"{name}/{RETRAINING_NAME}"
    where = f"{registry.uri}/{path}"
    mine = StartedTraining(by=by, at=now.isoformat(timespec="seconds"), why=why)
    for content, tag in attempts(registry, path):
        started = _parsed(content, where) if tag else ()
        # First, because an answer of the store can be lost, and because a repeated task keeps the answer that it got.
        if own := next((each for each in started if each.by == by), None):
            return own, True
        if started and now - started[-1].time < cooldown:
            return started[-1], False
        registry.swap(path, _formatted((*started, mine)[-MOST_KEPT:]), tag)
    raise AssertionError("attempts ends with an error")


def _parsed(content: bytes, where: str) -> tuple[StartedTraining, ...]:
    try:
        document = json.loads(content)
        started = tuple(StartedTraining(**item) for item in document["started"])
        if document["registry_version"] != REGISTRY_VERSION or not all(each.time.tzinfo for each in started):
            raise ValueError("another release of spark-kfp wrote it")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where} is damaged ({error!r}); remove it: then the next alarm starts a training") from error
    return started


def _formatted(started: Sequence[StartedTraining]) -> bytes:
    document = {"registry_version": REGISTRY_VERSION, "started": [asdict(each) for each in started]}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
