"""The result document: what a step leaves for the next one, for the task that started it and for people.

A step writes it last and whole, so that its presence means that the step has done its work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

CONTRACT_VERSION = 1
"""Changes when a document of an older version can no longer be read."""
RESULT_NAME = "result.json"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a step failed, as data, so that it can cross a process or a cluster.

    Attributes:
        kind: `input` when the caller must change something, else `fault`.
        type: name of the exception's class.
        message: what, where and the next thing to do.
        frames: the last frames of the stack, outermost first; empty for `input`.
    """

    kind: str
    type: str
    message: str
    frames: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result document: written last and whole. A step has done its work only if this document says so.

    Attributes:
        step: the step's name.
        arguments: the step's arguments as they were given.
        status: `succeeded` or `failed`.
        rows_in: rows read.
        rows_out: rows written or judged, by name (`rows`, `rejected`, `train`, ...).
        metrics: plain finite numbers by name.
        seconds: wall seconds by phase; `total` counts from the process's start.
        columns: name and Spark type of the columns of the main output.
        inputs: content digest of each input, by argument name.
        digest: digest of what the output means (not of its bytes): equal for equal rows in any order or layout.
        uris: where the parts of the output are, by name.
        warnings: sentences that a person should read.
        facts: further plain values that the next task or the UI shows.
        failure: set if and only if `status` is `failed`.
        reused_from: URI of the earlier output when the step was not run again.
    """

    step: str
    status: str
    contract_version: int = CONTRACT_VERSION
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rows_in: int = 0
    rows_out: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    columns: tuple[tuple[str, str], ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    uris: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    reused_from: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Reads a result document.

        Raises:
            ValueError: it is not one, or is of another contract version.
        """
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("contract_version") != CONTRACT_VERSION:
            raise ValueError(f"not a result document of contract version {CONTRACT_VERSION}")
        try:
            if document.get("failure"):
                document["failure"]["frames"] = tuple(document["failure"]["frames"])
                document["failure"] = Failure(**document["failure"])
            document["columns"] = tuple((name, kind) for name, kind in document["columns"])
            document["warnings"] = tuple(document["warnings"])
            return cls(**document)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a damaged result document: {error!r}") from error
