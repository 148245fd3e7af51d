"""The tasks around the steps: before the first, find the data; after the last, however it went, end the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.data_version import fill_date, time_of, version_of
from kfp_pipeline.runtime.errors import told_plainly
from kfp_pipeline.runtime.kubernetes_api import connect
from kfp_pipeline.runtime.places import place_of
from kfp_pipeline.runtime.run_end import end_run
from kfp_pipeline.settings import Settings


class Found(NamedTuple):
    """The data of a run.

    Attributes:
        uri: with its date filled in.
        version: changes whenever the data or the specification do.
    """

    uri: str
    version: str


def find(data_uri: str, specification_uri: str, scheduled_time: str) -> Found:
    """Finds the data of a run.

    Raises:
        SystemExit: they are not there, or the URI cannot be read; the log says which.
    """
    with told_plainly():
        uri = fill_date(data_uri, scheduled_time)
        if uri != data_uri and time_of(scheduled_time) is None:
            told = "KFP does not tell for which time this run was due (it does from 2.17 on), so the date is today's, in UTC"
            print(told, flush=True)  # noqa: T201 - the log pane of KFP's UI
        found = Found(uri, version_of(uri, specification_uri))
        print(f"data: {found.uri}, version {found.version}", flush=True)  # noqa: T201 - the log pane of KFP's UI
    return found


def finish(status: str, message: str, summary: Any) -> None:
    """Ends what still runs of the run, and writes how it went; see `end_run`.

    Raises:
        SystemExit: that could not be done; the log says why.
    """
    settings = Settings.from_environment()
    with told_plainly():
        place = place_of(summary.uri, settings.run_id)
        document = end_run(
            connect(settings.namespace, settings.patience_seconds),
            object_store,
            run=settings.run_id,
            place=place,
            status=status,
            message=message,
            shown_at=Path(summary.path),
        )
        for application in document["applications"]:
            print("{step}: SparkApplication {name}: {state} {error}".format(**application).rstrip())  # noqa: T201
        print(f"{status}: {document['message'] or 'no task has left a reason'}" if status != "SUCCEEDED" else status)  # noqa: T201
        print(f"{place}/summary.json", flush=True)  # noqa: T201
