"""Tables as people have them, with columns that are no features, run through the whole pipeline with nothing but a label."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.scorer import Scorer
from spark_jobs.contract import InputError
from spark_jobs.dataset import read_specification

ROWS = 1_500
Table = dict[str, list[Any]]


def signal(name: str) -> tuple[random.Random, Table]:
    """A table of two honest features, and a label `target` that they tell with some noise."""
    chance = random.Random(name)
    amount = [round(chance.gauss(50, 20), 2) for _ in range(ROWS)]
    kind = [chance.choice(["basic", "plus", "pro"]) for _ in range(ROWS)]
    score = [(value - 50) / 20 + (1 if of == "pro" else 0) for value, of in zip(amount, kind, strict=True)]
    target = ["yes" if value + chance.gauss(0, 1) > 0.3 else "no" for value in score]
    return chance, {"amount": amount, "kind": kind, "target": target}


def churn() -> Table:
    """As Telco churn: `customerID` has another value in each row."""
    chance, table = signal("churn")
    return {"bad": [f"{chance.randrange(10**4):04}-{i:05}" for i in range(ROWS)], **table}


def titanic() -> Table:
    """As titanic: `alive` is the label in other words."""
    _, table = signal("titanic")
    return {**table, "bad": ["alive" if value == "yes" else "dead" for value in table["target"]]}


def titanic_numbers() -> Table:
    """As titanic with `alive` as label: `survived` is the label as a number."""
    _, table = signal("numbers")
    return {**table, "bad": [int(value == "yes") for value in table["target"]]}


def mpg() -> Table:
    """As mpg: `name` is free text, of which some rows share a value."""
    chance, table = signal("mpg")
    words = ["ford", "torino", "amc", "rebel", "sst", "custom", "wagon", "gt", "pinto", "vega"]
    return {**table, "bad": [" ".join(chance.choices(words, k=4)) for _ in range(ROWS)]}


def taxis() -> Table:
    """As taxis: `pickup` is a date and time."""
    chance, table = signal("taxis")
    return {**table, "bad": [f"2019-03-{chance.randrange(1, 29):02} {chance.randrange(24)}:15:00" for _ in range(ROWS)]}


def zones() -> Table:
    """As taxis: a pickup zone of far more values than `--max-categories`, which is still no identifier."""
    chance, table = signal("zones")
    return {**table, "zone": [f"z{int(chance.paretovariate(0.9)) % 190}" for _ in range(ROWS)]}


def write(path: Path, table: Table, leave_out: Sequence[str] = ()) -> Path:
    kept = [name for name in table if name not in leave_out]
    lines = [",".join(kept), *(",".join(map(str, row)) for row in zip(*[table[name] for name in kept], strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def area(directory: Path) -> float:
    document = json.loads((directory / "evaluate/result.json").read_text())
    return float(document["metrics"]["areaUnderROC"])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (churn, "has another value in most rows, like an identifier or free text"),
        (mpg, "has another value in most rows, like an identifier or free text"),
        (titanic, "all but tells the label"),
        (titanic_numbers, "all but tells the label"),
        (taxis, "holds dates or times"),
    ],
)
def test_a_column_that_is_no_feature_is_dropped_with_one_warning(
    run_steps: Callable[..., Any], tmp_path: Path, make: Callable[[], Table], why: str
) -> None:
    settings = {"label": "target", "bootstrap_samples": 50}
    results = run_steps(tmp_path / "with", data_uri=write(tmp_path / "with.csv", make()), **settings)
    run_steps(tmp_path / "without", data_uri=write(tmp_path / "w.csv", make(), ["bad"]), **settings)
    assert area(tmp_path / "with") == pytest.approx(area(tmp_path / "without"), abs=0.08)
    assert area(tmp_path / "with") < 0.97
    told = [warning for warning in results["load"].warnings if "'bad'" in warning]
    assert len(told) == 1
    assert f"column 'bad' {why}" in told[0]
    written = (tmp_path / "with/load/specification.toml").read_text()
    assert f'# "bad" {why}' in written
    found = read_specification(written, "")
    assert found.dropped == ("bad",)
    assert set(found.features) == {"amount", "kind"}


def test_a_given_specification_keeps_such_columns_and_the_profile_says_so(
    run_step: Callable[..., Any], tmp_path: Path
) -> None:
    table = {**titanic(), "id": churn()["bad"], "same": [1] * ROWS}
    specification = tmp_path / "s.toml"
    specification.write_text(
        '[label]\nname = "target"\n[columns]\nnumeric = ["amount", "same"]\ncategorical = ["kind", "bad", "id"]\n'
    )
    run_step(
        "load", data_uri=write(tmp_path / "t.csv", table), specification_uri=specification, output_uri=tmp_path / "o"
    )
    profile = json.loads((tmp_path / "o/profile.json").read_text())
    assert {item["column"]: item["kind"] for item in profile["suspicious"]} == {
        "same": "constant",
        "id": "identifier",
        "bad": "leak",
    }


def test_the_rarest_of_many_categories_count_as_one(run_steps: Callable[..., Any], spark: Any, tmp_path: Path) -> None:
    from pyspark.ml import PipelineModel

    from spark_jobs import storage

    data = write(tmp_path / "t.csv", zones())
    settings = {"label": "target", "max_categories": 8, "bootstrap_samples": 50}
    results = run_steps(tmp_path / "run", data_uri=data, **settings)
    (told,) = [warning for warning in results["preprocess"].warnings if "'zone'" in warning]
    assert "its 8 commonest values are features" in told
    scorecard = (tmp_path / "run/train/scorecard.json").read_text()
    kept = next(column for column in json.loads(scorecard)["categorical"] if column["name"] == "zone")["values"]
    assert len(kept) == 8
    model = PipelineModel.load(storage.spark_uri(str(tmp_path / "run/train/model")))
    zone = [*kept, "z-never-met", *sorted(set(zones()["zone"]) - set(kept))]
    rows = spark.createDataFrame([(value, 51.5, "plus") for value in zone], "zone string, amount double, kind string")
    scorer = Scorer.from_json(scorecard)
    for row in model.transform(rows).collect():
        scored = scorer.score({"zone": row["zone"], "amount": 51.5, "kind": "plus"})
        assert scored.probabilities["yes"] == pytest.approx(row["probability"][1], abs=1e-12)
    # The written specification gives the same run, without an error for the many categories.
    given = tmp_path / "run/load/specification.toml"
    run_steps(tmp_path / "again", data_uri=data, specification_uri=given, max_categories=8, bootstrap_samples=50)
    assert area(tmp_path / "again") == area(tmp_path / "run")


def test_with_a_given_specification_too_many_categories_are_refused_for_every_column(
    run_step: Callable[..., Any], tmp_path: Path
) -> None:
    table = {**zones(), "id": churn()["bad"]}
    specification = tmp_path / "s.toml"
    specification.write_text('[label]\nname = "target"\n[columns]\ncategorical = ["zone", "id", "kind"]\n')
    data = write(tmp_path / "t.csv", table)
    run_step("load", data_uri=data, specification_uri=specification, output_uri=tmp_path / "load")
    with pytest.raises(InputError, match=r"--max-categories=8: 'zone' \(\d+\), 'id' \(\d+\); .*rare_as_other = true"):
        run_step("preprocess", load_uri=tmp_path / "load", max_categories=8, output_uri=tmp_path / "pre")


def test_when_no_feature_is_left_the_reasons_are_told(run_step: Callable[..., Any], tmp_path: Path) -> None:
    data = write(tmp_path / "t.csv", titanic(), ["amount", "kind"])
    with pytest.raises(InputError, match="no column is left as a feature: 'bad' all but tells the label"):
        run_step("load", data_uri=data, label="target", output_uri=tmp_path / "o")
