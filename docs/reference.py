"""Writes the two pages of reference, commands.md and settings.md, from the code: `make generate`, or this file alone.

The pages are checked in, so that they can be read without building anything; `tests/test_docs.py` says when they are out of date.
"""

from __future__ import annotations

import argparse
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from kfp_pipeline import settings
from kfp_pipeline.commands.main import make_parser
from kfp_pipeline.component_settings import PLATFORM_INPUTS
from kfp_pipeline.pipelines import training
from kfp_pipeline.runtime.spark_operator import manifest
from kfp_pipeline.runtime.spark_operator.tracking import Limits
from kfp_pipeline.runtime.time_limits import LIMITS_KEY
from kfp_pipeline.task_settings import Platform
from spark_jobs.arguments import Argument, flag
from spark_jobs.contract import ARGUMENTS, TRAINING
from spark_jobs.object_store_settings import ObjectStoreSettings

HERE = Path(__file__).parent
WIDTH = 138
NOTE = "<!-- Made from the code by `make generate`: change the code, not this page. -->"
VARIABLES: Mapping[str, Mapping[str, str]] = {
    "Settings": {"": "SPARK_KFP_{}"},
    "ObjectStoreSettings": {"": "AWS_{}"},
    "KfpSettings": {"": "KFP_{}", "url": "SPARK_KFP_KFP", "namespace": "", "ca_file": ""},
}
"""By class and field the environment variable behind a setting; of `""` for all other fields; empty: there is only a flag."""


def pages() -> dict[str, str]:
    """The name and the text of each page."""
    return {"commands.md": commands_page(), "settings.md": settings_page()}


def commands_page() -> str:
    """Every command with its flags, from the parser itself."""
    intro = (
        "Every command of `spark-kfp`, as its parser knows it. `spark-kfp COMMAND --help` prints the same. "
        "Exit codes: 0; 2 for bad input; 130 when interrupted; 1 for any other failure, or a closed `gate`; 3 if `gate` cannot tell."
    )
    return page("Commands", intro, commands_of(make_parser(), "spark-kfp"))


def commands_of(parser: argparse.ArgumentParser, name: str, about: str = "") -> Iterator[str]:
    """The section of a command that does something itself, or those of its subcommands."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield section(f"`{name}`", sentence(about), *flags_of(parser))
    for group in groups:
        helps = {action.dest: action.help or "" for action in group._choices_actions}
        for word, inner in group.choices.items():
            yield from commands_of(inner, f"{name} {word}", helps.get(word, ""))


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """The table of a command's arguments; nothing if it has none."""
    shown = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    rows = [(usage_of(action), plain(about_of(action, parser.prog))) for action in shown]
    return [table(("argument", "meaning"), rows)] if rows else ["It takes no arguments."]


def usage_of(action: argparse.Action) -> str:
    """An argument as it is typed."""
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    takes = action.option_strings and action.nargs != 0
    shown = f" {plain(str(action.metavar or action.dest).upper())}" if takes and not action.choices else ""
    return names + shown + (" (required)" if action.option_strings and action.required else "")


def about_of(action: argparse.Action, prog: str) -> str:
    """The help of an argument, with its choices and its default filled in."""
    about = (action.help or "") % {**vars(action), "prog": prog}
    choices = f"; one of {', '.join(map(str, action.choices))}" if action.choices else ""
    again = "; may be given more than once" if isinstance(action, argparse._AppendAction) else ""
    return about + choices + again


def settings_page() -> str:
    """Everything that can be set, and where."""
    intro = (
        "What can be set and where: by the environment, by arguments of a step, by inputs of the pipeline, by a run's Spark "
        "settings and by the ConfigMap. What the manifests set is in [spark-operator/](../spark-operator/README.md)."
    )
    return page("Settings", intro, environment(), steps(), [pipeline_inputs(), platform(), run_may_set(), limits()])


def environment() -> Iterator[str]:
    """The settings that are read from the environment: a section for each class."""
    own = [kind for kind in vars(settings).values() if inspect.isclass(kind) and is_dataclass(kind)]
    for kind in (*own, ObjectStoreSettings):
        first, about = (inspect.getdoc(kind) or "").split("\n")[0], attributes_of(kind)
        rows = [
            (variable, default_of(item.default), plain(about[item.name]))
            for item in fields(kind)
            if (variable := variable_of(kind.__name__, item.name))
        ]
        names = ("variable", "default", "meaning")
        yield section(f"Environment: {kind.__name__}", first, table(names, rows))


