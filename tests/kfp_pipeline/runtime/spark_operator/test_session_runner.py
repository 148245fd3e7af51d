"""The runner whose steps share the session of one SparkApplication, against the loop of the real driver; see `session_place`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from session_place import NAME, RUN_FOLDER, SessionPlace, fail, killed, states, succeed

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import PermanentError, TemporaryError
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS
from kfp_pipeline.runtime.run_end import end_run
from kfp_pipeline.runtime.spark_operator.application import state_of
from kfp_pipeline.runtime.spark_operator.runner import SparkOperatorRunner
from kfp_pipeline.runtime.spark_operator.session_runner import end_session
from kfp_pipeline.runtime.supervision import RETRYABLE_TYPES
from spark_jobs.contract import TRAINING, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Result

if TYPE_CHECKING:
    from pathlib import Path

    from fake_kubernetes import FakeKubernetes

INPUTS = {"data_uri": "s3://kfp/bank.csv", "label": "deposit"}


@pytest.fixture
def place(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionPlace]:
    made = SessionPlace(server, tmp_path, monkeypatch)
    yield made
    made.close()


def run(place: SessionPlace, step: Step, root: str = RUN_FOLDER, **more: Any) -> Result:
    args = TRAINING.arguments_below(root, step, INPUTS)
    return place.runner(**more).run(step, args, place.folder / f"{step}.log")


def log_of(place: SessionPlace, step: Step) -> list[str]:
    return [line.rpartition(": ")[2] for line in (place.folder / f"{step}.log").read_text().splitlines()]


def test_all_steps_run_in_one_application_and_each_task_shows_the_log_of_its_own(place: SessionPlace) -> None:
    for step in TRAINING.steps:
        assert run(place, step).uris["output"] == f"{RUN_FOLDER}/{step}"
        assert log_of(place, step) == [f"step {step} works"]
    assert (place.server.created[NAME], place.server.operator.driver_starts[NAME]) == (1, 1)
    assert place.ran == list(TRAINING.steps)
    assert state_of(place.server.applications[NAME]) == "RUNNING"
    assert "driver memory: 2g, from spark-application.yaml of the platform" in place.said


def test_the_session_ends_when_the_run_says_so_and_its_application_stays(place: SessionPlace) -> None:
    run(place, Step.LOAD)
    end_session(place.cluster(), object_store, RUN_FOLDER)
    wait_for(lambda: state_of(place.server.applications[NAME]) == "COMPLETED")


def test_the_last_task_finds_the_metrics_ends_a_session_and_deletes_that_of_a_failed_run(
    place: SessionPlace, tmp_path: Path
) -> None:
    for step in TRAINING.steps:
        run(place, step)

    def end(status: str) -> dict[str, Any]:
        return end_run(
            place.cluster(),
            object_store,
            run="run-1",
            run_folder=RUN_FOLDER,
            status=status,
            message="",
            markdown_path=tmp_path / "summary.md",
        )

    document = end("SUCCEEDED")
    assert document["metrics"] == {"areaUnderROC": 0.9}
    assert document["report"] == f"{RUN_FOLDER}/report.html"
    assert [(item["step"], item["state"]) for item in document["applications"]] == [("session", "RUNNING, ended now")]
    wait_for(lambda: state_of(place.server.applications[NAME]) == "COMPLETED")
    place.server.remove("sparkapplications", NAME)
    run(place, Step.LOAD)
    end("FAILED")
    assert NAME not in place.server.applications


def test_bad_input_is_told_and_the_session_stays(place: SessionPlace) -> None:
    place.steps["load"] = fail("input", "column x is not there; name another")
    with pytest.raises(PermanentError, match="column x is not there"):
        run(place, Step.LOAD)
    place.steps.clear()
    run(place, Step.LOAD)
    assert place.ran == ["load", "load"]
    assert place.server.created[NAME] == 1


def test_after_a_fault_the_next_attempt_gets_a_new_session(place: SessionPlace) -> None:
    run(place, Step.LOAD)
    place.steps["preprocess"] = fail("fault", "the step said oops")
    with pytest.raises(TemporaryError, match="the step said oops") as caught:
        run(place, Step.PREPROCESS)
    assert "step preprocess works" in caught.value.log
    wait_for(lambda: state_of(place.server.applications[NAME]) == "FAILED")
    place.steps.clear()
    run(place, Step.PREPROCESS)
    assert place.ran == ["load", "preprocess", "preprocess"]
    assert place.server.created[NAME] == 2
    assert "an earlier attempt failed, replacing it" in place.said[-1] or any(
        "replacing" in line for line in place.said
    )


def test_a_driver_that_is_killed_is_told_by_the_step_that_ran_and_the_retry_starts_a_new_one(
    place: SessionPlace,
) -> None:
    run(place, Step.LOAD)
    place.steps["preprocess"] = killed
    with pytest.raises(TemporaryError, match="killed from outside") as caught:
        run(place, Step.PREPROCESS)
    assert caught.value.failure.type in RETRYABLE_TYPES
    place.steps.clear()
    run(place, Step.PREPROCESS)
    assert place.server.created[NAME] == 2
    assert place.ran == ["load", "preprocess", "preprocess"]


def test_a_step_that_fails_as_spark_was_stopped_from_outside_is_repeated(place: SessionPlace) -> None:
    """A pod that is deleted gets SIGTERM: the JVM ends Spark, and Python still reports the error that this brings."""

    def stopped(args: Any) -> int:
        place.spark_range = broken
        return fail("fault", "SparkContext was shut down")(args)

    def broken(_: int) -> Any:
        raise ConnectionError

    place.steps["load"] = stopped
    with pytest.raises(TemporaryError, match="Spark was stopped while step load ran") as caught:
        run(place, Step.LOAD)
    assert caught.value.failure.type in RETRYABLE_TYPES


def test_a_second_attempt_of_a_task_follows_the_step_of_the_first(place: SessionPlace) -> None:
    going, goes_on = threading.Event(), threading.Event()

    def slow(args: Any) -> int:
        going.set()
        assert goes_on.wait(20)
        return succeed(args)

    place.steps["load"] = slow
    first = threading.Thread(target=run, args=(place, Step.LOAD), daemon=True)
    first.start()
    assert going.wait(20)
    results: list[Result] = []
    second = threading.Thread(target=lambda: results.append(run(place, Step.LOAD)), daemon=True)
    second.start()
    wait_for(lambda: any("found, following it" in line for line in place.said))
    goes_on.set()
    first.join(20)
    second.join(20)
    assert [result.status for result in results] == ["succeeded"]
    assert place.ran == ["load"]
    third = run(place, Step.LOAD)  # the step has ended well already
    assert (third.status, place.ran) == ("succeeded", ["load"])


def test_a_session_that_does_not_take_the_step_is_deleted_and_told(
    server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = SessionPlace(server, tmp_path, monkeypatch, silent=True, limits={"session_answer_seconds": 0.5})
    with pytest.raises(
        TemporaryError, match=r"has not taken the step for 0 s|has not taken the step for 1 s"
    ) as caught:
        run(place, Step.LOAD)
    assert caught.value.failure.type in RETRYABLE_TYPES
    assert NAME not in server.applications
    place.close()


def test_a_busy_session_is_not_silent(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that waits longer for another than an idle session may take."""
    place = SessionPlace(server, tmp_path, monkeypatch, limits={"session_answer_seconds": 0.5})

    def slow(args: Any) -> int:
        time.sleep(2)
        return succeed(args)

    place.steps["load"] = slow
    first = threading.Thread(target=run, args=(place, Step.LOAD), daemon=True)
    first.start()
    wait_for(lambda: place.ran == ["load"])
    run(place, Step.PREPROCESS)
    assert place.ran == ["load", "preprocess"]
    first.join(20)
    place.close()


