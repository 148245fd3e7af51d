"""Finds the files that the wheel contains besides the code: the sample with its specification, and the manifests of spark-operator/."""

from __future__ import annotations

import shutil
from pathlib import Path

from spark_jobs.errors import InputError

PACKAGE = Path(__file__).parents[1]
MANIFESTS = "spark-operator"


def bundled(name: str) -> Path:
    """Returns the path of a bundled file or folder: in the installed package, or in the clone of the project.

    Raises:
        InputError: it is in neither. The images contain no bundled files, as their tasks need none.
    """
    for folder in (PACKAGE / "bundled", PACKAGE.parent):
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{name} is not part of this installation; install spark-kfp with pip, or work in a clone of it")


def write_manifests(target: Path, *, force: bool) -> None:
    """Copies the manifests into a folder, which is created if it does not exist.

    Args:
        target: the folder.
        force: whether the folder may have files in it; files of the same name are replaced, others are kept.

    Raises:
        InputError: the folder is not empty, or is a file.
    """
    source = bundled(MANIFESTS)
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a folder")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise InputError(
            f"{target} is not empty; name another folder, or give --force to replace files of the same name"
        )
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
