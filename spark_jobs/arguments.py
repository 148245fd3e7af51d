"""How a step declares its arguments: what each one is, what it may be, and the command line that follows.

A step's arguments are a frozen dataclass whose fields are made by `setting`, `given`, `from_step` and `output`. Everything that must know
which fields a person may set, which come from outside or from another step, and what a step writes asks the field itself; there is no
second list of names. Standard library only; `spark_jobs.contract` holds the declarations.
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
"""The types that a field may have: a command line and KFP's inputs hold no other."""
OUTPUT_URI = "output_uri"
"""Every step's main output: the directory in which the result document lies."""
_KEY = "spark_kfp"


class Role(StrEnum):
    """Where the value of an argument comes from."""

    SETTING = "setting"
    """A person may set it; it has a default."""
    GIVEN = "given"
    """Whoever starts the run names it, such as the data."""
    FROM_STEP = "from_step"
    """The URI of what another step of the run has written."""
    OUTPUT = "output"
    """The URI to which the step writes."""


@dataclass(frozen=True)
class Search:
    """The values that a tuner tries: `low` to `high`, both included, evenly on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Argument:
    """What one argument of a step is.

    Attributes:
        name: of the field.
        type: str, int, float or bool.
        default: None if it must be given.
        about: what it means, with its range.
        role: where its value comes from.
        check: whether a value is allowed; None: any is.
        allowed: what `check` or `choices` allow, in words.
        choices: all values that are allowed, if they can be listed.
        search: what a tuner tries; None for settings that are not tuned.
        step: of an argument from a step, that step.
        artifact: of an output, what the KFP component calls it.
        kind: of an output, its type in KFP, such as `Dataset`.
        parts: of an output that is a directory, what the step writes in it beside the result document; it touches nothing else there.
        file: of an output that is a file, its usual name.
    """

    name: str = ""
    type: str = "str"
    default: Any = None
    about: str
    role: Role
    check: Callable[[Any], bool] | None = None
    allowed: str = ""
    choices: tuple[str, ...] = ()
    search: Search | None = None
    step: str = ""
    artifact: str = ""
    kind: str = ""
    parts: tuple[str, ...] = ()
    file: str = ""

    @property
    def needed(self) -> bool:
        """Whether it has no default."""
        return self.default is None

    def refuse_wrong(self, value: Any) -> None:
        """Raises an InputError if the value is not allowed."""
        if (self.choices and value not in self.choices) or (self.check is not None and not self.check(value)):
            raise InputError(f"{flag(self.name)} is {value!r}; allowed: {self.allowed}")


def setting(
    default: Any,
    about: str,
    *,
    check: Callable[[Any], bool] | None = None,
    allowed: str = "",
    choices: Sequence[str] = (),
    search: Search | None = None,
) -> Any:
    """A field that a person may set; see `Argument`."""
    return _field(
        default,
        Argument(
            about=about,
            role=Role.SETTING,
            check=check,
            allowed=allowed or ", ".join(choices),
            choices=tuple(choices),
            search=search,
        ),
    )


def given(about: str, default: str | None = None) -> Any:
    """A field that whoever starts the run names, a URI most often; with a default it may be left out."""
    return _field(default, Argument(about=about, role=Role.GIVEN))


def from_step(step: str) -> Any:
    """A field that is the URI of another step's main output."""
    return _field(None, Argument(about=f"output of {step}", role=Role.FROM_STEP, step=str(step)))


def output(kind: str, about: str, *, artifact: str, parts: Sequence[str] = (), file: str = "") -> Any:
    """A field that is the URI to which the step writes: a directory with `parts`, or a `file`; see `Argument`."""
    return _field(
        None,
        Argument(about=about, role=Role.OUTPUT, kind=kind, artifact=artifact, parts=tuple(parts), file=file),
    )


def _field(default: Any, argument: Argument) -> Any:
    metadata = {_KEY: argument}
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)


class StepArgs:
    """Base of every step's arguments: validates ranges and choices when an instance is made."""

    SHOWS: ClassVar[Mapping[str, str]] = {}
    """Further artifacts of the step's KFP component, which the task fills from the result document: name to type in KFP."""
    REUSED_BY_KFP: ClassVar[bool] = False
    """Whether KFP's cache may take the step over from an earlier run with the same inputs and code."""

    def __init_subclass__(cls) -> None:
        for name, kind in inspect.get_annotations(cls).items():
            text = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
            if text not in TYPES and not text.startswith("ClassVar"):
                raise TypeError(f"{cls.__name__}.{name} is of type {text}; a field must be one of {', '.join(TYPES)}")

    @classmethod
    def arguments(cls, *roles: Role) -> tuple[Argument, ...]:
        """The arguments in the order of their declaration, of some roles only if they are named."""
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
        """The names of the arguments, of some roles only if they are named."""
        return [item.name for item in cls.arguments(*roles)]

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """What a person may set: name to default."""
        return {item.name: item.default for item in cls.arguments(Role.SETTING)}

    def __post_init__(self) -> None:
        for item in self.arguments():
            item.refuse_wrong(getattr(self, item.name))


Args = TypeVar("Args", bound=StepArgs)


def flag(name: str) -> str:
    """The command-line flag of a field: `reg_param` is `--reg-param`."""
    return "--" + name.replace("_", "-")


def to_argv(args: StepArgs) -> list[str]:
    """The arguments as a command line; the inverse of `from_argv`."""
    # One word for each, so that a value that starts with a dash stays a value.
    return [f"{flag(name)}={text_of(getattr(args, name))}" for name in args.names()]


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
    add_arguments(parser, kind.arguments())
    return parser


def add_arguments(parser: argparse.ArgumentParser, arguments: Sequence[Argument]) -> None:
    """Adds a flag for each argument."""
    for item in arguments:
        kind = TYPES[item.type]
        about = item.about.replace("%", "%%")
        parser.add_argument(
            flag(item.name),
            dest=item.name,
            type=_parse_bool if kind is bool else kind,
            required=item.needed,
            default=None if item.needed else item.default,
            choices=item.choices or None,
            metavar=None if item.choices else kind.__name__.upper(),
            help=about if item.needed or item.default == "" else f"{about} (default {text_of(item.default)})",
        )


class _Parser(argparse.ArgumentParser):
    """Raises instead of exiting, so that a caller can say where the argument came from."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # argparse drops a lone `--` even where it is the value of a flag, as in `--title=--`.
        if action.option_strings and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def text_of(value: Any) -> str:
    """A value as it is typed on a command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
