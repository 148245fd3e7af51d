"""The documents by which the tasks of a run ask the run's Spark session for steps, and by which the session answers.

They lie in a folder of the object store that belongs to one session:

| document | who writes it | content |
|---|---|---|
| `requests/NAME.json` | a task | the command line of a step, and an id of the attempt |
| `requests/stop.json` | the last task of the run | nothing; the session ends |
| `steps.json` | the session | of each step that it has taken: the request, its state and exit code |

NAME is made from the step and the URI of its output, so a task that is repeated finds the request of its first attempt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

SESSION = "session"
"""Name of the program that holds the session, beside the names of the steps; and of its settings in a SparkApplication's template."""
REQUESTS, STOP, STEPS_NAME = "requests", "stop", "steps.json"
RUNNING, ENDED = "running", "ended"


@dataclass(frozen=True)
class StepRequest:
    """What a task asks for.

    Attributes:
        argv: name of the step and its arguments.
        attempt: id of the attempt; if the document changes, the step runs again.
    """

    argv: tuple[str, ...]
    attempt: str

    def to_json(self) -> str:
        """Returns the text of the document."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> StepRequest:
        """Parses the document.

        Raises:
            ValueError: it is none.
        """
        try:
            found = json.loads(text)
            return cls(tuple(map(str, found["argv"])), str(found["attempt"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a request for a step: {error}") from error


@dataclass(frozen=True)
class StepState:
    """What the session says about a step.

    Attributes:
        request: the request that it has taken.
        state: RUNNING or ENDED.
        exit_code: of the step, once it has ended.
    """

    request: StepRequest
    state: str
    exit_code: int | None = None


def request_name(step: str, output_uri: str) -> str:
    """Returns the name of the request for a step: the same for each attempt of its task, and another for each other output."""
    return f"{step}-{hashlib.sha256(output_uri.encode()).hexdigest()[:12]}"


def request_uri(session_uri: str, name: str) -> str:
    """Returns the URI of a request."""
    return f"{session_uri}/{REQUESTS}/{name}.json"


def begin_line(name: str, request: StepRequest) -> str:
    """Returns the text after which the lines of the session's log belong to this attempt of a step."""
    return f"session: {name} begins, attempt {request.attempt}"


def end_line(name: str, request: StepRequest) -> str:
    """Returns the text that ends the lines of this attempt in the session's log."""
    return f"session: {name} has ended, attempt {request.attempt}"


def steps_to_json(steps: Mapping[str, StepState]) -> str:
    """Returns the text of `steps.json`."""
    return json.dumps({name: asdict(state) for name, state in steps.items()})


def steps_from_json(text: str | None) -> dict[str, StepState]:
    """Parses `steps.json`: the state of each step by the name of its request; empty if the document does not exist yet."""
    found = json.loads(text) if text else {}
    return {
        name: StepState(
            StepRequest(tuple(item["request"]["argv"]), item["request"]["attempt"]), item["state"], item["exit_code"]
        )
        for name, item in found.items()
    }