def test_a_session_that_ended_before_it_took_the_step_is_told(place: SessionPlace) -> None:
    run(place, Step.LOAD)
    asking = threading.Thread(target=end_session, args=(place.cluster(), object_store, RUN_FOLDER))
    place.silent = True  # it takes nothing more
    errors: list[Exception] = []

    def ask() -> None:
        try:
            run(place, Step.PREPROCESS)
        except TemporaryError as error:
            errors.append(error)

    task = threading.Thread(target=ask)
    task.start()
    wait_for(lambda: any("preprocess-" in name for name in place.s3.objects))
    (request,) = (name for name in place.s3.objects if "requests/preprocess-" in name)
    content = place.s3.objects.pop(request)
    place.silent = False
    asking.start()
    task.join(20)
    asking.join(20)
    assert content
    assert [error.failure.type for error in errors] == ["SessionEnded"]  # type: ignore[attr-defined]
    assert "SessionEnded" in RETRYABLE_TYPES


def test_two_runs_never_share(place: SessionPlace) -> None:
    run(place, Step.LOAD)
    run(place, Step.LOAD, root="s3://kfp/runs/run-2", run="run-2")
    assert len(place.server.applications) == 2
    assert len(states_by_session(place)) == 2


def test_settings_for_a_single_step_are_refused_and_those_of_the_session_are_taken(place: SessionPlace) -> None:
    with pytest.raises(InputError, match="train can have no settings; give them to session"):
        run(place, Step.LOAD, overrides={"train": {"driver": {"memory": "4g"}}})
    with pytest.raises(InputError, match="a session that steps share has no executors"):
        run(place, Step.LOAD, overrides={"session": {"executor": {"cores": 2}}})
    assert not place.server.applications
    run(place, Step.LOAD, overrides={"all": {"driver": {"coreRequest": "2"}}, "session": {"driver": {"memory": "3g"}}})
    driver = place.server.applications[NAME]["spec"]["driver"]
    assert (driver["memory"], driver["coreRequest"]) == ("3g", "2")
    assert "driver memory: 3g, from the run's Spark settings, under session" in place.said


