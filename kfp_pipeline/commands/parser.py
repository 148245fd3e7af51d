"""An argparse parser that reports a mistake in one sentence and suggests the nearest flag or choice."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from spark_jobs.arguments import Role, add_arguments
from spark_jobs.contract import ARGUMENTS, Pipeline
from spark_jobs.dataset import did_you_mean, similar_names
from spark_jobs.errors import EXIT_INPUT

KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """A parser that reports an error in one sentence without the usage and allows no abbreviated flags; its subparsers are the same."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Prints the error and exits with code 2."""
        wrong_type = re.fullmatch(r"argument (\S+): invalid (\w+) value: (.+)", message)
        if wrong_type and wrong_type[2] in KINDS:
            message = f"{wrong_type[1]} is {wrong_type[3]}; it must be {KINDS[wrong_type[2]]}"
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message}; {self.prog} --help lists all\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # argparse has overloads of it
        """Reports an unknown flag first: argparse would report a missing argument, which the misspelled flag may have been meant for."""
        if args is not None and not self._subparsers:
            self._refuse_unknown(args)
        return super().parse_known_args(args, namespace)

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        for word in words:
            name = word.partition("=")[0]
            if word == "--":
                return
            if re.match("--[a-z]", word) and name not in self._option_string_actions:
                self.error(f"there is no {name}{self._meant(name)}")

    def _meant(self, name: str) -> str:
        """Returns a hint about an unknown flag: the nearest flag, or that this argument is given without a flag."""
        for action in self._get_positional_actions():
            if name.removeprefix("--").removesuffix("-uri") == action.dest:
                word = str(action.metavar or action.dest).upper()
                return f"; give {word} without a flag: {self.prog} {word}"
        close = similar_names(name, self._option_string_actions)
        return f"; did you mean {close[0]}?" if close else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Checks a value against the choices; unlike argparse's own method, the error suggests the nearest choice."""
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings)
            wrong = f"{name} is {value!r}" if name else f"there is no command {value!r}"
            raise argparse.ArgumentError(None, f"{wrong}{did_you_mean(str(value), map(str, action.choices))}")


def sentence(text: str) -> str:
    """Makes the first letter of a help text a capital; unlike `str.capitalize` it leaves the other letters, as in SparkApplication."""
    return text[:1].upper() + text[1:]


def add_settings(parser: argparse.ArgumentParser, pipeline: Pipeline, *, grouped: bool = False) -> None:
    """Adds a flag for each setting of a pipeline's steps. A command adds the data and the specification itself: DATA, --spec."""
    for step in pipeline.steps:
        group: Any = parser.add_argument_group(f"settings of {step}") if grouped else parser
        add_arguments(group, ARGUMENTS[step].arguments(Role.SETTING))
