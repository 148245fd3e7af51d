"""Background work starts at once for a small table, and for a large one when its value is asked for."""

from __future__ import annotations

import threading

import pytest

from spark_jobs.background import BackgroundWork


def test_small_work_runs_in_a_thread_and_large_work_when_its_value_is_asked_for() -> None:
    threads: list[str] = []

    def work() -> int:
        threads.append(threading.current_thread().name)
        return 7

    small, large = BackgroundWork(work, small=True), BackgroundWork(work, small=False)
    assert (small.value(), large.value()) == (7, 7)
    assert threads[0] != threading.current_thread().name
    assert threads[1:] == [threading.current_thread().name]


def test_two_works_run_at_the_same_time() -> None:
    meet = threading.Barrier(2, timeout=10)
    background = BackgroundWork(meet.wait, small=True)
    meet.wait()
    assert background.value() in (0, 1)


@pytest.mark.parametrize("small", [True, False])
def test_an_error_is_raised_where_the_value_is_asked_for(small: bool) -> None:
    def work() -> None:
        raise KeyError("lost")

    background = BackgroundWork(work, small=small)
    with pytest.raises(KeyError, match="lost"):
        background.value()
