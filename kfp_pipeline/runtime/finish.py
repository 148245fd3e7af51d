"""The task of KFP's exit handler: it runs after all steps, whether the run succeeded or failed, and writes the run's summary."""

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
    """Deletes the run's SparkApplications that still run, and writes the summary; see `end_run`.

    Args:
        status: SUCCEEDED, FAILED or CANCELLED, as KFP reports it.
        message: KFP's reason for a failure; may be empty.
        summary: the task's output artifact, in Markdown.

    Raises:
        SystemExit: the API server or the object store failed; the log says why.
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
