"""Measures the search of settings: its speed beside other ways, what tuning gains, and the estimators beside a ceiling.

    python -m benchmarks.tuning bank.csv                        # all parts
    python -m benchmarks.tuning bank.csv --parts speed iris     # some of them
    python -m benchmarks.tuning bank.csv --splits 2 --processes 1 --trials 5   # a quick look

speed: 20 trials of a logistic regression, each contender in a new process, on the vectors of one preprocess step. Of the 20 processes with
one trial each only some run, and their mean is multiplied; the table says so. Spark's own searches run two fits at a time. Every contender
but the processes and scikit-learn fits one model more: the defaults here, the best settings again in Spark's.

iris: the command with 10 trials while a session is kept, and the step tune of it alone.

gain: the tuned beside the untuned logistic regression on test rows, on the bank data and on a seeded table of noise columns.

estimators: areaUnderROC of the same test rows over several splits, with and without `duration`; the interval of each difference to the
ceiling is that of Nadeau & Bengio 2003 (Machine Learning 52), as the splits share train rows.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.run import PROJECT, describe_machine
from benchmarks.tuning_contenders import ELASTIC_NET_PARAMS, FOLDS, REG_PARAMS
from spark_jobs.contract import TUNING, Step, TrainArgs
from spark_jobs.dataset import read_specification
from spark_jobs.estimator import Shape, find_estimator
from spark_jobs.paired import T_975
from spark_jobs.session import build_session
from spark_jobs.split import SETS, read_set
from spark_jobs.step_execution import run_in_session

Array = np.ndarray[Any, np.dtype[Any]]
SPARK_KFP = str(Path(sys.executable).with_name("spark-kfp"))
PARTS = ("speed", "iris", "gain", "estimators")
TRIALS = len(REG_PARAMS) * len(ELASTIC_NET_PARAMS)
NOISE_ROWS, NOISE_COLUMNS, SIGNAL_COLUMNS = 1500, 300, 5
GBT = {"num_trees": 100, "max_depth": 5, "step_size": 0.1, "subsampling_rate": 0.7, "max_bins": 64}
FOREST = {"num_trees": 100, "max_depth": 12, "min_instances_per_node": 2}
CEILING = "scikit-learn HistGradientBoosting"
CONTENDERS: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "logistic regression": ("logistic_regression", {}, "as_is"),
    "logistic regression, quantile bins": ("logistic_regression", {"reg_param": 0.001}, "quantile_bins"),
    "random forest, 100 trees of depth 12": ("random_forest", FOREST, "as_is"),
    "gbt, 100 trees of depth 5": ("gbt", GBT, "as_is"),
}
"""By name the estimator, its settings, and the form of the numbers."""


def prepare(session: SparkSession, data: str, folder: Path, **settings: Any) -> Path:
    """Runs load and preprocess and returns the output of preprocess; load is not repeated for another split."""
    given = {"data_uri": data, **settings}
    for step in (Step.LOAD, Step.PREPROCESS):
        args = TUNING.arguments_below(str(folder), step, given)
        if step is not Step.LOAD or not Path(args.output_uri, "result.json").exists():
            run_in_session(session, step, args, time.perf_counter())
    return folder / "preprocess"


def read_sets(session: SparkSession, preprocessed: Path) -> dict[str, DataFrame]:
    """Reads the rows of the three sets as the steps do."""
    return {name: read_set(session, str(preprocessed / "features"), name, 1).cache() for name in SETS}


def to_arrays(table: DataFrame) -> tuple[Array, Array]:
    """Collects vectors, shape (rows, features), and labels."""
    rows = table.select(vector_to_array(F.col("features")).alias("x"), "label").collect()
    return np.array([row["x"] for row in rows]), np.array([row["label"] for row in rows])


def timed(command: Sequence[str]) -> float:
    """Runs a command and returns its wall time."""
    began = time.perf_counter()
    done = subprocess.run(
        command, check=False, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise SystemExit(f"exit code {done.returncode} of {' '.join(command)}\n{done.stdout[-2000:]}")
    return time.perf_counter() - began


def submit(*words: str) -> list[str]:
    """Returns the command that runs a script, each with the same options: this project's own for small data."""
    java = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    return [
        str(Path(sys.executable).with_name("spark-submit")), "--master", "local[2]", "--driver-memory", "1g",
        "--conf", "spark.ui.enabled=false", "--conf", "spark.log.level=ERROR", "--conf", "spark.sql.shuffle.partitions=2",
        "--driver-java-options", java, *words,
    ]  # fmt: skip


