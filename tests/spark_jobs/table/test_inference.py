"""Tables as people have them, with columns that are no features, run through the whole pipeline with nothing but a label."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.scorer import Scorer
from spark_jobs.dataset import read_specification
from spark_jobs.errors import InputError

ROWS = 1_500
Table = dict[str, list[Any]]


def signal(name: str) -> tuple[random.Random, Table]:
    """A table of two honest features, and a label `target` that they tell with some noise."""
    chance = random.Random(name)
    amount = [round(chance.gauss(50, 20), 2) for _ in range(ROWS)]
    kind = [chance.choice(["basic", "plus", "pro"]) for _ in range(ROWS)]
    table: Table = {"amount": amount, "kind": kind}
    table["target"] = ["yes" if value + chance.gauss(0, 1) > 0.3 else "no" for value in scores(table)]
    return chance, table


def scores(table: Table) -> list[float]:
    """What the label of `signal` is made from."""
    return [(value - 50) / 20 + (of == "pro") for value, of in zip(table["amount"], table["kind"], strict=True)]


def no_features() -> Table:
    """Columns of tables that people have: each alone has ended a run, or has made its result worthless."""
    chance, table = signal("no features")
    words = ["ford", "torino", "amc", "rebel", "sst", "custom", "wagon", "gt", "pinto", "vega"]
    return {
        "customerID": [f"{chance.randrange(10**4):04}-{i:05}" for i in range(ROWS)],  # Telco churn: another in each row
        **table,
        "alive": [
            "alive" if value == "yes" else "dead" for value in table["target"]
        ],  # titanic: the label in other words
        "survived": [int(value == "yes") for value in table["target"]],  # titanic: the label as a number
        "name": [
            " ".join(chance.choices(words, k=4)) for _ in range(ROWS)
        ],  # mpg: free text, of which some rows share a value
        "pickup": [f"2019-03-{chance.randrange(1, 29):02} {chance.randrange(24)}:15:00" for _ in range(ROWS)],  # taxis
    }


IDENTIFIER, LEAK = "has another value in most rows, like an identifier or free text", "all but tells the label"
REASONS = {
    "customerID": IDENTIFIER,
    "alive": LEAK,
    "survived": LEAK,
    "name": IDENTIFIER,
    "pickup": "holds dates or times",
}


def zones() -> Table:
    """As taxis: a pickup zone of far more values than `--max-categories`, which is still no identifier."""
    chance, table = signal("zones")
    return {**table, "zone": [f"z{int(chance.paretovariate(0.9)) % 190}" for _ in range(ROWS)]}


def write(path: Path, table: Table) -> Path:
    lines = [",".join(table), *(",".join(map(str, row)) for row in zip(*table.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_that_are_no_features_are_dropped_each_with_one_warning(
    run_step: Callable[..., Any], tmp_path: Path
) -> None:
    data = write(tmp_path / "t.csv", no_features())
    result = run_step("load", data_uri=data, label="target", output_uri=tmp_path / "load")
    written = (tmp_path / "load/specification.toml").read_text()
    assert len(result.warnings) == len(REASONS) + 1  # which value is positive
    for name, why in REASONS.items():
        (told,) = [warning for warning in result.warnings if repr(name) in warning]
        assert f"column {name!r} {why}" in told
        assert f'# "{name}" {why}' in written
    found = read_specification(written, "")
    assert set(found.dropped) == set(REASONS)
    assert set(found.features) == {"amount", "kind"}


def test_a_given_specification_keeps_such_columns_and_the_profile_says_so(
    run_step: Callable[..., Any], tmp_path: Path
) -> None:
    table = {**no_features(), "same": [1] * ROWS}
    specification = tmp_path / "s.toml"
    specification.write_text(
        '[label]\nname = "target"\n[columns]\nnumeric = ["amount", "same"]\ncategorical = ["kind", "alive", "customerID"]\n'
    )
    run_step(
        "load", data_uri=write(tmp_path / "t.csv", table), specification_uri=specification, output_uri=tmp_path / "o"
    )
    profile = json.loads((tmp_path / "o/profile.json").read_text())
    assert {item["column"]: item["kind"] for item in profile["suspicious"]} == {
        "same": "constant",
        "customerID": "identifier",
        "alive": "leak",
    }


@pytest.mark.slow
def test_the_rarest_of_many_categories_count_as_one(
    run_steps: Callable[..., Any], run_step: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    from pyspark.ml import PipelineModel

    from spark_jobs import storage

    data = write(tmp_path / "t.csv", zones())
    results = run_steps(tmp_path / "run", data_uri=data, label="target", max_categories=8, last="train")
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
    # The written specification gives the same features, without an error for the many categories.
    given = tmp_path / "run/load/specification.toml"
    run_step("load", data_uri=data, specification_uri=given, output_uri=tmp_path / "load")
    again = run_step("preprocess", load_uri=tmp_path / "load", max_categories=8, output_uri=tmp_path / "preprocess")
    assert again.digest == results["preprocess"].digest


def test_with_a_given_specification_too_many_categories_are_refused_for_every_column(
    run_step: Callable[..., Any], tmp_path: Path
) -> None:
    table = {**zones(), "id": no_features()["customerID"]}
    specification = tmp_path / "s.toml"
    specification.write_text('[label]\nname = "target"\n[columns]\ncategorical = ["zone", "id", "kind"]\n')
    data = write(tmp_path / "t.csv", table)
    run_step("load", data_uri=data, specification_uri=specification, output_uri=tmp_path / "load")
    with pytest.raises(InputError, match=r"--max-categories=8: 'zone' \(\d+\), 'id' \(\d+\); .*rare_as_other = true"):
        run_step("preprocess", load_uri=tmp_path / "load", max_categories=8, output_uri=tmp_path / "pre")


def test_when_no_feature_is_left_the_reasons_are_told(run_step: Callable[..., Any], tmp_path: Path) -> None:
    table = {name: values for name, values in no_features().items() if name in ("alive", "target")}
    data = write(tmp_path / "t.csv", table)
    with pytest.raises(InputError, match="no column is left as a feature: 'alive' all but tells the label") as refusal:
        run_step("load", data_uri=data, label="target", output_uri=tmp_path / "o")
    # The lines below the sentence are a specification that works.
    lines = str(refusal.value).split("\n", 1)[1]
    given = read_specification(lines, "the message")
    assert (given.label, given.categorical) == ("target", ("alive",))
    (tmp_path / "given.toml").write_text(lines)
    result = run_step("load", data_uri=data, specification_uri=tmp_path / "given.toml", output_uri=tmp_path / "o")
    assert result.rows_out["rows"] == ROWS
