"""The step drift: quiet on rows of the same kind, an alarm on others, from a table and from what a server counted."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.errors import InputError
from spark_jobs.monitoring.histograms import Reference
from spark_jobs.registry.pointer import Champion

pytestmark = pytest.mark.spark

HEAD = "age,job,answer"
SPECIFICATION = """
label = {name = "answer", positive = "yes"}
columns = {numeric = ["age"], categorical = ["job"]}
"""


def rows(seed: int, count: int, *, older: float = 0.0, jobs: str = "aabc") -> list[str]:
    generator = random.Random(seed)
    made = []
    for _ in range(count):
        age, job = generator.gauss(40 + older, 10), generator.choice(jobs)
        answer = "yes" if generator.random() < 1 / (1 + 2.718 ** ((45 - age) / 5)) else "no"
        made.append(f"{age:.2f},{job},{answer}")
    return made


@pytest.fixture(scope="module")
def model(run_step: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "t.csv").write_text("\n".join([HEAD, *rows(1, 1500)]) + "\n")
    (folder / "t.toml").write_text(SPECIFICATION)
    run_step("load", data_uri=folder / "t.csv", specification_uri=folder / "t.toml", output_uri=folder / "load")
    run_step("preprocess", load_uri=folder / "load", output_uri=folder / "preprocess")
    run_step("train", preprocess_uri=folder / "preprocess", output_uri=folder / "train", reg_param=0.01)
    return folder / "train"


@pytest.fixture
def drift(run_step: Callable[..., Any], model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs the step on lines and returns the result, drift.json and the report."""

    def run(lines: Sequence[str], name: str = "now.csv", **settings: Any) -> tuple[Any, Any, str]:
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        given = {"data_uri": tmp_path / name, "model_uri": model, "report_uri": tmp_path / "report.html"}
        result = run_step("drift", **{**given, "output_uri": tmp_path / "out", **settings})
        return result, json.loads((tmp_path / "out/drift.json").read_text()), (tmp_path / "report.html").read_text()

    return run


def test_the_reference_holds_the_train_rows_and_the_scores_of_the_validation_rows(model: Path) -> None:
    reference = Reference.from_json((model / "reference.json").read_text(), "reference.json")
    result = json.loads((model / "result.json").read_text())
    assert [(item.name, item.cells) for item in reference.columns] == [
        (name, result["rows_out"]["train"]) for name in ("age", "job")
    ]
    assert reference.score.cells == result["rows_out"]["validation"]
    assert reference.model == result["digest"]
    assert reference.columns[1].values[0] == "a"


def test_rows_of_the_same_kind_raise_no_alarm(drift: Callable[..., Any]) -> None:
    result, document, report = drift([HEAD, *rows(2, 800)])
    assert (document["alarm"], document["alarms"], result.facts["alarm"]) == (False, [], False)
    assert document["rows"]["current"] == 800
    assert {finding["about"] for finding in document["findings"]} == {"values", "missing", "new categories", "score"}
    assert "No alarm" in report
    assert report.count("<svg") == 4  # the scores, the metric, two columns


def test_other_rows_raise_an_alarm_that_names_what_has_changed_and_the_step_succeeds(
    drift: Callable[..., Any],
) -> None:
    lines = [line.rsplit(",", 1)[0] for line in rows(3, 400, older=15, jobs="aabd")]  # no label; c is gone, d is new
    result, document, report = drift(["age,job", *lines[:380], *([",a"] * 100)])
    assert (result.status, result.metrics["alarms"]) == ("succeeded", len(document["alarms"]))
    found = {(finding["column"], finding["about"]) for finding in document["findings"] if finding["alarm"]}
    assert found >= {("age", "values"), ("age", "missing"), ("job", "new categories"), ("probability", "score")}
    assert any(text.startswith("drift of the scores: PSI ") for text in result.warnings)
    assert "drift of column &#39;job&#39;: new categories 0.0% before" in report


