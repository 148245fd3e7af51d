"""Formats and prints what the command line shows: progress, metrics, runs, profiles. Takes plain values."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kfp_pipeline.local.runs import Run
from spark_jobs.arguments import flag
from spark_jobs.comparison import Comparison
from spark_jobs.contract import JOURNAL, LOWER_IS_BETTER
from spark_jobs.trials import progress

MARKS = {"done": ("✔", "green"), "reused": ("↺", "cyan"), "failed": ("✘", "red"), "running": ("…", "yellow")}
MARKS |= {"skipped": ("-", "dim"), "cancelled": ("✘", "yellow")}  # states of tasks on a KFP server only


class Progress:
    """Shows the progress of the steps: a live table on a terminal, else one line for each event."""

    def __init__(self, console: Console, steps: Sequence[str]) -> None:
        """Makes the display.

        Args:
            console: where to print.
            steps: names of the steps as in their events, in the order in which they are shown.
        """
        self._console = console
        self._steps = [str(step) for step in steps]
        self._width = max(map(len, [*self._steps, " " * 11]))
        self._began: dict[str, float] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._live = (
            Live(console=console, refresh_per_second=8, get_renderable=self._picture) if console.is_terminal else None
        )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, event: Mapping[str, Any]) -> None:
        """Shows an event."""
        step = event["step"]
        self._last[step] = dict(event)
        if event["state"] == "running":
            self._began[step] = time.monotonic()
        if not self._live:
            self._console.print(
                f"{step:<{self._width}} {event['state']:<8} {describe(event)}".rstrip(),
                highlight=False,
                soft_wrap=True,
                markup=False,
            )

    def _picture(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for step in dict.fromkeys([*self._steps, *self._last]):
            event = self._last.get(step)
            if not event:
                table.add_row(Text(" "), Text(step, style="dim"), Text(""))
            elif event["state"] == "running":
                seconds = f"{time.monotonic() - self._began[step]:.0f} s"
                about = "; ".join(filter(None, (seconds, search_progress(event))))
                table.add_row(Spinner("dots", style="yellow"), Text(step), Text(about, style="dim"))
            else:
                mark, style = MARKS[event["state"]]
                table.add_row(Text(mark, style=style), Text(step), Text(describe(event), style="dim"))
        return table


def describe(event: Mapping[str, Any]) -> str:
    """Formats the rows and seconds of an event; empty for a step that has not succeeded. Events of a KFP server have no rows."""
    if event["state"] not in ("done", "reused"):
        return ""
    if not event["rows"]:
        return f"{event['seconds']:.1f} s"
    rows = ", ".join(f"{count:,} {name}" for name, count in event["rows"].items())
    return (
        f"{rows}; same inputs, data and code as before"
        if event["state"] == "reused"
        else f"{rows}; {event['seconds']:.1f} s"
    )


def search_progress(event: Mapping[str, Any]) -> str:
    """Describes how far a running search is; empty for another step, and before the first trial has ended."""
    try:
        return progress(json.loads((Path(event["uri"]) / JOURNAL).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError):
        return ""


def metrics_table(evaluation: Mapping[str, Any]) -> Table:
    """Makes the table of the metrics on the test rows.

    Beside each metric are its interval, the majority class's metric, and the metric of the model without the columns that are known only
    after the outcome.
    """
    without = evaluation["without_known_afterwards"]
    others = {item["name"]: item["value"] for item in without["metrics"]} if without else {}
    baseline = evaluation["baseline"]["metrics"]
    table = Table(title="Test rows, used once", title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("metric", "value", "95 % interval", "majority class"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    if without:
        table.add_column(f"without {', '.join(without['columns'])}", justify="right")
    for item in evaluation["metrics"]:
        row = [
            item["name"],
            number(item["value"]),
            f"{number(item['low'])} to {number(item['high'])}",
            number(baseline.get(item["name"])),
        ]
        table.add_row(*row, *([number(others.get(item["name"]))] if without else []))
    return table


def tuning_table(tuning: Mapping[str, Any]) -> Table:
    """Makes the table of the tuned and the untuned model on the same test rows; `tuning` is that part of evaluation.json."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("metric", "tuned", "untuned", "difference", "95 % interval"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    untuned = {item["name"]: item["value"] for item in tuning["metrics"]}
    for item in tuning["differences"]:
        name, ends = item["metric"], item["interval"]
        table.add_row(
            name,
            number(untuned[name] + item["value"]),
            number(untuned[name]),
            f"{item['value']:+.4f}",
            f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends else "-",
        )
    return table


