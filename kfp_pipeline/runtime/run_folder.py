"""The folder of a KFP run in the object store: KFP writes artifacts below PIPELINE ROOT/PIPELINE NAME/RUN ID."""

from __future__ import annotations

from kfp_pipeline.runtime.errors import PermanentError
from spark_jobs.result import Failure


def run_folder_of(uri: str, run: str) -> str:
    """Finds the URI of a run's folder.

    Args:
        uri: URI of one of the run's artifacts.
        run: the run's id.

    Raises:
        PermanentError: the URI does not contain the run's id, so the run's files could not be told from those of other runs.
    """
    before, found, _ = uri.partition(f"/{run}/")
    if not run or not found:
        message = f"{uri} does not lie in a folder named after the run {run!r}; the pod's label pipeline/runid names it"
        raise PermanentError(Failure(kind="input", type="NoPlace", message=message))
    return f"{before}/{run}"
