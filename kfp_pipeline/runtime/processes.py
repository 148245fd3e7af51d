"""Processes that never outlive whoever started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Asks the Linux kernel to send this process a signal when the one that started it ends, even by SIGKILL; elsewhere does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


@contextmanager
def child_process(
    command: Sequence[str], *, output: IO[bytes], environment: Mapping[str, str], leads_group: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A child process whose output goes to a file; when the block is left, however, it is ended.

    With `leads_group` it is the first of a process group, which ends with it; its program does that by `process_group_ends_with_block`.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        process_group=0 if leads_group else None,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - the parent has one thread
    )
    try:
        yield process
    finally:
        end(process, 2 * GRACE_SECONDS if leads_group else GRACE_SECONDS)
        if leads_group:  # only if its first was killed outright is there anyone left
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def process_group_ends_with_block() -> Iterator[None]:
    """In the first process of a group: when the block is left, however, all that it started are ended, theirs included.

    KFP's local runner starts each task through a shell, and ends neither when it is interrupted.
    """
    if os.getpgrp() != os.getpid():  # never end the group of whoever started this process
        os.setpgrp()
    if sys.platform == "linux":  # whoever loses the process that started it becomes this one's child
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        give_up = time.monotonic() + GRACE_SECONDS
        with suppress(ChildProcessError):  # no children are left
            while time.monotonic() < give_up:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.05)
            os.killpg(0, signal.SIGKILL)


def end(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    """Ends a process: asks, then after some time kills."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def signals_raise_interrupt() -> Iterator[None]:
    """Inside the block SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does, so that every `finally` runs."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handled_by(interrupt):
        yield


@contextmanager
def first_signal_raises_interrupt() -> Iterator[None]:
    """As `signals_raise_interrupt`, but a further signal does not disturb what the first one has begun.

    A process and the one that started it may both be sent one, and the latter passes its own on.
    """

    def interrupt(number: int, _: object) -> None:
        for handled in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(handled, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handled_by(interrupt):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = [(number, signal.signal(number, handler)) for number in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, earlier in before:
            signal.signal(number, earlier)
