"""Standby drivers as small programs: a task that claims one gets its exit code, and never waits for one that has ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kfp_pipeline.runtime.spark_submit.standby import FOLDER, StandbyDrivers, run_in_standby
from spark_jobs.contract import Step

OBEYS = """
import json, os, sys
word = json.loads(open(sys.argv[1]).readline())[0]
print("did", word, flush=True)
if word == "killed":
    os.kill(os.getpid(), 9)
raise SystemExit(int(word))
"""
TELLS_AND_STAYS = """
import json, sys, time
word = json.loads(open(sys.argv[1]).readline())[0]
open(sys.argv[2], "w").write(word + "\\n")
time.sleep(600)
"""
Make = Callable[[str], StandbyDrivers]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def standbys(program: str) -> StandbyDrivers:
        def command(folder: Path, _: Step) -> list[str]:
            return [sys.executable, "-c", program, str(folder / "orders"), str(folder / "exit_code")]

        return StandbyDrivers(tmp_path / FOLDER, command, os.environ)

    return standbys


@pytest.fixture
def tended(make: Make) -> Iterator[Callable[[str], StandbyDrivers]]:
    """Standby drivers that a thread keeps ready, as a child process of the run does."""
    over = threading.Event()
    threads = []

    def start(program: str) -> StandbyDrivers:
        standbys = make(program)

        def tend() -> None:
            with standbys:
                while not over.is_set():
                    if standbys.another_is_needed():
                        standbys.start(Step.LOAD)
                    time.sleep(0.01)

        threads.append(threading.Thread(target=tend))
        threads[-1].start()
        return standbys

    yield start
    over.set()
    for thread in threads:
        thread.join()


def run(tmp_path: Path, word: str, name: str = "log") -> int | None:
    """Runs a step in a standby as soon as one is idle."""
    end = time.monotonic() + 20
    while not list((tmp_path / FOLDER).glob("*/idle")) and time.monotonic() < end:
        time.sleep(0.01)
    return run_in_standby(tmp_path / FOLDER, [word], tmp_path / name)


@pytest.mark.parametrize(("word", "code"), [("0", 0), ("2", 2), ("1", 1), ("killed", -signal.SIGKILL)])
def test_the_exit_code_is_the_standbys_and_its_log_is_the_steps(
    tmp_path: Path, tended: Make, word: str, code: int
) -> None:
    tended(OBEYS)
    assert run(tmp_path, word) == code
    assert (tmp_path / "log").read_text() == f"did {word}\n"


@pytest.mark.parametrize("code", [0, 2])
def test_what_a_standby_tells_before_it_has_ended_counts_at_once(tmp_path: Path, tended: Make, code: int) -> None:
    tended(TELLS_AND_STAYS)
    began = time.monotonic()
    assert run(tmp_path, str(code)) == code
    assert time.monotonic() - began < 60


def test_one_is_started_for_each_that_is_claimed(tmp_path: Path, tended: Make) -> None:
    tended(OBEYS)
    assert [run(tmp_path, "0", f"log {number}") for number in range(3)] == [0, 0, 0]


def test_without_one_there_is_no_exit_code(tmp_path: Path) -> None:
    assert run_in_standby(tmp_path / FOLDER, ["0"], tmp_path / "log") is None
    (tmp_path / FOLDER).mkdir()
    assert run_in_standby(tmp_path / FOLDER, ["0"], tmp_path / "log") is None


def test_one_that_ends_without_reading_its_orders_has_not_run_the_step(tmp_path: Path, tended: Make) -> None:
    tended("import time; time.sleep(0.5)")
    assert run(tmp_path, "0") is None


def test_one_that_ends_unclaimed_is_not_started_again_and_again(make: Make) -> None:
    with make("raise SystemExit(3)") as standbys:
        assert standbys.another_is_needed()
        standbys.start(Step.LOAD)
        end = time.monotonic() + 20
        while standbys._running and time.monotonic() < end:
            assert not standbys.another_is_needed()
            time.sleep(0.01)
        assert not standbys.another_is_needed()


def test_words_too_many_for_a_pipe_claim_none(tmp_path: Path, tended: Make) -> None:
    tended(OBEYS)
    assert run(tmp_path, "0" * 70_000) is None
    assert run(tmp_path, "0") == 0


def test_where_nothing_can_be_written_none_is_started(tmp_path: Path, make: Make) -> None:
    (tmp_path / FOLDER).write_text("a file, not a folder")
    with make(OBEYS) as standbys:
        standbys.start(Step.LOAD)
        assert not standbys.another_is_needed()


def test_the_end_of_the_block_ends_all_and_removes_their_folder(tmp_path: Path, make: Make) -> None:
    with make(OBEYS) as standbys:
        standbys.start(Step.LOAD)
        ((process, _),) = standbys._running.values()
        assert process.poll() is None
    assert process.poll() is not None
    assert not (tmp_path / FOLDER).exists()
