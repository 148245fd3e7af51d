"""Where a run of KFP keeps its artifacts: below the pipeline's root, the pipeline's name and the run's id."""

from __future__ import annotations

from kfp_pipeline.runtime.errors import PermanentError
from spark_jobs.result import Failure


def run_folder_of(uri: str, run: str) -> str:
    """The URI below which all of a run lies, from that of one of its artifacts.

    Raises:
        PermanentError: the URI does not hold the run's id, so that nothing could be kept apart from other runs.
    """
    place, found, _ = uri.partition(f"/{run}/")
    if not run or not found:
        message = f"{uri} does not lie in a folder named after the run {run!r}; the pod's label pipeline/runid names it"
        raise PermanentError(Failure(kind="input", type="NoPlace", message=message))
    return f"{place}/{run}"
