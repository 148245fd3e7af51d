"""Features on tiny tables: what each place of the vector is, and what is fitted on the train rows only."""

from __future__ import annotations

from typing import Any

import pytest

from spark_jobs.contract import PreprocessArgs
from spark_jobs.errors import InputError
from spark_jobs.features import Encoding, NumericColumn, fit_encoding, model_columns, slicer_without
from spark_jobs.split import Split
from spark_jobs.steps.preprocess import numeric_columns

PREFIX = "spark_kfp_"
AGE = NumericColumn(name="age", mean=30.0, indicator=True)


@pytest.fixture(scope="module")
def encoding(spark: Any) -> Encoding:
    train = spark.createDataFrame(
        [(20.0, "a"), (40.0, "a"), (None, "b"), (30.0, "c"), (30.0, "c"), (30.0, "c"), (30.0, None)],
        "age double, job string",
    )
    return fit_encoding(train, [AGE], ["job"], 100, PREFIX)


def vector(spark: Any, encoding: Encoding, age: float | None, job: str | None) -> list[float]:
    table = spark.createDataFrame([(age, job)], "age double, job string")
    (row,) = encoding.model.transform(table).select(f"{PREFIX}features").collect()
    return [float(value) for value in row[0].toArray()]


def test_each_place_of_the_vector_is_named(encoding: Encoding) -> None:
    # c is the commonest value of job: the reference, which has no place of its own.
    assert [feature.name for feature in encoding.features] == [
        "age", "age is missing", "job = a", "job = b", "job is missing or new",
    ]  # fmt: skip
    assert encoding.vocabularies == {"job": ("c", "a", "b")}


@pytest.mark.parametrize(
    ("age", "job", "expected"),
    [
        (25.0, "a", [25, 0, 1, 0, 0]),
        (25.0, "c", [25, 0, 0, 0, 0]),
        (None, "b", [30, 1, 0, 1, 0]),
        (25.0, None, [25, 0, 0, 0, 1]),
        (25.0, "never met", [25, 0, 0, 0, 1]),
        (25.0, " a ", [25, 0, 1, 0, 0]),
        (float("nan"), "a", [30, 1, 1, 0, 0]),
        (1e300, "a", [30, 1, 1, 0, 0]),
    ],
)
def test_a_row_becomes_its_vector(
    spark: Any, encoding: Encoding, age: float | None, job: str | None, expected: list[float]
) -> None:
    assert vector(spark, encoding, age, job) == expected


def test_intervals_and_standardised_numbers_are_described_and_encoded(spark: Any) -> None:
    train = spark.createDataFrame([(20.0, "a"), (40.0, "b")], "age double, job string")
    binned = NumericColumn(name="age", mean=30.0, indicator=True, splits=(25.0, 35.5))
    encoding = fit_encoding(train, [binned], [], 100, PREFIX)
    assert [item.name for item in encoding.features] == ["age from 25 to below 35.5", "age from 35.5", "age is missing"]
    vectors = {24.9: [0, 0, 0], 25.0: [1, 0, 0], 35.5: [0, 1, 0], None: [1, 0, 1]}
    assert {age: vector(spark, encoding, age, "a") for age in vectors} == vectors
    standardised = NumericColumn(name="age", mean=30.0, indicator=False, center=30.0, scale=4.0)
    encoding = fit_encoding(train, [standardised], ["job"], 100, PREFIX)
    assert [item.name for item in encoding.features] == ["age, standardised", "job = b", "job is missing or new"]
    assert vector(spark, encoding, 20.0, "b") == [-2.5, 1, 0]


def test_quantiles_divide_the_train_rows_evenly_and_a_constant_column_stays_as_it_is(spark: Any) -> None:
    rows = [(float(i % 40), 5.0, -1.0 if i % 4 else 9.0) for i in range(400)]
    train = spark.createDataFrame(rows, "even double, same double, tied double").coalesce(1)
    names = ["even", "same", "tied"]
    split = Split(
        train, PREFIX, {}, dict.fromkeys(names, 5.0), {"even": 2.0, "same": 0.0, "tied": 1.0}, dict.fromkeys(names, 0)
    )

    def columns(**settings: Any) -> list[NumericColumn]:
        return numeric_columns(train, split, names, PreprocessArgs(load_uri="-", output_uri="-", **settings))

    splits = [column.splits for column in columns(numeric_form="quantile_bins", numeric_bins=4)]
    assert splits == [(9.0, 19.0, 29.0), (), ()]
    splits = [column.splits for column in columns(numeric_form="quantile_bins", numeric_bins=8)]
    assert splits[1:] == [(), (9.0,)]
    assert [(column.center, column.scale) for column in columns(numeric_form="standardised")] == [
        (5, 2),
        (0, 1),
        (5, 1),
    ]


def test_too_many_categories_are_refused_by_name_or_the_rarest_count_as_one(spark: Any) -> None:
    train = spark.createDataFrame([("a",), ("a",), ("b",), ("b",), ("c",)], "job string")
    with pytest.raises(InputError, match=r"than --max-categories=2: 'job' \(3\)"):
        fit_encoding(train, [], ["job"], 2, PREFIX)
    kept = fit_encoding(train, [], ["job"], 2, PREFIX, rare_as_other=True)
    assert kept.vocabularies == {"job": ("a", "b")}
    assert kept.rare == {"job": 1}


@pytest.mark.usefixtures("spark")  # a slicer is an object of the JVM
def test_the_features_of_a_column_can_be_left_out() -> None:
    features = [{"column": "age"}, {"column": "job"}, {"column": "age"}]
    slicer = slicer_without(features, ["age"])
    assert slicer is not None
    assert slicer.getIndices() == [1]
    assert slicer_without(features, []) is None
    assert slicer_without(features, ["age", "job"]) is None, "a model needs a feature"


def test_a_saved_model_calls_its_columns_otherwise_where_the_table_has_them() -> None:
    assert model_columns(["age", "Prediction"], PREFIX) == {
        "features": "spark_kfp_features",
        "rawPrediction": "rawPrediction",
        "probability": "probability",
        "prediction": "spark_kfp_prediction",
        "predicted_label": "predicted_label",
    }
