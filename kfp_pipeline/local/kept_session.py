"""The Spark session that `spark-kfp session start` keeps for later runs on this machine: one at a time, found by a file in the cache."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from kfp_pipeline.runtime.fingerprint import digest_of_code
from kfp_pipeline.runtime.spark_submit.java import find_java
from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner, last_lines, spark_home
from kfp_pipeline.runtime.spark_submit.shared_session import SESSION_NAME, SharedSession, start_kept_session
from kfp_pipeline.settings import Settings, java_environment
from spark_jobs.errors import InputError

LOG_NAME = "session.log"
READY_SECONDS = 120.0
"""Time within which a session must have started; about 10 s are usual."""


def start(settings: Settings, master: str, idle_minutes: float) -> SharedSession:
    """Starts the kept session, in place of one that has ended or runs other code, and waits until it is ready.

    Args:
        settings: of this machine.
        master: Spark's master URL, such as local[*].
        idle_minutes: after this time without a step the session ends.

    Raises:
        InputError: a session is there already, or the new one does not start.
    """
    spark_home()
    kept = read(settings)
    if kept and kept.state() != "ended":
        if kept.identity == identity(settings, master):
            raise InputError(
                "a session is there already; see `spark-kfp session status`, or end it by `spark-kfp session stop`"
            )
        kept.stop()
    session = _start(settings, master, idle_minutes)
    end = time.monotonic() + READY_SECONDS
    while (state := session.state()) == "starting" and time.monotonic() < end:
        time.sleep(0.1)
    if state == "idle":
        return session
    stop(settings)
    raise InputError(f"the session did not start ({state}); its log is {session.log}: {last_lines(Path(session.log))}")


def read(settings: Settings) -> SharedSession | None:
    """Reads where the kept session is; None if none was started, or if the last one was stopped."""
    return SharedSession.read(_path(settings))


def stop(settings: Settings) -> bool:
    """Ends the kept session, and a step in it; returns whether one ran."""
    kept = read(settings)
    ran = kept is not None and kept.state() != "ended"
    if kept:
        kept.stop()
    _path(settings).unlink(missing_ok=True)
    return ran


def find(settings: Settings, master: str) -> tuple[SharedSession | None, str]:
    """Finds the kept session for a run.

    Returns:
        The session, and a sentence for the user about it. No session and an empty text if none is kept. A session that runs other code or
        has other settings is replaced; one that has ended, or that another run uses, is not used.
    """
    kept = read(settings)
    if kept is None:
        return None, ""
    state = kept.state()
    if state == "ended":
        _path(settings).unlink(missing_ok=True)
        reason = (
            (last_lines(Path(kept.log)).splitlines() or ["its log is empty"])[-1]
            if Path(kept.log).exists()
            else "no log"
        )
        return None, f"the kept session has ended ({reason}); `spark-kfp session start` starts another"
    if state == "busy":
        return None, "another run uses the kept session; this run starts its own"
    if kept.identity != identity(settings, master):
        kept.stop()
        return _start(
            settings, master, kept.idle_minutes
        ), "the kept session ran other code or had other settings; it is started anew"
    return kept, "in the kept session"


def identity(settings: Settings, master: str) -> str:
    """Computes a digest of what a session runs: a run uses a kept session only if its own digest is equal."""
    java = find_java(java_environment())
    parts = [digest_of_code(), version("pyspark"), sys.executable, str(java.program), java.version, master]
    return hashlib.sha256(json.dumps([*parts, settings.driver_memory_mib]).encode()).hexdigest()


def _start(settings: Settings, master: str, idle_minutes: float) -> SharedSession:
    log_path = settings.cache.expanduser() / LOG_NAME
    digest = identity(settings, master)
    session = start_kept_session(SparkSubmitRunner(master, settings), log_path, digest, idle_minutes)
    session.save(_path(settings))
    return session


def _path(settings: Settings) -> Path:
    return settings.cache.expanduser() / SESSION_NAME
