"""No name of a column of the user's table can break anything: a table gives the same model whatever its columns are called."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.scorer import Scorer
from spark_jobs.dataset import OWN_PREFIX, own_prefix
from spark_jobs.errors import InputError
from spark_jobs.features import PREDICTIONS

RunSteps = Callable[..., dict[str, Any]]
ODD = ["a.b", "back`tick", "it's", '"quoted"', "two words", "[x]", "(y)", "{z}", "new\nline", "__THIS__", "${env:HOME}", "$1", "\\",
       "😀", "größe", "_metadata", "_c0", "null", "select *", "a,b;c", "VALUES", "$x$ <b>", "_corrupt_record"]  # fmt: skip
"""Names that mean something to SQL, Parquet, CSV, HTML, charts or Spark. Only a label may have the last: Spark's own reader takes it."""
MIXED = [
    'a.b`c it\'s "q" [x] (y) {z}',
    "new\nline,;$1\\",
    "${env:HOME}",
    "😀 größe",
    "__THIS__",
    "_metadata",
    "_c0",
    "null",
]
"""The same in few columns."""
USED = [*PREDICTIONS, "features", "label", "set", "row_hash", "line", "file"]
"""Some of the names that the code gives to columns, without our prefix."""
SPARKS_OWN = {"spark.sql.caseSensitive": "false", "spark.sql.variable.substitute": "true"}
"""Settings that the user of a saved model has, as Spark has them, and the steps have otherwise."""
ROWS = 260


def write_table(path: Path, names: list[str], label: str, numeric: Callable[[int], bool]) -> None:
    """The same cells for any names: features and, last, the label. The first feature drives it."""
    drawn = random.Random(7)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, label])
        for _ in range(ROWS):
            first = drawn.randint(-9, 9)
            words = ["low" if first < 0 else "high", "u", "v", ""]
            cells = [str(drawn.randint(0, 99)) if numeric(i) else words[(first + i) % 4] for i in range(len(names))]
            cells[0] = str(first) if numeric(0) else words[0]
            writer.writerow([*cells, "yes" if first + drawn.gauss(0, 3) > 0 else "no"])


