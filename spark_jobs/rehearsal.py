"""Runs the steps of training once on a few made-up rows, so that a JVM that records its classes has met those that the steps need.

spark-submit --driver-java-options=-XX:ArchiveClassesAtExit=FILE spark_jobs/rehearsal.py FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from spark_jobs.contract import TRAINING

if __package__ in (None, ""):  # spark-submit puts this folder, not its parent, on the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from spark_jobs.__main__ import perform
from spark_jobs.contract import Step
from spark_jobs.session import build_session

SPECIFICATION = """[label]
name = "label"
positive = "yes"
[columns]
numeric = ["x", "later"]
categorical = ["kind"]
known_afterwards = ["later"]
"""


def main(folder: Path) -> None:
    """Runs load, preprocess, train and evaluate below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{i % 17},{i % 5},{'abc'[i % 3]},{'yes' if i * 7 % 11 < 5 else 'no'}" for i in range(400)]
    (folder / "rows.csv").write_text("\n".join(["x,later,kind,label", *rows]) + "\n")
    (folder / "specification.toml").write_text(SPECIFICATION)
    given = {"data_uri": str(folder / "rows.csv"), "specification_uri": str(folder / "specification.toml")}
    session = build_session(Step.LOAD)
    for step in TRAINING.steps:
        perform(session, step, TRAINING.arguments_below(str(folder), step, given), time.perf_counter())
    session.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
