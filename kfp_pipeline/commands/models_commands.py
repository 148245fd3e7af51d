"""The commands `spark-kfp models`: the versions of a model in the registry, and the pointer to its champion.

`spark_jobs.registry` keeps the versions and moves the pointer; this module reads the command line and prints.
"""

from __future__ import annotations

import argparse
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfp_pipeline.commands import display, gate_commands, mirroring
from kfp_pipeline.local import runs
from kfp_pipeline.settings import Settings
from spark_jobs import gate, promotion
from spark_jobs.comparison import compare
from spark_jobs.contract import DATA_URI, RULES_URI, TRAIN_DATA_URI
from spark_jobs.errors import InputError
from spark_jobs.local_files import local_path, write_whole
from spark_jobs.object_names import is_object_store_uri
from spark_jobs.onnx_export import onnx_model
from spark_jobs.promotion import Limits, Verdict
from spark_jobs.registry import archive, pointer, pruning, versions
from spark_jobs.registry.mirrored import CHAMPION
from spark_jobs.registry.places import Place, place_of
from spark_jobs.registry.pointer import Canary, Champion

EXIT_REFUSED = 1
"""Exit code of a promotion that the gate refuses."""
ONNX_SUFFIX = ".onnx"
CONTROL = ("Cc", "Cs", "Zl", "Zp")
"""Categories of Unicode that a line of the history may not hold: control characters, bytes that are no text, separators of lines."""
NAMES_OF_RUNS = "name of a run on this machine, its beginning, or `last`"
NAMES_OF_VERSIONS = f"a version, its beginning, `latest` or `{CHAMPION}`"


def add_commands(commands: Any) -> None:
    """Adds `models` to the parser of `spark-kfp`."""
    parser = commands.add_parser("models", help="the versions of a model, and which of them is the champion")
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    listed = _add(actions, "list", list_command, "the models, or the versions of one")
    listed.add_argument("name", nargs="?", default="", metavar="NAME", help="name of a model")
    shown = _add(actions, "show", show_command, "all of one version, and the history of the pointer")
    _add_name(shown)
    shown.add_argument(
        "version", nargs="?", default="", metavar="VERSION", help=f"{NAMES_OF_VERSIONS} (default the champion)"
    )
    compared = _add(actions, "compare", compare_command, "two versions side by side")
    _add_name(compared)
    compared.add_argument("versions", nargs=2, metavar="VERSION", help=NAMES_OF_VERSIONS)
    _add_promote(actions)
    back = _add(actions, "rollback", rollback_command, "make the champion before this one the champion again")
    _add_name(back)
    back.add_argument("--to", default="", metavar="VERSION", help="an earlier version (default: the champion before)")
    _add_why(back)
    mirroring.add_flags(back)
    canary = _add(actions, "canary", canary_command, "give a version a share of the requests beside the champion")
    _add_name(canary)
    canary.add_argument("version", nargs="?", default="", metavar="VERSION", help=NAMES_OF_VERSIONS)
    canary.add_argument("--share", type=float, default=0.1, help="its share, above 0 and below 1 (default %(default)s)")
    canary.add_argument("--end", action="store_true", help="end the canary: the champion gets all requests again")
    _add_why(canary)
    mirroring.add_flags(canary)
    mirrored = _add(
        actions, "mirror", mirror_command, "show the champion and the canary in an MLflow or a Kubeflow registry"
    )
    _add_name(mirrored)
    mirroring.add_flags(mirrored)
    pruned = _add(
        actions, "prune", prune_command, "remove old versions; never the champion, the canary or the champion before"
    )
    _add_name(pruned)
    pruned.add_argument(
        "--keep", type=int, default=10, help="how many of the newest versions stay (default %(default)s)"
    )
    pruned.add_argument("--dry-run", action="store_true", help="only say which would go")
    _add_copies(actions)


