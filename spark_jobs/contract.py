"""The contract between Kubeflow and Spark: the steps, their arguments, and the pipelines that they form.

The command line of a step, the inputs of its KFP component, the graph of a pipeline and the hyperparameters that a search may set are all
derived from these declarations. Each field is declared by `setting`, `given`, `from_step` or `output`; the `from_step` fields are the edges
of the graph. Both `spark_jobs` and `kfp_pipeline` import this module, so it imports only the standard library.

To add a hyperparameter, add one `setting` here, use it in its estimator, and run `make generate`.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar

from spark_jobs.arguments import (
    OUTPUT_URI,
    Argument,
    Role,
    SearchRange,
    StepArgs,
    flag,
    from_step,
    given,
    output,
    setting,
)
from spark_jobs.errors import InputError
from spark_jobs.search import parse_search


class Step(StrEnum):
    """The steps; each is the module of the same name in `spark_jobs.steps`."""

    LOAD = "load"
    PREPROCESS = "preprocess"
    TRAIN = "train"
    EVALUATE = "evaluate"
    PROMOTE = "promote"
    TUNE = "tune"
    PREDICT = "predict"
    DRIFT = "drift"


REPORT_URI = "report_uri"
"""The output of a step that writes an HTML report for people."""
DATA_URI, SPECIFICATION_URI, MODEL_URI = "data_uri", "specification_uri", "model_uri"
"""The inputs from outside that the commands take as DATA, as --spec and as --model-uri, which may also name a run on this machine."""
TRAIN_DATA_URI = "train_data_uri"
"""The data of the step load in a pipeline where an alarm starts it; DATA is then what is looked at for drift."""
RULES_URI = "rules_uri"
"""The file with the rules of the gate, for the step promote."""
MASTER_VARIABLE = "SPARK_KFP_MASTER"
"""Environment variable of a driver on the cluster: the master URL of the step's session, instead of that of spark-submit."""
LEAK = "leak"
"""Kind of a suspicious column, in a profile and an evaluation: the column all but tells the label (target leakage)."""
OBJECT_STORE_SCHEMES = ("s3", "s3a", "minio")
"""URI schemes of the object store. All three mean the same store: S3's own, that of Hadoop's S3A, and that of KFP's artifacts."""
VERDICT_NAME = "verdict.json"
"""What the gate said to a candidate, written by the step promote."""
SPLITS = ("hash", "ordered")
THRESHOLD_RULES = ("max_f1", "max_accuracy", "youden", "half")
FAMILIES = ("auto", "binomial", "multinomial")
CLASS_WEIGHTS = ("none", "balanced")
RANDOM, GRID, TPE, CMAES, BAYESIAN, HYPERBAND = ALGORITHMS = (
    "random", "grid", "tpe", "cmaes", "bayesianoptimization", "hyperband",
)  # fmt: skip
"""The algorithms of a search, by the names that Katib has for them."""
NO_STOP, MEDIAN = EARLY_STOPPING = ("none", "medianstop")
OPTUNA, KATIB = TUNERS = ("optuna", "katib")
RESUME_POLICIES = ("Never", "LongRunning", "FromVolume")
"""Katib's words for whether a search that has ended may be given more trials."""
TRAIN_PARTS, GROWTH = 9, (1, 3, 9)
"""A search that judges its trials before they have all rows gives them so many of `TRAIN_PARTS` parts of the train rows."""
JOURNAL = "journal.json"
"""The finished trials of a search that has not ended."""
OBJECTIVES = ("auto", "areaUnderROC", "areaUnderPR", "logLoss", "accuracy", "f1")
OBJECTIVE_OF_TWO_CLASSES = "areaUnderROC"
"""What `auto` stands for if the label has two classes; for more it is logLoss."""
NO_SECOND = "none"
MULTICLASS_OBJECTIVES = ("logLoss", "accuracy", "f1")
"""The objectives for a label of more than two classes."""
METRICS = (
    "areaUnderROC", "areaUnderPR", "accuracy", "precision", "recall", "f1", "logLoss", "brierScore", "liftTopDecile",
    "weightedPrecision", "weightedRecall",
)  # fmt: skip
"""All metrics that an evaluation may have, of two classes or of more."""
LOWER_IS_BETTER = ("logLoss", "brierScore")
"""The metrics of which a smaller value is better."""
AS_IS, STANDARDISED, QUANTILE_BINS = NUMERIC_FORMS = ("as_is", "standardised", "quantile_bins")
FEATURE_SUBSETS = ("auto", "all", "sqrt", "log2", "onethird")
SOLVERS = ("l-bfgs", "gd")
HEADERS = ("auto", "yes", "no")
SMALL_CLASSES = ("merge", "drop")


MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""A model's name is a folder of the registry and a part of the server's URLs."""


def _model_name(value: str) -> bool:
    return not value or bool(MODEL_NAME.fullmatch(value))


def _character(value: str) -> bool:
    return len(value) <= 1


def _fraction(value: float) -> bool:
    return 0.0 <= value <= 1.0


def _inner_fraction(value: float) -> bool:
    return 0.0 < value < 1.0


def _positive_fraction(value: float) -> bool:
    return 0.0 < value <= 1.0


def _exact_integer(value: int) -> bool:
    return abs(value) <= 2**53


def _positive(value: float) -> bool:
    return 0.0 < value < float("inf")


def _not_negative(value: float) -> bool:
    return 0.0 <= value < float("inf")


def _is_finite_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


DATA = "the data, CSV (also gzipped) or Parquet: a path or a URI (file:, s3://, s3a://, minio://) of a file, a directory or a glob"


@dataclass(frozen=True, kw_only=True)
class TableArgs(StepArgs):
    """A table from outside the run, and how its files are read."""

    data_uri: str = given(DATA)
    delimiter: str = setting(
        "", "column delimiter; empty: detected from the data", check=_character, allowed="one character, such as ';'"
    )
    quote: str = setting(
        "", "quote character; empty: detected from the data", check=_character, allowed="one character, such as '\"'"
    )
    encoding: str = setting("", "text encoding, such as UTF-8 or ISO-8859-1; empty: detected from the data")
    header: str = setting("auto", "whether the first row holds the column names; auto: detected", choices=HEADERS)
    max_rejected_fraction: float = setting(
        0.01,
        "largest share of rows, 0 to 1, that may be rejected; the step fails above it",
        check=_fraction,
        allowed="0 to 1",
    )


@dataclass(frozen=True, kw_only=True)
class LoadArgs(TableArgs):
    """Reads a CSV or Parquet table and writes it as Parquet with types."""

    REUSED_BY_DATA: ClassVar[bool] = True

    data_uri: str = given(DATA, chosen_by=Step.DRIFT)
    specification_uri: str = given("data specification (TOML); empty: types are inferred, and label is required", "")
    label: str = setting("", "name of the label column; required without a specification, overrides that of one")
    positive: str = setting(
        "", "value of the label that is the positive class; empty: taken from the specification, else inferred"
    )
    min_class_rows: int = setting(
        1,
        "classes with fewer rows are handled as small_classes says; 1: no class is",
        check=lambda value: value >= 1,
        allowed="a whole number of rows, at least 1",
    )
    small_classes: str = setting(
        "merge",
        "merge: all classes below min_class_rows become one class, other; drop: their rows go to the rejected rows",
        choices=SMALL_CLASSES,
    )
    output_uri: str = output(
        "Dataset",
        "directory for rows/, rejected/, specification.toml, profile.json and result.json",
        artifact="table",
        parts=("rows", "rejected", "specification.toml", "profile.json"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.small_classes != self.settings()["small_classes"] and self.min_class_rows == 1:
            raise InputError(
                f"--small-classes={self.small_classes} is for classes below --min-class-rows, and with 1 there are none: give "
                "--min-class-rows too, or leave --small-classes out"
            )


@dataclass(frozen=True, kw_only=True)
class PreprocessArgs(StepArgs):
    """Splits the table into train, validation and test rows and computes their feature vectors."""

    REUSED_BY_KFP: ClassVar[bool] = True

    load_uri: str = from_step(Step.LOAD)
    seed: int = setting(
        42,
        "seed of the split, -2^53 to 2^53: KFP passes numbers as doubles, which hold these exactly",
        check=_exact_integer,
        allowed="-2^53 to 2^53",
    )
    split: str = setting(
        "hash",
        "hash: each row's values and the seed decide its set; ordered: the first rows are train, the last rows are test rows",
        choices=SPLITS,
    )
    order_by: str = setting(
        "", "column of numbers or dates by which an ordered split sorts; empty: the order of the file"
    )
    train_fraction: float = setting(
        0.6, "share of train rows, above 0 and below 1", check=_inner_fraction, allowed="above 0 and below 1"
    )
    validation_fraction: float = setting(
        0.2,
        "share of validation rows, above 0 and below 1; the remaining rows are test rows",
        check=_inner_fraction,
        allowed="above 0 and below 1",
    )
    max_categories: int = setting(
        100,
        "largest number of values of a categorical column that become features, at least 2",
        check=lambda value: value >= 2,
        allowed="a whole number, at least 2",
    )
    numeric_form: str = setting(
        AS_IS,
        "how a numeric column becomes features: its value; standardised: less the mean, in standard deviations, of the train rows; "
        "quantile_bins: one feature for each of numeric_bins intervals with about equally many train rows",
        choices=NUMERIC_FORMS,
    )
    numeric_bins: int = setting(
        20,
        "largest number of intervals of a numeric column (quantile_bins), 2 to 1000",
        check=lambda value: 2 <= value <= 1000,
        allowed="2 to 1000",
        search=SearchRange(5, 50, log=True),
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
        if self.numeric_bins != self.settings()["numeric_bins"] and self.numeric_form != QUANTILE_BINS:
            raise InputError(
                f"--numeric-bins={self.numeric_bins} is for --numeric-form={QUANTILE_BINS}, and --numeric-form is {self.numeric_form}: "
                "leave one of them out"
            )


@dataclass(frozen=True, kw_only=True)
class OptimiserArgs(StepArgs):
    """Settings of an iterative optimiser."""

    max_iter: int = setting(
        100,
        "maximum number of iterations of the optimiser, 1 to 1000000",
        check=lambda value: 1 <= value <= 1_000_000,
        allowed="1 to 1000000",
    )
    tol: float = setting(1e-6, "convergence tolerance, above 0", check=_positive, allowed="above 0")


@dataclass(frozen=True, kw_only=True)
class FitSeedArgs(StepArgs):
    """The seed of a fit that draws at random."""

    fit_seed: int = setting(
        42,
        "seed of what the fit itself draws at random, such as the rows and features of each tree or the first weights, -2^53 to 2^53; "
        "it does not change the split of the rows",
        check=_exact_integer,
        allowed="-2^53 to 2^53",
    )


@dataclass(frozen=True, kw_only=True)
class StepSizeArgs(StepArgs):
    """The step size of a fit that goes step by step."""

    step_size: float = setting(
        0.1,
        "factor by which each further tree counts, and of each step of solver gd (learning rate), above 0 and at most 1",
        check=_positive_fraction,
        allowed="above 0 and at most 1",
        search=SearchRange(0.01, 0.3, log=True),
    )


@dataclass(frozen=True, kw_only=True)
class LogisticRegressionArgs(OptimiserArgs):
    """Settings of Spark's LogisticRegression; names and meanings are Spark's."""

    reg_param: float = setting(
        0.0,
        "regularisation strength, 0 or more",
        check=_not_negative,
        allowed="0 or more",
        search=SearchRange(1e-6, 10.0, log=True),
    )
    elastic_net_param: float = setting(
        0.0,
        "share of L1 in the penalty, 0 (ridge) to 1 (lasso)",
        check=_fraction,
        allowed="0 to 1",
        search=SearchRange(0.0, 1.0),
    )
    fit_intercept: bool = setting(True, "fit an intercept")
    standardization: bool = setting(True, "scale features before the penalty is applied")
    family: str = setting("auto", "auto: binomial for two classes, else multinomial", choices=FAMILIES)


@dataclass(frozen=True, kw_only=True)
class DecisionTreeArgs(FitSeedArgs):
    """Settings of Spark's DecisionTreeClassifier, which each tree of a forest and of boosting has as well."""

    max_depth: int = setting(
        5,
        "largest number of splits from the root of a tree to a leaf, 1 to 30; at 30 a tree may have 2^30 leaves",
        check=lambda value: 1 <= value <= 30,
        allowed="1 to 30",
        search=SearchRange(2, 8),
    )
    max_bins: int = setting(
        32,
        "number of intervals between whose ends a numeric feature may be split, 2 to 100000",
        check=lambda value: 2 <= value <= 100_000,
        allowed="2 to 100000",
        search=SearchRange(8, 256, log=True),
    )
    min_instances_per_node: int = setting(
        10,
        "smallest number of train rows in a leaf, 1 or more",
        check=lambda value: value >= 1,
        allowed="a whole number, at least 1",
        search=SearchRange(1, 100, log=True),
    )


