"""The KFP component of a run's exit task.

The module has no `from __future__ import annotations`: KFP reads the annotations as types, not as text.
"""

from kfp import dsl

from kfp_pipeline.component_settings import TASK_IMAGE


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Deletes the SparkApplications of the run that still run, and writes the run's summary.

    Args:
        status: final state of the run's tasks, filled in by KFP.
        summary: the summary as Markdown, which KFP's UI shows.
    """
    from kfp_pipeline.runtime.finish import finish

    finish(status.state, status.error_message or "", summary)
