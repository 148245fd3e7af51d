"""Builds the SparkSession of a step, with the settings on which results depend.

A step runs on any Spark: of spark-submit on one machine, of a SparkApplication, of a session that several steps share. Settings that change
results must be the same everywhere, so they are set here and nowhere else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping

from pyspark.sql import SparkSession, is_remote

from spark_jobs.contract import MASTER_VARIABLE

SEMANTICS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.caseSensitive": "true",  # `Age` and `age` are two columns of a CSV
    "spark.sql.ansi.enabled": "true",
    "spark.sql.variable.substitute": "false",  # a column may be called `${env:HOME}`
    "spark.sql.legacy.javaCharsets": "true",  # windows-1252 is common in spreadsheets' exports
}
PLANNING = {
    "spark.sql.constraintPropagation.enabled": "false",  # takes minutes for the reasons why a row of 300 columns is rejected
    "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "5000",  # else sketches of more than 128 columns sort every cell
}
"""Settings of Spark's planner; they change no result."""
START = {
    "spark.python.sql.dataFrameDebugging.enabled": "false",  # else each column expression costs several calls into the JVM
}
"""Settings that Spark accepts only when a session starts; they change no result."""

SERVER_RETRIES = 5
"""How often a request to a Spark Connect server is repeated: half a minute if nothing listens. PySpark's own 15 take ten minutes."""


def build_session(
    name: str, storage_settings: Mapping[str, str] | None = None, master: str = "", checkpoints: str = ""
) -> SparkSession:
    """Builds a session, or returns the one that this process has.

    Args:
        name: what runs in it, such as the step; part of the application's name in Spark's UI.
        storage_settings: Spark settings with the address of the object store and the credentials, see `storage.session_settings`.
        master: Spark's master URL; empty: that of the variable `MASTER_VARIABLE`, else that of spark-submit.
        checkpoints: URI of a folder for Spark's checkpoints, to which all executors can write; empty: none are made.
    """
    if "SPARK_REMOTE" in os.environ:  # a Spark Connect server, which has started with settings of its own
        from pyspark.sql.connect.client.retries import DefaultPolicy  # noqa: PLC0415 - needs packages that a classic session does not

        session = SparkSession.builder.getOrCreate()
        session.client.set_retry_policies([DefaultPolicy(max_retries=SERVER_RETRIES)])
    else:
        builder = SparkSession.builder.appName(f"spark-kfp {name}")
        folder = {"spark.checkpoint.dir": checkpoints} if checkpoints else {}
        for key, value in {**START, **folder, **(storage_settings or {})}.items():
            builder = builder.config(key, value)
        master = master or os.environ.get(MASTER_VARIABLE, "")
        session = (builder.master(master) if master else builder).getOrCreate()
    for key, value in {**SEMANTICS, **PLANNING}.items():
        session.conf.set(key, value)
    return session


def stop_session(session: SparkSession) -> None:
    """Stops a session; one of a Spark Connect server that does not answer is left to the server, which ends it after a while."""
    if is_remote():
        session.client.set_retry_policies([])
    session.stop()


def local_checkpoints() -> str:
    """Returns the URI of a folder for checkpoints on this machine's disk, for a Spark whose tasks all run on this machine."""
    return f"file:{tempfile.gettempdir()}/checkpoints"