def test_of_the_platforms_settings_those_of_single_steps_are_passed_over_and_named(place: SessionPlace) -> None:
    steps = {"train": {"driver": {"memory": "9g"}}, "session": {"driver": {"memory": "3g"}}, "load": None}
    place.server.update(
        "configmaps", "spark-kfp", lambda found: found["data"].update({"steps.yaml": yaml.safe_dump(steps)})
    )
    run(place, Step.LOAD)
    assert place.server.applications[NAME]["spec"]["driver"]["memory"] == "3g"
    assert "a shared session takes all and session of the platform's steps.yaml, not train" in place.said
    assert "driver memory: 3g, from steps.yaml of the platform, under session" in place.said


def test_a_session_has_no_settings_where_each_step_has_an_application(place: SessionPlace) -> None:
    args = TRAINING.arguments_below(RUN_FOLDER, Step.LOAD, INPUTS)
    alone = SparkOperatorRunner(place.cluster(), run="run-1", overrides={"session": {"driver": {"memory": "3g"}}})
    with pytest.raises(InputError, match="say --spark=shared, or name a step"):
        alone.run(Step.LOAD, args, place.folder / "load.log")


def test_a_task_with_other_settings_does_not_join_the_session(place: SessionPlace) -> None:
    run(place, Step.LOAD)
    with pytest.raises(PermanentError, match="runs with another spec"):
        run(place, Step.PREPROCESS, overrides={"session": {"driver": {"memory": "3g"}}})


def test_an_interrupt_deletes_the_session(place: SessionPlace) -> None:
    def interrupt(_: Any) -> int:
        place.cluster().delete(APPLICATIONS, NAME)
        return 0

    place.steps["load"] = interrupt
    with pytest.raises(TemporaryError, match="was deleted while it ran"):
        run(place, Step.LOAD)


def test_a_document_that_is_no_request_is_passed_over(place: SessionPlace) -> None:
    run(place, Step.LOAD)
    (folder,) = {name.rpartition("/")[0] for name in place.s3.objects if name.endswith("/steps.json")}
    place.s3.objects[f"{folder}/requests/nonsense.json"] = b'{"argv": 3}'
    run(place, Step.PREPROCESS)
    assert [state["exit_code"] for state in states(place).values()] == [0, 0]


def states_by_session(place: SessionPlace) -> list[str]:
    return [name for name in place.s3.objects if name.endswith("/steps.json")]


def wait_for(condition: Any, seconds: float = 20) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