def by_scikit_learn(arrays: Mapping[str, tuple[Array, Array]]) -> float:
    """Fits and judges the 20 models with scikit-learn; returns the best areaUnderROC."""
    (x, y), (x_validation, y_validation) = arrays["train"], arrays["validation"]
    mean, deviation = x.mean(axis=0), x.std(axis=0) + (x.std(axis=0) == 0)
    found = []
    for reg_param in REG_PARAMS:
        for share in ELASTIC_NET_PARAMS:
            # l-bfgs takes no L1; saga takes both.
            solver = "lbfgs" if share == 0 else "saga"
            model = LogisticRegression(C=1 / (reg_param * len(x)), l1_ratio=share, solver=solver, max_iter=100)
            model.fit((x - mean) / deviation, y)
            scores = model.predict_proba((x_validation - mean) / deviation)[:, 1]
            found.append(float(roc_auc_score(y_validation, scores)))
    return max(found)


def speed(preprocessed: Path, arrays: Mapping[str, tuple[Array, Array]], folder: Path, processes: int) -> None:
    """Prints the seconds of each contender, and how many times faster it is than 20 processes."""
    script = "benchmarks/tuning_contenders.py"
    ours = [
        "spark_jobs/__main__.py",
        "tune",
        f"--preprocess-uri={preprocessed}",
        "--algorithms=grid",
        f"--trials={TRIALS}",
    ]
    seconds: dict[str, float] = {}
    values: dict[str, float] = {}
    single = []
    for place in range(processes):  # in the middle of the grid
        reg_param, share = REG_PARAMS[place % len(REG_PARAMS)], ELASTIC_NET_PARAMS[place % len(ELASTIC_NET_PARAMS)]
        single.append(timed(submit(script, "trial", str(preprocessed), f"{folder}/trial", str(reg_param), str(share))))
    multiplied = f"{TRIALS} processes (mean of {processes} times {TRIALS})"
    seconds[multiplied] = TRIALS * statistics.mean(single)
    for name, kind in (
        ("TrainValidationSplit", "split"),
        ("warm starts (Scala's)", "path"),
        (f"CrossValidator, {FOLDS} folds", "folds"),
    ):
        seconds[name] = timed(submit(script, kind, str(preprocessed), f"{folder}/{kind}"))
        values[name] = json.loads((folder / kind / "measured.json").read_text())["value"]
    for name, folds in (("step tune", 1), (f"step tune, {FOLDS} folds", FOLDS)):
        out = folder / f"ours{folds}"
        seconds[name] = timed(submit(*ours, f"--folds={folds}", f"--output-uri={out}", f"--report-uri={out}.html"))
        values[name] = json.loads((out / "best.json").read_text())["metrics"]["areaUnderROC"]
    began = time.perf_counter()
    values["scikit-learn, vectors in memory"] = by_scikit_learn(arrays)
    seconds["scikit-learn, vectors in memory"] = time.perf_counter() - began
    print(f"\n{TRIALS} trials of a logistic regression")
    for name, taken in seconds.items():
        value = f"{values[name]:.4f}" if name in values else "-"
        print(f"{name:<42}{taken:>8.1f} s{seconds[multiplied] / taken:>8.1f} x   best areaUnderROC {value}", flush=True)
    print(
        "TrainValidationSplit judges other rows, a random quarter; the others judge the same ones, or the same folds."
    )


