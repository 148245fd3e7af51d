"""Starts the server: python -m serving --registry DIR_OR_URI [--model NAME], or python -m serving --scorecard FILE."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.capture import Capture
from serving.champion import Champion
from serving.drift_results import DriftResults
from serving.model_source import RefusedError, UnreachableError, load_scorecard, place_of
from serving.request_log import set_up_logging
from serving.settings import ServerSettings, SettingsError

EXIT_INPUT = 2
SCORECARD_MODEL = "model"
"""Name of a model from a scorecard file, unless it is given another."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; returns 2 if a setting is wrong."""
    given = vars(make_parser().parse_args(argv))
    try:
        settings = ServerSettings.from_environment(given)
        champion = make_champion(settings)
        server = _server()
        sockets = server.bind(settings.host, settings.port)
        capture = Capture(Path(settings.capture), settings.capture_days) if settings.capture else None
    except (SettingsError, RefusedError, UnreachableError) as error:
        print(f"serving: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    set_up_logging()
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn finishes its requests first, then raises the signal again
        signal.signal(number, _stop)
    champion.refresh()
    champion.follow(settings.poll_seconds)
    drift = DriftResults(champion)
    drift.follow()
    try:
        server.serve(settings, sockets, champion, capture, drift)
    finally:
        champion.stop()
        drift.stop()
        if capture:
            capture.close()
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Builds the parser; every other setting is an environment variable, see `serving.settings`."""
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
    parser.add_argument(
        "--model", default="", metavar="NAME", help="name of the model (default: the only one of the registry)"
    )
    parser.add_argument("--registry", default="", metavar="DIR_OR_URI", help="a registry, whose champion is served")
    parser.add_argument("--scorecard", default="", metavar="FILE", help="a scorecard.json to serve instead")
    parser.add_argument(
        "--capture", default="", metavar="DIR", help="write what rows were scored, as counts, for drift"
    )
    parser.add_argument("--host", default="", help=f"address to listen on (default {ServerSettings.host})")
    parser.add_argument("--port", default="", help=f"port to listen on (default {ServerSettings.port})")
    return parser


def make_champion(settings: ServerSettings) -> Champion:
    """Finds the model that the settings name.

    Raises:
        SettingsError: there is none, or more than one.
        RefusedError: the scorecard cannot be used.
        UnreachableError: the registry cannot be read.
    """
    if settings.scorecard:
        name = settings.model or SCORECARD_MODEL
        return Champion(name, None, load_scorecard(Path(settings.scorecard), name))
    place = place_of(settings.registry)
    if settings.model:
        return Champion(settings.model, place)
    names = place.models()
    if len(names) != 1:
        found = f"has {len(names)} models: {', '.join(names[:10])}" if names else "has no model with a champion"
        raise SettingsError(f"{settings.registry} {found}; name one with --model")
    return Champion(names[0], place)


def _stop(*_: object) -> None:
    raise SystemExit(0)


def _server() -> Any:
    """Returns the module that serves.

    Raises:
        SettingsError: the extra `serving` is not installed.
    """
    try:
        from serving import server  # noqa: PLC0415
    except ImportError as error:
        raise SettingsError(
            f"{error.name} is not installed; install the extra: pip install 'spark-kfp[serving]'"
        ) from error
    return server


if __name__ == "__main__":
    raise SystemExit(main())
