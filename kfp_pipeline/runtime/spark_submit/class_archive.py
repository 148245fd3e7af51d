"""Makes the archive of Spark's classes that lets every step start faster.

Java maps the classes from the archive instead of loading and checking them one by one. The archive is made by rehearsing all steps once,
under a temporary name, so that a half-written one is never used; its name holds the Java, the Spark and the jars that it fits, and Java
itself passes over one that does not fit.
"""

from __future__ import annotations

from pathlib import Path

from kfp_pipeline.runtime.errors import PermanentError
from kfp_pipeline.runtime.processes import child_process, signals_raise_interrupt
from kfp_pipeline.runtime.scratch import scratch_folder
from kfp_pipeline.runtime.spark_submit.java import archive_path, find_java
from kfp_pipeline.runtime.spark_submit.runner import (
    FAST_START_CONF,
    SparkSubmitRunner,
    last_lines,
    spark_home,
    step_program,
)
from kfp_pipeline.settings import Settings, where_java_is
from spark_jobs.result import Failure


def make_archive(settings: Settings) -> Path:
    """Makes the archive, unless it is there.

    Returns:
        Its path.

    Raises:
        InputError: Java or pyspark is missing.
        PermanentError: the rehearsal failed.
    """
    target = archive_path(settings.cache, find_java(where_java_is()), spark_home())
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.parent) as folder, signals_raise_interrupt():
        made, log_path = folder / "classes.jsa", folder / "log"
        options = f"-XX:TieredStopAtLevel=1 -XX:ArchiveClassesAtExit={made}"
        conf = [word for key, value in FAST_START_CONF.items() for word in ("--conf", f"{key}={value}")]
        program = [str(step_program().parent / "rehearsal.py"), f"{folder}/rehearsal"]
        command = [
            str(spark_home() / "bin/spark-submit"),
            "--master=local[*]",
            f"--driver-java-options={options}",
            *conf,
            *program,
        ]
        with (
            log_path.open("wb") as log,
            child_process(
                command, output=log, environment=SparkSubmitRunner("local[*]", settings).environment()
            ) as process,
        ):
            code = process.wait()
        if code or not made.exists():
            failure = Failure(
                kind="fault",
                type="ArchiveFailed",
                message=f"the archive was not made, exit code {code}; steps run without it",
            )
            raise PermanentError(failure, last_lines(log_path))
        made.replace(target)
    return target
