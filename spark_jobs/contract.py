"""What crosses between Kubeflow and Spark: the steps, their arguments, and the pipelines that they make up.

This is the single truth behind the command line of a step, the inputs of its KFP component, the graph and the names that a tuner may
set. Each field says what it is (`setting`, `given`, `from_step`, `output`); the edges of a pipeline follow from that. Standard library
only, because both halves import it and neither may bring the other's packages along.

A new hyperparameter is one `setting` here and one use in its estimator; then `make generate`.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from spark_jobs.arguments import OUTPUT_URI, Argument, Role, Search, StepArgs, flag, from_step, given, output, setting
from spark_jobs.errors import InputError


class Step(StrEnum):
    """The steps. A step is the module of its name in `spark_jobs.steps`."""

    LOAD = "load"
    PREPROCESS = "preprocess"
    TRAIN = "train"
    EVALUATE = "evaluate"


LEAK = "leak"
"""Kind of a suspicious column, in a profile and an evaluation, that all but tells the label."""
STANDBY = "standby"
"""Word in a step's place: start Spark, and wait for what to run."""
OBJECT_STORE_SCHEMES = ("s3", "s3a", "minio")
"""Schemes of URIs that point into an object store; all three mean the same one."""
SPLITS = ("hash", "ordered")
THRESHOLD_RULES = ("max_f1", "max_accuracy", "youden", "half")
FAMILIES = ("auto", "binomial", "multinomial")
CLASS_WEIGHTS = ("none", "balanced")
HEADERS = ("auto", "yes", "no")
SMALL_CLASSES = ("merge", "drop")


def _character(value: str) -> bool:
    return len(value) <= 1


def _fraction(value: float) -> bool:
    return 0.0 <= value <= 1.0


def _inner_fraction(value: float) -> bool:
    return 0.0 < value < 1.0


def _positive(value: float) -> bool:
    return 0.0 < value < float("inf")


def _not_negative(value: float) -> bool:
    return 0.0 <= value < float("inf")


