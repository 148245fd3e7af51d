"""The entry point of the Spark programs: `python -m spark_jobs STEP --...`, or `spark-submit .../spark_jobs/__main__.py STEP --...`.

Besides the steps there is one other program, `session URI`: the driver of a Spark session that the steps of a run on a cluster share, see
`cluster_session`.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # spark-submit puts this folder, not its parent, on the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # It puts pyspark's archive there too, which holds no byte code: an installed pyspark is imported in three quarters of the time.
    sys.path[:] = [
        path
        for path in sys.path
        if not path.endswith("site-packages/pyspark/python/lib/pyspark.zip")
        or path.split("/pyspark/")[0] not in sys.path
    ]

from spark_jobs.session_requests import SESSION
from spark_jobs.step_command import run_step


def main(argv: list[str]) -> int:
    """Runs a step, or serves a run as its session; returns the exit code: 0, 2 for bad input, 1 for a fault."""
    if argv[:1] != [SESSION]:
        return run_step(argv)
    from spark_jobs.cluster_session import serve  # noqa: PLC0415 - it imports pyspark

    return serve(argv[1:])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
