"""The command `spark-kfp serve`: becomes the process of the server, which is a program of its own.

The package `serving` stands alone, so nothing of it is imported here.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from kfp_pipeline.commands.parser import sentence
from kfp_pipeline.settings import Settings

FLAGS = {
    "model": ("NAME", "name of the model (default: the only one of the registry)"),
    "registry": ("DIR_OR_URI", "the registry whose champion is served, and followed when it changes"),
    "scorecard": ("FILE", "a scorecard.json to serve instead of a registry's champion"),
    "capture": (
        "DIR",
        "write how many of the scored rows were in which bin, a line a minute, for the step drift; no values",
    ),
    "host": ("ADDRESS", "address to listen on (default 127.0.0.1: this machine alone)"),
    "port": ("PORT", "port to listen on (default 8080)"),
}


def add_commands(commands: Any) -> None:
    """Adds `serve` to the parser of `spark-kfp`."""
    about = "serve a model over HTTP, without Spark or Java"
    more = "The page at its address is a form for a person. Further settings are environment variables; docs/serving.md lists them."
    parser = commands.add_parser("serve", help=about, description=f"{sentence(about)}. {more}")
    for name, (value, text) in FLAGS.items():
        parser.add_argument(f"--{name}", default="", metavar=value, help=text)
    parser.set_defaults(command=serve_command)


def serve_command(arguments: argparse.Namespace, _: Settings) -> int:
    """Replaces this process by the server, so that signals reach it. `-P`: no file of the current folder is imported."""
    given = [f"--{name}={value}" for name in FLAGS if (value := getattr(arguments, name))]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "serving", *given])  # noqa: S606 - a list of arguments, no shell
