"""Tables that the command line shows."""

from __future__ import annotations

from rich.console import Console

from kfp_pipeline.commands.display import algorithms_table
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
    assert lines[1] == ["random", "0.5000", "1", "-", "1.0", "gbt:", "max_depth", "3"]
    assert lines[2] == ["tpe", "0.9000", "1", "1", "2.0", "gbt:", "max_depth", "4"]
    assert lines[3] == ["cmaes", "-", "1", "-", "0.0", "-"]