@dataclass(frozen=True, kw_only=True)
class RandomForestArgs(DecisionTreeArgs):
    """Settings of Spark's RandomForestClassifier: those of a tree, and how many trees of which rows and features."""

    num_trees: int = setting(
        50,
        "number of trees, 1 to 10000",
        check=lambda value: 1 <= value <= 10_000,
        allowed="1 to 10000",
        search=SearchRange(20, 100, log=True),
    )
    subsampling_rate: float = setting(
        1.0,
        "share of the train rows that are drawn for each tree, above 0 and at most 1",
        check=_positive_fraction,
        allowed="above 0 and at most 1",
        search=SearchRange(0.3, 1.0),
    )
    feature_subset_strategy: str = setting(
        "auto",
        "how many features are drawn as candidates of each split; auto: sqrt for a random forest, all for gbt",
        choices=FEATURE_SUBSETS,
    )


@dataclass(frozen=True, kw_only=True)
class GbtArgs(RandomForestArgs, StepSizeArgs):
    """Settings of Spark's GBTClassifier: those of a forest, whose trees are fitted one after another."""


@dataclass(frozen=True, kw_only=True)
class MlpArgs(OptimiserArgs, FitSeedArgs, StepSizeArgs):
    """Settings of Spark's MultilayerPerceptronClassifier."""

    layers: int = setting(
        1,
        "number of hidden layers, 1 to 5",
        check=lambda value: 1 <= value <= 5,
        allowed="1 to 5",
        search=SearchRange(1, 3),
    )
    units: int = setting(
        8,
        "number of units of each hidden layer, 1 to 512",
        check=lambda value: 1 <= value <= 512,
        allowed="1 to 512",
        search=SearchRange(2, 64, log=True),
    )
    solver: str = setting("l-bfgs", "optimiser: l-bfgs, or gd for gradient descent with step_size", choices=SOLVERS)


ESTIMATORS: Mapping[str, type[StepArgs]] = types.MappingProxyType(
    {
        "logistic_regression": LogisticRegressionArgs,
        "decision_tree": DecisionTreeArgs,
        "random_forest": RandomForestArgs,
        "gbt": GbtArgs,
        "mlp": MlpArgs,
    }
)
"""The estimators and their settings. Each is the module of the same name in `spark_jobs.estimators`; its settings are a base class of
`TrainArgs`. A setting that several estimators have is declared once, in a base class of theirs, and so has one meaning and one default."""


NEEDS_LIKE_SCALES = ("mlp",)
"""The estimators whose fit goes wrong if numbers are features as they are, of different scales."""


NEEDS_CHECKPOINTS = ("gbt",)
"""The estimators whose fit depends on all its iterations so far: without checkpoints, Java's stack overflows after some hundred."""


@functools.cache
def estimators_with(name: str) -> tuple[str, ...]:
    """Returns the estimators that have a setting of this name."""
    return tuple(estimator for estimator, kind in ESTIMATORS.items() if name in kind.settings())


