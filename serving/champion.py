"""Follows the pointer of a model: takes a new champion or canary over between two requests, and refuses a broken one.

A request takes a model once and keeps it to its end, so a change loses none. What is refused is said once in the log and stays in the
metrics; the versions in use stay. The next look at the registry tries again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from serving.model_source import Place, RefusedError, ServedModel, UnreachableError, load_version, read_pointer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InUse:
    """The models that answer now. It is replaced as a whole, so a request never sees half a change."""

    champion: ServedModel | None = None
    canary: ServedModel | None = None
    share: float = 0.0


class Champion:
    """The champion of one model, and its canary.

    Attributes:
        name: name of the model.
        place: the registry; None: there is none.
        in_use: the models that answer now.
        changes: how often the champion or the canary has changed.
        refused: why a version, or the pointer under the empty name, is refused at the moment.
        refusals: how often a version or the pointer was refused.
        unreachable: how often the registry could not be read.
    """

    def __init__(self, name: str, place: Place | None, model: ServedModel | None = None) -> None:
        """Follows a pointer, or serves one model for ever.

        Args:
            name: name of the model.
            place: the registry; None: there is none.
            model: the model to serve until the pointer says otherwise.
        """
        self.name = name
        self.place = place
        self.in_use = InUse(model)
        self.changes = self.refusals = self.unreachable = 0
        self.refused: dict[str, str] = {}
        self._absent_because = "the registry was not read yet"
        self._stopped = threading.Event()

    def choose(self, draw: Callable[[], float] = random.random) -> ServedModel | None:
        """Returns the model for a request: the canary for its share of them. None: there is no champion yet."""
        in_use = self.in_use
        if in_use.canary is not None and draw() < in_use.share:
            return in_use.canary
        return in_use.champion

    def version(self, version: str) -> ServedModel | None:
        """Returns the champion or the canary, if it has this version."""
        in_use = self.in_use
        return next((each for each in (in_use.champion, in_use.canary) if each and each.version == version), None)

    def absence(self) -> str:
        """Says that there is no champion, and what kept the last look at the registry from finding one."""
        return f"model {self.name!r} has no champion: {self._absent_because}"

    def refresh(self) -> None:
        """Looks at the pointer and takes over what it names; on trouble what is in use stays."""
        if self.place is None:
            return
        try:
            pointer = read_pointer(self.place, self.name)
        except UnreachableError as error:
            self._out_of_reach(error)
            return
        except FileNotFoundError:
            self._refuse("", "there is no champion.json yet; promote a version")
            return
        except RefusedError as error:
            self._refuse("", str(error))
            return
        old = self.in_use
        champion = self._load(pointer.version) or old.champion
        canary = self._load(pointer.canary) if pointer.canary else None
        if pointer.canary and canary is None and old.canary and old.canary.version != pointer.version:
            canary = old.canary
        share = pointer.share if canary else 0.0
        named = {pointer.version, pointer.canary} - {""}
        self.refused = {version: why for version, why in self.refused.items() if version in named}
        self._use(InUse(champion, canary, share))

    def follow(self, seconds: float) -> None:
        """Looks at the pointer again and again, in a thread of its own, until `stop`."""

        def loop() -> None:
            while not self._stopped.wait(seconds):
                try:
                    self.refresh()
                except Exception:
                    log.exception("the pointer could not be followed")

        threading.Thread(target=loop, name="champion", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _load(self, version: str) -> ServedModel | None:
        """Returns the version, from memory if it is in use; None: it is refused, or the registry is unreachable."""
        if model := self.version(version):
            self.refused.pop(version, None)
            return model
        assert self.place is not None
        try:
            model = load_version(self.place, self.name, version)
        except RefusedError as error:
            self._refuse(version, str(error))
            return None
        except UnreachableError as error:
            self._out_of_reach(error)
            return None
        self.refused.pop(version, None)
        return model

    def _out_of_reach(self, error: UnreachableError) -> None:
        self.unreachable += 1
        self._absent_because = str(error)
        log.warning("registry unreachable", extra={"error": str(error)})

    def _refuse(self, version: str, why: str) -> None:
        if self.refused.get(version) != why:
            self.refusals += 1
            log.error(
                "version refused" if version else "pointer refused", extra={"model_version": version, "error": why}
            )
        self.refused = {**self.refused, version: why}
        self._absent_because = why

    def _use(self, new: InUse) -> None:
        old, self.in_use = self.in_use, new
        versions = [each.version if each else "" for each in (new.champion, new.canary)]
        if versions != [each.version if each else "" for each in (old.champion, old.canary)] or new.share != old.share:
            self.changes += 1
            log.info(
                "model taken over",
                extra={"model": self.name, "model_version": versions[0], "canary": versions[1], "share": new.share},
            )