def variable_of(kind: str, name: str) -> str:
    """The environment variable of a field; empty if there is none."""
    known = VARIABLES[kind]
    found = known.get(name, known[""]).format(name.upper())
    return f"`{found}`" if found else ""


def steps() -> Iterator[str]:
    """The arguments of each step."""
    for step, kind in ARGUMENTS.items():
        rows = [(f"`{flag(item.name)}`", *described(item)) for item in kind.arguments()]
        names = ("argument", "type", "default", "meaning")
        yield section(f"Step: {step}", kind.__doc__ or "", table(names, rows))


def described(item: Argument) -> tuple[str, str, str]:
    """Type, default and meaning of an argument of a step."""
    about = item.about + (f"; one of {', '.join(item.choices)}" if item.choices else "")
    if item.search:
        about += (
            f"; a tuner tries {item.search.low:g} to {item.search.high:g}{', on a logarithmic scale' * item.search.log}"
        )
    return item.type, default_of(item.default), plain(about)


def pipeline_inputs() -> str:
    """The inputs of the compiled pipeline."""
    known = training.training_pipeline.pipeline_spec.root.input_definitions.parameters
    rows = [
        (f"`{item.name}`", item.type, default_of(item.default), plain(item.about))
        for item in TRAINING.inputs().values()
    ]
    rows += [
        (f"`{name}`", type_, default_of(json_format.MessageToDict(known[name])["defaultValue"]), plain(about))
        for name, (type_, about) in PLATFORM_INPUTS.items()
    ]
    intro = "What a run of the compiled pipeline can be given, in KFP's UI or by a client."
    return section("Inputs of the pipeline", intro, table(("input", "type", "default", "meaning"), rows))


def platform() -> str:
    """What every task of the compiled pipeline gets."""
    about = attributes_of(Platform)
    rows = [(f"`{item.name}`", default_of(item.default), plain(about[item.name])) for item in fields(Platform)]
    intro = "`--platform FILE` of `compile`, `upload`, `run --kfp` and `schedule create`: a YAML file that maps some of these to values."
    return section("What every task gets", intro, table(("setting", "default", "meaning"), rows))


def run_may_set() -> str:
    """What a run may change of its SparkApplications."""
    intro = (
        "`--spark-settings FILE`, or the pipeline's input `spark_settings`: under `all`, `load`, `preprocess`, `train` or "
        "`evaluate` a partial spec of a SparkApplication. Anything that is not listed here is refused; whoever runs the platform sets it."
    )
    rows = [
        (f"`{name}`", ", ".join(f"`{field}`" for field in allowed) if allowed else "any" * (name != "sparkConf"))
        for name, allowed in manifest.RUN_MAY_SET.items()
    ]
    rows = [(name, allowed or "names that match the pattern below") for name, allowed in rows]
    pattern = f"```text\n{manifest.RUN_MAY_SET_IN_SPARK_CONF.pattern}\n```"
    return section("What a run may change", intro, table(("part of the spec", "fields"), rows), pattern)


def limits() -> str:
    """How long a stage of an application may take."""
    about = attributes_of(Limits)
    rows = [(f"`{item.name}`", f"{item.default:g}", plain(about[item.name])) for item in fields(Limits)]
    intro = f"`{LIMITS_KEY}` in the ConfigMap `spark-kfp`, if it is there, sets them for the namespace, in seconds."
    return section("Time limits of a SparkApplication", intro, table(("limit", "default", "meaning"), rows))


def attributes_of(kind: type) -> dict[str, str]:
    """The meaning of each attribute, from the class's docstring."""
    listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    found = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", listed, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", about).rstrip(".") for name, about in found}


def default_of(value: Any) -> str:
    """A default as it is typed."""
    if value is None:
        return "required"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else "empty"


def page(title: str, intro: str, *parts: Iterable[str]) -> str:
    """A page: a title, an introduction and its sections."""
    return "\n\n".join([f"# {title}", NOTE, filled(intro), *(text for part in parts for text in part)]) + "\n"


def section(title: str, *paragraphs: str) -> str:
    """A section; paragraphs without text are left out."""
    shown = [text if "\n" in text else filled(text) for text in paragraphs if text]
    return "\n\n".join([f"## {title}", *shown])


def filled(text: str) -> str:
    """A paragraph in lines of one width."""
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def plain(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([*<>\[\]])", r"\\\1", text) if "`" not in text else text


def sentence(text: str) -> str:
    """A help text as a sentence."""
    return f"{text[:1].upper()}{plain(text[1:])}." if text else ""


def main(folder: Path = HERE) -> None:
    """Writes the pages."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
