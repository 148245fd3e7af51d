"""The data specification comes back as it was written, and each wrong entry is named."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs.dataset import (
    Specification,
    did_you_mean,
    guess_positive_value,
    names_equal_ignoring_case,
    read_specification,
)
from spark_jobs.errors import InputError

names = st.lists(st.text(min_size=1, max_size=12), min_size=4, max_size=8, unique=True)


@given(
    columns=names,
    positive=st.text(max_size=8),
    rate=st.none() | st.floats(0.001, 0.999),
    low=st.floats(-1e9, 0),
    high=st.floats(0, 1e9),
    rare=st.booleans(),
)
def test_a_specification_comes_back_from_its_document(
    columns: list[str], positive: str, rate: float | None, low: float, high: float, rare: bool
) -> None:
    label, number, category, dropped = columns[:4]
    specification = Specification(
        label=label,
        positive=positive,
        base_rate=rate,
        numeric=(number,),
        categorical=(category, *columns[4:]),
        dropped=(dropped,),
        known_afterwards=(category,),
        limits={number: (low, high)},
        rare_as_other=rare,
    )
    assert read_specification(specification.to_toml({dropped: "is an identifier"}), "x.toml") == specification


def test_the_reason_for_a_dropped_column_stands_beside_it_as_a_comment() -> None:
    written = Specification(label="y", numeric=("x",), dropped=("id",)).to_toml({"id": "is an identifier"})
    assert '# "id" is an identifier\n' in written
    assert tomllib.loads(written)["columns"]["dropped"] == ["id"]


GOOD = '[label]\nname = "y"\n[columns]\nnumeric = ["x"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[label", "x.toml: not TOML"),
        (GOOD + "[colums]\n", r"x.toml: unknown section 'colums'; did you mean 'columns'"),
        (GOOD + 'numerc = ["a"]\n', r"unknown key columns.numerc; did you mean 'numeric'"),
        ('[columns]\nnumeric = ["x"]\n', "label.name is missing"),
        ('[label]\nname = "y"\n', "no feature; list at least one column"),
        (GOOD.replace('"y"\n', '"y"\nbase_rate = 1.0\n'), "label.base_rate is 1.0; it must be above 0 and below 1"),
        (GOOD + 'categorical = "x"\n', "columns.categorical must be a list of column names"),
        (GOOD + 'categorical = ["x"]\n', "column 'x' has two roles"),
        (GOOD + 'dropped = ["y"]\n', "column 'y' has two roles"),
        (GOOD + 'known_afterwards = ["z"]\n', "known_afterwards names 'z', which is neither numeric nor categorical"),
        (GOOD + "rare_as_other = 1\n", "columns.rare_as_other is 1; it must be true or false"),
        (GOOD + "[limits]\nx = [2, 1]\n", r"limits.x must be \[lowest, highest\] of a numeric column"),
        (GOOD + "[limits]\nz = [1, 2]\n", r"limits.z must be \[lowest, highest\] of a numeric column"),
    ],
)
def test_what_is_wrong_in_a_specification_is_named(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_specification(text, "x.toml")


def test_columns_that_a_specification_does_not_name_are_dropped_and_missing_ones_are_told() -> None:
    specification = read_specification(GOOD, "x.toml")
    assert specification.check(["x", "y", "more"], "t.csv").dropped == ("more",)
    with pytest.raises(InputError, match=r"t.csv: no column 'x'; did you mean 'X2'"):
        specification.check(["X2", "y"], "t.csv")


@pytest.mark.parametrize(
    ("counts", "positive"),
    [
        ({"no": 5, "yes": 9}, "yes"),
        ({"False": 1, "TRUE": 9}, "TRUE"),
        ({"0": 1, "1": 9}, "1"),
        ({"good": 9, "bad": 2}, "bad"),
        ({"b": 2, "a": 2}, "a"),
    ],
)
def test_the_positive_value_is_a_word_for_yes_else_the_rarer_one(counts: dict[str, int], positive: str) -> None:
    assert guess_positive_value(counts) == positive


def test_names_that_differ_in_case_only_are_paired() -> None:
    assert names_equal_ignoring_case(["Age", "x", "age", "AGE"]) == [("Age", "age"), ("Age", "AGE")]


def test_a_hint_proposes_what_is_spelt_alike_else_lists_all() -> None:
    assert did_you_mean("deposti", ["deposit", "age"]) == "; did you mean 'deposit'?"
    assert did_you_mean("zzz", ["deposit", "age"]) == "; there are 'deposit', 'age'"
