"""Measures time and memory of the pipeline, of hand-written PySpark scripts and of scikit-learn, and prints one table.

    python -m benchmarks.run                  # 11 thousand and 1 million rows, 3 rounds
    python -m benchmarks.run --large          # 10 million rows too
    python -m benchmarks.run --rows 11000 --rounds 5 --contenders pipeline whole

The contenders take turns within a round, so that other load on the machine affects all of them; the table shows medians. Work is the time
that a contender measures between the start of its session and its end. Start-up is the rest of the wall time: interpreters, JVMs, sessions
and orchestration. The whole script does the same as the pipeline. The short script leaves out the profile, the second model without the
columns that are known only after the outcome, the intervals and the report. A tuned script has the pipeline's Java options. Peak memory is
that of all processes together, with each shared page counted once.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Measurement, read_measured, read_pipeline, run_and_sample
from kfp_pipeline.runtime.spark_submit.runner import COLLECTOR
from kfp_pipeline.settings import Settings

PROJECT = Path(__file__).resolve().parents[1]
WITH_PANDAS = PROJECT / ".tools/bench/bin/python"
"""A separate environment, made by `make bench`: Spark imports pandas if it is installed, which would slow down the other contenders."""
ROWS = (11_000, 1_000_000)
LARGE = 10_000_000
DRIVER_MEMORY = "2g"
"""The driver memory of every Spark contender, the same as the pipeline's default."""
SUBMIT = [str(Path(sys.executable).with_name("spark-submit")), "--master", "local[*]", "--driver-memory", DRIVER_MEMORY]
"""How `benchmarks.batch_scoring` and `benchmarks.wide_tables` start a step and a script: with Java's defaults."""
STEPS = ("load", "preprocess", "train", "evaluate")
REFERENCE = "whole"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A program that gets from the CSV to the metrics.

    Attributes:
        about: description.
        command: makes the command from the path of the data and an output directory.
        read: reads the seconds by step and the metrics from the output directory.
    """

    about: str
    command: Callable[[Path, Path], list[str]]
    read: Callable[[Path], tuple[dict[str, float], dict[str, float]]]


def spark_submit(script: str, data: Path, out: Path, java_options: Sequence[str] = ()) -> list[str]:
    """Returns the command that runs a script of this folder, with Spark's defaults except for the driver memory."""
    spec = importlib.util.find_spec("pyspark")
    assert spec is not None
    assert spec.origin is not None
    submit = [str(Path(spec.origin).with_name("bin") / "spark-submit"), f"--driver-memory={DRIVER_MEMORY}"]
    if java_options:
        submit.append(f"--driver-java-options={shlex.join(java_options)}")
    return [*submit, str(PROJECT / "benchmarks" / script), str(data), str(out)]


def tuned(data: Path, archive: Path) -> list[str]:
    """Returns the pipeline's JVM options: the class-data archive, and for small data the C1 compiler only."""
    short = data.stat().st_size < Settings().compile_tiers_bytes
    return [
        COLLECTOR,
        *(["-XX:TieredStopAtLevel=1"] if short else []),
        f"-XX:SharedArchiveFile={archive}",
        "-Xshare:auto",
    ]


def contenders(archive: Path) -> dict[str, Contender]:
    """Returns the contenders by name, in the order of the table."""
    spark_kfp = str(Path(sys.executable).with_name("spark-kfp"))
    pipeline = [spark_kfp, "run", "--spec", str(PROJECT / "data/bank.toml"), "--no-cache", "--json"]

    def script(name: str, about: str, *, with_options: bool) -> Contender:
        return Contender(
            about=f"{about}, in one session, with {'the pipeline' if with_options else 'Java'}'s options",
            command=lambda data, out: spark_submit(name, data, out, tuned(data, archive) if with_options else ()),
            read=read_measured,
        )

    return {
        "pipeline": Contender(
            about="spark-kfp run",
            command=lambda data, out: [*pipeline, "--runs", str(out), str(data)],
            read=read_pipeline,
        ),
        "processes": Contender(
            about="spark-kfp run, a process and a session for each step",
            command=lambda data, out: [
                "env", "SPARK_KFP_SHARE_SESSION=false", *pipeline, "--runs", str(out), str(data)
            ],
            read=read_pipeline,
        ),
        "steps": script("steps_in_one_session.py", "the pipeline's steps", with_options=True),
        "whole": script("handwritten_whole.py", "the whole script", with_options=False),
        "whole-tuned": script("handwritten_whole.py", "the whole script", with_options=True),
        "short": script("handwritten_short.py", "the short script", with_options=False),
        "short-tuned": script("handwritten_short.py", "the short script", with_options=True),
        "scikit-learn": Contender(
            about="pandas and scikit-learn",
            command=lambda data, out: [
                str(WITH_PANDAS), str(PROJECT / "benchmarks/sklearn_baseline.py"), str(data), str(out)
            ],
            read=read_measured,
        ),
    }  # fmt: skip


