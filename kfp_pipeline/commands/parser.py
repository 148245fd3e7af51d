"""How `spark-kfp` reads its command line: one sentence for what is wrong, and the nearest name for what is not known."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from spark_jobs.arguments import Role, add_arguments
from spark_jobs.contract import ARGUMENTS, Pipeline
from spark_jobs.dataset import nearest, similar
from spark_jobs.errors import EXIT_INPUT

KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """A parser that ends the program with one sentence and no usage; flags cannot be abbreviated. Subcommands get the same."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        """Says what is wrong; exit code 2."""
        wrong_type = re.fullmatch(r"argument (\S+): invalid (\w+) value: (.+)", message)
        if wrong_type and wrong_type[2] in KINDS:
            message = f"{wrong_type[1]} is {wrong_type[3]}; it must be {KINDS[wrong_type[2]]}"
        self.exit(EXIT_INPUT, f"{self.prog}: error: {message}; {self.prog} --help lists all\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # argparse has overloads of it
        """Refuses a flag that is not known before anything else is looked at: it may be the one that is missing."""
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
        """A hint about a flag that is not known: the nearest one, or that it is an argument which has no flag."""
        for action in self._get_positional_actions():
            if name.removeprefix("--").removesuffix("-uri") == action.dest:
                word = str(action.metavar or action.dest).upper()
                return f"; give {word} without a flag: {self.prog} {word}"
        close = similar(name, self._option_string_actions)
        return f"; did you mean {close[0]}?" if close else ""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse's own, which lists all choices and proposes none."""
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings)
            wrong = f"{name} is {value!r}" if name else f"there is no command {value!r}"
            raise argparse.ArgumentError(None, f"{wrong}{nearest(str(value), map(str, action.choices))}".rstrip("?"))


def add_settings(parser: argparse.ArgumentParser, pipeline: Pipeline, *, grouped: bool = False) -> None:
    """Adds a flag for each setting of a pipeline's steps; what comes from outside a command takes by names of its own: DATA, --spec."""
    for step in pipeline.steps:
        group: Any = parser.add_argument_group(f"settings of {step}") if grouped else parser
        add_arguments(group, ARGUMENTS[step].arguments(Role.SETTING))
