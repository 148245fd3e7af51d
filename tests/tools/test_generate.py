"""The components and the graphs that are committed are those that follow from the contract."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from spark_jobs.arguments import setting
from spark_jobs.contract import ARGUMENTS, PIPELINES, Step, TrainArgs

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", PROJECT / "tools/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_files_are_up_to_date(generate: ModuleType) -> None:
    stale = [path for path, text in generate.generated_files().items() if (PROJECT / path).read_text() != text]
    assert stale == [], f"made from the contract as it was: run make generate and commit {', '.join(stale)}"


def test_every_pipeline_has_a_module_and_no_module_is_left_over(generate: ModuleType) -> None:
    made = {Path(path).stem for path in generate.generated_files() if "/pipelines/" in path}
    there = {path.stem for path in (PROJECT / "kfp_pipeline/pipelines").glob("*.py")} - {"__init__"}
    assert made == there == set(PIPELINES)


@dataclass(frozen=True, kw_only=True)
class MoreTrainArgs(TrainArgs):
    """TrainArgs as it is after a data scientist has added one field."""

    momentum: float = setting(0.25, "a new hyperparameter, planted by a test")


def test_a_new_field_is_an_input_of_component_and_pipeline(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spark_jobs import contract

    planted = {**ARGUMENTS, Step.TRAIN: MoreTrainArgs}
    for module in (generate, contract):
        monkeypatch.setattr(module, "ARGUMENTS", planted)
    made = generate.generated_files()
    assert made["kfp_pipeline/components.py"].count("    momentum: float = 0.25,\n") == 1
    graph = made["kfp_pipeline/pipelines/training.py"]
    assert graph.count("        momentum: float = 0.25,\n") == 1
    assert graph.count("momentum=momentum,") == 2, (
        "of train with settings that are given, and of train with those that tune chooses"
    )
    assert graph.count("momentum: a new hyperparameter, planted by a test.") == 1
