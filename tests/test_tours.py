"""Four edits that people make most, each done on a copy of the tree: how many files it takes, and that the rest follows.

After each edit `make generate`'s programs run in the copy, then the tests that such an edit could break, then the thing itself.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
TREE = ("spark_jobs", "kfp_pipeline", "serving", "docs", "data", "tests", "tools", "benchmarks", "spark-operator")
FILES = ("pyproject.toml", "README.md", "CONTRIBUTING.md", "Makefile", "uv.lock", "CHANGELOG.md", "LICENSE")
MADE = {
    "kfp_pipeline/components.py",
    "kfp_pipeline/pipelines/training.py",
    "docs/commands.md",
    "docs/settings.md",
    "tests/kfp_pipeline/training_pipeline.yaml",
}
"""What `make generate` may change after an edit of the contract."""
QUICK = (
    "tests/tools/test_generate.py",
    "tests/spark_jobs/test_contract.py",
    "tests/kfp_pipeline/test_components.py",
    "tests/test_docs_pages.py",
    "tests/test_architecture.py",
)
SKIP_PLANTED_FAULTS = "not planted"
"""Expression for `pytest -k`. It leaves out the tests of `test_architecture.py` that plant a fault into a copy of the tree: they test the
rules, not the edited tree."""
CASES = "tests/spark_jobs/test_settings_matter.py"


class Copy:
    """A copy of the tree, edited as a person would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in TREE:
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        for name in FILES:
            shutil.copy(PROJECT / name, folder / name)

    def edit(self, path: str, *changes: tuple[str, str]) -> None:
        """Replaces texts, each of which must be there once."""
        text = (self.folder / path).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{path} does not hold once: {old}"
            text = text.replace(old, new)
        (self.folder / path).write_text(text)

    def add(self, path: str, text: str) -> None:
        assert not (self.folder / path).exists()
        (self.folder / path).write_text(text)

    def run(self, *command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def generate(self) -> None:
        """As `make generate`."""
        self.run("tools/generate.py")
        self.run("docs/reference.py")
        self.run("-m", "kfp_pipeline", "compile", "-o", "tests/kfp_pipeline/training_pipeline.yaml")

    def test(self, *words: str) -> None:
        self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", *words)

    def changed(self) -> set[str]:
        """The files that differ from the project's."""
        found = {
            path.relative_to(self.folder).as_posix()
            for name in TREE
            for path in (self.folder / name).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        return {
            name
            for name in found | set(FILES)
            if not (PROJECT / name).exists() or not filecmp.cmp(PROJECT / name, self.folder / name, shallow=False)
        }

    def steps(self, folder: Path, lines: Sequence[str]) -> None:
        """Runs steps, each by its command line."""
        for line in lines:
            self.run("-m", "spark_jobs", *line.format(out=folder).split())


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "copy")


FIELD = '    standardization: bool = setting(True, "scale features before the penalty is applied")\n'
USE = "        standardization=args.standardization,\n"
CASE = '        "standardization": Case(False, scorecard("coefficients"), other, PENALTY),\n'


@pytest.mark.slow
@pytest.mark.spark
def test_a_new_hyperparameter_touches_the_contract_and_the_estimator(copy: Copy) -> None:
    """One that is there is taken out first; adding it by hand in two files gives the tree as it was.

    Its case in `CASES` is not added again: a boolean gets the usual case of a hyperparameter.
    """
    copy.edit("spark_jobs/contract.py", (FIELD, ""))
    copy.edit("spark_jobs/estimators/logistic_regression.py", (USE, ""))
    copy.edit(CASES, (CASE, ""))
    copy.generate()
    assert copy.changed() > MADE
    copy.test(*QUICK, "-k", SKIP_PLANTED_FAULTS)

    before = (copy.folder / "kfp_pipeline/components.py").read_text()
    copy.edit("spark_jobs/contract.py", ("    family: str = ", f"{FIELD}    family: str = "))
    with pytest.raises(AssertionError, match="run make generate and commit kfp_pipeline"):
        copy.test("tests/tools/test_generate.py")
    copy.edit("spark_jobs/estimators/logistic_regression.py", ("        family=", f"{USE}        family="))
    copy.generate()
    assert copy.changed() == {CASES}
    assert (copy.folder / "kfp_pipeline/components.py").read_text() != before
    copy.test(*QUICK, "-k", SKIP_PLANTED_FAULTS)
    copy.test(CASES, "-k", "standardization or every_setting or every_case")


ARGUMENTS_OF_A_TREE = '''@dataclass(frozen=True, kw_only=True)
class EntropyTreeArgs(StepArgs):
    """Settings of Spark's DecisionTreeClassifier with the entropy as impurity."""

    min_info_gain: float = setting(
        0.0,
        "smallest gain of information of a split, 0 or more",
        check=_not_negative,
        allowed="0 or more",
        search=SearchRange(0.0, 0.1),
    )


ESTIMATORS: Mapping'''
TREE_MODULE = '''"""Entropy tree: Spark's `DecisionTreeClassifier` by the gain of information. It has no scorecard: only Spark scores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.ml.classification import DecisionTreeClassificationModel, DecisionTreeClassifier

from spark_jobs.contract import TrainArgs
from spark_jobs.estimator import Shape, importance_rows

TITLE = "entropy tree"
MODEL = DecisionTreeClassificationModel
WHEN_TOO_SURE = "Fit a smaller tree, for example min_info_gain 0.01."


def check(args: TrainArgs, labels: Sequence[str]) -> None:
    """Any settings go with any classes."""


def build(args: TrainArgs, shape: Shape) -> DecisionTreeClassifier:
    """The estimator with the settings of the contract."""
    return DecisionTreeClassifier(impurity="entropy", minInfoGain=args.min_info_gain, seed=1)


def convergence(model: DecisionTreeClassificationModel, args: TrainArgs) -> None:
    """It is not fitted by iterations."""


def explain(
    model: DecisionTreeClassificationModel,
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> dict[str, Any]:
    """Spark's importances of its features."""
    return {"importances": importance_rows(model.featureImportances.toArray().tolist(), features)}


def scorecard(model: DecisionTreeClassificationModel, uri: str) -> None:
    """It has none."""
'''
TRAINING_LINES = (
    "load --data-uri=data/bank_sample.csv --specification-uri=data/bank.toml --output-uri={out}/load",
    "preprocess --load-uri={out}/load --output-uri={out}/preprocess",
    "train --preprocess-uri={out}/preprocess --output-uri={out}/train --estimator=entropy_tree --min-info-gain=0.001",
    "evaluate --preprocess-uri={out}/preprocess --train-uri={out}/train --report-uri={out}/report.html --output-uri={out}/evaluate",
)


@pytest.mark.slow
@pytest.mark.spark
def test_a_new_estimator_is_one_new_file_and_its_arguments(copy: Copy, tmp_path: Path) -> None:
    copy.add("spark_jobs/estimators/entropy_tree.py", TREE_MODULE)
    copy.edit(
        "spark_jobs/contract.py",
        ("ESTIMATORS: Mapping", ARGUMENTS_OF_A_TREE),
        ('        "mlp": MlpArgs,\n', '        "mlp": MlpArgs,\n        "entropy_tree": EntropyTreeArgs,\n'),
        ("class TrainArgs(MlpArgs", "class TrainArgs(EntropyTreeArgs, MlpArgs"),
    )
    copy.generate()
    by_hand = {"spark_jobs/estimators/entropy_tree.py", "spark_jobs/contract.py"}
    names_the_estimators = {f"kfp_pipeline/pipelines/{name}.py" for name in ("tuning", "retraining")}
    assert copy.changed() == by_hand | MADE | names_the_estimators
    copy.test(*QUICK, "-k", SKIP_PLANTED_FAULTS)
    copy.test(CASES, "-k", "min_info_gain or train-estimator or every_setting or every_case")
    copy.run("-m", "mypy")
    assert "--min-info-gain" in copy.run("-m", "kfp_pipeline", "run", "--help")

    copy.steps(tmp_path, TRAINING_LINES)
    report = (tmp_path / "report.html").read_text()
    assert "Entropy tree on 4,000 rows" in report
    assert "Importances of the strongest features" in report
    assert not (tmp_path / "train/scorecard.json").exists()
    (tmp_path / "gate.toml").write_text("[minimum]\nareaUnderROC = 0.75\n")
    gate = ["gate", str(tmp_path / "evaluate/evaluation.json"), f"--rules={tmp_path / 'gate.toml'}"]
    assert "areaUnderROC" in copy.run("-m", "kfp_pipeline", *gate)


def examples(heading: str) -> list[str]:
    """The blocks of Python code below a heading of docs/laptop.md."""
    section = (PROJECT / "docs/laptop.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)


LAST_RUN = ("-m", "kfp_pipeline", "runs", "show", "last")


@pytest.mark.slow
@pytest.mark.spark
def test_a_new_step_and_its_pipeline_are_one_module_its_arguments_and_one_graph(copy: Copy, tmp_path: Path) -> None:
    module, arguments, pipeline = examples("Add a step")
    copy.add("spark_jobs/steps/count.py", module)
    copy.edit(
        "spark_jobs/contract.py",
        ('    EVALUATE = "evaluate"\n', '    EVALUATE = "evaluate"\n    COUNT = "count"\n'),
        ("ARGUMENTS: Mapping[Step", f"{arguments}\n\nARGUMENTS: Mapping[Step"),
        (
            "        Step.EVALUATE: EvaluateArgs,\n",
            "        Step.EVALUATE: EvaluateArgs,\n        Step.COUNT: CountArgs,\n",
        ),
        ("PIPELINES: Mapping", f"{pipeline}PIPELINES: Mapping"),
        (
            "for pipeline in (TRAINING, TUNING, SCORING, MONITORING, RETRAINING)",
            "for pipeline in (TRAINING, TUNING, SCORING, MONITORING, RETRAINING, COUNTING)",
        ),
    )
    training = (copy.folder / "kfp_pipeline/pipelines/training.py").read_text()
    copy.generate()
    graph = "kfp_pipeline/pipelines/counting.py"
    assert copy.changed() <= {"spark_jobs/steps/count.py", "spark_jobs/contract.py", graph} | MADE
    assert (copy.folder / "kfp_pipeline/pipelines/training.py").read_text() == training
    copy.test(*QUICK, "tests/kfp_pipeline/commands/test_main.py", "-k", SKIP_PLANTED_FAULTS)
    copy.test(CASES, "-k", "every_setting or every_case")

    copy.run("-m", "kfp_pipeline", "compile", "--pipeline=counting")
    document = next(yaml.safe_load_all((copy.folder / "counting_pipeline.yaml").read_text()))
    assert document["pipelineInfo"]["name"] == "spark-kfp-counting"
    assert set(document["components"]["comp-exit-handler-1"]["dag"]["tasks"]) == {"load", "count"}
    rows = "".join(f"{i % 7},{'yes' if i % 2 else 'no'}\n" for i in range(30))
    (tmp_path / "small.csv").write_text(f"x,label\n{rows}")
    run = ["-m", "kfp_pipeline", "run", str(tmp_path / "small.csv"), "--pipeline=counting", "--label=label"]
    shown = copy.run(*run).splitlines()
    assert [line.split()[:2] for line in shown[:4]] == [
        [step, state] for step in ("load", "count") for state in ("running", "done")
    ]
    assert ["rows", "30"] in [line.split() for line in shown]
    assert not any("report" in line for line in shown)
    assert ["pipeline", "counting"] in [line.split() for line in copy.run(*LAST_RUN).splitlines()]
    assert "reg-param" not in copy.run("-m", "kfp_pipeline", "run", "--pipeline=counting", "--help")
    given = ["--pipeline=counting", "--dry-run"]
    data = "s3://bucket/small.csv"
    for words in (
        ["run", "--kfp=http://localhost", data, "--label=label"],
        ["schedule", "create", "nightly", data, "--cron=0 0 2 * * *", "--param=label=label"],
        ["upload"],
    ):
        assert "spark-kfp-counting" in copy.run("-m", "kfp_pipeline", *words, *given)


# More memory for a driver: one line on every path; `tests/spark_operator/test_manifests.py` edits that line and builds every overlay.
