"""The whole hand-written script in a session that stays, as in a notebook: `inner_loop` asks it for rounds.

It reads a word from each line of its standard input, `all` or `train` (train and evaluate), does that and prints the seconds.
"""

from __future__ import annotations

import sys
import time

from pyspark.sql import SparkSession

from benchmarks.handwritten_whole import evaluate, load, preprocess, train


def main(data: str, out: str) -> None:
    """Starts the session and does what is asked until the input ends."""
    spark = SparkSession.builder.appName("notebook").getOrCreate()
    for line in sys.stdin:
        began = time.perf_counter()
        if line.strip() == "all":
            load(spark, data, out)
            preprocess(spark, out)
        train(spark, out)
        evaluate(spark, out)
        print(time.perf_counter() - began, flush=True)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
