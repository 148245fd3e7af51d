"""Declares the arguments of a step as dataclass fields, and converts them to and from a command line.

A step's arguments are a frozen dataclass whose fields are made by `setting`, `given`, `from_step` and `output`. The field itself records
whether a user sets it, whether it comes from outside the run or from another step, and what the step writes. The command line, the KFP
component and the edges of the graph are derived from these records, so there is no second list of names. `spark_jobs.contract` holds the
declarations. This module imports only the standard library.
"""

from __future__ import annotations

import argparse
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, ClassVar, NoReturn, TypeVar

from spark_jobs.errors import InputError

TYPES: Mapping[str, type] = types.MappingProxyType({"str": str, "int": int, "float": float, "bool": bool})
"""The types that a field may have: both a command line and the inputs of a KFP component can carry these."""
OUTPUT_URI = "output_uri"
"""Name of every step's main output: the directory that holds the result document."""
_KEY = "spark_kfp"
"""Key of the `Argument` in a dataclass field's metadata."""


class Role(StrEnum):
    """Where the value of an argument comes from."""

    SETTING = "setting"
    """The user may set it; it has a default."""
    GIVEN = "given"
    """An input from outside the run, such as the URI of the data."""
    FROM_STEP = "from_step"
    """The URI of another step's output: an edge of the pipeline's graph."""
    OUTPUT = "output"
    """The URI to which the step writes."""


@dataclass(frozen=True)
class SearchRange:
    """The values that a hyperparameter search tries.

    Attributes:
        low: smallest value, included.
        high: largest value, included.
        log: whether values are drawn evenly on a logarithmic scale.
    """

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Argument:
    """Describes one argument of a step.

    Attributes:
        name: name of the field.
        type: `str`, `int`, `float` or `bool`.
        default: the default value; None if the argument is required.
        about: what the argument means, with its range; the help of the command line and of the KFP component.
        role: where the value comes from.
        check: returns whether a value is allowed; None: every value is.
        allowed: the values that `check` or `choices` allow, in words, for the error message.
        choices: all allowed values, if they can be listed.
        search: the values that a hyperparameter search tries; None for settings that are not tuned.
        chosen_by: the step that chooses the value instead of the user, in a pipeline that has this step; empty for most.
        only_with: the step without which a pipeline has no use for the argument; empty for most.
        step: for the role FROM_STEP, the step whose output it is.
        artifact: for the role OUTPUT, the name of the KFP output artifact.
        kind: for the role OUTPUT, the type of the KFP artifact, such as `Dataset`.
        parts: for an output directory, the files and folders that the step writes there beside the result document; it removes no others.
        file: for an output file, its default name.
        unfinished: for an output directory, the file that keeps what the step has done until it ends; a repeated one goes on from it.
    """

    name: str = ""
    type: str = "str"
    default: Any = None
    about: str
    role: Role
    check: Callable[[Any], bool] | None = None
    allowed: str = ""
    choices: tuple[str, ...] = ()
    search: SearchRange | None = None
    chosen_by: str = ""
    only_with: str = ""
    step: str = ""
    artifact: str = ""
    kind: str = ""
    parts: tuple[str, ...] = ()
    file: str = ""
    unfinished: str = ""

    @property
    def needed(self) -> bool:
        """Whether the argument is required, as it has no default."""
        return self.default is None

    def validate(self, value: Any) -> None:
        """Checks a value.

        Raises:
            InputError: the value is not allowed.
        """
        if (self.choices and value not in self.choices) or (self.check is not None and not self.check(value)):
            raise InputError(f"{flag(self.name)} is {value!r}; allowed: {self.allowed}")


def setting(
    default: Any,
    about: str,
    *,
    check: Callable[[Any], bool] | None = None,
    allowed: str = "",
    choices: Sequence[str] = (),
    search: SearchRange | None = None,
    only_with: str = "",
) -> Any:
    """Declares a field that the user may set; for the parameters see `Argument`."""
    return _field(
        default,
        Argument(
            about=about,
            role=Role.SETTING,
            check=check,
            allowed=allowed or ", ".join(choices),
            choices=tuple(choices),
            search=search,
            only_with=str(only_with),
        ),
    )


def given(about: str, default: str | None = None, *, chosen_by: str = "", only_with: str = "") -> Any:
    """Declares an input from outside the run, usually a URI; with a default it is optional. For the parameters see `Argument`."""
    return _field(default, Argument(about=about, role=Role.GIVEN, chosen_by=str(chosen_by), only_with=str(only_with)))


def from_step(step: str, *, optional: str = "") -> Any:
    """Declares the URI of another step's main output as an input; with `optional`, what an empty one means, it may be left out."""
    about = f"output of {step}" + (f"; empty: {optional}" if optional else "")
    return _field("" if optional else None, Argument(about=about, role=Role.FROM_STEP, step=str(step)))


