"""Batch scoring: the model's own predictions, each file once, and nothing that looks whole after an early end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.scorer import Scorer
from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.steps import predict

pytestmark = pytest.mark.spark

HEAD = "age,job,answer"
ROWS = [f"{20 + i * 7 % 50},{'abc'[i % 3]},{'yes' if (i * 7 % 50) + 10 * (i % 3) > 30 else 'no'}" for i in range(240)]
SPECIFICATION = """
label = {name = "answer", positive = "yes"}
columns = {numeric = ["age"], categorical = ["job"]}
limits = {age = [0, 120]}
"""


@pytest.fixture(scope="module")
def train(run_step: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Trains on a small table and returns the output."""

    def run(specification: str) -> Path:
        folder = tmp_path_factory.mktemp("trained")
        (folder / "t.csv").write_text("\n".join([HEAD, *ROWS]) + "\n")
        (folder / "t.toml").write_text(specification)
        run_step("load", data_uri=folder / "t.csv", specification_uri=folder / "t.toml", output_uri=folder / "load")
        run_step("preprocess", load_uri=folder / "load", output_uri=folder / "preprocess")
        run_step("train", preprocess_uri=folder / "preprocess", output_uri=folder / "train", reg_param=0.01)
        return folder / "train"

    return run


@pytest.fixture(scope="module")
def model(train: Callable[[str], Path]) -> Path:
    return train(SPECIFICATION)


@pytest.fixture
def score(run_step: Callable[..., Any], spark: Any, model: Path, tmp_path: Path) -> Callable[..., Any]:
    """Scores files of a folder and returns the result and the predictions, sorted."""

    def run(**settings: Any) -> tuple[Any, list[dict[str, Any]]]:
        given = {"data_uri": tmp_path / "in", "model_uri": model, "output_uri": tmp_path / "out", **settings}
        result = run_step("predict", **given)
        rows = spark.read.parquet(result.uris["predictions"]).collect()
        return result, sorted((row.asDict() for row in rows), key=str)

    return run


