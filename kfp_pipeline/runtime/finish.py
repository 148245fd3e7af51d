"""The task after the steps, however they went: it ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import exits_with_message
from kfp_pipeline.runtime.kubernetes_api import connect
from kfp_pipeline.runtime.run_end import end_run
from kfp_pipeline.runtime.run_folder import run_folder_of
from kfp_pipeline.settings import Settings


def finish(status: str, message: str, summary: Any) -> None:
    """Ends what still runs of the run, and writes how it went; see `end_run`.

    Raises:
        SystemExit: that could not be done; the log says why.
    """
    settings = Settings.from_environment()
    with exits_with_message():
        run_folder = run_folder_of(summary.uri, settings.run_id)
        document = end_run(
            connect(settings.namespace, settings.patience_seconds),
            object_store,
            run=settings.run_id,
            run_folder=run_folder,
            status=status,
            message=message,
            markdown_path=Path(summary.path),
        )
        for application in document["applications"]:
            print("{step}: SparkApplication {name}: {state} {error}".format(**application).rstrip())  # noqa: T201
        print(f"{status}: {document['message'] or 'no task has left a reason'}" if status != "SUCCEEDED" else status)  # noqa: T201
        print(f"{run_folder}/summary.json", flush=True)  # noqa: T201
