"""Files that the wheel carries beside the code: the sample with its specification, and the manifests of spark-operator/."""

from __future__ import annotations

import shutil
from pathlib import Path

from spark_jobs.errors import InputError

PACKAGE = Path(__file__).parents[1]
MANIFESTS = "spark-operator"


def bundled(name: str) -> Path:
    """Where a file or folder lies: inside the installed package, or in the clone that the package is used from.

    Raises:
        InputError: it is in neither, as in the images, which hold only what their tasks need.
    """
    for folder in (PACKAGE / "bundled", PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{name} is not part of this installation; install spark-kfp with pip, or work in a clone of it")


def write_manifests(target: Path, *, force: bool) -> None:
    """Writes the manifests into a folder, which is made if it is not there.

    Args:
        target: the folder.
        force: whether it may hold files; those of the same name are replaced, others stay.

    Raises:
        InputError: it is not empty, or is no folder.
    """
    source = bundled(MANIFESTS)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise InputError(
            f"{target} is not empty; name another folder, or give --force to replace files of the same name"
        )
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
