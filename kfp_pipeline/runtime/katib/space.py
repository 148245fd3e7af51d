"""The search space and the algorithms in Katib's words.

Names of algorithms are Katib's own (manifests/v1beta1/installs/katib-standalone/katib-config.yaml of Katib 0.19.0). Behind each name is
another program, and they read the same space differently: what is worked around or warned about here names the source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spark_jobs.arguments import SearchRange, flag
from spark_jobs.contract import (
    BAYESIAN,
    CMAES,
    GRID,
    GROWTH,
    HYPERBAND,
    LOWER_IS_BETTER,
    MULTICLASS_OBJECTIVES,
    OBJECTIVES,
    TRAIN_PARTS,
    TuneArgs,
)
from spark_jobs.errors import InputError

Space = Mapping[str, Mapping[str, tuple[str, SearchRange]]]
ESTIMATOR, BUDGET = "estimator", "train_parts"
"""Two parameters that are settings of train and no hyperparameters."""
SMALLEST_SHARE = 1e-6
"""Where a range begins at 0 and an algorithm takes logarithms, it begins at this share of its end."""
ETA = 3
"""Hyperband's default: each round keeps a third of the trials and gives them three times as much."""
INITIAL_POINTS = 10
"""How many points Katib's bayesianoptimization draws at random before it models them, if it is not told."""


def searched_numbers(space: Space) -> dict[str, tuple[str, SearchRange]]:
    """Returns the settings that any estimator searches, by name: a setting that several have is declared once, with one range."""
    return {name: what for found in space.values() for name, what in found.items()}


def parameters_of(args: TuneArgs, algorithm: str) -> list[dict[str, Any]]:
    """Returns `spec.parameters` of the Experiment. With several estimators, each trial gets the settings of all and uses those of its own.

    Raises:
        InputError: the algorithm cannot search this space.
    """
    space = args.space()
    numbers = searched_numbers(space)
    if not numbers:
        raise InputError(f"{', '.join(space)} has no setting with a range; name one: {flag('search')} NAME=LOW:HIGH")
    points = grid_points(args) if algorithm == GRID else {}
    found = [
        _listed(name, points[name]) if name in points else _ranged(name, *what, algorithm)
        for name, what in numbers.items()
    ]
    if len(space) > 1:
        found.append({"name": ESTIMATOR, "parameterType": "categorical", "feasibleSpace": {"list": list(space)}})
    if algorithm == HYPERBAND:
        found.append(_ranged(BUDGET, "int", SearchRange(GROWTH[0], TRAIN_PARTS), algorithm))
    return found


def _listed(name: str, values: list[float]) -> dict[str, Any]:
    return {"name": name, "parameterType": "discrete", "feasibleSpace": {"list": [repr(value) for value in values]}}


def _ranged(name: str, kind: str, wanted: SearchRange, algorithm: str) -> dict[str, Any]:
    low = wanted.low
    if algorithm == BAYESIAN and kind == "float" and low <= 0:
        # It takes every number of type double on a logarithmic scale: pkg/suggestion/v1beta1/skopt/base_service.py.
        if low < 0:
            raise InputError(
                f"{flag('algorithm')}: Katib's {BAYESIAN} searches no negative numbers, and {name} begins at {low:g}"
            )
        low = wanted.high * SMALLEST_SHARE
    ends = [repr(int(end) if kind == "int" else end) for end in (low, wanted.high)]
    space = {"min": ends[0], "max": ends[1], "distribution": "logUniform" if wanted.log else "uniform"}
    return {"name": name, "parameterType": "int" if kind == "int" else "double", "feasibleSpace": space}


def grid_points(args: TuneArgs) -> dict[str, list[float]]:
    """Returns the values of each setting: as few as give at least the wanted number of trials.

    They are listed, as Katib's grid knows even steps only, which suit no logarithmic range, and refuses more trials than combinations
    (`_validate_grid_setting` in pkg/suggestion/v1beta1/optuna/service.py).
    """
    space = args.space()
    numbers = searched_numbers(space)
    for count in range(2, args.trials + 2):
        found = {name: spread(kind, wanted, count) for name, (kind, wanted) in numbers.items()}
        if math.prod(map(len, found.values())) * len(space) >= args.trials:
            return found
    return found


def spread(kind: str, wanted: SearchRange, count: int) -> list[float]:
    """Returns values of a range at even distances from its low end to its high end, whole numbers without repetition."""
    if wanted.log:
        low, high = math.log(wanted.low), math.log(wanted.high)
        inner = [math.exp(low + (high - low) * place / (count - 1)) for place in range(1, count - 1)]
    else:
        inner = [wanted.low + (wanted.high - wanted.low) * place / (count - 1) for place in range(1, count - 1)]
    values = [wanted.low, *inner, wanted.high]
    return list(dict.fromkeys(round(value) for value in values)) if kind == "int" else values


def combinations(args: TuneArgs) -> int:
    """Returns the number of trials of a grid: it has no more than combinations."""
    return min(args.trials, math.prod(map(len, grid_points(args).values())) * len(args.space()))


def algorithm_of(args: TuneArgs, algorithm: str) -> dict[str, Any]:
    """Returns `spec.algorithm` of the Experiment."""
    settings: dict[str, Any] = {"random_state": args.search_seed}
    if algorithm == BAYESIAN:
        settings["n_initial_points"] = min(INITIAL_POINTS, max(2, args.trials // 3))
    if algorithm == HYPERBAND:
        # `ValidateAlgorithmSettings` in pkg/suggestion/v1beta1/hyperband/service.py knows these; it takes no seed.
        settings = {"r_l": TRAIN_PARTS, "resource_name": BUDGET, "eta": ETA}
    pairs = [{"name": name, "value": str(value)} for name, value in settings.items()]
    return {"algorithmName": algorithm, "algorithmSettings": pairs}


def objective_spec(args: TuneArgs, objective: str, metrics: list[str]) -> dict[str, Any]:
    """Returns `spec.objective` of the Experiment; of a metric that a trial reports several times the last value counts."""
    spec: dict[str, Any] = {
        "type": "minimize" if objective in LOWER_IS_BETTER else "maximize",
        "objectiveMetricName": objective,
        "additionalMetricNames": [name for name in metrics if name != objective],
        "metricStrategies": [{"name": name, "value": "latest"} for name in metrics],
    }
    return {**spec, "goal": float(args.goal)} if args.goal else spec


def metrics_for(objective: str, classes: int) -> list[str]:
    """Returns the names of the metrics that trials report, the objective first."""
    known = OBJECTIVES[1:] if classes == 2 else MULTICLASS_OBJECTIVES
    return [objective, *(name for name in known if name != objective)]


def range_warnings(args: TuneArgs) -> list[str]:
    """Returns a warning for each algorithm that draws from logarithmic ranges as if they were even ones.

    They are goptuna's (`toGoptunaSearchSpace` in pkg/suggestion/v1beta1/goptuna/converter.go) and Katib's own
    (pkg/suggestion/v1beta1/hyperband/parsing_util.py).
    """
    names = [name for name, (_, wanted) in searched_numbers(args.space()).items() if wanted.log]
    return [
        f"Katib's {algorithm} knows no logarithmic ranges: it searches {', '.join(names)} on an even scale; give narrower ranges, or take "
        "another algorithm"
        for algorithm in args.algorithm_names()
        if names and algorithm in (CMAES, HYPERBAND)
    ]
