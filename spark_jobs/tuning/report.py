"""Renders trials.json as tuning.html: one file with the table of the trials and charts that needs no other file and no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spark_jobs.arguments import SearchRange
from spark_jobs.evaluation.charts import importance_chart
from spark_jobs.evaluation.report import MEANINGS, template_environment
from spark_jobs.trials import Trial, gain_of, loss, no_gain, read_trials, winner_of
from spark_jobs.tuning.charts import convergence_chart, front_chart, parallel_chart

TEMPLATE = "tuning.html.j2"
MOST_LINES = 300
"""Largest number of trials in a chart, the best ones."""
MOST_ROWS = 50
"""Largest number of trials in the table, the best ones."""
TABLE_METRICS = ("areaUnderROC", "areaUnderPR", "logLoss", "accuracy", "f1")
"""The metrics of the table; trials.json has all."""


def render_report(document: Mapping[str, Any]) -> str:
    """Renders the report as HTML text.

    Args:
        document: the content of trials.json.
    """
    objective = document["objective"]
    trials = read_trials(document["trials"])
    (untuned,) = read_trials([document["untuned"]])
    done = sorted((trial for trial in trials if trial.finished), key=lambda trial: loss(trial, objective))
    others = [name for name in TABLE_METRICS if name in done[0].metrics and name != objective]
    environment = template_environment(Path(__file__).parent)
    return environment.get_template(TEMPLATE).render(
        d=document,
        best=done[0],
        winner=winner_of(trials, objective, untuned),
        gain=gain_of(trials, objective, untuned),
        no_gain=no_gain(trials, objective, untuned),
        untuned=untuned,
        shown=done[:MOST_ROWS],
        done=done,
        stopped=[trial for trial in trials if trial.stopped],
        failed=[trial for trial in trials if trial.error],
        trials=trials,
        others=others,
        meanings=MEANINGS,
        convergence=Markup(convergence(trials, objective, untuned)),  # noqa: S704 - matplotlib escapes its text
        estimators=[(name, parallel(done, name, document), important(document, name)) for name in document["space"]],
        front=front(document, trials),
    )


def convergence(trials: Sequence[Trial], objective: str, untuned: Trial) -> str:
    """Draws how each algorithm converged."""
    found: dict[str, list[float | None]] = {}
    best: dict[str, float] = {}
    for trial in trials:
        now = min(best.get(trial.algorithm, math.inf), loss(trial, objective))
        best[trial.algorithm] = now
        value = trial_value(now, objective)
        found.setdefault(trial.algorithm, []).append(value if math.isfinite(now) else None)
    return convergence_chart(found, objective, untuned.metrics.get(objective))


def trial_value(found: float, objective: str) -> float:
    """Returns the objective whose loss is known; the inverse of `loss`."""
    return found if loss(Trial(estimator="", settings={}, metrics={objective: 1.0}), objective) > 0 else -found


def parallel(done: Sequence[Trial], estimator: str, document: Mapping[str, Any]) -> Markup | None:
    """Draws the settings of an estimator's best trials; None if there are fewer than two."""
    ranges = {name: SearchRange(**wanted) for name, wanted in document["space"][estimator].items()}
    own = [trial for trial in done if trial.estimator == estimator][:MOST_LINES]
    lines = [(trial.settings, trial.metrics[document["objective"]]) for trial in reversed(own)]
    if len(lines) < 2 or not ranges:
        return None
    return Markup(parallel_chart(ranges, lines, document["objective"]))  # noqa: S704 - matplotlib escapes its text


def important(document: Mapping[str, Any], estimator: str) -> Markup | None:
    """Draws the importances of an estimator's settings; None if they are not known."""
    shares = document["importances"].get(estimator)
    if not shares:
        return None
    chart = importance_chart(list(shares.items()), "importance (all settings together: 1)")
    return Markup(chart)  # noqa: S704 - matplotlib escapes its text


def front(document: Mapping[str, Any], trials: Sequence[Trial]) -> Markup | None:
    """Draws the trials by two objectives; None if there is one."""
    names = (document["objective"], document["second_objective"])
    if not names[1]:
        return None
    points = [(trial.metrics[names[0]], trial.metrics[names[1]]) for trial in trials if trial.finished]
    best = [(trials[place].metrics[names[0]], trials[place].metrics[names[1]]) for place in document["front"]]
    return Markup(front_chart(points, best, names))  # noqa: S704 - matplotlib escapes its text