def measure(contender: Contender, data: Path, scratch: Path) -> Measurement:
    """Measures one run in a new output directory, which is removed afterwards."""
    out = Path(tempfile.mkdtemp(dir=scratch))
    environment = {**os.environ, "PYSPARK_PYTHON": sys.executable}
    total, peak_mib = run_and_sample(contender.command(data, out), environment, scratch / "output.log")
    steps, metrics = contender.read(out)
    shutil.rmtree(out)
    return Measurement(total=total, steps=steps, metrics=metrics, peak_mib=peak_mib)


def measure_in_turns(
    chosen: Mapping[str, Contender], data: Path, rounds: int, scratch: Path
) -> dict[str, list[Measurement]]:
    """Measures every contender once in each round."""
    found: dict[str, list[Measurement]] = {name: [] for name in chosen}
    for number in range(1, rounds + 1):
        for name, contender in chosen.items():
            print(f"  {data.stem}: round {number} of {rounds}, {name} ...", file=sys.stderr, flush=True)
            found[name].append(measure(contender, data, scratch))
    return found


def table(found: Mapping[str, Sequence[Measurement]], rows: int) -> str:
    """Formats the medians as text; the two ratios compare total and work with those of the whole script."""
    titles = ("total s", "start-up s", "work s", *STEPS, "peak MiB", "AUC")
    lines = [f"{rows:,} rows".ljust(20) + "".join(title.rjust(11) for title in titles) + "   total x  work x"]
    reference = found.get(REFERENCE)
    for name, runs in found.items():
        total, work = median(runs, lambda run: run.total), median(runs, lambda run: run.work)
        steps = [median(runs, lambda run, step=step: run.steps[step]) for step in STEPS]  # type: ignore[misc]
        line = name.ljust(20) + "".join(
            f"{number:11.2f}" for number in (total, median(runs, lambda run: run.startup), work, *steps)
        )
        line += f"{median(runs, lambda run: run.peak_mib):11.0f}{median(runs, lambda run: run.metrics['areaUnderROC']):11.4f}"
        if reference:
            line += f"{total / median(reference, lambda run: run.total):10.2f}"
            line += f"{work / median(reference, lambda run: run.work):8.2f}"
        lines.append(line)
    return "\n".join(lines)


def median(runs: Sequence[Measurement], number: Callable[[Measurement], float]) -> float:
    """Returns the median of one number over the runs."""
    return statistics.median(number(run) for run in runs)


def describe_machine() -> str:
    """Describes the machine, the versions and the load in one line."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    versions = ", ".join(f"{name} {version(name)}" for name in ("pyspark", "scikit-learn"))
    return (
        f"{os.cpu_count()} CPUs, {platform.system()} {platform.machine()}, Python {platform.python_version()}, {versions}, "
        f"driver memory {DRIVER_MEMORY}, load average before {load}"
    )


def make_archive(data: Path, archive: Path, scratch: Path) -> None:
    """Runs the whole script once, untimed, to make the class-data archive and to warm the disk cache."""
    out = Path(tempfile.mkdtemp(dir=scratch))
    command = spark_submit("handwritten_whole.py", data, out, [f"-XX:ArchiveClassesAtExit={archive}"])
    run_and_sample(command, {**os.environ, "PYSPARK_PYTHON": sys.executable}, scratch / "output.log")
    shutil.rmtree(out)


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description="Time and memory of the pipeline and its peers."
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=list(ROWS), help="sizes of the tables (default 11000 1000000)"
    )
    parser.add_argument("--large", action="store_true", help="ten million rows too")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default %(default)s)")
    names = list(contenders(Path()))
    parser.add_argument("--contenders", nargs="+", choices=names, default=names, help="which to run (default all)")
    return parser.parse_args()


def main() -> None:
    """Makes the tables, measures the contenders, and prints the results."""
    given = arguments()
    with tempfile.TemporaryDirectory(prefix="spark-kfp-bench-") as folder:
        scratch = Path(folder)
        archive = scratch / "classes.jsa"
        chosen = {name: contender for name, contender in contenders(archive).items() if name in given.contenders}
        print(describe_machine())
        for rows in [*given.rows, *([LARGE] if given.large else [])]:
            data = scratch / f"{rows}_rows.csv"
            subprocess.run(
                [sys.executable, PROJECT / "data/make_sample.py", f"--rows={rows}", f"--out={data}"], check=True
            )
            if not {"steps", "whole-tuned", "short-tuned"}.isdisjoint(chosen) and not archive.exists():
                make_archive(data, archive, scratch)
            print("\n" + table(measure_in_turns(chosen, data, given.rounds, scratch), rows), flush=True)
            data.unlink()


if __name__ == "__main__":
    main()
