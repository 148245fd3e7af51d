"""The one door to a SparkSession.

A step takes whatever Spark it is given (by spark-submit, by a Connect URL); what must be the same everywhere, so that results are the
same everywhere, is set here.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import SparkSession

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
"""Settings of how Spark plans; they change no result."""
START = {
    "spark.python.sql.dataFrameDebugging.enabled": "false",  # else each column expression costs several calls into the JVM
}
"""Settings that only a new session takes; they change no result."""


def build_session(name: str, storage_settings: Mapping[str, str] | None = None) -> SparkSession:
    """The session in which a step, or whatever has that name, runs, which can reach what `storage_settings` are for."""
    builder = SparkSession.builder.appName(f"spark-kfp {name}")
    for key, value in {**START, **(storage_settings or {})}.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    for key, value in {**SEMANTICS, **PLANNING}.items():
        session.conf.set(key, value)
    return session
