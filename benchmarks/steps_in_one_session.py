"""Runs the pipeline's steps one after another in one Spark session, to measure their code without four cold starts.

spark-submit benchmarks/steps_in_one_session.py data/bank_sample.csv out
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from spark_jobs.contract import TRAINING

PROJECT = Path(__file__).resolve().parents[1]
sys.path[0] = str(PROJECT)  # spark-submit puts this folder there

from spark_jobs.session import build_session  # noqa: E402
from spark_jobs.step_execution import run_in_session  # noqa: E402


def main(data: str, out: str) -> None:
    """Runs the four steps and writes `measured.json` with the seconds of each and the metrics."""
    given = {"data_uri": data, "specification_uri": str(PROJECT / "data/bank.toml")}
    session = build_session("benchmark")
    seconds: dict[str, float] = {}
    metrics: dict[str, float] = {}
    for step in TRAINING.steps_of(given):
        began = time.perf_counter()
        metrics |= run_in_session(session, step, TRAINING.arguments_below(out, step, given), began).metrics
        seconds[step] = time.perf_counter() - began
    session.stop()
    Path(out, "measured.json").write_text(json.dumps({"seconds": seconds, "metrics": metrics}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