@dataclass(frozen=True, kw_only=True)
class TrainArgs(MlpArgs, GbtArgs, LogisticRegressionArgs):
    """Fits an estimator on the train rows and chooses the decision threshold on the validation rows."""

    UI_ARTIFACTS: ClassVar[Mapping[str, str]] = {"metrics": "Metrics"}
    REUSED_BY_KFP: ClassVar[bool] = True

    preprocess_uri: str = from_step(Step.PREPROCESS)
    tune_uri: str = from_step(
        Step.TUNE,
        optional="the settings are those given; else they are the best of the search, and the fit takes the validation rows, too",
    )
    estimator: str = setting("logistic_regression", "kind of model", choices=tuple(ESTIMATORS))
    class_weights: str = setting(
        "none", "balanced: rows are weighted so that all classes count the same in the fit", choices=CLASS_WEIGHTS
    )
    threshold_rule: str = setting(
        "max_f1",
        "what the decision threshold maximises on the validation rows: F1, accuracy or Youden's index; half: it is 0.5",
        choices=THRESHOLD_RULES,
    )
    train_parts: int = setting(
        TRAIN_PARTS,
        f"number of parts, of {TRAIN_PARTS}, of the train rows on which the model is fitted, 1 to {TRAIN_PARTS}; for a search's trials",
        check=lambda value: 1 <= value <= TRAIN_PARTS,
        allowed=f"1 to {TRAIN_PARTS}",
    )
    output_uri: str = output(
        "Model",
        "directory for model/, scorecard.json, reference.json and result.json",
        artifact="model",
        parts=("model", "model_untuned", "model_without_known_afterwards", "scorecard.json", "reference.json"),
    )

    @classmethod
    def arguments(cls, *roles: Role) -> tuple[Argument, ...]:
        """Returns the arguments; the meaning of an estimator's setting names the estimators that have it."""
        found = super().arguments(*roles)
        owners = {item.name: estimators_with(item.name) for item in found}
        named = tuple(
            replace(item, about=f"{item.about} ({', '.join(owners[item.name])})") if owners[item.name] else item
            for item in found
        )
        return tuple(
            replace(item, chosen_by=Step.TUNE) if owners[item.name] or item.name == "estimator" else item
            for item in named
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tune_uri:
            for item in self.arguments(Role.SETTING):
                if item.chosen_by == Step.TUNE and getattr(self, item.name) != item.default:
                    raise InputError(f"{flag(item.name)}: {Step.TUNE} chooses it; leave it out, or {flag('tune_uri')}")
        for name, default in self.settings().items():
            owners = estimators_with(name)
            if owners and self.estimator not in owners and getattr(self, name) != default:
                raise InputError(
                    f"{flag(name)} is a setting of {' and '.join(owners)}, and {flag('estimator')} is {self.estimator}: "
                    "leave one of them out"
                )

    def hyperparameters(self) -> dict[str, Any]:
        """Returns the settings that the fit depends on, without those of other estimators: name to value."""
        owners = {name: estimators_with(name) for name in self.settings()}
        return {name: getattr(self, name) for name in owners if not owners[name] or self.estimator in owners[name]}


@dataclass(frozen=True, kw_only=True)
class KatibArgs(StepArgs):
    """Settings of a search that Katib carries out on a cluster."""

    tuner: str = setting(
        OPTUNA,
        "what carries out the trials: optuna, one after another in one Spark session; katib, on a cluster, each in a Job of its own",
        choices=TUNERS,
    )
    parallel_trials: int = setting(
        3,
        "number of trials at one time (katib), 1 to 1000",
        check=lambda value: 1 <= value <= 1000,
        allowed="1 to 1000",
    )
    max_failed_trials: int = setting(
        3,
        "number of failed trials with which the search fails (katib), 1 to 10000",
        check=lambda value: 1 <= value <= 10_000,
        allowed="1 to 10000",
    )
    goal: str = setting(
        "",
        "value of the objective with which the search ends (katib); empty: it ends after all trials",
        check=lambda value: not value or _is_finite_number(value),
        allowed="a number, or empty",
    )
    retain_trials: bool = setting(False, "keep the Jobs of ended trials (katib)")
    resume_policy: str = setting(
        RESUME_POLICIES[0],
        "whether the Experiment may be given more trials after its end (katib): Never; LongRunning, its Suggestion runs on; FromVolume",
        choices=RESUME_POLICIES,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, default in KatibArgs.settings().items():
            if self.tuner != KATIB and getattr(self, name) != default:
                raise InputError(
                    f"{flag(name)} is for {flag('tuner')}={KATIB}, and {flag('tuner')} is {self.tuner}: leave one of them out"
                )


@dataclass(frozen=True, kw_only=True)
class TuneArgs(KatibArgs):
    """Searches the settings of estimators by trials, each fitted on the train rows and judged on the validation rows."""

    UI_ARTIFACTS: ClassVar[Mapping[str, str]] = {"metrics": "Metrics"}
    REUSED_BY_KFP: ClassVar[bool] = True

    preprocess_uri: str = from_step(Step.PREPROCESS)
    estimators: str = setting(
        "logistic_regression", f"kinds of model to try, separated by commas, out of {', '.join(ESTIMATORS)}"
    )
    search: str = setting(
        "",
        "separated by commas: NAME=LOW:HIGH or NAME=LOW:HIGH:log replaces a setting's own range and leaves all others in the search; a "
        "NAME alone keeps its range, and then only the settings that are named are searched",
    )
    class_weights: str = setting(
        "none", "balanced: rows are weighted so that all classes count the same in the fits", choices=CLASS_WEIGHTS
    )
    algorithms: str = setting(
        "tpe",
        "how the next trial is chosen: random, grid, tpe (tree of Parzen estimators), cmaes, bayesianoptimization (Gaussian process) or "
        "hyperband (on growing samples of the train rows); several, separated by commas, are compared",
    )
    trials: int = setting(
        20,
        "number of trials of each algorithm, 1 to 10000",
        check=lambda value: 1 <= value <= 10_000,
        allowed="1 to 10000",
    )
    patience: int = setting(
        0,
        "the search of an algorithm ends after so many trials without a better one, 0 to 10000; 0: after all trials",
        check=lambda value: 0 <= value <= 10_000,
        allowed="0 to 10000",
    )
    folds: int = setting(
        1,
        "1: a trial is fitted on the train rows and judged on the validation rows; 2 to 20: on so many parts of both together, each judged "
        "by a fit on the others",
        check=lambda value: 1 <= value <= 20,
        allowed="1 to 20",
    )
    early_stopping: str = setting(
        NO_STOP,
        "medianstop: a trial that after a fold, or with one fold on a sample of the train rows, is worse than the median of the earlier "
        "trials there, ends",
        choices=EARLY_STOPPING,
    )
    objective: str = setting(
        "auto",
        "metric of the validation rows by which trials are compared; auto: areaUnderROC for two classes, logLoss for more",
        choices=OBJECTIVES,
    )
    second_objective: str = setting(
        NO_SECOND,
        "another metric of the validation rows to search by (random, grid, tpe): the trials that no other one beats in both are the Pareto "
        "front; the one that is best in the first competes with the defaults",
        choices=(NO_SECOND, *OBJECTIVES[1:]),
    )
    search_seed: int = setting(
        42, "seed of the search, 0 to 2^32 - 1", check=lambda value: 0 <= value < 2**32, allowed="0 to 2^32 - 1"
    )
    report_uri: str = output(
        "HTML",
        "file for the HTML report of the trials; Katib's searches have none",
        artifact="report",
        file="tuning.html",
    )
    output_uri: str = output(
        "Artifact",
        "directory for trials.json, best.json and result.json",
        artifact="tuning",
        parts=("trials.json", "best.json"),
        unfinished=JOURNAL,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        space = self.space()
        algorithms = self.algorithm_names()
        if CMAES in algorithms and (len(space) > 1 or len(space[next(iter(space))]) < 2):
            raise InputError(
                f"{flag('algorithms')}: {CMAES} searches two or more numbers of a single estimator; name one with such settings, or "
                "another algorithm"
            )
        self._check_two_objectives(algorithms)
        self._check_for_katib(algorithms)
        if HYPERBAND in algorithms and self.folds > 1:
            raise InputError(
                f"{flag('algorithms')}: {HYPERBAND} judges trials on growing samples, not by folds; leave {flag('folds')} out"
            )

    def _check_two_objectives(self, algorithms: list[str]) -> None:
        """Refuses what has one order of the trials only.

        Raises:
            InputError: there are two objectives, and the search needs one, or they are the same.
        """
        if self.second_objective == NO_SECOND:
            return
        given = f"{flag('second_objective')}={self.second_objective}"
        if self.second_objective == self.objective:
            raise InputError(f"{given} is the first one, too; name another metric, or leave it out")
        if self.objective == OBJECTIVES[0] and self.second_objective == OBJECTIVE_OF_TWO_CLASSES:
            raise InputError(
                f"{given} is the first one of two classes and none of more; name another metric, or the first one by {flag('objective')}"
            )
        if unable := [name for name in algorithms if name not in (RANDOM, GRID, TPE)]:
            raise InputError(f"{given}: {unable[0]} searches by one objective; use {RANDOM}, {GRID} or {TPE}")
        for name, default in (("early_stopping", NO_STOP), ("patience", 0), ("tuner", OPTUNA)):
            if getattr(self, name) != default:
                raise InputError(
                    f"{given}: {flag(name)}={getattr(self, name)} compares by one objective; leave one of them out"
                )

    def _check_for_katib(self, algorithms: list[str]) -> None:
        """Refuses what Katib has not, and a hyperband that could not begin.

        Raises:
            InputError: the search is for Katib, and it cannot carry it out.
        """
        if self.tuner != KATIB:
            return
        for name, default in (("folds", 1), ("patience", 0)):
            if getattr(self, name) != default:
                raise InputError(
                    f"{flag(name)}={getattr(self, name)} is for {flag('tuner')}={OPTUNA}; leave one of them out"
                )
        # Katib's default keeps a third of the trials in each round: as many begin at one time as there are parts of the rows.
        if HYPERBAND in algorithms and min(self.parallel_trials, self.trials) < TRAIN_PARTS:
            raise InputError(
                f"{flag('parallel_trials')}={self.parallel_trials} {flag('trials')}={self.trials}: Katib's {HYPERBAND} compares "
                f"{TRAIN_PARTS} trials at one time; make both at least {TRAIN_PARTS}, with room for them in the namespace's quota, or take "
                "another algorithm"
            )

    def algorithm_names(self) -> list[str]:
        """Returns the algorithms of the search, in the order in which they are named.

        Raises:
            InputError: there is no such algorithm, or one is named twice.
        """
        names = [name.strip() for name in self.algorithms.split(",")]
        for place, name in enumerate(names):
            if name not in ALGORITHMS:
                raise InputError(
                    f"{flag('algorithms')}: there is no algorithm {name!r}; choose among {', '.join(ALGORITHMS)}"
                )
            if name in names[:place]:
                raise InputError(f"{flag('algorithms')}: {name} is named twice")
        return names

    def space(self) -> dict[str, dict[str, tuple[str, SearchRange]]]:
        """Returns what is searched: by estimator and name of a setting its type, `int` or `float`, and its range.

        Raises:
            InputError: there is no such estimator or setting, or a range leaves what the setting allows.
        """
        names = [name.strip() for name in self.estimators.split(",")]
        if unknown := [name for name in names if name not in ESTIMATORS]:
            raise InputError(
                f"{flag('estimators')}: there is no estimator {unknown[0]!r}; choose among {', '.join(ESTIMATORS)}"
            )
        given = parse_search(self.search)
        only = None in given.values()
        settings = {name: {item.name: item for item in ESTIMATORS[name].arguments(Role.SETTING)} for name in names}
        for name, wanted in given.items():
            owners = [
                found[name] for found in settings.values() if name in found and found[name].type in ("int", "float")
            ]
            if not owners:
                raise InputError(f"{flag('search')}: {name} is no number among the settings of {' or '.join(names)}")
            if wanted is None and not any(found[name].search for found in settings.values() if name in found):
                raise InputError(f"{flag('search')}: {name} has no range of its own; write {name}=LOW:HIGH")
            for value in (wanted.low, wanted.high) if wanted else ():
                if owners[0].type == "int" and not value.is_integer():
                    raise InputError(f"{flag('search')}: {name} is a whole number, and {value} is none")
                owners[0].validate(int(value) if owners[0].type == "int" else value)
        ranges = {
            name: {
                item.name: given.get(item.name) or item.search
                for item in found.values()
                if not only or item.name in given
            }
            for name, found in settings.items()
        }
        return {
            estimator: {name: (settings[estimator][name].type, wanted) for name, wanted in found.items() if wanted}
            for estimator, found in ranges.items()
        }


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(StepArgs):
    """Evaluates the model on the test rows and writes the report."""

    # KFP's cache never replaces this step: every run needs its own evaluation and report.
    UI_ARTIFACTS: ClassVar[Mapping[str, str]] = {
        "metrics": "Metrics",
        "curves": "ClassificationMetrics",
        "summary": "Markdown",
    }

    preprocess_uri: str = from_step(Step.PREPROCESS)
    train_uri: str = from_step(Step.TRAIN)
    title: str = setting("", "title of the report; empty: made from the name of the label")
    bootstrap_samples: int = setting(
        500,
        "number of bootstrap samples for the confidence intervals, 50 to 100000",
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


@dataclass(frozen=True, kw_only=True)
class PromoteArgs(StepArgs):
    """Registers the model and makes it the champion, or the canary, if the gate lets it; a refusal is a normal end."""

    # Neither KFP's cache nor an earlier run replaces this step: the pointer may have moved since.
    REUSABLE: ClassVar[bool] = False
    RUNS_IF: ClassVar[str] = "model_name"
    UI_ARTIFACTS: ClassVar[Mapping[str, str]] = {"metrics": "Metrics", "verdict": "Markdown"}

    load_uri: str = from_step(Step.LOAD)
    preprocess_uri: str = from_step(Step.PREPROCESS)
    train_uri: str = from_step(Step.TRAIN)
    evaluate_uri: str = from_step(Step.EVALUATE)
    model_name: str = setting(
        "",
        "name of the model in the registry; empty: the model is not promoted",
        check=_model_name,
        allowed="up to 63 letters, digits, _, - and ., the first a letter or digit",
    )
    registry_uri: str = setting(
        "", "directory or URI of the registry; on one machine empty means the setting SPARK_KFP_REGISTRY"
    )
    rules_uri: str = setting(
        "",
        "TOML file with the rules of the gate; on one machine empty means the gate.toml beside the data, else in the working folder; "
        "without one there are no bounds",
    )
    compare_by: str = setting(
        "areaUnderROC", "metric in which the model must not be worse than the champion", choices=OBJECTIVES[1:]
    )
    min_test_rows: int = setting(
        30,
        "smallest number of test rows of each class",
        check=lambda value: value >= 1,
        allowed="a whole number of rows, at least 1",
    )
    max_balance_shift: float = setting(
        0.1,
        "largest change, 0 to 1, of the share of a class in the train rows since the champion",
        check=_fraction,
        allowed="0 to 1",
    )
    max_test_psi: float = setting(
        0.2,
        "largest population stability index of a column, between train and test rows, and of the scores, between validation and test rows; "
        "a larger one counts if it is significant, above 0",
        check=_positive,
        allowed="above 0",
    )
    example_rows: int = setting(
        20,
        "number of test rows that the version keeps, with Spark's probabilities, for a server to check itself; 0: none, 0 to 1000",
        check=lambda value: 0 <= value <= 1000,
        allowed="0 to 1000",
    )
    canary_share: float = setting(
        0.0,
        "share of the requests that a model which passes gets as the canary beside a champion; 0: it becomes the champion at once",
        check=lambda value: 0.0 <= value < 1.0,
        allowed="0 to below 1, such as 0.1",
    )
    output_uri: str = output(
        "Artifact", "directory for verdict.json and result.json", artifact="promotion", parts=(VERDICT_NAME,)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model_name and not self.registry_uri:
            raise InputError(
                f"--model-name={self.model_name} needs a registry: give --registry-uri, such as s3://BUCKET/models"
            )


@dataclass(frozen=True, kw_only=True)
class PredictArgs(TableArgs):
    """Scores a table with a trained model: batch scoring."""

    UI_ARTIFACTS: ClassVar[Mapping[str, str]] = {"metrics": "Metrics"}

    model_uri: str = given(
        "the model: the output of train, or in a registry the folder of a version, or that of a model, which means its champion"
    )
    predictions_uri: str = given(
        "directory that keeps the predictions of all runs, where a file that is scored already is not scored again; empty: output_uri",
        "",
    )
    keep_columns: str = setting(
        "*",
        "columns of the table that the predictions keep, separated by commas, as they are in the table; *: all; empty: none",
    )
    all_probabilities: bool = setting(False, "write the probability of each class, not only of the positive one")
    output_uri: str = output("Dataset", "directory for predictions/, rejected/ and result.json", artifact="predictions")


@dataclass(frozen=True, kw_only=True)
class DriftArgs(TableArgs):
    """Compares a table, or what a server counted, with the rows that a model was trained on."""

    # Neither KFP's cache nor an earlier run replaces this step: another run may have started a training since.
    REUSABLE: ClassVar[bool] = False
    DECIDES: ClassVar[str] = "train_on"
    UI_ARTIFACTS: ClassVar[Mapping[str, str]] = {"metrics": "Metrics"}

    model_uri: str = given(
        "the model: the output of train, or in a registry the folder of a version, or that of a model, which means its champion"
    )
    psi_limit: float = setting(
        0.2,
        "population stability index of a column or of the scores beyond which a significant change is an alarm, above 0",
        check=_positive,
        allowed="above 0",
    )
    share_limit: float = setting(
        0.05,
        "change of the share of missing cells, and rise of that of new categories, beyond which it is an alarm, above 0 and below 1",
        check=_inner_fraction,
        allowed="above 0 and below 1",
    )
    significance: float = setting(
        0.01,
        "probability of an alarm if nothing has changed, at most, above 0 and below 1",
        check=_inner_fraction,
        allowed="above 0 and below 1",
    )
    min_area_under_roc: float = setting(
        0.0,
        "areaUnderROC, 0 to 1, of the labelled rows of a table: an alarm if its whole 95 % interval is below; 0: none is",
        check=_fraction,
        allowed="0 to 1",
    )
    train_data_uri: str = given(
        "labelled data on which an alarm starts a training; model_uri is then that of a model in a registry",
        "",
        only_with=Step.LOAD,
    )
    cooldown_hours: float = setting(
        24.0,
        "an alarm starts no training so many hours after the last one for the same model was started, 0 or more",
        check=_not_negative,
        allowed="0 or more",
        only_with=Step.LOAD,
    )
    report_uri: str = output("HTML", "file for the HTML report", artifact="report", file="report.html")
    output_uri: str = output(
        "Artifact", "directory for drift.json and result.json", artifact="drift", parts=("drift.json",)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # KFP's local runner writes the value between quotes into a Python expression: kfp/local/orchestrator/enhanced_dag_orchestrator.py.
        if {"'", "\\"} & set(self.train_data_uri):
            raise InputError(
                f"{flag(TRAIN_DATA_URI)}={self.train_data_uri}: a quote or a backslash in it is not allowed; rename the file"
            )


ARGUMENTS: Mapping[Step, type[StepArgs]] = types.MappingProxyType(
    {
        Step.LOAD: LoadArgs,
        Step.PREPROCESS: PreprocessArgs,
        Step.TRAIN: TrainArgs,
        Step.EVALUATE: EvaluateArgs,
        Step.PROMOTE: PromoteArgs,
        Step.TUNE: TuneArgs,
        Step.PREDICT: PredictArgs,
        Step.DRIFT: DriftArgs,
    }
)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline as data: its name and its steps, from which the KFP graph, local runs and cluster runs are derived.

    Attributes:
        name: name of its module in `kfp_pipeline.pipelines`.
        title: name that the UI shows.
        about: what the pipeline does, in one sentence.
        group: name of the group of tasks in KFP's UI.
        steps: the steps in topological order: each follows those whose output it reads.
        optional: the steps that run only if an input says so that is no argument of a step: step to this input, a boolean.
    """

    name: str
    title: str
    about: str
    group: str
    steps: tuple[Step, ...]
    optional: Mapping[Step, Argument] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for place, step in enumerate(self.steps):
            before = self.steps[:place]
            for item in ARGUMENTS[step].arguments(Role.FROM_STEP):
                if item.step not in before and (item.needed or item.step in self.steps):
                    raise TypeError(f"pipeline {self.name}: {step} reads {item.step}, which does not come before it")
            if ARGUMENTS[step].REUSED_BY_KFP and not any(ARGUMENTS[each].REUSED_BY_DATA for each in before):
                raise TypeError(
                    f"pipeline {self.name}: no step before {step} tells the version of the code, which KFP's cache needs"
                )

    @property
    def kfp_name(self) -> str:
        """The pipeline's name on a KFP server, and the name of the folder that holds the outputs of its runs."""
        return f"spark-kfp-{self.name.replace('_', '-')}"

    def arguments_of(self, step: Step, *roles: Role) -> list[Argument]:
        """Returns the arguments of a step but those that another step always chooses here, and those of a step that the pipeline lacks.

        An input from outside that is for another step is required where that step is.
        """
        return [
            replace(item, default=None) if item.only_with and item.role == Role.GIVEN else item
            for item in ARGUMENTS[step].arguments(*roles)
            if (item.chosen_by not in self.steps or item.chosen_by in self.optional)
            and (not item.step or item.step in self.steps)
            and (not item.only_with or item.only_with in self.steps)
        ]

    def inputs_of(self, step: Step, *roles: Role) -> list[Argument]:
        """Returns the inputs of a run that are for a step: whether it runs, if they say so, and its arguments of the given roles."""
        asked = [self.optional[step]] if step in self.optional else []
        return [*(item for item in asked if item.role in roles), *self.arguments_of(step, *roles)]

    def inputs(self, *roles: Role) -> dict[str, Argument]:
        """Returns the inputs of a run by name: those from outside and the settings, or only those of the given roles.

        If two steps have an input of the same name, the run passes one value to both.
        """
        found: dict[str, Argument] = {}
        for step in self.steps:
            for item in self.inputs_of(step, *(roles or (Role.GIVEN, Role.SETTING))):
                found.setdefault(item.name, item)
        return found

    def condition(self, step: Step) -> str:
        """Returns the name of the input without which a run leaves the step out; empty if there is none."""
        return self.optional[step].name if step in self.optional else ARGUMENTS[step].RUNS_IF

    def steps_of(self, values: Mapping[str, Any]) -> tuple[Step, ...]:
        """Returns the steps that a run with these inputs may have: a step with a condition only if that input is given."""
        return tuple(step for step in self.steps if not self.condition(step) or values.get(self.condition(step)))

    def for_run(self, values: Mapping[str, Any]) -> Pipeline:
        """Returns the pipeline without the steps that a run with these inputs leaves out; none of the others is optional."""
        return replace(self, steps=self.steps_of(values), optional={})

    def decides(self, step: Step) -> bool:
        """Returns whether the later steps of this pipeline run only if the step decides so."""
        return bool(ARGUMENTS[step].DECIDES) and step != self.steps[-1]

    def chosen(self, step: Step, facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """Returns what a finished step has chosen for the later ones.

        Args:
            step: a step of this pipeline.
            facts: of its result.

        Returns:
            The inputs by name; None if the later steps are left out.
        """
        if not self.decides(step):
            return {}
        decision = facts[ARGUMENTS[step].DECIDES]
        later = self.steps[self.steps.index(step) + 1 :]
        chosen = [item for each in later for item in ARGUMENTS[each].arguments(Role.GIVEN) if item.chosen_by == step]
        return {item.name: decision for item in chosen} if decision else None

    def check_settings(self, values: Mapping[str, Any]) -> None:
        """Checks the settings of all steps before the run starts, when the URIs of the outputs are not known yet.

        Args:
            values: settings by name; missing ones have their defaults, and names that are no settings are ignored.

        Raises:
            InputError: a setting is out of range, two settings contradict each other, or the run would ignore one.
        """
        run = self.for_run(values)
        self._refuse_ignored(run, values)
        for step in run.steps:
            kind = ARGUMENTS[step]
            defaults = kind.settings()
            edges = {item.name: item.step for item in run.arguments_of(step, Role.FROM_STEP)}
            given = {name: values.get(name, defaults[name]) for name in defaults}
            kind(**{**dict.fromkeys(kind.names(), ""), **given, **edges})

    def _refuse_ignored(self, run: Pipeline, values: Mapping[str, Any]) -> None:
        """Refuses a setting that no step of the run takes, as another step chooses it or its own is left out."""
        taken = run.inputs(Role.SETTING)
        for step in self.steps:
            for item in self.arguments_of(step, Role.SETTING):
                if item.name in taken or values.get(item.name, item.default) == item.default:
                    continue
                if item.chosen_by in run.steps:
                    condition = self.condition(Step(item.chosen_by))
                    raise InputError(
                        f"{flag(item.name)}: with {flag(condition)} the step {item.chosen_by} chooses it; leave one of them out"
                    )
                condition = flag(self.condition(step))
                raise InputError(
                    f"{flag(item.name)} is for the step {step}, which runs with {condition} only: give {condition} too, or leave "
                    f"{flag(item.name)} out"
                )

    def arguments_below(self, root: str, step: Step, values: Mapping[str, Any]) -> Any:
        """Returns the arguments of a step in a run that keeps all outputs below one URI, in a folder for each step.

        Args:
            root: the URI of the run's folder.
            step: a step of this pipeline.
            values: the inputs of the run by name; missing settings have their defaults.

        Raises:
            InputError: a value is not allowed.
        """
        kind = ARGUMENTS[step]
        made: dict[str, Any] = {name: values[name] for name in kind.names(Role.GIVEN, Role.SETTING) if name in values}
        edges = self.for_run(values).arguments_of(step, Role.FROM_STEP)
        made |= {item.name: f"{root}/{item.step}" for item in edges}
        made |= {item.name: f"{root}/{item.file or step}" for item in kind.arguments(Role.OUTPUT)}
        return kind(**made)


TUNE_FIRST = Argument(
    name="tune_first",
    type="bool",
    default=False,
    about="search the settings of the model first, train it with the best ones, and evaluate it beside the untuned model",
    role=Role.SETTING,
)
TRAINING = Pipeline(
    name="training",
    title="Train a Spark ML model",
    about="Trains a Spark ML model, tuned first if asked, evaluates it, and promotes it if a model name is given.",
    group="Training, with curves and report",  # a person opens it to see the report
    steps=(Step.LOAD, Step.PREPROCESS, Step.TUNE, Step.TRAIN, Step.EVALUATE, Step.PROMOTE),
    optional={Step.TUNE: TUNE_FIRST},
)
TUNING = Pipeline(
    name="tuning",
    title="Tune a Spark ML model",
    about="Searches the settings with which a Spark ML model does best on the validation rows.",
    group="Tuning, with the table of trials",
    steps=(Step.LOAD, Step.PREPROCESS, Step.TUNE),
)
SCORING = Pipeline(
    name="scoring",
    title="Score a table",
    about="Scores a table with a trained model.",
    group="Scoring",
    steps=(Step.PREDICT,),
)
MONITORING = Pipeline(
    name="monitoring",
    title="Look for drift",
    about="Compares a table, or what a server counted, with the rows that a model was trained on.",
    group="Monitoring, with report",
    steps=(Step.DRIFT,),
)
RETRAINING = Pipeline(
    name="retraining",
    title="Look for drift, then train a Spark ML model",
    about="Looks for drift and, after an alarm, trains and evaluates a Spark ML model, and promotes it if the gate lets it.",
    group="Retraining, with report",
    steps=(Step.DRIFT, *TRAINING.steps),
    optional=TRAINING.optional,
)
PIPELINES: Mapping[str, Pipeline] = types.MappingProxyType(
    {pipeline.name: pipeline for pipeline in (TRAINING, TUNING, SCORING, MONITORING, RETRAINING)}
)


def outputs_of(step: str) -> list[str]:
    """Returns the names of a step's output arguments, including the main output."""
    return ARGUMENTS[Step(step)].names(Role.OUTPUT)


assert all(OUTPUT_URI in kind.names(Role.OUTPUT) for kind in ARGUMENTS.values())
assert not any(kind.REUSED_BY_KFP and kind.arguments(Role.GIVEN) for kind in ARGUMENTS.values()), (
    "KFP's cache compares the URI of data from outside and not the data: it must not replace a step that reads them"
)
