"""A step's follower that is killed is started again, and only a step that was ended from outside is repeated."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_operator_runner import ARGS, NAME, Bench

from kfp_pipeline.runtime import supervision
from kfp_pipeline.runtime.errors import PermanentError, TemporaryError
from kfp_pipeline.runtime.processes import signals_raise_interrupt
from kfp_pipeline.runtime.supervision import MAX_RESTARTS, SupervisedRunner
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import Failure, Result

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

RESULT = Result(step="load", status="succeeded", arguments=vars(ARGS), rows_out={"rows": 7})
Act = Callable[[int], Result]


class OnDisk(dict[str, bytes]):
    """Documents that another process sees too."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __setitem__(self, uri: str, content: bytes) -> None:
        (self._folder / uri.replace("/", "_")).write_bytes(content)

    def get(self, uri: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        path = self._folder / uri.replace("/", "_")
        return path.read_bytes() if path.exists() else default


class Follower:
    """Does what it is told at each start; it counts in a file, as each start is a process of its own."""

    def __init__(self, folder: Path, act: Act) -> None:
        self.starts, self.act = folder / "starts", act

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        assert (step, args) == (Step.LOAD, ARGS)
        with self.starts.open("a") as file:
            file.write(f"{os.getpid()}\n")
        log_path.write_text("read from the beginning\n")
        return self.act(len(self.starts.read_text().split()))


class Stand:
    """A supervised follower and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said, self.attempts = folder, list[str](), 0

    def run(self, act: Act) -> Result:
        def make() -> Follower:
            self.attempts += 1
            return Follower(self.folder, act)

        return SupervisedRunner(make, self.said.append).run(Step.LOAD, ARGS, self.folder / "driver.log")

    @property
    def processes(self) -> list[int]:
        return [int(line) for line in (self.folder / "starts").read_text().split()]


@pytest.fixture
def stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    monkeypatch.setattr(supervision, "RETRY_WAITS_SECONDS", (0.01, 0.02))
    return Stand(tmp_path)


def killed(number: int = signal.SIGKILL, times: int = 1) -> Act:
    def act(start: int) -> Result:
        if start <= times:
            os.kill(os.getpid(), number)
        return RESULT

    return act


def fails(error: Exception, times: int = 99) -> Act:
    def act(start: int) -> Result:
        if start <= times:
            raise error
        return RESULT

    return act


def temporary(kind: str) -> TemporaryError:
    return TemporaryError(Failure(kind="fault", type=kind, message=f"it was {kind}"), "last lines", "driver.log")


def test_a_result_comes_from_another_process_as_it_is(stand: Stand) -> None:
    assert stand.run(lambda _: RESULT) == RESULT
    assert os.getpid() not in stand.processes
    assert stand.said == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_is_killed_is_started_again_and_it_is_told(stand: Stand, number: signal.Signals) -> None:
    assert stand.run(killed(number)) == RESULT
    assert len(stand.processes) == 2
    assert stand.attempts == 1, "the same attempt goes on"
    (line,) = stand.said
    assert f"killed by {number.name}" in line


def test_it_is_started_again_only_so_often(stand: Stand) -> None:
    with pytest.raises(SystemExit) as caught:
        stand.run(killed(times=99))
    assert caught.value.code == 1
    assert len(stand.processes) == MAX_RESTARTS + 1


@pytest.mark.parametrize(
    "error",
    [
        InputError("no column x"),
        PermanentError(Failure(kind="input", type="InputError", message="no column x")),
        PermanentError(Failure(kind="fault", type="OutOfMemory", message="too little")),
        temporary("DriverFailed"),
        temporary("Deleted"),
        temporary("TimeLimit"),
        OSError(28, "No space left on device", "/tmp/x"),
    ],
    ids=lambda error: getattr(getattr(error, "failure", None), "type", type(error).__name__),
)
def test_what_would_fail_again_costs_one_attempt(stand: Stand, error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        stand.run(fails(error))
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)
    assert (len(stand.processes), stand.attempts) == (1, 1)


@pytest.mark.parametrize("kind", ["Killed", "Evicted", "DriverGone", "QuotaExceeded", "ApiServerAway"])
def test_what_was_ended_from_outside_is_repeated_as_a_new_attempt(stand: Stand, kind: str) -> None:
    assert stand.run(fails(temporary(kind), times=2)) == RESULT
    assert stand.attempts == 3
    assert stand.said == [f"it was {kind}; trying again in 0 s"] * 2
    with pytest.raises(TemporaryError, match=f"it was {kind}"):
        stand.run(fails(temporary(kind)))


def test_a_fault_of_ours_is_told_with_its_traceback(stand: Stand, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        stand.run(fails(KeyError("ours")))
    assert caught.value.code == 1
    assert "KeyError: 'ours'" in capfd.readouterr().err
    assert len(stand.processes) == 1


def test_a_signal_to_the_task_reaches_the_process_and_both_end(stand: Stand) -> None:
    def act(_: int) -> Result:
        (stand.folder / "ready").touch()
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(0.3)  # what a cancelled application takes; a second signal does not disturb it
            (stand.folder / "cancelled").touch()
            raise
        return RESULT

    def stop() -> None:
        while not (stand.folder / "ready").exists():
            time.sleep(0.01)
        os.kill(stand.processes[0], signal.SIGTERM)  # as when a whole group of processes is asked to end
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    with pytest.raises(KeyboardInterrupt), signals_raise_interrupt():
        stand.run(act)
    assert (stand.folder / "cancelled").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(stand.processes[0], 0)


def test_a_follower_of_an_application_that_is_killed_loses_nothing(server: FakeKubernetes, tmp_path: Path) -> None:
    """The application runs on; the second follower finds it, reads its log anew and brings its result back."""
    server.operator.speed = 10
    bench = Bench(server, tmp_path)
    bench.store.documents = OnDisk(tmp_path)
    lives = tmp_path / "lives"

    class Killed:
        def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
            first = not lives.exists()
            lives.touch()
            runner = bench.runner()
            if first:
                runner._log_line = lambda line: os.kill(os.getpid(), signal.SIGKILL) if "RUNNING" in line else None
            return runner.run(step, args, log_path)

    said: list[str] = []
    result = SupervisedRunner(Killed, said.append).run(Step.LOAD, ARGS, tmp_path / "driver.log")
    assert result.rows_out == {"rows": 7}
    assert server.created[NAME] == 1
    assert "killed by SIGKILL" in said[0]
    assert len((tmp_path / "driver.log").read_text().splitlines()) == len(
        set((tmp_path / "driver.log").read_text().splitlines())
    )
