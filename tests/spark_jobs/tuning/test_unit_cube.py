"""The search space as a unit cube, and the grid on it."""

from __future__ import annotations

import pytest

from spark_jobs.arguments import SearchRange
from spark_jobs.tuning.unit_cube import choice_at, grid, place_of, point_of, points_per_setting, value_at

LOG, WHOLE = ("float", SearchRange(1e-4, 1.0, log=True)), ("int", SearchRange(2, 6))
TWO = {"linear": {"penalty": LOG}, "tree": {"depth": WHOLE, "share": ("float", SearchRange(0.0, 1.0))}}


@pytest.mark.parametrize(
    ("place", "what", "value"),
    [(0.0, LOG, 1e-4), (0.5, LOG, 1e-2), (1.0, LOG, 1.0), (0.0, WHOLE, 2), (0.6, WHOLE, 4), (1.0, WHOLE, 6)],
)
def test_a_place_has_its_value(place: float, what: tuple[str, SearchRange], value: float) -> None:
    assert value_at(place, *what) == pytest.approx(value)
    assert type(value_at(place, *what)) is (int if what[0] == "int" else float)


def test_the_place_of_a_value_is_the_inverse() -> None:
    assert place_of(value_at(0.3, *LOG), LOG[1]) == pytest.approx(0.3)
    assert place_of(3, WHOLE[1]) == 0.25


def test_no_value_leaves_its_range_by_rounding() -> None:
    for high in (0.1, 0.3, 7.7, 1e-6 * 3):
        assert value_at(1.0, "float", SearchRange(1e-7, high, log=True)) <= high


def test_a_choice_is_found_again_at_its_point() -> None:
    for choice in (("linear", {"penalty": 0.01}), ("tree", {"depth": 4, "share": 0.25})):
        name, settings = choice_at(TWO, point_of(TWO, choice))
        assert (name, settings) == (choice[0], pytest.approx(choice[1]))
    alone = {"tree": TWO["tree"]}
    assert len(point_of(alone, ("tree", {"depth": 4, "share": 0.25}))) == 2


@pytest.mark.parametrize(
    ("settings", "most", "counts"),
    [(2, 20, [5, 4]), (2, 3, [3, 1]), (3, 1, [1, 1, 1]), (0, 5, []), (6, 20, [2, 2, 2, 2, 1, 1])],
)
def test_a_grid_has_at_most_so_many_points(settings: int, most: int, counts: list[int]) -> None:
    assert points_per_setting(settings, most) == counts


def test_a_grid_has_the_ends_of_each_range_and_every_estimator() -> None:
    found = grid(TWO, 10)
    assert [settings["penalty"] for name, settings in found if name == "linear"] == pytest.approx(
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    )
    assert [tuple(settings.values()) for name, settings in found if name == "tree"] == [
        (2, 0.0),
        (2, 1.0),
        (6, 0.0),
        (6, 1.0),
    ]
    assert len(grid(TWO, 1)) == 1


def test_a_whole_number_is_tried_once() -> None:
    assert [settings["n"] for _, settings in grid({"x": {"n": ("int", SearchRange(1, 3))}}, 9)] == [1, 2, 3]