def iris(folder: Path) -> None:
    """Prints the seconds of 10 trials on iris in a kept session."""
    from sklearn.datasets import load_iris  # noqa: PLC0415 - imports half of scikit-learn

    known = load_iris()
    lines = [
        "a,b,c,d,species",
        *(
            ",".join(map(str, [*row, known.target_names[kind]]))
            for row, kind in zip(known.data, known.target, strict=True)
        ),
    ]
    data = folder / "iris.csv"
    data.write_text("\n".join(lines) + "\n")
    command = [SPARK_KFP, "tune", str(data), "--label=species", "--trials=10", f"--runs={folder}/iris", "--no-cache"]
    subprocess.run([SPARK_KFP, "session", "start"], check=True, stdout=subprocess.DEVNULL)
    try:
        whole = [timed([*command, f"--run-id=r{number}"]) for number in range(3)]
    finally:
        subprocess.run([SPARK_KFP, "session", "stop"], check=True, stdout=subprocess.DEVNULL)
    found = [
        json.loads(path.read_text())
        for path in sorted((folder / "iris").rglob("result.json"))
        if path.parent.name == "tuning"
    ]
    steps = [result["seconds"]["total"] for result in found]
    print("\n10 trials on iris in a kept session, first to third time")
    print(f"step tune: {', '.join(f'{each:.1f} s' for each in steps)}")
    print(
        f"the command, with load, preprocess, train of both models, evaluate: {', '.join(f'{each:.1f} s' for each in whole)}"
    )


def write_noise(path: Path) -> None:
    """Writes a table in which a few columns tell the label and hundreds tell nothing."""
    chance = random.Random(7)
    lines = [",".join([*(f"x{place}" for place in range(SIGNAL_COLUMNS + NOISE_COLUMNS)), "label"])]
    for _ in range(NOISE_ROWS):
        values = [chance.gauss(0, 1) for _ in range(SIGNAL_COLUMNS + NOISE_COLUMNS)]
        positive = chance.random() < 1 / (1 + math.exp(-sum(values[:SIGNAL_COLUMNS])))
        lines.append(",".join([*(f"{value:.4f}" for value in values), "yes" if positive else "no"]))
    path.write_text("\n".join(lines) + "\n")


def gain(data: str, folder: Path, trials: int) -> None:
    """Prints what tuning the penalty gains on the test rows."""
    write_noise(folder / "noise.csv")
    tables = {
        "bank data": [data, "--spec", str(PROJECT / "data/bank.toml")],
        f"{NOISE_COLUMNS} noise columns": [str(folder / "noise.csv"), "--label=label", "--positive=yes"],
    }
    print(f"\nThe penalty, {trials} trials of tpe: areaUnderROC of the test rows")
    for name, words in tables.items():
        out = folder / "gain" / name.replace(" ", "-")
        timed([SPARK_KFP, "tune", *words, f"--trials={trials}", f"--runs={out}", "--bootstrap-samples=50"])
        evaluation = json.loads(next(out.rglob("evaluation.json")).read_text())
        tuning = evaluation["tuning"]
        change = next(item for item in tuning["differences"] if item["metric"] == "areaUnderROC")
        old = next(item["value"] for item in tuning["metrics"] if item["name"] == "areaUnderROC")
        low, high = change["interval"]
        new = old + change["value"]
        print(
            f"{name:<22}untuned {old:.4f}, tuned {new:.4f}, difference {new - old:+.4f} ({low:+.4f} to {high:+.4f})",
            flush=True,
        )


def specification_of(folder: Path, columns: str) -> Path:
    """Writes a specification with all columns of the bank data, or with all but `duration`."""
    known = read_specification((PROJECT / "data/bank.toml").read_text(encoding="utf-8"), "data/bank.toml")
    numeric, dropped = [*known.numeric, "day"], list[str]()
    if columns != "all columns":
        numeric.remove("duration")
        dropped = ["duration"]
    wider = replace(
        known,
        numeric=tuple(numeric),
        categorical=(*known.categorical, "contact", "month", "default"),
        dropped=tuple(dropped),
        known_afterwards=(),
    )
    path = folder / f"{columns.replace(' ', '-')}.toml"
    path.write_text(wider.to_toml(), encoding="utf-8")
    return path


