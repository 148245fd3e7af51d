"""The driver of a session that the steps of a run share: its end, and what it refuses. How it serves a run: test_session_runner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from spark_jobs import cluster_session
from spark_jobs.__main__ import main
from spark_jobs.errors import EXIT_INPUT
from spark_jobs.session_requests import StepRequest, StepState, steps_from_json, steps_to_json

if TYPE_CHECKING:
    from fake_s3 import FakeS3

URI = "s3://kfp/run/session/1"
SESSION = SimpleNamespace(catalog=SimpleNamespace(clearCache=lambda: None))


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_session, "POLL_SECONDS", 0.01)


@pytest.mark.usefixtures("soon", "door")
def test_a_session_to_which_no_step_comes_ends_by_itself() -> None:
    assert cluster_session.ClusterSession(URI, SESSION).serve(idle_seconds=0.1) == 0


@pytest.mark.usefixtures("soon")
def test_a_step_that_takes_longer_than_an_idle_session_lasts_is_no_idleness(door: FakeS3) -> None:
    ran: list[str] = []

    def run(argv: list[str], _: object) -> int:
        ran.append(argv[0])
        if len(ran) == 1:
            door.objects["run/session/1/requests/b.json"] = StepRequest(("b",), "1").to_json().encode()
        return 0

    door.objects["run/session/1/requests/a.json"] = StepRequest(("a",), "1").to_json().encode()
    assert cluster_session.ClusterSession(URI, SESSION, run).serve(idle_seconds=0.2) == 0
    assert ran == ["a", "b"]
    told = steps_from_json(door.objects["run/session/1/steps.json"].decode())
    assert {name: (state.state, state.exit_code) for name, state in told.items()} == {
        "a": ("ended", 0),
        "b": ("ended", 0),
    }


@pytest.mark.parametrize("argv", [[], ["/tmp/run"], [URI, "more"]])
def test_a_session_without_a_folder_in_an_object_store_is_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["session", *argv]) == EXIT_INPUT
    assert "the URI of its folder in an object store: s3://BUCKET/RUN/session/ID" in capsys.readouterr().err


def test_the_states_of_the_steps_survive_their_document() -> None:
    states = {"train-1": StepState(StepRequest(("train", "--reg-param=0.1"), "x"), "ended", 1)}
    assert steps_from_json(steps_to_json(states)) == states
    assert steps_from_json(None) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"argv": 3, "attempt": "x"}'])
def test_a_document_that_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        StepRequest.from_json(text)
