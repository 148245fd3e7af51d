"""When and by which code a step ran: the release, a hash of the source, the versions of the packages that make the model."""

from __future__ import annotations

import functools
import hashlib
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("spark-kfp", "pyspark", "py4j", "numpy", "pandas", "pyarrow", "optuna", "minio")
"""The packages whose versions can change a model or its report; those that are not installed are left out."""
LOCK_NAME = "uv.lock"


def provenance() -> dict[str, Any]:
    """Returns when this is (UTC, ISO 8601), and the code and packages of this process."""
    return {"finished_at": datetime.now(UTC).isoformat(timespec="seconds"), **_code()}


@functools.cache
def _code() -> dict[str, Any]:
    folder = Path(__file__).parent
    lock = folder.parent / LOCK_NAME
    return {
        "code_sha256": _digest_of_source(folder),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        # Only a clone has the lock file; elsewhere the versions above say what was installed.
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else "",
    }


def _digest_of_source(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
