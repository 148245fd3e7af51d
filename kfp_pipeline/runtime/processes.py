"""Child processes that end together with their parent, and signals that become exceptions.

A JVM that outlives a cancelled run would keep memory and disk. A `finally` alone does not prevent that: it does not run after SIGKILL, and
not for the children of children.
"""

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

PR_SET_PDEATHSIG = 1  # both numbers are from linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL."""


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> None:
    """Lets the Linux kernel send this process a signal when its parent ends, even by SIGKILL; on other systems it does nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)


@contextmanager
def child_process(
    command: Sequence[str],
    *,
    output: IO[bytes],
    environment: Mapping[str, str],
    leads_group: bool = False,
    inherited_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a child process whose output goes to a file, and ends it when the block ends for any reason.

    Args:
        command: the program and its arguments.
        output: file for its standard output and standard error.
        environment: its environment variables.
        leads_group: whether it becomes the leader of a new process group that ends with it. Its program must then end the
            group itself on SIGTERM, for example by `process_group_ends_with_block`.
        inherited_fds: file descriptors that it inherits besides its output.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        process_group=0 if leads_group else None,
        pass_fds=inherited_fds,
        preexec_fn=die_with_parent,  # noqa: PLW1509 - the parent has one thread
    )
    try:
        yield process
    finally:
        end(process, 2 * GRACE_SECONDS if leads_group else GRACE_SECONDS)
        if leads_group:  # processes are left only if the leader got SIGKILL
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def process_group_ends_with_block() -> Iterator[None]:
    """Makes this process the leader of a process group, and ends all descendants when the block ends for any reason.

    KFP's local runner starts each task through a shell, and ends neither the shell nor the task when it is interrupted.
    """
    if os.getpgrp() != os.getpid():  # never end the group of the parent process
        os.setpgrp()
    if sys.platform == "linux":  # orphaned descendants become children of this process, so that it can wait for them
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
    """Sends SIGTERM to a process, and SIGKILL if it has not ended after the grace period."""
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
    """Lets SIGTERM and SIGHUP raise KeyboardInterrupt inside the block, as SIGINT does, so that every `finally` runs."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    with _handled_by(interrupt):
        yield


@contextmanager
def first_signal_raises_interrupt() -> Iterator[None]:
    """Lets the first SIGTERM or SIGHUP raise KeyboardInterrupt inside the block, and ignores later ones.

    A signal may reach both a process and its parent, and the parent then sends one more: that must not interrupt the cleanup.
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