@pytest.fixture(scope="module")
def code_names(spark: Any, run_steps: RunSteps, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Every name of a column that the code uses: of all tables that it writes, and of all parameters of the saved model."""
    from pyspark.ml import PipelineModel

    directory = tmp_path_factory.mktemp("names")
    names = ["one", "two", "three"]
    write_table(directory / "t.csv", names, "outcome", lambda i: i != 1)
    with (directory / "t.csv").open("a") as file:
        file.write("a line that does not parse\n")
    run_steps(directory, data_uri=directory / "t.csv", label="outcome", last="train")
    tables = [*directory.glob("load/*/"), directory / "preprocess/features"]
    model = PipelineModel.load(str(directory / "train/model"))
    raw = spark.read.csv(str(directory / "t.csv"), header=True)
    found = {name for table in tables for name in spark.read.parquet(str(table)).columns} | {
        *model.transform(raw).columns
    }
    for stage in model.stages:
        for param, value in stage.extractParamMap().items():
            if param.name.endswith(("Col", "Cols")):
                found |= {value} if isinstance(value, str) else set(value)
    found -= {
        *names,
        "outcome",
        *(name for name in found if name.endswith("__output")),
    }  # made up by MLlib where nobody names one
    names = sorted(found | {name.removeprefix(OWN_PREFIX) for name in found})
    assert {*USED, f"{OWN_PREFIX}file"} <= set(names)
    return names


def learn(
    run_steps: RunSteps,
    directory: Path,
    names: list[str],
    label: str,
    numeric: Callable[[int], bool],
    last: str = "train",
) -> dict[str, Any]:
    """The results of the steps up to the last one, their warnings and the scorecard."""
    directory.mkdir()
    write_table(directory / "t.csv", names, label, numeric)
    # The penalty keeps the noise of the other columns small, however many names the code has.
    settings = {"bootstrap_samples": 50, "reg_param": 0.3}
    results = run_steps(directory, last, data_uri=directory / "t.csv", label=label, **settings)
    return {
        "results": results,
        "scorecard": json.loads((directory / "train/scorecard.json").read_text()),
        "warnings": {warning for result in results.values() for warning in result.warnings},
    }


def check_saved_model(session: Any, directory: Path, scorecard: dict[str, Any]) -> None:
    """The PipelineModel takes the very table that it was made from, as Spark reads it, and says what the scorecard says."""
    from pyspark.ml import PipelineModel
    from pyspark.ml.functions import vector_to_array

    table = session.read.csv(str(directory / "t.csv"), header=True, multiLine=True, escape='"')
    columns = scorecard["model_columns"]
    predicted = PipelineModel.load(str(directory / "train/model")).transform(table)
    found = predicted.select(
        vector_to_array(columns["probability"])[1].alias("p"), columns["predicted_label"]
    ).collect()
    with (directory / "t.csv").open(newline="") as file:
        scores = [Scorer(scorecard).score(row) for row in csv.DictReader(file)]
    assert [row[0] for row in found] == pytest.approx([score.probabilities["yes"] for score in scores], abs=1e-12)
    assert [row[1] for row in found] == [score.label for score in scores]


def check_same_model(
    spark: Any, run_steps: RunSteps, directory: Path, names: list[str], numeric: Callable[[int], bool]
) -> None:
    """Columns of these names, of which the last is the label, give the model that columns of neutral names give."""
    *names, label = names
    # The split hashes the cells in the order of the names, so the neutral names must have the same order.
    order = sorted([*names, label])
    neutral = {name: f"c{order.index(name):03}" for name in order}

    found = learn(run_steps, directory / "names", names, label, numeric, last="evaluate")
    expected = learn(run_steps, directory / "neutral", [neutral[name] for name in names], neutral[label], numeric)
    assert (
        found["results"]["evaluate"].metrics["areaUnderROC"] > 0.6
    )  # it learns; that no name spoils it, the equal coefficients show
    assert found["scorecard"]["coefficients"] == expected["scorecard"]["coefficients"]
    assert [neutral[feature["column"]] for feature in found["scorecard"]["features"]] == [
        feature["column"] for feature in expected["scorecard"]["features"]
    ]
    own_settings = {name: spark.conf.get(name) for name in SPARKS_OWN}
    for name, value in SPARKS_OWN.items():
        spark.conf.set(name, value)
    try:
        check_saved_model(spark, directory / "names", found["scorecard"])
    finally:
        for name, value in own_settings.items():
            spark.conf.set(name, value)
    own = all(name.startswith(OWN_PREFIX) for name in names)
    told = [warning for warning in found["warnings"] if "the saved model calls its own" in warning]
    assert len(told) == (0 if own else len(PREDICTIONS))
    assert not any("the saved model calls its own" in warning for warning in expected["warnings"])


@pytest.mark.slow
def test_a_table_gives_the_same_model_whatever_its_columns_are_called(
    spark: Any, run_steps: RunSteps, tmp_path: Path
) -> None:
    check_same_model(spark, run_steps, tmp_path, [*USED, *MIXED, "label.x"], lambda place: place % 2 == 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "even"),
    [(False, False), (False, True), (True, True)],
    ids=["bare names", "bare names in the other roles", "names with our prefix"],
)
def test_every_name_that_the_code_uses_may_be_a_column_of_the_table(
    spark: Any, code_names: list[str], run_steps: RunSteps, tmp_path: Path, own: bool, even: bool
) -> None:
    names = [name for name in code_names if name.startswith(OWN_PREFIX) is own] + ([] if own else ODD)
    check_same_model(spark, run_steps, tmp_path, names, lambda place: place % 2 == even)


@pytest.mark.slow
def test_names_that_differ_in_case_only_and_a_header_with_an_empty_cell(
    spark: Any, run_steps: RunSteps, tmp_path: Path
) -> None:
    found = learn(run_steps, tmp_path / "t", ["Age", "age", "AGE", "", "y"], "outcome", lambda i: i != 1)
    assert "columns 'Age' and 'age' differ in case only; set spark.sql.caseSensitive=true" in "".join(found["warnings"])
    assert {feature["column"] for feature in found["scorecard"]["features"]} == {"Age", "age", "AGE", "_c3", "y"}
    table = (tmp_path / "t/t.csv").read_text().replace("AGE,,y", "AGE,_c3,y")
    (tmp_path / "t/t.csv").write_text(table)  # the scorer's rows take the name that Spark gives to the column
    check_saved_model(spark, tmp_path / "t", found["scorecard"])


def test_an_empty_cell_of_the_header_whose_name_is_taken(run_steps: RunSteps, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the header has '_c1' more than once"):
        learn(run_steps, tmp_path / "t", ["_c1", "", "y"], "outcome", lambda i: i != 1)


@pytest.mark.parametrize(
    ("columns", "prefix"),
    [
        ([], "spark_kfp_"),
        (["a", "xspark_kfp_"], "spark_kfp_"),
        (["Spark_KFP_features"], "spark_kfp__"),
        (["spark_kfp_a", "spark_kfp__", "spark_kfp____b"], "spark_kfp_____"),
    ],
)
def test_no_column_begins_with_our_prefix(columns: list[str], prefix: str) -> None:
    assert own_prefix(columns) == prefix
    assert not any(name.lower().startswith(prefix) for name in columns)
