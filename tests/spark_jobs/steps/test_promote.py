"""The step promote: who becomes the champion, who does not and why, and what the registry holds afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.errors import InputError
from spark_jobs.promotion import CHAMPION, DRIFT, FLOORS
from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import Place, place_of
from spark_jobs.steps import promote as step

DATA = Path(__file__).parents[3] / "data"


@pytest.fixture(scope="module")
def good(run_steps: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the sample."""
    folder = tmp_path_factory.mktemp("good")
    run_steps(folder, data_uri=DATA / "bank_sample.csv", specification_uri=DATA / "bank.toml")
    return folder


@pytest.fixture(scope="module")
def poor(good: Path, run_step: Callable[..., Any]) -> Path:
    """The same rows, with a fit that was stopped after one iteration."""
    folder = good.parent / f"{good.name}-poor"
    uris = {"preprocess_uri": good / "preprocess", "train_uri": folder / "train", "report_uri": folder / "report.html"}
    run_step("train", preprocess_uri=good / "preprocess", max_iter=1, output_uri=folder / "train")
    run_step("evaluate", **uris, output_uri=folder / "evaluate")
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    return place_of(str(tmp_path / "models"))


@pytest.fixture
def promote(run_step: Callable[..., Any], good: Path, registry: Place, tmp_path: Path) -> Callable[..., Any]:
    def run(folder: Path, **settings: Any) -> Any:
        uris = {"load_uri": good / "load", "preprocess_uri": good / "preprocess"}
        uris |= {"train_uri": folder / "train", "evaluate_uri": folder / "evaluate", "output_uri": tmp_path / "promote"}
        return run_step("promote", **uris, model_name="bank", registry_uri=registry.uri, **settings)

    return run


def refusals(result: Any) -> list[str]:
    return [item["rule"] for item in result.facts["verdicts"] if not item["passed"]]


@pytest.mark.slow
def test_a_better_model_becomes_the_champion_and_a_worse_one_does_not(
    promote: Callable[..., Any], registry: Place, good: Path, poor: Path, tmp_path: Path
) -> None:
    first = promote(poor)
    assert (refusals(first), first.facts["promoted"]) == ([], True)
    better = promote(good)
    assert (refusals(better), better.facts["champion"]) == ([], better.facts["version"])
    compared = next(item for item in better.facts["verdicts"] if item["rule"] == CHAMPION)["numbers"]
    stored = json.loads((poor / "evaluate" / "evaluation.json").read_text())["metrics"][0]["value"]
    assert compared["champion"] == pytest.approx(stored, abs=1e-12), (
        "its PipelineModel on raw rows gives what evaluate measured"
    )
    assert compared["better_by"] > 0.03
    worse = promote(poor)
    assert refusals(worse) == [CHAMPION]
    assert worse.status == "succeeded"
    assert worse.facts["champion"] == better.facts["version"]
    assert any(CHAMPION in text for text in worse.warnings)
    champion = pointer.read(registry, "bank")
    assert [move.version for move in champion.history] == [first.facts["version"], better.facts["version"]]
    assert json.loads((tmp_path / "promote" / "verdict.json").read_text()) == worse.facts
    assert versions.versions_of(registry, "bank") == sorted([first.facts["version"], better.facts["version"]])


@pytest.mark.slow
def test_the_examples_of_a_version_are_what_spark_says(
    promote: Callable[..., Any], registry: Place, good: Path
) -> None:
    from serving.scorer import Scorer

    version = promote(good, example_rows=5).facts["version"]
    folder = versions.folder_of("bank", version)
    examples = json.loads(registry.read(f"{folder}/examples.json"))
    scorer = Scorer(json.loads(registry.read(f"{folder}/scorecard.json")))
    assert len(examples) == 5
    for example in examples:
        assert scorer.score(example["row"]).probabilities == pytest.approx(example["probabilities"], abs=1e-12)


@pytest.mark.slow
def test_a_model_that_passes_gets_a_share_of_the_requests(
    promote: Callable[..., Any], registry: Place, good: Path, poor: Path
) -> None:
    first = promote(poor, canary_share=0.1)
    assert first.facts["promoted"], "without a champion there is nothing to share with"
    second = promote(good, canary_share=0.1)
    again = promote(good, canary_share=0.1)  # as a task that is repeated
    for result in (second, again):
        assert (result.facts["promoted"], result.facts["champion"]) == (False, first.facts["version"])
        assert "10% of the requests" in result.facts["outcome"]
    seen = pointer.read(registry, "bank")
    assert seen.version == first.digest
    assert seen.canary == pointer.Canary(version=second.digest, share=0.1, passed_beside=first.digest)
    assert seen.move == 2
    assert promote(good).facts["promoted"]
    assert pointer.read(registry, "bank").canary is None