@dataclass(frozen=True, kw_only=True)
class LoadArgs(StepArgs):
    """A CSV or Parquet table becomes typed Parquet."""

    data_uri: str = given(
        "CSV or Parquet: a file, a directory, a glob, gzip allowed; a path, file:, s3a:// or minio://"
    )
    specification_uri: str = given("data specification (TOML); empty: types are inferred and label is needed", "")
    label: str = setting("", "name of the label column, when there is no specification or to override its own")
    positive: str = setting("", "the label value that counts as positive; empty: from the specification, else inferred")
    delimiter: str = setting(
        "", "column delimiter; empty: found in the data", check=_character, allowed="one character, such as ';'"
    )
    quote: str = setting(
        "", "quote character; empty: found in the data", check=_character, allowed="one character, such as '\"'"
    )
    encoding: str = setting("", "text encoding, such as UTF-8 or ISO-8859-1; empty: found in the data")
    header: str = setting("auto", "whether the first row holds the column names", choices=HEADERS)
    max_rejected_fraction: float = setting(
        0.01, "largest share of rows, 0 to 1, that may be rejected", check=_fraction, allowed="0 to 1"
    )
    min_class_rows: int = setting(
        1,
        "a class of fewer rows is small; 1: none is",
        check=lambda value: value >= 1,
        allowed="a whole number of rows, at least 1",
    )
    small_classes: str = setting(
        "merge",
        "merge: small classes become one class, named other; drop: their rows are kept apart with the rejected ones",
        choices=SMALL_CLASSES,
    )
    output_uri: str = output(
        "Dataset",
        "directory for rows/, rejected/, specification.toml, profile.json and result.json",
        artifact="table",
        parts=("rows", "rejected", "specification.toml", "profile.json"),
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessArgs(StepArgs):
    """The typed table becomes train, validation and test features."""

    REUSED_BY_KFP: ClassVar[bool] = True

    load_uri: str = from_step(Step.LOAD)
    seed: int = setting(
        42,
        "seed of the split, -2^53 to 2^53: what KFP's numbers hold exactly",
        check=lambda value: abs(value) <= 2**53,
        allowed="-2^53 to 2^53",
    )
    split: str = setting(
        "hash", "hash: by a hash of the row's values; ordered: the last rows are the test rows", choices=SPLITS
    )
    order_by: str = setting(
        "", "column of numbers or dates that an ordered split follows; empty: the order of the file"
    )
    train_fraction: float = setting(
        0.6, "share of train rows, above 0 and below 1", check=_inner_fraction, allowed="above 0 and below 1"
    )
    validation_fraction: float = setting(
        0.2,
        "share of validation rows, above 0 and below 1; what remains is test",
        check=_inner_fraction,
        allowed="above 0 and below 1",
    )
    max_categories: int = setting(
        100,
        "most values of a categorical column that are features, at least 2",
        check=lambda value: value >= 2,
        allowed="a whole number, at least 2",
    )
    output_uri: str = output(
        "Dataset",
        "directory for features/, features_model/, features.json and result.json",
        artifact="features",
        parts=("features", "features_model", "features.json"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_fraction + self.validation_fraction >= 1.0:
            raise InputError(
                "--train-fraction and --validation-fraction leave no test rows; make their sum less than 1"
            )
        if self.order_by and self.split != "ordered":
            raise InputError(
                f"--order-by={self.order_by} is for an ordered split, and --split is {self.split}: give --split=ordered too, "
                "or leave --order-by out"
            )


@dataclass(frozen=True, kw_only=True)
class LogisticRegressionArgs(StepArgs):
    """Settings of Spark's LogisticRegression."""

    reg_param: float = setting(
        0.0,
        "regularisation strength, 0 or more",
        check=_not_negative,
        allowed="0 or more",
        search=Search(1e-6, 10.0, log=True),
    )
    elastic_net_param: float = setting(
        0.0,
        "share of L1 in the penalty, 0 (ridge) to 1 (lasso)",
        check=_fraction,
        allowed="0 to 1",
        search=Search(0.0, 1.0),
    )
    max_iter: int = setting(
        100,
        "most iterations of the optimiser, 1 to 1000000",
        check=lambda value: 1 <= value <= 1_000_000,
        allowed="1 to 1000000",
    )
    tol: float = setting(1e-6, "convergence tolerance, above 0", check=_positive, allowed="above 0")
    fit_intercept: bool = setting(True, "fit an intercept")
    standardization: bool = setting(True, "scale features before the penalty is applied")
    family: str = setting("auto", "auto: binomial for two classes, else multinomial", choices=FAMILIES)


ESTIMATORS: Mapping[str, type[StepArgs]] = types.MappingProxyType({"logistic_regression": LogisticRegressionArgs})
"""The estimators and their settings. Each is the module of its name in `spark_jobs.estimators`, and a base of `TrainArgs`."""


@dataclass(frozen=True, kw_only=True)
class TrainArgs(LogisticRegressionArgs):
    """An estimator is fitted on the train rows; its threshold is chosen on the validation rows."""

    SHOWS: ClassVar[Mapping[str, str]] = {"metrics": "Metrics"}
    REUSED_BY_KFP: ClassVar[bool] = True

    preprocess_uri: str = from_step(Step.PREPROCESS)
    estimator: str = setting("logistic_regression", "kind of model", choices=tuple(ESTIMATORS))
    class_weights: str = setting("none", "balanced: each class weighs the same in the fit", choices=CLASS_WEIGHTS)
    threshold_rule: str = setting(
        "max_f1", "how the decision threshold is chosen on the validation rows; half: 0.5", choices=THRESHOLD_RULES
    )
    output_uri: str = output(
        "Model",
        "directory for model/, scorecard.json and result.json",
        artifact="model",
        parts=("model", "model_without_known_afterwards", "scorecard.json"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for other, kind in ESTIMATORS.items():
            for name, default in kind.settings().items():
                if name not in ESTIMATORS[self.estimator].settings() and getattr(self, name) != default:
                    raise InputError(
                        f"{flag(name)} is a setting of {other}, and {flag('estimator')} is {self.estimator}: leave one of them out"
                    )

    def hyperparameters(self) -> dict[str, Any]:
        """What the fit depends on beside the rows: name to value; settings of other estimators are left out."""
        others = {name for kind in ESTIMATORS.values() for name in kind.settings()}
        own = ESTIMATORS[self.estimator].settings()
        return {name: getattr(self, name) for name in self.settings() if name in own or name not in others}


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(StepArgs):
    """The model is judged on the test rows."""

    # Never reused by KFP's cache: every run has an evaluation and a report of its own.
    SHOWS: ClassVar[Mapping[str, str]] = {
        "metrics": "Metrics",
        "curves": "ClassificationMetrics",
        "summary": "Markdown",
    }

    preprocess_uri: str = from_step(Step.PREPROCESS)
    train_uri: str = from_step(Step.TRAIN)
    title: str = setting("", "title of the report; empty: named after the label")
    bootstrap_samples: int = setting(
        500,
        "bootstrap samples behind the intervals, 50 to 100000",
        check=lambda value: 50 <= value <= 100_000,
        allowed="50 to 100000",
    )
    report_uri: str = output("HTML", "file for the HTML report", artifact="report", file="report.html")
    output_uri: str = output(
        "Artifact",
        "directory for evaluation.json and result.json",
        artifact="evaluation",
        parts=("evaluation.json",),
    )


ARGUMENTS: Mapping[Step, type[StepArgs]] = types.MappingProxyType(
    {
        Step.LOAD: LoadArgs,
        Step.PREPROCESS: PreprocessArgs,
        Step.TRAIN: TrainArgs,
        Step.EVALUATE: EvaluateArgs,
    }
)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline as data: everything that runs, compiles or shows one walks its steps.

    Attributes:
        name: of its module in `kfp_pipeline.pipelines`.
        title: its name for people.
        about: what it does, in one sentence.
        group: what KFP's UI calls the group of its tasks.
        steps: each after those whose output it reads.
    """

    name: str
    title: str
    about: str
    group: str
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        for place, step in enumerate(self.steps):
            for item in ARGUMENTS[step].arguments(Role.FROM_STEP):
                if item.step not in self.steps[:place]:
                    raise TypeError(f"pipeline {self.name}: {step} reads {item.step}, which does not come before it")

    @property
    def kfp_name(self) -> str:
        """Its name on a KFP server, and of the folder of its runs' outputs."""
        return f"spark-kfp-{self.name}"

    def inputs(self, *roles: Role) -> dict[str, Argument]:
        """What a run is given, by name: what comes from outside and the settings, or of the named roles only.

        Steps that share a name share the input.
        """
        wanted = roles or (Role.GIVEN, Role.SETTING)
        found: dict[str, Argument] = {}
        for step in self.steps:
            for item in ARGUMENTS[step].arguments(*wanted):
                found.setdefault(item.name, item)
        return found

    def check_settings(self, values: Mapping[str, Any]) -> None:
        """Checks the steps' settings before it is known where their outputs will lie.

        Args:
            values: settings by name; those that are missing keep their defaults, and what is no setting is passed over.

        Raises:
            InputError: a setting is out of range, or two do not go together.
        """
        for step in self.steps:
            kind = ARGUMENTS[step]
            defaults = kind.settings()
            kind(**{name: values.get(name, defaults[name]) if name in defaults else "" for name in kind.names()})

    def arguments_below(self, root: str, step: Step, values: Mapping[str, Any]) -> Any:
        """A step's arguments in a run whose outputs all lie below one URI, each step's in a folder of its name.

        Args:
            root: the URI.
            step: one of the pipeline's.
            values: the run's inputs by name; settings that are missing keep their defaults.

        Raises:
            InputError: a value is not allowed.
        """
        kind = ARGUMENTS[step]
        made: dict[str, Any] = {name: values[name] for name in kind.names(Role.GIVEN, Role.SETTING) if name in values}
        made |= {item.name: f"{root}/{item.step}" for item in kind.arguments(Role.FROM_STEP)}
        made |= {item.name: f"{root}/{item.file or step}" for item in kind.arguments(Role.OUTPUT)}
        return kind(**made)


TRAINING = Pipeline(
    name="training",
    title="Train a Spark ML model",
    about="Trains and evaluates a Spark ML model.",
    group="Training, with curves and report",  # a person opens it to see the report
    steps=(Step.LOAD, Step.PREPROCESS, Step.TRAIN, Step.EVALUATE),
)
PIPELINES: Mapping[str, Pipeline] = types.MappingProxyType({pipeline.name: pipeline for pipeline in (TRAINING,)})


def outputs_of(step: str) -> list[str]:
    """The names of the arguments that say where a step writes, the main output among them."""
    return ARGUMENTS[Step(step)].names(Role.OUTPUT)


assert all(OUTPUT_URI in kind.names(Role.OUTPUT) for kind in ARGUMENTS.values())
