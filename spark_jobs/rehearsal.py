"""Runs all steps of the training pipeline once on generated rows, to record which Java classes they load.

The JVM writes these classes to a class data sharing (CDS) archive when it ends; later JVMs that use the archive start faster.

    spark-submit --driver-java-options=-XX:ArchiveClassesAtExit=FILE spark_jobs/rehearsal.py FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __package__ in (None, ""):  # spark-submit puts this folder, not its parent, on the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from spark_jobs.contract import TRAINING, Step
from spark_jobs.session import build_session
from spark_jobs.step_execution import run_in_session

# The column that is known only afterwards makes train fit and evaluate judge a second model.
SPECIFICATION = """[label]
name = "label"
positive = "yes"
[columns]
numeric = ["x", "later"]
categorical = ["kind"]
known_afterwards = ["later"]
"""


def main(folder: Path) -> None:
    """Writes a small table and runs load, preprocess, train and evaluate on it, all outputs below the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{i % 17},{i % 5},{'abc'[i % 3]},{'yes' if i * 7 % 11 < 5 else 'no'}" for i in range(400)]
    (folder / "rows.csv").write_text("\n".join(["x,later,kind,label", *rows]) + "\n")
    (folder / "specification.toml").write_text(SPECIFICATION)
    given = {"data_uri": str(folder / "rows.csv"), "specification_uri": str(folder / "specification.toml")}
    session = build_session(Step.LOAD)
    for step in TRAINING.steps_of(given):
        run_in_session(session, step, TRAINING.arguments_below(str(folder), step, given), time.perf_counter())
    session.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
