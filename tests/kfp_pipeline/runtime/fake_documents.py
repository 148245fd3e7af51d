"""An object store in memory, in the place of the functions of `runtime.object_store`; it may be away."""

from __future__ import annotations

import hashlib

import pytest

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import TemporaryError
from spark_jobs.result import Failure


class Store:
    """Small documents by URI; all three schemes mean the same one, as in the real store."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.away = False

    @classmethod
    def instead(cls, monkeypatch: pytest.MonkeyPatch) -> Store:
        """One that the code meets in the place of the real store."""
        found = cls()
        for name in ("write_bytes", "remove", "read_text", "list_objects"):
            monkeypatch.setattr(object_store, name, getattr(found, name))
        return found

    def write_bytes(self, uri: str, content: bytes, *, brief: bool = False) -> None:  # noqa: ARG002 - away at once
        self.kept[self._name(uri)] = content

    def remove(self, uri: str, *, brief: bool = False) -> None:  # noqa: ARG002
        self.kept.pop(self._name(uri), None)

    def read_text(self, uri: str) -> str | None:
        found = self.kept.get(self._name(uri))
        return found.decode() if found is not None else None

    def list_objects(self, uri: str, *, whole_names: bool = True) -> list[object_store.ListedObject]:
        bucket, prefix = self._name(uri).split("/", 1)
        listed = [
            (name.removeprefix(f"{bucket}/"), len(content), hashlib.sha256(content).hexdigest(), "")
            for name, content in self.kept.items()
            if name.startswith(f"{bucket}/")
        ]
        return object_store.at_or_below(listed, prefix, whole_names=whole_names)

    def _name(self, uri: str) -> str:
        if self.away:
            raise TemporaryError(Failure(kind="fault", type="ObjectStoreAway", message="the store does not answer"))
        return "/".join(object_store.bucket_and_key(uri))
