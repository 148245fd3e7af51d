"""The component that ends a run. Annotations are not postponed here: KFP reads them."""

from kfp import dsl

from kfp_pipeline.component_settings import TASK_IMAGE


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False)
def finish(status: dsl.PipelineTaskFinalStatus, summary: dsl.Output[dsl.Markdown]) -> None:
    """Ends what still runs of the run, and says how it went.

    Args:
        status: how the tasks ended, filled in by KFP.
        summary: how the run went.
    """
    from kfp_pipeline.runtime.finish import finish

    finish(status.state, status.error_message or "", summary)
