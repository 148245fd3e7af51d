"""The commands of `spark-kfp data`: profile a table before a run, and upload it to the object store for a cluster."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from kfp_pipeline.commands import display
from kfp_pipeline.commands.input_checks import check_inputs
from kfp_pipeline.runtime.runner import runner_for
from kfp_pipeline.runtime.scratch import scratch_folder
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import Role, add_arguments
from spark_jobs.contract import LoadArgs, Step
from spark_jobs.errors import InputError

WIDTH_OF_A_PIPE = 10_000
"""Width of the console, in columns, if the output is a pipe."""


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser of `spark-kfp`."""
    about = "look at data, or bring it to where a cluster can read it"
    data = commands.add_parser("data", help=about).add_subparsers(required=True, metavar="COMMAND")
    _add_check(data)
    upload = data.add_parser("upload", help="put a file into the object store")
    upload.add_argument("file", help="the file")
    upload.add_argument("uri", help="where it goes: s3://BUCKET/NAME, or s3://BUCKET/FOLDER/ to keep the file's name")
    upload.set_defaults(command=upload_command)
    bucket = data.add_parser("make-bucket", help="make a bucket in the object store, if it is not there")
    bucket.add_argument("bucket", help="its name")
    bucket.set_defaults(command=make_bucket_command)


def _add_check(commands: Any) -> None:
    parser = commands.add_parser("check", help="infer or check a data specification, and print a profile")
    parser.add_argument("data", help="the table")
    parser.add_argument("--spec", default="", dest="specification_uri", help="data specification (TOML) to check")
    parser.add_argument(
        "-o",
        "--output",
        default="",
        help="specification to write (default: name of the data with .toml, in this folder)",
    )
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")
    parser.add_argument("--json", action="store_true", help="print the profile as JSON and nothing else")
    add_arguments(parser, LoadArgs.arguments(Role.SETTING))
    parser.set_defaults(command=check_command)


def check_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Runs the step load, prints the profile of the data and writes the inferred specification."""
    name = Path(arguments.data.rstrip("/")).name.split(".")[0] or "data"
    target = Path(arguments.output or f"{name}.toml")
    if target.exists() and not arguments.force and not arguments.specification_uri:
        raise InputError(f"{target} is there already; give --force to replace it, or -o with another name")
    given: dict[str, Any] = {name: getattr(arguments, name) for name in LoadArgs.settings()}
    given |= {"data_uri": absolute(arguments.data), "specification_uri": absolute(arguments.specification_uri)}
    with scratch_folder() as folder:
        output = folder / "load"
        args = LoadArgs(**given, output_uri=str(output))
        check_inputs(args)
        result = runner_for("local[*]", settings).run(Step.LOAD, args, folder / "load.log")
        profile = json.loads((output / "profile.json").read_text(encoding="utf-8"))
        specification = (output / "specification.toml").read_text(encoding="utf-8")
    if arguments.json:
        print(json.dumps(profile, ensure_ascii=False))
    else:
        show_profile(profile, result.warnings)
    if not arguments.specification_uri or arguments.output:
        target.write_text(specification, encoding="utf-8")
        print(f"specification: {target}", file=sys.stderr if arguments.json else sys.stdout)
    return 0


def show_profile(profile: dict[str, Any], warnings: Sequence[str]) -> None:
    """Prints a profile as a table. Into a pipe, names are never shortened or wrapped."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_OF_A_PIPE)
    layout = f", delimiter {profile['delimiter']!r}, {profile['encoding']}" if profile["encoding"] else ""
    console.print(f"{profile['rows']:,} rows, {profile['rejected']:,} rejected{layout}\n", highlight=False)
    console.print(display.profile_table(profile))
    classes = ", ".join(
        f"{value} {count:,} ({count / profile['rows']:.1%})" for value, count in profile["class_counts"].items()
    )
    console.print(Text(f"\nclasses: {classes}"))
    for item in profile["suspicious"]:
        console.print(Text(f"suspicious: {item['column']} {item['reason']}", style="yellow"))
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))


def upload_command(arguments: argparse.Namespace, _: Settings) -> int:
    """Uploads a file to the object store, and prints its URI, size and checksum."""
    from kfp_pipeline.runtime import object_store  # noqa: PLC0415 - `spark-kfp run` needs none of it

    path = Path(arguments.file)
    uri = arguments.uri + path.name if arguments.uri.endswith("/") else arguments.uri
    if not object_store.is_object_store_uri(uri):
        raise InputError(f"{uri}: not a URI like s3://BUCKET/NAME")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(path.name, total=path.stat().st_size)
        digest = object_store.upload(path, uri, lambda sent: progress.advance(task, sent))
    print(f"{uri}  {path.stat().st_size:,} bytes  sha256 {digest}")
    return 0


def make_bucket_command(arguments: argparse.Namespace, _: Settings) -> int:
    """Creates a bucket, unless it exists."""
    from kfp_pipeline.runtime import object_store  # noqa: PLC0415

    made = object_store.make_bucket(arguments.bucket)
    print(f"bucket {arguments.bucket} {'made' if made else 'was there'}")
    return 0


def absolute(uri: str) -> str:
    """Makes a local path absolute, so that it means the same in a process with another working folder; other URIs stay as they are."""
    return uri if "://" in uri or uri.startswith("file:") or not uri else str(Path(uri).absolute())
