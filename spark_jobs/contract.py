"""What crosses between Kubeflow and Spark: the steps, their arguments, their result document.

This is the single truth behind the command line of a step, the inputs of its KFP component and the names that a tuner may set.
It is standard library only, because both halves import it and neither may bring the other's packages along. It knows nothing of
Spark or Kubernetes.
"""

from __future__ import annotations

import argparse
import inspect
import json
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, NoReturn, TypeVar, get_type_hints

CONTRACT_VERSION = 1
RESULT_NAME = "result.json"
OUTPUTS = ("output_uri", "report_uri")
"""Arguments that say where a step writes; every other URI is read."""
LEAK = "leak"
"""Kind of a suspicious column, in a profile and an evaluation, that all but tells the label."""
STANDBY = "standby"
"""Word in a step's place: start Spark, and wait for what to run."""
EXIT_INPUT = 2
"""Exit code of a step whose input or settings are wrong: repeating it as it is cannot help."""
EXIT_FAULT = 1
"""Exit code of a step that failed for any other reason."""
EXIT_INTERRUPTED = 130
"""Exit code of a command that was interrupted: what a shell gives for SIGINT."""


class Step(StrEnum):
    """The steps, in the order in which a training pipeline runs them."""

    LOAD = "load"
    PREPROCESS = "preprocess"
    TRAIN = "train"
    EVALUATE = "evaluate"


class InputError(ValueError):
    """The data, a specification or a setting is wrong; the text names which one and the next thing to do."""


class UnavailableError(OSError):
    """Something that a step needs, such as the object store, does not answer; repeating the step may help."""


OBJECT_STORE_SCHEMES = ("s3", "s3a", "minio")
"""Schemes of URIs that point into an object store; all three mean the same one."""
SPLITS = ("hash", "ordered")
THRESHOLD_RULES = ("max_f1", "max_accuracy", "youden", "half")
FAMILIES = ("auto", "binomial", "multinomial")
CLASS_WEIGHTS = ("none", "balanced")
HEADERS = ("auto", "yes", "no")
SMALL_CLASSES = ("merge", "drop")


def setting(
    default: Any,
    about: str,
    *,
    check: Callable[[Any], bool] | None = None,
    allowed: str = "",
    choices: Sequence[str] = (),
) -> Any:
    """A dataclass field.

    Args:
        default: `MISSING` for an argument that must be given.
        about: what it means, with its range.
        check: whether a value is allowed.
        allowed: what `check` allows, for the message to whoever gave another value.
        choices: all values that are allowed, if they can be listed.
    """
    metadata = types.MappingProxyType(
        {"about": about, "check": check, "allowed": allowed or ", ".join(choices), "choices": tuple(choices)}
    )
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


TYPES: Mapping[str, type] = types.MappingProxyType({"str": str, "int": int, "float": float, "bool": bool})
"""The types that a field may have: a command line and KFP's inputs hold no other."""


class StepArgs:
    """Base of every step's arguments: validates ranges and choices when an instance is made."""

    def __init_subclass__(cls) -> None:
        for name, kind in inspect.get_annotations(cls).items():
            text = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
            if text not in TYPES:
                raise TypeError(f"{cls.__name__}.{name} is of type {text}; a field must be one of {', '.join(TYPES)}")

    @classmethod
    def names(cls) -> list[str]:
        """The names of the arguments."""
        return [item.name for item in fields(cls)]  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            value = getattr(self, item.name)
            choices, check = item.metadata["choices"], item.metadata["check"]
            wrong = (choices and value not in choices) or (check is not None and not check(value))
            if wrong:
                raise InputError(f"{flag(item.name)} is {value!r}; allowed: {item.metadata['allowed']}")


def _character(value: str) -> bool:
    return len(value) <= 1


def _fraction(value: float) -> bool:
    return 0.0 <= value <= 1.0


def _positive(value: float) -> bool:
    return 0.0 < value < float("inf")


def _not_negative(value: float) -> bool:
    return 0.0 <= value < float("inf")


