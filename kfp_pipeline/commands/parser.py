"""The parser of the command line, which reports a mistake in one sentence, and the flags that follow from a pipeline's inputs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from spark_jobs.arguments import Role, add_arguments
from spark_jobs.contract import DATA_URI, PIPELINES, SPECIFICATION_URI, TRAINING, Pipeline
from spark_jobs.dataset import did_you_mean, similar_names
from spark_jobs.errors import EXIT_INPUT, InputError

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
            if name.removeprefix("--").removesuffix("-uri") == action.dest.removesuffix("_uri"):
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


def chosen_pipeline(argv: Sequence[str] | None) -> Pipeline:
    """Returns the pipeline that `--pipeline` names in a command line, or the training pipeline if the flag is not there.

    The inputs of the pipeline are flags of the command, so the pipeline must be known before the parser is built.

    Raises:
        InputError: there is no pipeline of this name.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--pipeline", nargs="?", const=TRAINING.name, default=TRAINING.name)
    return _pipeline_named(parser.parse_known_args(argv)[0].pipeline)


def _pipeline_named(name: str) -> Pipeline:
    if name not in PIPELINES:
        raise InputError(f"there is no pipeline {name!r}{did_you_mean(name, PIPELINES)}")
    return PIPELINES[name]


def add_pipeline_flag(parser: Any) -> None:
    """Adds `--pipeline`; its value is the `Pipeline`."""
    about = f"name of the pipeline: {', '.join(PIPELINES)} (default {TRAINING.name})"
    parser.add_argument("--pipeline", type=_pipeline_named, default=TRAINING, metavar="NAME", help=about)


def add_external_inputs(
    parser: argparse.ArgumentParser, pipeline: Pipeline, *, data: str, sample: bool = False
) -> None:
    """Adds the inputs of a pipeline that come from outside: the data as DATA, the data specification as `--spec`, others by a flag.

    Args:
        parser: parser of a command.
        pipeline: the pipeline.
        data: help of DATA.
        sample: whether DATA may be left out, because the command then takes the bundled sample.
    """
    for item in pipeline.inputs(Role.GIVEN).values():
        if item.name == DATA_URI:
            optional: dict[str, Any] = {"nargs": "?", "default": ""} if sample else {}
            parser.add_argument(item.name, metavar="DATA", help=data, **optional)
        elif item.name == SPECIFICATION_URI:
            parser.add_argument("--spec", default="", dest=item.name, help="data specification (TOML)")
        else:
            add_arguments(parser, [item])


def add_settings(parser: argparse.ArgumentParser, pipeline: Pipeline, *, grouped: bool = False) -> None:
    """Adds a flag for each setting of a pipeline's steps; in the help they can be grouped by step."""
    known: set[str] = set()
    for step in pipeline.steps:
        settings = [item for item in pipeline.inputs_of(step, Role.SETTING) if item.name not in known]
        known |= {
            item.name for item in settings
        }  # if two steps have a setting of one name, the run passes one value to both
        group: Any = parser.add_argument_group(f"settings of {step}") if grouped and settings else parser
        add_arguments(group, settings)
