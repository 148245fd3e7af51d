"""What the step drift has found of the batches that the served versions have met, for the metrics.

The step runs as a batch, and nobody can scrape it; the server runs anyway, and knows which versions are in use. So the server reads the
documents `NAME/monitoring/VERSION.jsonl` of the registry and shows their last lines as gauges, with no further component.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from serving.champion import Champion
from serving.model_source import RefusedError, UnreachableError

SECONDS = 60.0
ENDS = ("value", "low", "high")
"""A metric, and the ends of its 95 % interval."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DriftResult:
    """The newest batch of a version, and how well the version predicted the newest one whose labels have arrived.

    Attributes:
        alarms: number of alarms.
        largest_psi: largest population stability index of a column or of the scores.
        checked: when it was compared, in seconds since 1970.
        judged: each metric with `name`, `value`, `low` and `high`; empty if no batch had labels.
    """

    alarms: float
    largest_psi: float
    checked: float
    judged: Sequence[Mapping[str, Any]]


class DriftResults:
    """The results of the versions in use.

    Attributes:
        found: by version.
    """

    def __init__(self, champion: Champion) -> None:
        self._champion = champion
        self.found: dict[str, DriftResult] = {}
        self._said: dict[str, str] = {}
        self._stopped = threading.Event()

    def refresh(self) -> None:
        """Reads the documents again; what cannot be read stays as it was."""
        in_use = self._champion.in_use
        versions = [each.version for each in (in_use.champion, in_use.canary) if each]
        found = {version: result for version in versions if (result := self._read(version))}
        self.found = {version: each for version, each in {**self.found, **found}.items() if version in versions}

    def follow(self) -> None:
        """Reads the documents again and again, in a thread of its own, until `stop`."""
        if self._champion.place is None:
            return

        def loop() -> None:
            while True:
                try:
                    self.refresh()
                except Exception:
                    log.exception("the results of drift could not be read")
                if self._stopped.wait(SECONDS):
                    return

        threading.Thread(target=loop, name="drift", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _read(self, version: str) -> DriftResult | None:
        assert self._champion.place is not None
        where = f"{self._champion.name}/monitoring/{version}.jsonl"
        try:
            batches = [json.loads(line) for line in self._champion.place.read(where).splitlines()]
            last = batches[-1]
            judged: list[Mapping[str, Any]] = next(
                (each["metrics"] for each in reversed(batches) if each["metrics"]), []
            )
            return DriftResult(
                float(last["alarms"]),
                float(last["largest_psi"]),
                datetime.fromisoformat(last["at"]).timestamp(),
                [{"name": str(item["name"]), **{end: float(item[end]) for end in ENDS}} for item in judged],
            )
        except FileNotFoundError:
            return None
        except (UnreachableError, RefusedError, ValueError, KeyError, TypeError, IndexError) as error:
            if self._said.get(version) != str(error):
                log.warning("results of drift cannot be read", extra={"model_version": version, "error": str(error)})
            self._said[version] = str(error)
            return None