def write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / "in" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_predictions_are_those_of_the_scorer_and_the_table_needs_no_label(
    score: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    write(tmp_path, "a.csv", "id,job,age", "1,a,30", "2,never seen,NA", "3, b ,7e1")
    result, rows = score()
    scorer = Scorer.from_json((model / "scorecard.json").read_text())
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        expected = scorer.score({"age": row["age"], "job": row["job"]})
        assert row["probability"] == pytest.approx(expected.probabilities["yes"], abs=1e-12)
        assert row["prediction"] == expected.label
        assert row["model_version"] == json.loads((model / "result.json").read_text())["digest"]
        assert "corrected_probability" not in row
    assert result.rows_out == {"rows": 3, "rejected": 0}


def test_with_a_base_rate_the_probabilities_are_also_corrected_as_the_scorer_corrects_them(
    score: Callable[..., Any], train: Callable[[str], Path], tmp_path: Path
) -> None:
    model = train(SPECIFICATION.replace('positive = "yes"', 'positive = "yes", base_rate = 0.05'))
    scorer = Scorer.from_json((model / "scorecard.json").read_text())
    write(tmp_path, "a.csv", "corrected_probability,job,age", "mine,a,30", "mine,c,65")
    _, rows = score(model_uri=model, all_probabilities=True)
    for row in rows:
        expected = scorer.score({"age": row["age"], "job": row["job"]})
        assert row["probabilities"] == pytest.approx(expected.probabilities, abs=1e-12)
        assert row["corrected_probabilities"] == pytest.approx(scorer.corrected(expected), abs=1e-12)
        assert row["spark_kfp_corrected_probability"] == row["corrected_probabilities"]["yes"] < row["probability"]
        assert row["corrected_probability"] == "mine"
    write(tmp_path, "a.csv", "job,age", "a,30")
    (row,) = score(model_uri=model)[1]
    assert "corrected_probabilities" not in row
    assert row["corrected_probability"] == pytest.approx(scorer.corrected(scorer.score(row))["yes"], abs=1e-12)


def test_rows_that_load_would_reject_are_kept_apart_with_reasons(
    score: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    write(tmp_path, "a.csv", "age,job", "30,a", "old,b", "130,c", "40,b")
    result, _ = score(max_rejected_fraction=0.5)
    assert result.rows_out == {"rows": 2, "rejected": 2}
    rejected = spark.read.parquet(str(tmp_path / "out/rejected")).collect()
    assert {(row["line"], row["reason"]) for row in rejected} == {
        ("old,b", "column 'age' is not a number"),
        ("130,c", "column 'age' is outside 0 to 120"),
    }
    assert any("2 of 4 rows" in warning for warning in result.warnings)


@pytest.mark.slow
def test_a_file_is_scored_again_only_if_it_its_model_or_the_settings_change(
    score: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    score_file = predict.score_file

    def recorded(session: Any, file: Any, *more: Any) -> Any:
        scored.append(Path(file.uri).name)
        return score_file(session, file, *more)

    monkeypatch.setattr(predict, "score_file", recorded)
    kept = tmp_path / "kept"
    write(tmp_path, "a.csv", "age,job", "30,a", "31,b")
    write(tmp_path, "b.csv", "age,job", "50,c")
    first, rows = score(predictions_uri=kept)
    again, same = score(predictions_uri=kept, output_uri=tmp_path / "other")
    assert (scored, rows) == (["a.csv", "b.csv"], same)
    assert again.digest == first.digest
    assert (again.rows_out, again.metrics["files_scored_before"]) == (first.rows_out, 2)
    write(tmp_path, "b.csv", "age,job", "51,c")
    write(tmp_path, "c.csv", "age,job", "52,c")
    _, rows = score(predictions_uri=kept)
    assert scored[2:] == ["b.csv", "c.csv"]
    assert sorted(row["age"] for row in rows) == ["30", "31", "51", "52"]
    score(predictions_uri=kept, all_probabilities=True)
    assert scored[4:] == ["a.csv", "b.csv", "c.csv"]


@pytest.mark.slow
@pytest.mark.parametrize("dies_at", ["write_table", "write_text"])
def test_what_a_killed_run_leaves_does_not_look_whole_and_the_next_run_mends_it(
    score: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    write(tmp_path, "a.csv", "age,job", "30,a", "31,b")
    real = getattr(storage, dies_at)

    def killed(*words: Any) -> None:
        if dies_at == "write_table":
            real(*words)  # all of the table is there, the record is not
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, dies_at, killed)
        with pytest.raises(KeyboardInterrupt):
            score()
    assert list((tmp_path / "out").rglob("*.parquet"))
    assert not list((tmp_path / "out").rglob("_scored.json"))
    assert not (tmp_path / "out/result.json").exists()
    _, rows = score()
    assert [row["age"] for row in rows] == ["30", "31"]


@pytest.mark.slow
def test_a_bad_file_does_not_keep_the_others_from_being_scored(score: Callable[..., Any], tmp_path: Path) -> None:
    bad = write(tmp_path, "a.csv", "age,job", "30,a", "x,b")
    write(tmp_path, "b.csv", "age,job", "50,c")
    with pytest.raises(InputError, match=r"a\.csv: 1 of 2 rows rejected, .*'age' is not a number.*1 files are scored"):
        score()
    assert [path.parent.name[:17] for path in (tmp_path / "out").rglob("_scored.json")] == ["input_file=b.csv-"]
    assert not list((tmp_path / "out/predictions").glob("input_file=a.csv*"))
    bad.write_text("age,job\n30,a\n")
    result, rows = score()
    assert (len(rows), result.metrics["files_scored_before"]) == (2, 1)


@pytest.mark.slow
def test_kept_columns_are_as_they_were_and_a_name_of_the_prediction_is_never_taken_twice(
    score: Callable[..., Any], spark: Any, tmp_path: Path
) -> None:
    table = spark.createDataFrame(
        [(1, 30, "a", 0.5), (2, None, None, 0.7)], "id int, age int, job string, Probability double"
    )
    table.write.parquet(str(tmp_path / "in"))
    _, rows = score(keep_columns="id, Probability", all_probabilities=True)
    assert [(row["id"], row["Probability"]) for row in rows] == [(1, 0.5), (2, 0.7)]
    for row in rows:
        assert row["probabilities"]["yes"] == row["spark_kfp_probability"]
        assert sum(row["probabilities"].values()) == pytest.approx(1)
    _, rows = score(keep_columns="")
    assert set(rows[0]) == {"probability", "prediction", "model_version", "input_file"}


@pytest.mark.parametrize(
    ("lines", "settings", "said"),
    [
        (["age,work", "30,a"], {}, "the model reads column 'job', which is not there"),
        (
            ["age,job", "30,a"],
            {"keep_columns": "agee"},
            "--keep-columns: there is no column 'agee'; did you mean 'age'",
        ),
        (["age,job"], {}, "has a header but no rows"),
        (["age,job", "30,a"], {"model_uri": "/no/model"}, "--model-uri=/no/model: there is no model"),
    ],
)
def test_wrong_input_is_told_in_one_sentence(
    score: Callable[..., Any], tmp_path: Path, lines: list[str], settings: dict[str, str], said: str
) -> None:
    write(tmp_path, "a.csv", *lines)
    with pytest.raises(InputError) as error:
        score(**settings)
    assert said in str(error.value)


def test_a_model_is_found_in_a_registry_by_its_version_or_as_champion_and_not_in_another_steps_output(
    score: Callable[..., Any], model: Path, tmp_path: Path
) -> None:
    write(tmp_path, "a.csv", "age,job", "30,a")
    version = tmp_path / "models/answers/versions/20261128-1"
    shutil.copytree(model / "model", version / "model")
    for path in (model / "scorecard.json", model.parent / "preprocess/features.json"):
        shutil.copy(path, version)
    with pytest.raises(InputError, match="there is no model"):
        score(model_uri=version)
    (version / "version.json").write_text("{}")
    assert score(model_uri=version)[1][0]["model_version"] == "20261128-1"
    pointed = {
        "registry_version": 1,
        "name": "answers",
        "version": "20261128-1",
        "move": 1,
        "canary": None,
        "history": [],
    }
    (tmp_path / "models/answers/champion.json").write_text(json.dumps(pointed))
    assert score(model_uri=tmp_path / "models/answers")[1][0]["model_version"] == "20261128-1"
    with pytest.raises(InputError, match="is the output of preprocess; name that of train"):
        score(model_uri=model.parent / "preprocess")