def judge_all(session: SparkSession, data: str, folder: Path, columns: str, seed: int) -> dict[str, float]:
    """Fits all contenders on the train and the validation rows of a split, and returns areaUnderROC of its test rows."""
    found: dict[str, float] = {}
    specification = specification_of(folder, columns)
    for form in ("as_is", "quantile_bins"):
        place = folder / columns.replace(" ", "-")
        preprocessed = prepare(session, data, place, specification_uri=str(specification), seed=seed, numeric_form=form)
        sets = read_sets(session, preprocessed)
        both = sets["train"].unionByName(sets["validation"]).coalesce(1).cache()
        x_test, y_test = to_arrays(sets["test"])

        def area(
            name: str, sets: Mapping[str, DataFrame] = sets, both: DataFrame = both, features: int = x_test.shape[1]
        ) -> float:
            kind, settings, _ = CONTENDERS[name]
            args = TrainArgs(preprocess_uri="", output_uri="", estimator=kind, **settings)
            estimator: Any = find_estimator(kind).build(args, Shape(features, 2))
            scores = estimator.setFeaturesCol("features").fit(both).transform(sets["test"])
            rows = scores.select(vector_to_array(F.col("probability"))[1].alias("p"), "label").collect()
            return float(roc_auc_score([row["label"] for row in rows], [row["p"] for row in rows]))

        names = [name for name, (_, _, wanted) in CONTENDERS.items() if wanted == form]
        with ThreadPool(len(names)) as pool:  # the rows lie in one partition: one fit keeps one core busy
            found |= dict(zip(names, pool.map(area, names), strict=True))
        if form == "as_is":
            model = HistGradientBoostingClassifier(random_state=seed).fit(*to_arrays(both))
            found[CEILING] = roc_auc_score(y_test, model.predict_proba(x_test)[:, 1])
        session.catalog.clearCache()
    return found


def interval(values: Sequence[float], test_share: float = 0.2) -> tuple[float, float]:
    """Returns the mean over splits and half the length of its 95 % interval, for splits that share train rows."""
    if len(values) < 2:
        return values[0], math.nan
    variance = statistics.variance(values) * (1 / len(values) + test_share / (1 - test_share))
    return statistics.mean(values), T_975[len(values) - 2] * math.sqrt(variance)


def estimators(session: SparkSession, data: str, folder: Path, splits: int) -> None:
    """Prints areaUnderROC of each estimator, and its difference to the ceiling on the same test rows."""
    for columns in ("all columns", "without duration"):
        found = [judge_all(session, data, folder, columns, seed) for seed in range(1, splits + 1)]
        print(
            f"\n{columns}, {splits} splits, fitted on 80 %: areaUnderROC, and the difference to the ceiling with its 95 % interval"
        )
        for name in (*CONTENDERS, CEILING):
            values = [each[name] for each in found]
            mean, half = interval([each[name] - each[CEILING] for each in found])
            deviation = statistics.stdev(values) if splits > 1 else math.nan
            beside = "" if name == CEILING else f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"
            print(f"{name:<42}{statistics.mean(values):.4f} ± {deviation:.4f}   {beside}", flush=True)


def main() -> None:
    """Runs the parts and prints their tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tuning", description="The search of settings, measured."
    )
    parser.add_argument("data", help="the bank data, bank.csv")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument(
        "--processes", type=int, default=3, help="how many of the 20 processes run (default %(default)s)"
    )
    parser.add_argument("--splits", type=int, default=5, help="splits for the estimators (default %(default)s)")
    parser.add_argument("--trials", type=int, default=20, help="trials that look for a gain (default %(default)s)")
    given = parser.parse_args()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["PYSPARK_SUBMIT_ARGS"] = (
        "--master local[2] --driver-memory 2g --conf spark.ui.enabled=false --conf spark.log.level=ERROR "
        "--conf spark.ui.showConsoleProgress=false --conf spark.sql.shuffle.partitions=2 pyspark-shell"
    )
    data = str(Path(given.data).resolve())
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="spark-kfp-bench-") as name:
        folder = Path(name)
        if "speed" in given.parts:
            session = build_session("benchmark")
            preprocessed = prepare(session, data, folder / "bank", specification_uri=str(PROJECT / "data/bank.toml"))
            arrays = {key: to_arrays(rows) for key, rows in read_sets(session, preprocessed).items()}
            session.stop()  # the contenders have the machine for themselves
            speed(preprocessed, arrays, folder, given.processes)
        if "iris" in given.parts:
            iris(folder)
        if "gain" in given.parts:
            gain(data, folder, given.trials)
        if "estimators" in given.parts:
            session = build_session("benchmark", checkpoints=f"file:{folder}/checkpoints")
            estimators(session, data, folder, given.splits)
            session.stop()


if __name__ == "__main__":
    main()
