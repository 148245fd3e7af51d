"""Tables that the command line shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kfp_pipeline.commands.display import algorithms_table, search_progress, trials_table
from spark_jobs.trials import Trial, document_of


def test_the_table_of_algorithms_shows_the_best_of_each_and_how_soon_it_came_close() -> None:
    trials = [
        Trial(estimator="gbt", settings={"max_depth": 3}, metrics={"f1": 0.5}, seconds=1.0, algorithm="random"),
        Trial(estimator="gbt", settings={"max_depth": 4}, metrics={"f1": 0.9}, seconds=2.0, algorithm="tpe"),
        Trial(estimator="gbt", settings={"max_depth": 5}, error="no", algorithm="cmaes"),
    ]
    console = Console(width=200, record=True, quiet=False)
    with console.capture() as shown:
        console.print(algorithms_table(document_of(trials, "f1", trials[0])))
    lines = [line.split() for line in shown.get().splitlines()]
    assert lines[1] == ["random", "0.5000", "1", "0", "-", "1.0", "gbt:", "max_depth", "3"]
    assert lines[2] == ["tpe", "0.9000", "1", "0", "1", "2.0", "gbt:", "max_depth", "4"]
    assert lines[3] == ["cmaes", "-", "1", "0", "-", "0.0", "-"]


def test_a_trial_that_was_taken_over_is_counted_but_shown_once_with_its_time() -> None:
    fitted = Trial(estimator="gbt", settings={"max_depth": 3}, metrics={"f1": 0.5}, seconds=1.5, algorithm="random")
    taken = replace(fitted, algorithm="tpe", seconds=0.0, taken_over=True)
    document = document_of([fitted, taken], "f1", Trial(estimator="gbt", settings={}))
    console = Console(width=200)
    with console.capture() as shown:
        console.print(algorithms_table(document))
        console.print(trials_table(document))
    lines = [" ".join(line.split()) for line in shown.get().splitlines()]
    assert lines[1].startswith("random 0.5000 1 0 1 1.5 ")
    assert lines[2].startswith("tpe 0.5000 1 (1 taken over) 0 1 0.0 ")
    assert lines[4:] == ["0.5000 1.5 gbt max_depth 3"]


def test_a_stopped_trial_is_shown_with_what_it_had_reached() -> None:
    trials = [
        Trial(estimator="gbt", settings={"max_depth": 3}, metrics={"f1": 0.5}, seconds=1.0),
        Trial(estimator="gbt", settings={"max_depth": 4}, metrics={"f1": 0.9}, stopped="fold 1 of 3"),
    ]
    console = Console(width=200)
    with console.capture() as shown:
        console.print(trials_table(document_of(trials, "f1", trials[0])))
    lines = shown.get().splitlines()
    assert lines[1].split() == ["0.5000", "1.0", "gbt", "max_depth", "3"]
    assert lines[2].endswith("0.0  gbt        max_depth 4 (stopped after fold 1 of 3)")


def test_the_progress_of_a_search_is_read_from_its_journal(tmp_path: Path) -> None:
    trial = {"estimator": "gbt", "settings": {}, "metrics": {"f1": 0.5}, "seconds": 2.0}
    event = {"state": "running", "uri": str(tmp_path)}
    assert search_progress(event) == ""
    (tmp_path / "journal.json").write_text(
        json.dumps({"objective": "f1", "wanted": 6, "seconds_per_trial": 2.0, "trials": [trial, trial]})
    )
    assert search_progress(event) == "2 of 6 trials, f1 0.5000 so far, about 8 s left"
    assert search_progress({"state": "running"}) == ""
