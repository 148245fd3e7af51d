"""Finds the Java runtime for Spark, and the path of the class-data archive that belongs to it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spark_jobs.errors import InputError

OLDEST = 17
ADVICE = (
    f"install a Java {OLDEST} or 21 runtime, for example `apt-get install openjdk-17-jre-headless`, or set JAVA_HOME"
)


@dataclass(frozen=True)
class Java:
    """A Java runtime: the path of its `java` program, and its version, such as 17.0.15."""

    program: Path
    version: str


def find_java(environment: Mapping[str, str]) -> Java:
    """Finds the Java of JAVA_HOME, or else of PATH.

    Args:
        environment: the environment variables.

    Raises:
        InputError: there is no Java, or it is too old for Spark.
    """
    home = environment.get("JAVA_HOME", "")
    found = shutil.which("java", path=f"{home}/bin" if home else environment.get("PATH", ""))
    where = f"JAVA_HOME={home}" if home else "PATH"
    if not found:
        raise InputError(f"no Java in {where}: {ADVICE}")
    version = _version(Path(found))
    if int(re.split(r"\D", version)[0]) < OLDEST:
        raise InputError(f"Java {version} in {where} is too old for Spark 4: {ADVICE}")
    return Java(Path(found), version)


def _version(program: Path) -> str:
    release = program.resolve().parent.parent / "release"
    text = release.read_text(errors="replace") if release.exists() else ""
    match = re.search(r'JAVA_VERSION="(\d[^"]*)"', text)
    if not match:  # no complete JDK or JRE folder: run the program, which is slower
        shown = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
        match = re.search(r'version "(\d[^"]*)"', shown.stderr)
    if not match:
        raise InputError(f"{program} does not tell its version: {ADVICE}")
    return match[1].removeprefix("1.") if match[1].startswith("1.") else match[1]


def archive_path(cache: Path, java: Java, spark_home: Path) -> Path:
    """The path of the archive for this Java and this Spark. Another version has another path, so a stale archive is never used."""
    jars = sorted((jar.name, jar.stat().st_size, int(jar.stat().st_mtime)) for jar in os.scandir(spark_home / "jars"))
    key = hashlib.sha256(repr((java.version, str(java.program.resolve()), str(spark_home), jars)).encode()).hexdigest()[
        :16
    ]
    return cache.expanduser() / f"spark-classes-{key}.jsa"