def output(
    kind: str, about: str, *, artifact: str, parts: Sequence[str] = (), file: str = "", unfinished: str = ""
) -> Any:
    """Declares the URI of an output: a directory that gets `parts`, or a `file`; for the parameters see `Argument`."""
    return _field(
        None,
        Argument(
            about=about,
            role=Role.OUTPUT,
            kind=kind,
            artifact=artifact,
            parts=tuple(parts),
            file=file,
            unfinished=unfinished,
        ),
    )


def _field(default: Any, argument: Argument) -> Any:
    metadata = {_KEY: argument}
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)


class StepArgs:
    """Base class of every step's arguments; checks all values when an instance is created."""

    UI_ARTIFACTS: ClassVar[Mapping[str, str]] = {}
    """Artifacts that KFP's UI shows and the task fills from the result document: name to KFP type. The step itself does not write them."""
    REUSED_BY_KFP: ClassVar[bool] = False
    """Whether KFP's cache may replace the step by an earlier run's output, if inputs and code are the same."""
    REUSED_BY_DATA: ClassVar[bool] = False
    """Whether the step's task looks up the version of the data, takes over what an earlier run made of the same data with the same code,
    and tells the later tasks the version of the code."""
    REUSABLE: ClassVar[bool] = True
    """Whether a run on one machine may reuse the output of an earlier run of the step, if inputs, data and code are the same."""
    RUNS_IF: ClassVar[str] = ""
    """Name of the setting without which a pipeline leaves the step out; empty: it always runs."""
    DECIDES: ClassVar[str] = ""
    """Name of a fact of the step's result, a text, by which the step decides whether a pipeline goes on: if it is empty, the later steps
    are left out; else it is their argument that is `chosen_by` this step. A run repeated under its name keeps it. Empty for most."""

    def __init_subclass__(cls) -> None:
        for name, kind in inspect.get_annotations(cls).items():
            text = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
            if text not in TYPES and not text.startswith("ClassVar"):
                raise TypeError(f"{cls.__name__}.{name} is of type {text}; a field must be one of {', '.join(TYPES)}")

    @classmethod
    def arguments(cls, *roles: Role) -> tuple[Argument, ...]:
        """Returns the arguments in the order of their declaration; only those of the given roles, if there are any."""
        found = [
            replace(
                item.metadata[_KEY],
                name=item.name,
                type=str(item.type),
                default=None if item.default is MISSING else item.default,
            )
            for item in fields(cls)  # type: ignore[arg-type]
        ]
        return tuple(item for item in found if not roles or item.role in roles)

    @classmethod
    def names(cls, *roles: Role) -> list[str]:
        """Returns the names of `arguments(*roles)`."""
        return [item.name for item in cls.arguments(*roles)]

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """Returns the settings: name to default."""
        return {item.name: item.default for item in cls.arguments(Role.SETTING)}

    def __post_init__(self) -> None:
        for item in self.arguments():
            item.validate(getattr(self, item.name))


Args = TypeVar("Args", bound=StepArgs)


def flag(name: str) -> str:
    """Returns the command-line flag of a field: `--reg-param` for `reg_param`."""
    return "--" + name.replace("_", "-")


def to_argv(args: StepArgs) -> list[str]:
    """Formats the arguments as a command line; the inverse of `from_argv`."""
    # One word for flag and value: argparse takes a separate value that starts with a dash for a flag.
    return [f"{flag(name)}={format_value(getattr(args, name))}" for name in args.names()]


def from_argv(kind: type[Args], argv: Sequence[str], prog: str | None = None) -> Args:
    """Parses a step's command line.

    Raises:
        InputError: an argument is unknown, missing, of the wrong type or out of range.
    """
    parser = argument_parser(kind, prog)
    return kind(**vars(parser.parse_args(list(argv))))


def argument_parser(kind: type[StepArgs], prog: str | None = None) -> argparse.ArgumentParser:
    """Creates a parser for a step's command line; its help shows each field's meaning, range and default."""
    parser = RaisingParser(prog=prog, description=(kind.__doc__ or "").strip(), allow_abbrev=False)
    add_arguments(parser, kind.arguments())
    return parser


def add_arguments(parser: argparse.ArgumentParser, arguments: Sequence[Argument]) -> None:
    """Adds a flag to the parser for each argument; that of a boolean may stand alone for true."""
    for item in arguments:
        kind = TYPES[item.type]
        alone: dict[str, Any] = {"nargs": "?", "const": True} if kind is bool else {}
        about = item.about.replace("%", "%%")
        parser.add_argument(
            flag(item.name),
            dest=item.name,
            type=_parse_bool if kind is bool else kind,
            required=item.needed,
            default=None if item.needed else item.default,
            choices=item.choices or None,
            metavar=None if item.choices else kind.__name__.upper(),
            help=about if item.needed or item.default == "" else f"{about} (default {format_value(item.default)})",
            **alone,
        )


class RaisingParser(argparse.ArgumentParser):
    """Raises an InputError where argparse would end the process, so that the caller reports the error."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # argparse drops a lone `--` even where it is the value of a flag, as in `--title=--`.
        if action.option_strings and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def format_value(value: Any) -> str:
    """Formats a value as a user types it on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither true nor false; alone or before another flag it means true"
        )
    return text.lower() == "true"
