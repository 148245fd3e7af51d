"""The result document, `result.json`: the outcome of a step, read by the next step, by the KFP task and by users.

A step writes this document last and atomically. So if the document is there and its status is `succeeded`, the step's outputs are complete;
an exit code or the state of a SparkApplication alone does not prove that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

CONTRACT_VERSION = 1
"""Is raised when the code can no longer read the documents of the version before."""
RESULT_NAME = "result.json"
TERMINATION_LOG = Path("/dev/termination-log")
"""The file whose content Kubernetes shows as the container's termination message; it keeps at most 4,096 bytes."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a step failed, in a form that can be written as JSON and passed from the driver pod to the task.

    Attributes:
        kind: `input` if the user must change the data or a setting, else `fault`.
        type: class name of the exception.
        message: what is wrong, where, and what to do.
        frames: the last frames of the stack trace, outermost first; empty for `input`.
    """

    kind: str
    type: str
    message: str
    frames: tuple[str, ...] = ()


def write_termination_message(failure: Failure) -> None:
    """Writes the failure to the container's termination log, where the runner finds it even if the object store is away."""
    try:
        with TERMINATION_LOG.open("r+", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(failure), "message": failure.message[:1000], "frames": []}))
            file.truncate()  # of an earlier, longer message
    except OSError:  # not in a container
        log.debug("no %s", TERMINATION_LOG)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The content of a result document.

    Attributes:
        step: name of the step.
        status: `succeeded` or `failed`.
        contract_version: version of this document's format.
        arguments: the step's arguments by name.
        rows_in: number of rows read.
        rows_out: number of rows written or evaluated, by name (`rows`, `rejected`, `train`, ...).
        metrics: metrics by name; finite numbers only.
        seconds: wall-clock seconds by phase: `startup` (until the step's module runs), `work` and `total`.
        columns: name and Spark type of the columns of the main output.
        inputs: content digest of each input, by argument name.
        digest: digest of the output's content, not of its bytes: equal rows have equal digests in any order and file layout.
        uris: URIs of the parts of the output by name.
        warnings: sentences for the user.
        facts: further plain values for later steps and for KFP's UI.
        failure: why the step failed; set if and only if `status` is `failed`.
        reused_from: URI of the earlier output, if that was reused and the step was not run.
        made_by: when and by which code the step ran; see `spark_jobs.provenance`.
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
    made_by: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Parses a result document.

        Raises:
            ValueError: the text is no result document, or one of another contract version.
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
