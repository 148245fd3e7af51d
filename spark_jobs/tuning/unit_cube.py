"""The search space as a unit cube, for the algorithms that Optuna does not have: grid search and the Gaussian process."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spark_jobs.arguments import SearchRange

Space = Mapping[str, Mapping[str, tuple[str, SearchRange]]]
"""By estimator and name of a setting its type, `int` or `float`, and its range."""
Choice = tuple[str, dict[str, Any]]
"""An estimator and its settings."""


def value_at(place: float, kind: str, wanted: SearchRange) -> float | int:
    """Returns the value of a setting at a place from 0 (its smallest) to 1 (its largest)."""
    if wanted.log:
        value = math.exp(math.log(wanted.low) + place * (math.log(wanted.high) - math.log(wanted.low)))
    else:
        value = wanted.low + place * (wanted.high - wanted.low)
    value = min(max(value, wanted.low), wanted.high)  # rounding may lead out of the range
    return round(value) if kind == "int" else value


def place_of(value: float, wanted: SearchRange) -> float:
    """Returns the place of a value; the inverse of `value_at`."""
    if wanted.log:
        return (math.log(value) - math.log(wanted.low)) / (math.log(wanted.high) - math.log(wanted.low))
    return (value - wanted.low) / (wanted.high - wanted.low)


def grid(space: Space, most: int) -> list[Choice]:
    """Returns the points of a grid, at most so many, with about equally many for each estimator.

    A setting gets one more value after another, the earlier settings first, as long as there are not too many points. The ends of a range
    are among its values if it has two or more; a single one lies in the middle.
    """
    found: list[Choice] = []
    for left, (estimator, settings) in zip(range(len(space), 0, -1), space.items(), strict=True):
        counts = points_per_setting(len(settings), max(1, (most - len(found)) // left))
        values = [
            list(dict.fromkeys(value_at(place, *what) for place in places(count)))
            for count, what in zip(counts, settings.values(), strict=True)
        ]
        found += [(estimator, dict(zip(settings, each, strict=True))) for each in itertools.product(*values)]
    return found[:most]


def points_per_setting(settings: int, most: int) -> list[int]:
    """Returns the number of values of each setting, whose product is at most `most`."""
    counts = [1] * settings
    while True:
        for place in sorted(range(settings), key=lambda place: counts[place]):
            more = [count + (at == place) for at, count in enumerate(counts)]
            if math.prod(more) <= most:
                counts = more
                break
        else:
            return counts


def places(count: int) -> Sequence[float]:
    """Returns evenly spaced places."""
    return [0.5] if count == 1 else [number / (count - 1) for number in range(count)]


def point_of(space: Space, choice: Choice) -> list[float]:
    """Returns the point of a choice: for each of several estimators 1 or 0, then each setting's place; 0.5 for those of others."""
    estimator, settings = choice
    point = [float(name == estimator) for name in space] if len(space) > 1 else []
    for name, known in space.items():
        point += [place_of(settings[key], wanted) if name == estimator else 0.5 for key, (_, wanted) in known.items()]
    return point


def choice_at(space: Space, point: Sequence[float]) -> Choice:
    """Returns the choice at any point; the estimator with the largest number is taken."""
    names = list(space)
    own = list(point)
    estimator = names[0]
    if len(names) > 1:
        estimator, own = names[int(np.argmax(own[: len(names)]))], own[len(names) :]
    for name, known in space.items():
        here, own = own[: len(known)], own[len(known) :]
        if name == estimator:
            return estimator, {key: value_at(at, *what) for at, (key, what) in zip(here, known.items(), strict=True)}
    raise AssertionError(estimator)
