"""Makes the class-data archive (AppCDS) of Spark, which lets every driver start faster.

Java maps the classes from the archive instead of loading and verifying them one by one. Java writes the archive at the end of a rehearsal
of all steps. It gets its final name only when it is complete. The name contains a digest of the Java and the Spark for which it was made,
and Java ignores an archive that does not fit.
"""

from __future__ import annotations

import shlex
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
from kfp_pipeline.settings import Settings, java_environment
from spark_jobs.result import Failure


def make_archive(settings: Settings) -> Path:
    """Makes the archive, unless it exists.

    Returns:
        The path of the archive.

    Raises:
        InputError: Java or pyspark is missing.
        PermanentError: the rehearsal failed.
    """
    target = archive_path(settings.cache, find_java(java_environment()), spark_home())
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(target.parent) as folder, signals_raise_interrupt():
        made, log_path = folder / "classes.jsa", folder / "log"
        runner = SparkSubmitRunner("local[*]", settings)
        options = shlex.join([*runner.java_options(short=True), f"-XX:ArchiveClassesAtExit={made}"])
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
            child_process(command, output=log, environment=runner.environment()) as process,
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
