"""What a cell means is the same to the loader, to the saved model and to the scorer, for every text and every value of JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.scorer import RowError, Scorer
from spark_jobs.cells import BLANKS, MAX_NUMBER, definition, to_number
from spark_jobs.errors import InputError
from spark_jobs.features import NumericColumn, select_statement

MISSING, WORD, TOO_LARGE = "missing", "is not a number", "is infinite or beyond 1e+100"
NUMBERS: dict[str, float | str] = {
    "0": 0.0, "1": 1.0, "-1": -1.0, "+1": 1.0, "007": 7.0, "1.5": 1.5, ".5": 0.5, "5.": 5.0, "-.5": -0.5, "1e5": 1e5,
    "1E-5": 1e-5, "+1.5e+2": 150.0, " 1": 1.0, "1 ": 1.0, "\u00a01\u2003": 1.0, "\t1\x1f": 1.0, "1e99": 1e99, "1e-400": 0.0,
    "": MISSING, " ": MISSING, "\u00a0": MISSING, "NA": MISSING, "na": MISSING, "N/A": MISSING, "#N/A": MISSING,
    "NaN": MISSING, "nan": MISSING, "NULL": MISSING, "None": MISSING, "?": MISSING, "-": MISSING, " -- ": MISSING,
    "1F": WORD, "2D": WORD, "3d": WORD, "1.5f": WORD, "0x1p3": WORD, "0x10": WORD, "1_000": WORD, "1,000": WORD, "1,5": WORD,
    "$1,000.50": WORD, "12%": WORD, "1 000": WORD, "\uff11\uff12": WORD, "\u0661": WORD, "e5": WORD, ".": WORD, "+": WORD, "1e": WORD,
    "--1": WORD, "true": WORD, "one": WORD, "1\n2": WORD, "na\u00efve": WORD, "+-1": WORD, "1L": WORD, "...": WORD,
    "Infinity": TOO_LARGE, "-inf": TOO_LARGE, "+INF": TOO_LARGE, "1e101": TOO_LARGE, "-1e300": TOO_LARGE, "1e999": TOO_LARGE,
}  # fmt: skip
"""The text of a cell in a numeric column, and what it means."""


def test_blanks_are_what_python_cuts_off() -> None:
    assert BLANKS.strip() == ""
    assert "".join(chr(code) for code in range(0x110000) if not chr(code).strip()) == BLANKS


@pytest.mark.parametrize(("text", "meaning"), NUMBERS.items())
def test_scorer_reads_a_number_as_the_table_of_examples_says(text: str, meaning: float | str) -> None:
    scorer = Scorer({
        "scorecard_version": 3, "form": "linear", "labels": ["no", "yes"], "threshold": 0.5, "intercepts": [0.0], "coefficients": [[1, 1]],
        "numeric": [{"name": "x", "mean": 0.0, "indicator": True, "center": 0.0, "scale": 1.0, "splits": []}],
        "categorical": [], "cells": definition(),
        "features": [{"column": "x", "kind": "numeric", "category": ""}, {"column": "x", "kind": "missing", "category": ""}],
    })  # fmt: skip
    if meaning in (WORD, TOO_LARGE):
        with pytest.raises(RowError, match="column 'x'") as raised:
            scorer.features({"x": text})
        assert str(meaning) in str(raised.value)
    else:
        assert scorer.features({"x": text}) == ([0.0, 1.0] if meaning == MISSING else [meaning, 0.0])


@pytest.mark.parametrize(("text", "meaning"), NUMBERS.items())
def test_a_small_table_is_read_in_python_as_the_table_of_examples_says(text: str, meaning: float | str) -> None:
    number = to_number(text.strip())
    if meaning == TOO_LARGE:
        assert number is not None
        assert abs(number) > MAX_NUMBER
    else:
        assert number == (None if meaning in (WORD, MISSING) else meaning)


def test_loader_and_saved_model_read_numbers_as_the_table_of_examples_says(
    spark: Any, run_step: Callable[..., Any], tmp_path: Path
) -> None:
    from pyspark.ml.feature import SQLTransformer

    rows = [(str(i), text, "ab"[i % 2]) for i, text in enumerate(NUMBERS)]
    spark.createDataFrame(rows, "id string, x string, label string").coalesce(1).write.parquet(
        str(tmp_path / "t.parquet")
    )
    (tmp_path / "s.toml").write_text('[label]\nname = "label"\n[columns]\nnumeric = ["x"]\ncategorical = ["id"]\n')
    run_step("load", data_uri=tmp_path / "t.parquet", specification_uri=tmp_path / "s.toml", output_uri=tmp_path / "o",
             max_rejected_fraction=1.0)  # fmt: skip
    found: dict[str, float | str] = {}
    for row in spark.read.parquet(str(tmp_path / "o/rows")).collect():
        found[row["id"]] = MISSING if row["x"] is None else row["x"]
    for row in spark.read.parquet(str(tmp_path / "o/rejected")).collect():
        identifier = next(csv.reader([row["line"].replace("\n", " ")]))[0]
        found[identifier] = row["reason"].removeprefix("column 'x' ")
    assert found == {str(i): meaning for i, meaning in enumerate(NUMBERS.values())}

    statement = select_statement([NumericColumn(name="x", mean=0.25, indicator=True)], [], "own_")
    table = spark.createDataFrame([(text,) for text in NUMBERS], "x string")
    read = [
        (row["own_number_0"], row["own_missing_0"])
        for row in SQLTransformer(statement=statement).transform(table).collect()
    ]
    # A saved model cannot refuse a row: what load would refuse counts as missing.
    assert read == [(meaning, 0.0) if isinstance(meaning, float) else (0.25, 1.0) for meaning in NUMBERS.values()]


CATEGORIES = {
    "whole": ["1", "2", "30000000", "true", "x"],
    "fraction": ["1.0", "2.5", "3.0E7", "True", "False"],
    "own": ["1", "1.0", "TRUE", "true", "x"],
    "plain": ["u", "v", "w", "u v", "\u00e9"],
}
"""Columns of text whose categories look like numbers and truth values, in the ways that tables write them."""


@pytest.fixture(scope="module")
def trained(
    run_steps: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Scorer, dict[str, Any]]:
    """The saved model of a table with the columns of `CATEGORIES` and a number, its scorer and its scorecard."""
    from pyspark.ml import PipelineModel

    directory = tmp_path_factory.mktemp("cells")
    with (directory / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*CATEGORIES, "number", "label"])
        for i in range(400):
            categories = [values[i * (place + 1) % 7 % 5] for place, values in enumerate(CATEGORIES.values())]
            writer.writerow([*categories, i % 13 if i % 11 else "?", "yes" if i * 7 % 10 + i % 5 < 6 else "no"])
    roles = f"numeric = ['number']\ncategorical = {json.dumps(list(CATEGORIES))}\n"
    (directory / "s.toml").write_text(f"[label]\nname = 'label'\n[columns]\n{roles}")
    run_steps(directory, data_uri=directory / "t.csv", specification_uri=directory / "s.toml", last="train")
    scorecard = json.loads((directory / "train/scorecard.json").read_text())
    return PipelineModel.load(str(directory / "train/model")), Scorer(scorecard), scorecard


def test_the_scorecard_says_how_typed_values_are_written(trained: tuple[Any, Scorer, dict[str, Any]]) -> None:
    written = {column["name"]: (column["numbers"], column["booleans"]) for column in trained[2]["categorical"]}
    assert written == {
        "whole": ("whole", ["false", "true"]),
        "fraction": ("fraction", ["False", "True"]),
        "own": ("own", ["false", "true"]),
        "plain": ("whole", ["false", "true"]),
    }


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "bigint": st.sampled_from([0, 1, 2, 30_000_000]) | st.integers(-(2**63), 2**63 - 1),
    "double": st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, 3e7, 0.1, 1e22, math.inf, math.nan]) | st.floats(),
    "string": st.sampled_from(
        [*NUMBERS, *(value for values in CATEGORIES.values() for value in values), " x ", "\u00a0true"]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
}


@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=4)
@given(data=st.data())
def test_scorer_and_saved_model_agree_on_every_kind_of_value(
    spark: Any, trained: tuple[Any, Scorer, dict[str, Any]], kind: str, data: st.DataObject
) -> None:
    from pyspark.ml.functions import vector_to_array

    model, scorer, _ = trained
    values = data.draw(st.lists(st.none() | VALUES[kind], min_size=60, max_size=60))
    rows = [{**dict.fromkeys(CATEGORIES, value), "number": value} for value in values]
    schema = ", ".join(f"{name} {kind}" for name in (*CATEGORIES, "number"))
    table = spark.createDataFrame([tuple(row.values()) for row in rows], schema).coalesce(1)
    found = model.transform(table).select(vector_to_array("probability")[1].alias("p")).collect()
    for row, said in zip(rows, found, strict=True):
        try:
            score = scorer.score(row)
        except RowError:  # a saved model cannot refuse a row; it takes the number as missing
            assert row["number"] is True or row["number"] is False or isinstance(row["number"], str | float | int)
            score = scorer.score({**row, "number": None})
        assert said["p"] == pytest.approx(score.probabilities["yes"], abs=1e-12), row


@pytest.mark.parametrize(
    ("value", "same"), [(True, "true"), (1, "1"), (1.0, "1"), (None, ""), (3e7, "30000000"), (math.nan, "")]
)
def test_a_value_of_json_is_its_category(trained: tuple[Any, Scorer, dict[str, Any]], value: Any, same: str) -> None:
    row = {**dict.fromkeys(CATEGORIES, "x"), "number": 1}
    assert trained[1].score({**row, "whole": value}) == trained[1].score({**row, "whole": same})


@pytest.fixture
def load(run_step: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    def run(content: str, **more: Any) -> Any:
        (tmp_path / "t.csv").write_text(content)
        return run_step("load", data_uri=tmp_path / "t.csv", label="y", output_uri=tmp_path / "o", **more)

    return run


def test_words_for_missing_are_no_class(load: Callable[..., Any], spark: Any, tmp_path: Path) -> None:
    labels = ["no", "yes", "NA", "nan", "N/A", "\u00a0yes\u00a0"]
    result = load("x,y\n" + "".join(f"{i},{labels[i % 6]}\n" for i in range(60)), max_rejected_fraction=0.5)
    assert result.rows_out == {"rows": 30, "rejected": 30}
    assert {row["y"] for row in spark.read.parquet(str(tmp_path / "o/rows")).collect()} == {"no", "yes"}


def test_classes_that_differ_in_case_or_spaces_only_are_named(load: Callable[..., Any]) -> None:
    with pytest.raises(
        InputError, match=r"label 'y' has values that differ in case or spaces only: 'NO' \(20 rows\), 'no' \(20 rows\)"
    ):
        load("x,y\n" + "".join(f"{i},{['no', 'NO', 'yes'][i % 3]}\n" for i in range(60)))


def test_numbers_too_large_for_a_variance_are_refused(load: Callable[..., Any]) -> None:
    with pytest.raises(
        InputError, match=rf"column 'x' is infinite or beyond {MAX_NUMBER:g} \(60 rows\)".replace("+", r"\+")
    ):
        load("x,y\n" + "".join(f"{i + 1}e300,{'no' if i % 2 else 'yes'}\n" for i in range(60)))


def test_columns_that_look_like_numbers_are_told(load: Callable[..., Any]) -> None:
    columns = {
        "money": lambda i: f'"${i + 1},000.50"', "comma": lambda i: f'"{i},5"', "share": lambda i: f"{i}%",
        "mixed": lambda i: "unknown" if i % 5 == 0 else str(i), "gaps": lambda i: "?" if i % 2 else str(i),
        "large": lambda i: str(2**62 + i), "plain": str, "word": lambda i: "abc"[i % 3],
        "y": lambda i: "no" if i % 2 else "yes",
    }  # fmt: skip
    rows = [",".join(make(i) for make in columns.values()) for i in range(60)]
    result = load("\n".join([",".join(columns), *rows]) + "\n")
    # Sixty values in sixty rows look like an identifier besides, and that is told as well.
    told = {name: " ".join(text for text in result.warnings if f"column {name!r}" in text) for name in columns}
    assert "'$1,000.50'; write them like 1000.5" in told["money"]
    assert "'0,5'" in told["comma"]
    assert "'0%'" in told["share"]
    assert "12 texts such as 'unknown'; leave such cells empty" in told["mixed"]
    assert "30 cells such as '?' are taken as missing numbers" in told["gaps"]
    assert f"whole numbers such as '{2**62}', which a double rounds" in told["large"]
    assert not told["plain"] + told["word"]