def results_table(metrics: Mapping[str, float]) -> Table:
    """Makes a table of the metrics of a pipeline that evaluates no model; whole numbers, such as counts, have no decimals."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:,.0f}" if float(value).is_integer() else number(value))
    return table


def trials_table(document: Mapping[str, Any], most: int = 10) -> Table:
    """Makes a table of the best trials of a search, the best first, of the stopped ones with what they had reached, and of the defaults.

    Args:
        document: the parsed trials.json.
        most: the number of trials to show.
    """
    objective = document["objective"]
    # Algorithms with one seed often try the same settings; the first of them was fitted.
    first = {
        settings_text(trial) + trial["estimator"] + trial["stopped"]: trial for trial in reversed(document["trials"])
    }
    different = list(reversed(first.values()))
    done = [trial for trial in different if trial["metrics"] and not trial["stopped"]]
    done.sort(key=lambda trial: trial["metrics"][objective], reverse=objective not in LOWER_IS_BETTER)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (objective, "seconds"):
        table.add_column(name, justify="right")
    table.add_column("estimator")
    table.add_column("settings", overflow="fold")
    untuned = document["untuned"]
    stopped = [trial for trial in different if trial["stopped"]]
    for trial in [*done[:most], *stopped[: max(0, most - len(done))], *([untuned] if untuned["metrics"] else [])]:
        table.add_row(
            number(trial["metrics"][objective]),
            f"{trial['seconds']:.1f}",
            trial["estimator"],
            settings_text(trial) + (f" (stopped after {trial['stopped']})" if trial["stopped"] else ""),
        )
    return table


def algorithms_table(document: Mapping[str, Any]) -> Table:
    """Makes a table with one line for each algorithm of a search.

    Args:
        document: the parsed trials.json.
    """
    objective = document["objective"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "algorithm",
        f"best {objective}",
        "trials",
        "stopped",
        "to within 1 %",
        "seconds, added up",
        "best settings",
    ):
        left = name in ("algorithm", "best settings")
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for item in document["algorithms"]:
        best = item["best"]
        table.add_row(
            item["algorithm"],
            number(best["metrics"][objective] if best else None),
            f"{item['trials']} ({item['taken_over']} taken over)" if item["taken_over"] else str(item["trials"]),
            str(item["stopped"]),
            str(item["trials_to_close"] or "-"),
            f"{item['seconds']:.1f}",
            f"{best['estimator']}: {settings_text(best)}" if best else "-",
        )
    return table


def settings_text(trial: Mapping[str, Any]) -> str:
    """Formats the settings of a trial."""
    return ", ".join(f"{name} {value:.4g}" for name, value in trial["settings"].items()) or "the defaults"


def train_flags(best: Mapping[str, Any]) -> str:
    """Returns the flags of `run` that train a model with the settings of best.json."""
    settings = {"estimator": best["estimator"], **best["settings"]}
    return " ".join(f"{flag(name)}={value}" for name, value in settings.items())


def number(value: float | None) -> str:
    """Formats a number with four decimals, and None as a dash."""
    return "-" if value is None else f"{value:.4f}"


def runs_table(found: Sequence[Run]) -> Table:
    """Makes a table with one line for each run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "status", "started (UTC)", "seconds", "areaUnderROC", "accuracy", "pipeline", "data"):
        table.add_column(name, overflow="fold")
    for run in found:
        started = time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.started))
        metrics = [number(run.metrics.get(name)) for name in ("areaUnderROC", "accuracy")]
        data = str(run.inputs.get("data_uri", ""))
        table.add_row(run.id, run.status, started, f"{run.seconds:.0f}", *metrics, run.pipeline, data)
    return table


def run_lines(run: Run) -> Table:
    """Makes a table with all facts of one run, one line each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    facts: dict[str, Any] = {
        "run": run.id,
        "pipeline": run.pipeline,
        "status": run.status,
        "message": run.message,
        "report": run.report,
    }
    facts |= {
        f"step {step}": ": ".join(filter(None, (event["state"], describe(event)))) for step, event in run.steps.items()
    }
    facts |= {**run.inputs, **{name: number(value) for name, value in run.metrics.items()}}
    for name, value in facts.items():
        if value != "":
            table.add_row(name, Text(str(value)))
    return table


def comparison_table(one: Run, other: Run, comparison: Comparison | None) -> Table:
    """Makes a table of the inputs in which two runs differ and of their metrics, with the differences if the runs are comparable."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", one.id, other.id, "difference", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right")
    for name in sorted({*one.inputs, *other.inputs}):
        if one.inputs.get(name) != other.inputs.get(name):
            table.add_row(name, Text(str(one.inputs.get(name, ""))), Text(str(other.inputs.get(name, ""))), "", "")
    differences = {item.metric: item for item in comparison.differences} if comparison else {}
    for name in dict.fromkeys([*one.metrics, *other.metrics]):
        change = differences.get(name)
        ends = change.interval if change else None
        table.add_row(
            name,
            number(one.metrics.get(name)),
            number(other.metrics.get(name)),
            f"{change.value:+.4f}" if change else "",
            f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends else "",
        )
    return table


def profile_table(profile: Mapping[str, Any]) -> Table:
    """Makes a table with one line for each column of the profiled data."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("column", "role", "type", "missing", "distinct", "min", "max", "mean"):
        table.add_column(name, justify="left" if name in ("column", "role", "type") else "right")
    for column in profile["columns"]:
        numbers = [f"{column[name]:.6g}" if column.get(name) is not None else "" for name in ("min", "max", "mean")]
        table.add_row(
            Text(column["name"]),
            column["role"],
            column["type"],
            *("-" if column[name] is None else f"{column[name]:,}" for name in ("missing", "distinct")),
            *numbers,
        )
    return table


def printable(text: str, keep: str = "") -> str:
    """Returns a text with its control characters escaped, as text from outside could move the cursor or hide a line.

    Args:
        text: the text.
        keep: characters that stay as they are.
    """
    return "".join(
        char if char.isprintable() or char in keep or unicodedata.category(char) == "Zs" else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    """Returns the escape of a character, which is the same in Python and in JSON."""
    return json.dumps(char)[1:-1]


def show_text(text: str) -> None:
    """Prints one line that may hold text from outside."""
    print(printable(text))


def show_json(document: Any) -> int:
    """Prints a document as JSON and returns the exit code 0."""
    print(printable(json.dumps(document, indent=1, ensure_ascii=False), keep="\n"))
    return 0


def show_table(names: tuple[str, ...], rows: list[list[str]]) -> None:
    """Prints rows as a table; without column names there is no header."""
    table = Table(*names, box=None, pad_edge=False, show_header=bool(names), header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    (Console() if sys.stdout.isatty() else Console(width=200)).print(table)