def _add(actions: Any, name: str, command: Any, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=about)
    parser.add_argument(
        "--registry",
        default="",
        metavar="URI",
        help="directory or s3:// URI of the registry (default SPARK_KFP_REGISTRY, else models)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.set_defaults(command=command)
    return parser


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the model")


def _add_why(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", type=_one_line, default="", help="reason, for the readers of the history")


def _one_line(text: str) -> str:
    if any(unicodedata.category(char) in CONTROL for char in text):
        raise argparse.ArgumentTypeError("it holds a line break or another control character; give one line of text")
    return text


def _add_promote(actions: Any) -> None:
    parser = _add(
        actions, "promote", promote_command, "make a run's model, or a version, the champion if the gate lets it"
    )
    _add_name(parser)
    parser.add_argument("candidate", metavar="RUN|VERSION", help=f"{NAMES_OF_RUNS}; or {NAMES_OF_VERSIONS}")
    parser.add_argument(
        "--rules", default="", metavar="FILE", help="TOML file with the bounds of the metrics (default: as for `gate`)"
    )
    parser.add_argument(
        "--metric", default=Limits.metric, help="metric that is compared with the champion's (default %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="promote it whatever the gate says")
    parser.add_argument(
        "--no-promote", action="store_true", help="only register the version, and say what the gate says"
    )
    parser.add_argument("--runs", default="", help="directory that holds the runs (default runs)")
    _add_why(parser)
    mirroring.add_flags(parser)


def _add_copies(actions: Any) -> None:
    exported = _add(actions, "export", export_command, "copy versions into an archive or into another registry")
    _add_name(exported)
    exported.add_argument("version", metavar="VERSION|all", help=f"{NAMES_OF_VERSIONS}, or all")
    exported.add_argument(
        "target",
        help="file .tar or .tar.gz, or directory or s3:// URI of a registry; or file .onnx: the model alone, as ONNX",
    )
    imported = _add(
        actions, "import", import_command, "copy the versions of an archive or of another registry into this one"
    )
    imported.add_argument("source", help="what export wrote")
    imported.add_argument("--name", default="", help="name of the model here (default: the one it has there)")


def registry_of(arguments: argparse.Namespace, settings: Settings) -> Place:
    """Returns the registry that the command line or the settings name."""
    return place_of(arguments.registry or settings.registry)


def list_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lists the models, or the versions of one with their metrics."""
    registry = registry_of(arguments, settings)
    names = [arguments.name] if arguments.name else versions.names(registry)
    if not arguments.name:
        found = {name: versions.versions_of(registry, name) for name in names}
        champions = {name: pointer.read(registry, name) for name in names}
        if arguments.json:
            return display.show_json([_about(champions[name]) | {"versions": found[name]} for name in names])
        if not names:
            display.show_text(
                f"there is no model in {registry.uri}; register one with `spark-kfp models promote NAME last`"
            )
        else:
            rows = [[name, champions[name].version or "-", str(len(found[name]))] for name in names]
            display.show_table(("model", "champion", "versions"), rows)
        return 0
    champion = pointer.read(registry, arguments.name)
    documents, damaged = _read_versions(registry, arguments.name)
    if not documents and not damaged:
        versions.find(registry, arguments.name, "latest")  # says which models there are
    if arguments.json:
        return display.show_json({**_about(champion), "versions": documents, "damaged": damaged})
    rows = [
        [each["version"], _mark(champion, each["version"]), each["model"]["kind"], *_first_metric(each)]
        for each in reversed(documents)
    ]
    display.show_table(("version", "", "model", "metric", "value", "95 % interval"), rows)
    for each in damaged:
        display.show_text(each["why"])
    return 0


def _read_versions(registry: Place, name: str) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Returns the documents of the versions of a model, and which of them are damaged and why."""
    documents, damaged = [], []
    for version in versions.versions_of(registry, name):
        try:
            documents.append(versions.read(registry, name, version))
        except InputError as error:
            damaged.append({"version": version, "why": str(error)})
    return documents, damaged


def _about(champion: Champion) -> dict[str, Any]:
    """Returns the pointer as a document, without what only the comparison needs."""
    return {name: value for name, value in asdict(champion).items() if name != "tag"}


def _mark(champion: Champion, version: str) -> str:
    share = pointer.served(champion).get(version)
    name = CHAMPION if version == champion.version else "canary"
    return "" if share is None else name if share == 1.0 else f"{name} {promotion.percent(share)}"


def _first_metric(document: Mapping[str, Any]) -> list[str]:
    first = document["metrics"][0]
    return [first["name"], display.number(first["value"]), f"{first['low']:.4f} to {first['high']:.4f}"]


def find_version(registry: Place, name: str, version: str) -> str:
    """Returns the ID of the version that the command line names.

    Raises:
        InputError: there is none, or more than one.
    """
    if version in ("", CHAMPION):
        champion = pointer.read(registry, name).version
        if champion:
            return champion
        if version:
            raise InputError(f"{registry.uri}: model {name!r} has no champion; name a version")
    return versions.find(registry, name, version or "latest")


def show_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Shows a version, and how the pointer has moved."""
    registry = registry_of(arguments, settings)
    champion = pointer.read(registry, arguments.name)
    document = versions.read(registry, arguments.name, find_version(registry, arguments.name, arguments.version))
    if arguments.json:
        return display.show_json({"version": document, "pointer": _about(champion)})
    data, made_by = document["data"], document["made_by"]
    packages = ", ".join(f"{name} {version}" for name, version in made_by.get("packages", {}).items())
    facts = {
        "version": f"{document['version']} {_mark(champion, document['version'])}".strip(),
        "run": document["run"],
        "model": document["model"]["kind"],
        "label": f"{document['label']} ({', '.join(document['labels'])})",
        "data": f"{data['uri']}, {data['rows']:,} rows",
        "settings": ", ".join(f"{name} {value}" for name, value in document["model"].get("settings", {}).items()),
        "code": made_by.get("code_sha256", ""),
        "packages": packages,
        "lock file": made_by.get("lock_sha256", ""),
        "files": f"{len(document['files'])}, {sum(item['size'] for item in document['files']):,} bytes",
        "where": f"{registry.uri}/{versions.folder_of(arguments.name, document['version'])}",
    }
    display.show_table((), [[name, str(value)] for name, value in facts.items() if value])
    print()
    metrics = [
        [item["name"], display.number(item["value"]), f"{item['low']:.4f} to {item['high']:.4f}"]
        for item in document["metrics"]
    ]
    display.show_table(("metric", "value", "95 % interval"), metrics)
    if champion.history:
        print()
        moves = [
            [str(each.move), each.at[:19], each.kind, each.version, each.by, each.why] for each in champion.history
        ]
        display.show_table(("move", "time (UTC)", "", "champion", "by", "why"), moves)
    return 0


def compare_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Shows the metrics of two versions, with intervals of the differences if both were judged on the same rows."""
    registry, name = registry_of(arguments, settings), arguments.name
    chosen = [find_version(registry, name, version) for version in arguments.versions]
    one, other = (read_evaluation(registry, name, version) for version in chosen)
    compared = compare(one, other)
    if arguments.json:
        return display.show_json({"versions": chosen, "comparison": asdict(compared)})
    differences = {item.metric: item for item in compared.differences}
    rows = []
    for item in one["metrics"]:
        value = next((each["value"] for each in other["metrics"] if each["name"] == item["name"]), None)
        change = differences.get(item["name"])
        ends = change.interval if change else None
        shown = [f"{change.value:+.4f}" if change else "", f"{ends[0]:+.4f} to {ends[1]:+.4f}" if ends else ""]
        rows.append([item["name"], display.number(item["value"]), display.number(value), *shown])
    display.show_table(("metric", *chosen, "difference", "95 % interval"), rows)
    print()
    display.show_text(compared.note)
    return 0


def read_evaluation(registry: Place, name: str, version: str) -> dict[str, Any]:
    """Reads the evaluation.json of a version.

    Raises:
        InputError: there is no such version, or it is damaged.
    """
    content = versions.read_file(registry, versions.read(registry, name, version), "evaluation.json")
    document: dict[str, Any] = json.loads(content)
    return document


def promote_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Asks the gate, registers a run if it is no version yet, and makes it the champion if the gate lets it.

    Raises:
        InputError: a flag contradicts another, or the run, the rules or the metric cannot be used.
    """
    for flag in ("force", "why"):
        if arguments.no_promote and getattr(arguments, flag):
            raise InputError(f"--{flag} is for a promotion, and with --no-promote there is none; leave one of them out")
    registry, name, mirror = (
        registry_of(arguments, settings),
        arguments.name,
        mirroring.after_a_move(arguments, settings),
    )
    seen = pointer.read(registry, name)
    version, evaluation, candidate = _find_candidate(registry, arguments, settings)
    verdicts = judge(registry, version, evaluation, seen, arguments)
    if candidate:
        version = str(versions.write(registry, candidate)["version"])
    passed = promotion.passes(verdicts)
    moves = (passed or arguments.force) and not arguments.no_promote
    if moves:
        why = arguments.why or ("" if passed else "forced")
        seen = pointer.promote(registry, name, version, why=why, seen=seen)
    outcome = promotion.describe_outcome(name, version, seen.version, passed=passed, moved=moves)
    found = {"version": version, "passed": passed, "promoted": moves, "outcome": outcome}
    found["verdicts"] = [asdict(each) for each in verdicts]
    if arguments.json:
        display.show_json({**found, "pointer": _about(seen)})
    else:
        print_verdict(found)
    if moves:
        mirror(registry, name)
    return 0 if moves or arguments.no_promote else EXIT_REFUSED


def print_verdict(verdict: Mapping[str, Any]) -> None:
    """Prints what each rule of the gate said, and what became of the candidate."""
    rows = [[each["rule"], "yes" if each["passed"] else "no", each["sentence"]] for each in verdict["verdicts"]]
    display.show_table(("rule", "", "numbers"), rows)
    print()
    display.show_text(verdict["outcome"])


def promotion_inputs(inputs: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Returns the inputs of the step promote for a run on this machine, with absolute paths.

    A registry that is not named is that of the settings, and rules that are not named are those that `gate` finds.
    """
    data_uri = str(inputs.get(TRAIN_DATA_URI) or inputs[DATA_URI])
    named = {
        "registry_uri": str(inputs["registry_uri"]) or settings.registry,
        RULES_URI: str(inputs[RULES_URI]) or gate_commands.find_rules(data_uri),
    }
    return {name: uri if not uri or is_object_store_uri(uri) else str(local_path(uri)) for name, uri in named.items()}


def _find_candidate(
    registry: Place, arguments: argparse.Namespace, settings: Settings
) -> tuple[str, dict[str, Any], versions.Candidate | None]:
    """Returns the ID of the version that the command line names, its evaluation, and if it is a run what to register."""
    name, wanted = arguments.name, arguments.candidate
    versions.check_name(name)
    known = versions.versions_of(registry, name)
    if wanted in (CHAMPION, "latest") or any(version.startswith(wanted) for version in known):
        version = find_version(registry, name, wanted)
        return version, read_evaluation(registry, name, version), None
    evaluate_uri = str(gate_commands.find_evaluation(wanted, settings.runs).parent)
    run_id = "" if Path(wanted).suffix == ".json" else runs.find(settings.runs, wanted).id
    candidate = versions.collect(name, versions.RunOutputs.of_evaluation(evaluate_uri), run_id=run_id)
    return candidate.version, json.loads(candidate.files["evaluation.json"]), candidate


def judge(
    registry: Place, version: str, evaluation: Mapping[str, Any], champion: Champion, arguments: argparse.Namespace
) -> list[Verdict]:
    """Asks the rules that need no Spark.

    The champion's own evaluation can be compared if it was judged on the same rows; else the step promote of a run must judge it. For a
    canary that the step has compared with this very champion that stands.

    Raises:
        InputError: the file of the rules is wrong, or the evaluation lacks a metric that it or the command line names.
    """
    where = arguments.rules or gate_commands.find_rules(gate_commands.data_uri_of(evaluation))
    rules = gate_commands.read_rules(where) if where else None
    gate.check_metric(arguments.metric, gate.read_metrics(evaluation, "the evaluation"), "--metric")
    limits = Limits(metric=arguments.metric)
    before = read_evaluation(registry, champion.name, champion.version) if champion.version else None
    return [
        promotion.floors(evaluation, rules, where),
        promotion.no_forbidden_column(evaluation, rules),
        promotion.enough_rows(evaluation, limits),
        promotion.class_balance(evaluation, before, limits),
        promotion.passed_before(champion.version)
        if champion.canary and (champion.canary.version, champion.canary.passed_beside) == (version, champion.version)
        else promotion.not_worse(evaluation, before, limits),
    ]


def rollback_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Moves the pointer back."""
    registry, mirror = registry_of(arguments, settings), mirroring.after_a_move(arguments, settings)
    to = versions.find(registry, arguments.name, arguments.to) if arguments.to else ""
    _show_move(pointer.rollback(registry, arguments.name, to=to, why=arguments.why), arguments)
    mirror(registry, arguments.name)
    return 0


def canary_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Begins or ends a canary.

    Raises:
        InputError: neither a version nor --end is given, or both are.
    """
    registry, mirror = registry_of(arguments, settings), mirroring.after_a_move(arguments, settings)
    if bool(arguments.version) == arguments.end:
        raise InputError("give either a VERSION with its --share, or --end")
    canary = None
    if arguments.version:
        canary = Canary(version=find_version(registry, arguments.name, arguments.version), share=arguments.share)
    _show_move(pointer.set_canary(registry, arguments.name, canary, why=arguments.why), arguments)
    mirror(registry, arguments.name)
    return 0


def _show_move(champion: Champion, arguments: argparse.Namespace) -> None:
    if arguments.json:
        display.show_json(_about(champion))
        return
    shares = ", ".join(f"{version} {promotion.percent(share)}" for version, share in pointer.served(champion).items())
    display.show_text(f"{champion.name}: {shares} of the requests, move {champion.move}")


def mirror_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Shows the champion and the canary in other registries.

    Raises:
        InputError: none is named.
    """
    mirrors = mirroring.mirrors_of(arguments, settings)
    if not mirrors:
        raise InputError(
            "name the MLflow server, --mlflow http://HOST:5000 or SPARK_KFP_MLFLOW_URI, or the Kubeflow Model Registry, "
            "--kubeflow-registry http://HOST:8080 or SPARK_KFP_KUBEFLOW_REGISTRY_URI"
        )
    found = mirroring.show_in_all(mirrors, registry_of(arguments, settings), arguments.name)
    if arguments.json:
        return display.show_json(found)
    for alias, there in found.items():
        for mirror in mirrors:
            display.show_text(
                f"{arguments.name}@{alias} is version {there[mirror.key]} in {mirror.title}: {there['version']}"
            )
    return 0


def prune_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Removes old versions, or says which would go."""
    registry = registry_of(arguments, settings)
    if arguments.keep < 0:
        raise InputError(f"--keep is {arguments.keep}; give a number of versions, 0 or more")
    unfinished = pruning.leftovers(registry, arguments.name)
    if not unfinished:
        versions.find(registry, arguments.name, "latest")  # says which models there are
    act = pruning.prunable if arguments.dry_run else pruning.prune
    gone = act(registry, arguments.name, arguments.keep)
    if arguments.json:
        removed = [] if arguments.dry_run else gone
        return display.show_json({"removed": removed, "prunable": gone, "unfinished": unfinished})
    display.show_text(f"{'would remove' if arguments.dry_run else 'removed'} {', '.join(gone) or 'nothing'}")
    if unfinished:
        display.show_text(f"and what was left of {', '.join(unfinished)}, which was not written or removed whole")
    return 0


def export_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Copies versions out."""
    registry, name = registry_of(arguments, settings), arguments.name
    versions.find(registry, name, "latest")  # says which models there are
    chosen = (
        versions.versions_of(registry, name)
        if arguments.version == "all"
        else [find_version(registry, name, arguments.version)]
    )
    if arguments.target.lower().endswith(ONNX_SUFFIX):
        return _export_onnx(registry, name, chosen, arguments)
    return _copied(archive.export(registry, name, chosen, arguments.target), arguments.target, arguments)


def _export_onnx(registry: Place, name: str, chosen: Sequence[str], arguments: argparse.Namespace) -> int:
    if len(chosen) != 1 or is_object_store_uri(arguments.target):
        raise InputError(
            f"{arguments.target}: a file of ONNX holds one version, and lies on this machine; name a version and a path"
        )
    mirroring.require("onnx")
    document = versions.verify(registry, name, chosen[0])
    where = f"{versions.folder_of(name, chosen[0])}/scorecard.json"
    if where.rpartition("/")[2] not in {item["path"] for item in document["files"]}:
        raise InputError(
            f"version {chosen[0]} of {name!r} has no scorecard.json, so its kind of model cannot be written as ONNX"
        )
    content = onnx_model(json.loads(registry.read(where)), name=name, version=chosen[0])
    write_whole(local_path(arguments.target), content)
    if arguments.json:
        return display.show_json([{"name": name, "version": chosen[0]}])
    display.show_text(f"{name} {chosen[0]}: {len(content):,} bytes of ONNX in {arguments.target}")
    return 0


def import_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Copies versions in; the pointer stays where it is."""
    registry = registry_of(arguments, settings)
    return _copied(
        archive.import_versions(arguments.source, registry, new_name=arguments.name), registry.uri, arguments
    )


def _copied(documents: Sequence[Mapping[str, Any]], where: str, arguments: argparse.Namespace) -> int:
    if arguments.json:
        return display.show_json([{"name": each["name"], "version": each["version"]} for each in documents])
    for each in documents:
        display.show_text(f"{each['name']} {each['version']}: {len(each['files'])} files, checked, in {where}")
    return 0
