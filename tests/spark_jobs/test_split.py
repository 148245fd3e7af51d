"""The split's own decisions on what each set must hold."""

from __future__ import annotations

import pytest

from spark_jobs.errors import InputError
from spark_jobs.split import _check_counts

BOTH = {"no": 5, "yes": 5}


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"train": {"no": 5}, "validation": BOTH, "test": BOTH}, "no train row has y = 'yes'; give more rows"),
        ({"train": BOTH, "validation": {"yes": 5}, "test": BOTH}, "no validation row has y = 'no'; give more rows"),
        ({"train": BOTH, "validation": BOTH, "test": {"yes": 5}}, "no test row has y = 'no'; give more rows"),
        (
            {"train": {**BOTH, "a": 1, "b": 1}, "validation": {"a": 1, "b": 1}, "test": BOTH},
            "no test row has y = 'a', 'b'; give more rows",
        ),
        ({"train": BOTH, "validation": {}, "test": BOTH}, "the split leaves no validation rows"),
    ],
)
def test_the_set_and_the_class_that_it_lacks_are_named(counts: dict[str, dict[str, int]], told: str) -> None:
    with pytest.raises(InputError, match=f"^{told}"):
        _check_counts(counts, "y")


def test_of_many_classes_validation_rows_need_two() -> None:
    every = {**BOTH, "a": 1}
    _check_counts({"train": every, "validation": BOTH, "test": every}, "y")