@dataclass(frozen=True, kw_only=True)
class LoadArgs(StepArgs):
    """A CSV or Parquet table becomes typed Parquet."""

    data_uri: str = setting(
        MISSING, "CSV or Parquet: a file, a directory, a glob, gzip allowed; a path, file:, s3a:// or minio://"
    )
    specification_uri: str = setting("", "data specification (TOML); empty: types are inferred and label is needed")
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
    output_uri: str = setting(
        MISSING, "directory for rows/, rejected/, specification.toml, profile.json and result.json"
    )


@dataclass(frozen=True, kw_only=True)
class PreprocessArgs(StepArgs):
    """The typed table becomes train, validation and test features."""

    load_uri: str = setting(MISSING, "output of load")
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
        0.6,
        "share of train rows, above 0 and below 1",
        check=lambda value: 0.0 < value < 1.0,
        allowed="above 0 and below 1",
    )
    validation_fraction: float = setting(
        0.2,
        "share of validation rows, above 0 and below 1; what remains is test",
        check=lambda value: 0.0 < value < 1.0,
        allowed="above 0 and below 1",
    )
    max_categories: int = setting(
        100,
        "most values of a categorical column that are features, at least 2",
        check=lambda value: value >= 2,
        allowed="a whole number, at least 2",
    )
    output_uri: str = setting(MISSING, "directory for features/, features_model/, features.json and result.json")

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
class TrainArgs(StepArgs):
    """A logistic regression is fitted on the train rows; its threshold is chosen on the validation rows."""

    preprocess_uri: str = setting(MISSING, "output of preprocess")
    reg_param: float = setting(0.0, "regularisation strength, 0 or more", check=_not_negative, allowed="0 or more")
    elastic_net_param: float = setting(
        0.0, "share of L1 in the penalty, 0 (ridge) to 1 (lasso)", check=_fraction, allowed="0 to 1"
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
    class_weights: str = setting("none", "balanced: each class weighs the same in the fit", choices=CLASS_WEIGHTS)
    threshold_rule: str = setting(
        "max_f1", "how the decision threshold is chosen on the validation rows; half: 0.5", choices=THRESHOLD_RULES
    )
    output_uri: str = setting(MISSING, "directory for model/, scorecard.json and result.json")


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(StepArgs):
    """The model is judged on the test rows."""

    preprocess_uri: str = setting(MISSING, "output of preprocess")
    train_uri: str = setting(MISSING, "output of train")
    title: str = setting("", "title of the report; empty: named after the label")
    bootstrap_samples: int = setting(
        500,
        "bootstrap samples behind the intervals, 50 to 100000",
        check=lambda value: 50 <= value <= 100_000,
        allowed="50 to 100000",
    )
    report_uri: str = setting(MISSING, "file for the HTML report")
    output_uri: str = setting(MISSING, "directory for evaluation.json and result.json")


ARGUMENTS: Mapping[Step, type[StepArgs]] = types.MappingProxyType(
    {
        Step.LOAD: LoadArgs,
        Step.PREPROCESS: PreprocessArgs,
        Step.TRAIN: TrainArgs,
        Step.EVALUATE: EvaluateArgs,
    }
)
OUTPUT_PARTS: Mapping[Step, tuple[str, ...]] = types.MappingProxyType(
    {
        Step.LOAD: ("rows", "rejected", "specification.toml", "profile.json"),
        Step.PREPROCESS: ("features", "features_model", "features.json"),
        Step.TRAIN: ("model", "model_without_known_afterwards", "scorecard.json"),
        Step.EVALUATE: ("evaluation.json",),
    }
)
"""What a step writes below its `output_uri`, beside the result document; it touches nothing else there."""
Args = TypeVar("Args", bound=StepArgs)


def flag(name: str) -> str:
    """The command-line flag of a field: `reg_param` is `--reg-param`."""
    return "--" + name.replace("_", "-")


def to_argv(args: StepArgs) -> list[str]:
    """The arguments as a command line; the inverse of `from_argv`."""
    # One word for each, so that a value that starts with a dash stays a value.
    return [f"{flag(item.name)}={_text(getattr(args, item.name))}" for item in fields(args)]  # type: ignore[arg-type]


def from_argv(kind: type[Args], argv: Sequence[str], prog: str | None = None) -> Args:
    """Parses a step's command line.

    Raises:
        InputError: an argument is unknown, missing, of the wrong type or out of range.
    """
    parser = argument_parser(kind, prog)
    return kind(**vars(parser.parse_args(list(argv))))


def argument_parser(kind: type[StepArgs], prog: str | None = None) -> argparse.ArgumentParser:
    """A parser whose help shows each field's meaning, range and default."""
    parser = _Parser(prog=prog, description=(kind.__doc__ or "").strip(), allow_abbrev=False)
    add_arguments(parser, kind)
    return parser


def add_arguments(parser: argparse.ArgumentParser, kind: type[StepArgs], leave_out: Sequence[str] = ()) -> None:
    """Adds a flag for each field of `kind` that is not in `leave_out`."""
    hints = get_type_hints(kind)
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name in leave_out:
            continue
        needed = item.default is MISSING
        about = item.metadata["about"].replace("%", "%%")
        parser.add_argument(
            flag(item.name),
            dest=item.name,
            type=_parse_bool if hints[item.name] is bool else hints[item.name],
            required=needed,
            default=None if needed else item.default,
            choices=item.metadata["choices"] or None,
            metavar=None if item.metadata["choices"] else hints[item.name].__name__.upper(),
            help=about if needed or item.default == "" else f"{about} (default {_text(item.default)})",
        )


def settings_of(kind: type[StepArgs]) -> dict[str, Any]:
    """The fields that have a default, as name to default: what a person may set."""
    return {item.name: item.default for item in fields(kind) if item.default is not MISSING}  # type: ignore[arg-type]


def check_settings(given: Mapping[str, Any]) -> None:
    """Checks the steps' settings before it is known where their outputs will lie.

    Args:
        given: settings by name; those that are missing keep their defaults, and what is no setting is passed over.

    Raises:
        InputError: a setting is out of range, or two do not go together.
    """
    for kind in ARGUMENTS.values():
        defaults = settings_of(kind)
        kind(**{name: given.get(name, defaults[name]) if name in defaults else "" for name in kind.names()})


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a step failed, as data, so that it can cross a process or a cluster.

    Attributes:
        kind: `input` when the caller must change something, else `fault`.
        type: name of the exception's class.
        message: what, where and the next thing to do.
        frames: the last frames of the stack, outermost first; empty for `input`.
    """

    kind: str
    type: str
    message: str
    frames: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result document: written last and whole. A step has done its work only if this document says so.

    Attributes:
        step: the step's name.
        arguments: the step's arguments as they were given.
        status: `succeeded` or `failed`.
        rows_in: rows read.
        rows_out: rows written or judged, by name (`rows`, `rejected`, `train`, ...).
        metrics: plain finite numbers by name.
        seconds: wall seconds by phase; `total` counts from the process's start.
        columns: name and Spark type of the columns of the main output.
        inputs: content digest of each input, by argument name.
        digest: digest of what the output means (not of its bytes): equal for equal rows in any order or layout.
        uris: where the parts of the output are, by name.
        warnings: sentences that a person should read.
        facts: further plain values that the next task or the UI shows.
        failure: set if and only if `status` is `failed`.
        reused_from: URI of the earlier output when the step was not run again.
    """

    step: str
    status: str
    contract_version: int = CONTRACT_VERSION
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rows_in: int = 0
    rows_out: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    columns: tuple[tuple[str, str], ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""
    uris: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    failure: Failure | None = None
    reused_from: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Reads a result document.

        Raises:
            ValueError: it is not one, or is of another contract version.
        """
        document = json.loads(text)
        if not isinstance(document, dict) or document.get("contract_version") != CONTRACT_VERSION:
            raise ValueError(f"not a result document of contract version {CONTRACT_VERSION}")
        try:
            if document.get("failure"):
                document["failure"]["frames"] = tuple(document["failure"]["frames"])
                document["failure"] = Failure(**document["failure"])
            document["columns"] = tuple((name, kind) for name, kind in document["columns"])
            document["warnings"] = tuple(document["warnings"])
            return cls(**document)
        except (KeyError, TypeError) as error:
            raise ValueError(f"a damaged result document: {error!r}") from error


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that a caller can say where the argument came from."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # argparse drops a lone `--` even where it is the value of a flag, as in `--title=--`.
        if action.option_strings and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