def test_a_scorecard_that_says_something_else_is_refused(good: Path) -> None:
    scorecard = json.loads((good / "train" / "scorecard.json").read_text())
    row = {item["name"]: None for kind in ("numeric", "categorical") for item in scorecard[kind]}
    examples = [{"row": row, "probabilities": {"no": 0.5, "yes": 0.5}}]
    limits = step.Limits()
    verdict = step.measure_parity(json.dumps(scorecard).encode(), examples, limits)
    assert not verdict.passed
    assert verdict.numbers["largest"] > 0.01
    broken = step.measure_parity(b"{}", examples, limits)
    assert not broken.passed
    assert "not measured" in broken.sentence


@pytest.mark.slow
def test_bounds_and_a_champion_of_other_columns_refuse(
    promote: Callable[..., Any], registry: Place, good: Path, poor: Path, tmp_path: Path
) -> None:
    (tmp_path / "gate.toml").write_text("[minimum]\nareaUnderROC = 0.99\n")
    refused = promote(poor, rules_uri=str(tmp_path / "gate.toml"))
    assert refusals(refused) == [FLOORS]
    assert pointer.read(registry, "bank").version == ""
    promote(poor)
    path = tmp_path / "models" / versions.folder_of("bank", pointer.read(registry, "bank").version) / "features.json"
    features = json.loads(path.read_text())
    features["numeric"][0]["name"] = "income"
    path.write_text(json.dumps(features))
    lacking = promote(good)
    assert refusals(lacking) == [CHAMPION]
    assert "'income', which these data lack" in lacking.facts["verdicts"][4]["sentence"]


@pytest.mark.slow
def test_a_promotion_in_between_is_told(
    promote: Callable[..., Any], registry: Place, good: Path, poor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, first = step.measure_parity, promote(poor).facts["version"]

    def meanwhile(*given: Any) -> Any:
        seen = pointer.read(registry, "bank")
        pointer.move_pointer(registry, seen, pointer.CANARY, "somebody else", canary=None)
        return measure(*given)

    monkeypatch.setattr(step, "measure_parity", meanwhile)
    told = promote(good)
    assert refusals(told) == [step.POINTER]
    assert (told.facts["promoted"], told.facts["champion"]) == (False, first)


@pytest.mark.parametrize("rules", ["none.toml", "[minimum", "[minimum]\nweightedRecall = 0.5"])
def test_wrong_rules_are_wrong_input_and_nothing_is_registered(
    promote: Callable[..., Any], registry: Place, good: Path, tmp_path: Path, rules: str
) -> None:
    path = tmp_path / "none.toml"
    if not rules.endswith(".toml"):
        path = tmp_path / "gate.toml"
        path.write_text(rules)
    with pytest.raises(InputError, match=path.name):
        promote(good, rules_uri=str(path))
    assert versions.versions_of(registry, "bank") == []


@pytest.mark.slow
def test_a_model_whose_test_rows_are_other_ones_than_its_train_rows_is_refused(
    run_step: Callable[..., Any], run_steps: Callable[..., Any], registry: Place, tmp_path: Path
) -> None:
    lines = [f"{i // 2 + i % 7},{i % 5},{'yes' if i * 7 % 11 > 5 else 'no'}" for i in range(900)]  # x rises with time
    (tmp_path / "t.csv").write_text("\n".join(["x,y,label", *lines]) + "\n")
    run_steps(tmp_path, data_uri=tmp_path / "t.csv", label="label", split="ordered", reg_param=0.1)
    uris = {f"{name}_uri": tmp_path / name for name in ("load", "preprocess", "train", "evaluate")}

    def promote(**settings: Any) -> Any:
        given = {**uris, "output_uri": tmp_path / "promote", "model_name": "t", "registry_uri": registry.uri}
        return run_step("promote", **given, **settings)

    refused = promote()
    assert refusals(refused) == [DRIFT]
    (told,) = [item for item in refused.facts["verdicts"] if item["rule"] == DRIFT]
    assert told["sentence"].startswith("drift of column 'x': PSI ")
    assert told["numbers"]["limit"] == 0.2
    assert refusals(promote(max_test_psi=100.0)) == []