def test_what_a_server_counted_is_judged_like_a_table(drift: Callable[..., Any], model: Path) -> None:
    reference = Reference.from_json((model / "reference.json").read_text(), "reference.json")
    _, of_table, _ = drift([HEAD, *rows(4, 500, older=8)])
    line = {
        "at": "2026-11-28T10:00:00Z",
        "version": reference.model,
        "columns": [item["current"] for item in of_table["columns"]],
        "score": of_table["score"]["current"],
    }
    result, of_server, report = drift([json.dumps(line)], "counts.jsonl")
    assert of_server["findings"] == of_table["findings"]
    assert result.rows_in == 500
    assert "2026-11-28T10:00:00Z" in report


@pytest.mark.slow
def test_limits_decide_what_is_an_alarm(drift: Callable[..., Any]) -> None:
    lines = [HEAD, *rows(3, 400, older=4)]
    assert drift(lines, psi_limit=9.0)[1]["alarm"] is False
    assert drift(lines, psi_limit=0.05)[1]["alarm"] is True
    assert drift(lines, psi_limit=0.05, significance=1e-30)[1]["alarm"] is False


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["age,work", "30,a"], "no column 'job'"),
        (["age,job"], "has a header but no rows"),
        (["age,job", "x,a", "30,b"], "1 of 2 rows rejected"),
    ],
)
def test_wrong_input_is_told_in_one_sentence(drift: Callable[..., Any], lines: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        drift(lines)


def test_a_model_without_a_reference_is_told(drift: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    other = tmp_path / "older"
    other.mkdir()
    for name in ("result.json", "scorecard.json"):
        (other / name).write_text((model / name).read_text())
    with pytest.raises(InputError, match="the model has no reference; train it again"):
        drift([HEAD, *rows(2, 60)], model_uri=other)


@pytest.mark.slow
def test_few_rows_are_told_as_few(drift: Callable[..., Any]) -> None:
    result, document, _ = drift([HEAD, *rows(2, 20)])
    assert not document["alarm"]
    assert any("20 rows are few" in warning for warning in result.warnings)


def test_a_reference_of_another_shape_is_refused_by_its_own_name(model: Path) -> None:
    reference = Reference.from_json((model / "reference.json").read_text(), "r")
    damaged = replace(reference, columns=(replace(reference.columns[0], counts=(1,)),)).to_json()
    with pytest.raises(InputError, match="'age' has 1 counts"):
        Reference.from_json(damaged, "r")


def champion_of(model: Path, registry: Path) -> Path:
    """A registry whose champion is the model; returns the folder to which --model-uri points."""
    shutil.copytree(model, registry / "bank/versions/1")
    listed = []
    for name in ("scorecard.json", "reference.json"):
        content = (model / name).read_bytes()
        listed.append({"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    document = {"registry_version": 1, "name": "bank", "version": "1", "files": listed}
    (registry / "bank/versions/1/version.json").write_text(json.dumps(document))
    (registry / "bank/champion.json").write_text(Champion(name="bank", version="1").to_json())
    return registry / "bank"


@pytest.mark.slow
def test_an_alarm_starts_one_training_in_a_cool_down(drift: Callable[..., Any], model: Path, tmp_path: Path) -> None:
    champion = champion_of(model, tmp_path / "models")
    given = {"model_uri": champion, "train_data_uri": "labelled.csv"}
    quiet, document, _ = drift([HEAD, *rows(2, 800)], **given)
    assert (quiet.facts["train_on"], document["training"]["why"]) == ("", "there is no alarm")
    older = [HEAD, *rows(3, 400, older=15)]
    for _ in range(2):  # the second time as a task that is repeated
        result, document, report = drift(older, **given)
        assert (result.facts["train_on"], document["training"]["train_on"]) == ("labelled.csv", "labelled.csv")
    assert "a training is started for &#39;bank&#39;" in report
    other, _, report = drift(older, **given, output_uri=tmp_path / "other")
    assert other.facts["train_on"] == ""
    assert any(text.startswith("no training is started before ") for text in other.warnings)
    third, _, _ = drift(older, **given, output_uri=tmp_path / "third", cooldown_hours=0.0)
    assert third.facts["train_on"] == "labelled.csv"


def test_without_a_registry_no_training_can_be_recorded(drift: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="no model of a registry with a champion"):
        drift([HEAD, *rows(2, 100)], train_data_uri="labelled.csv")


def ask(app: Any, rows: Sequence[Any]) -> None:
    """Sends rows to the server's application."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps({"instances": rows}).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/models/bank:predict", "headers": []}
    asyncio.run(app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send))
    assert sent[0]["status"] == 200, sent


def test_the_server_counts_the_same_rows_as_the_step_does(
    drift: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    from serving.app import Application
    from serving.capture import Capture
    from serving.champion import Champion as Served
    from serving.model_source import place_of
    from serving.settings import ServerSettings

    folder = champion_of(model, tmp_path / "models")
    lines = [*rows(5, 300, older=6, jobs="aabcde"), ",a,no", "33.5, b ,no", "1e2,,no"]
    cells = [line.split(",")[:2] for line in lines]
    served = Served("bank", place_of(str(tmp_path / "models")))
    served.refresh()
    counted = Capture(tmp_path / "counts", 30)
    app = Application(ServerSettings(registry=str(tmp_path / "models")), served, counted)
    ask(app, [{"age": age, "job": job} for age, job in cells[:200]])
    ask(app, [{"age": float(age) if age else None, "job": job or None} for age, job in cells[200:]])
    counted.close()
    _, of_table, _ = drift([HEAD, *lines], model_uri=folder)
    _, of_server, _ = drift([], model_uri=folder, data_uri=tmp_path / "counts/*.jsonl")
    assert [item["current"] for item in of_server["columns"]] == [item["current"] for item in of_table["columns"]]
    assert of_server["findings"] == of_table["findings"]
    assert of_table["alarm"] is True
    assert of_server["score"]["current"] == of_table["score"]["current"]


@pytest.mark.slow
def test_where_labels_have_arrived_the_model_is_judged_and_its_batches_are_kept(
    drift: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    folder = champion_of(model, tmp_path / "models")
    half = [line if number % 2 else line.rsplit(",", 1)[0] + "," for number, line in enumerate(rows(6, 800))]
    result, document, report = drift([HEAD, *half], model_uri=folder)
    (area, *_) = document["metrics"]
    assert (area["name"], document["labelled"], document["alarm"]) == ("areaUnderROC", 400, False)
    assert 0.7 < area["low"] < area["value"] == result.metrics["areaUnderROC"] < area["high"] < 1
    assert "How well the model predicts" in report
    for _ in range(2):  # the second time as a task that is repeated
        drift([HEAD, *rows(7, 300)], model_uri=folder, output_uri=tmp_path / "second")
    drift([HEAD.rsplit(",", 1)[0], "30,a", "40,b"], model_uri=folder, output_uri=tmp_path / "third")
    kept = [json.loads(line) for line in (tmp_path / "models/bank/monitoring/1.jsonl").read_text().splitlines()]
    assert [(batch["rows"], batch["labelled"], bool(batch["metrics"])) for batch in kept] == [
        (800, 400, True),
        (300, 300, True),
        (2, 0, False),
    ]
    assert kept[0]["metrics"][0] == {key: area[key] for key in ("name", "value", "low", "high")}


@pytest.mark.slow
def test_a_model_that_is_surely_below_its_floor_is_an_alarm(drift: Callable[..., Any]) -> None:
    guessed = [
        HEAD,
        *(line.rsplit(",", 1)[0] + (",yes" if number % 2 else ",no") for number, line in enumerate(rows(8, 600))),
    ]
    _, document, report = drift(guessed, min_area_under_roc=0.7)
    assert len(document["alarms"]) == 1
    assert document["alarms"][0].startswith("areaUnderROC 0.")
    assert "of 600 labelled rows, floor 0.7" in report
    assert drift([HEAD, *rows(8, 600)], min_area_under_roc=0.7)[1]["alarm"] is False
    few = drift([HEAD, *rows(8, 12)], min_area_under_roc=0.99)
    assert few[1]["alarm"] is False
    assert any("of a class fewer than 10" in text for text in few[0].warnings)
