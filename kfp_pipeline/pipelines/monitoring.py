"""The monitoring pipeline as a KFP graph: drift.

Generated from spark_jobs/contract.py by `make generate`: change that file, not this one.
"""

from typing import Any

from kfp import dsl

from kfp_pipeline import components
from kfp_pipeline.task_settings import Platform, configure_task, exit_handler


def make_pipeline(platform: Platform) -> Any:
    """Returns the pipeline, with the platform's settings on each of its tasks."""

    @dsl.pipeline(
        name="spark-kfp-monitoring",
        display_name="Look for drift",
        description="Drift.",
        pipeline_config=platform.pipeline_config(),
    )
    def monitoring_pipeline(
        data_uri: str,
        model_uri: str,
        delimiter: str = "",
        quote: str = "",
        encoding: str = "",
        header: str = "auto",
        max_rejected_fraction: float = 0.01,
        psi_limit: float = 0.2,
        share_limit: float = 0.05,
        significance: float = 0.01,
        min_area_under_roc: float = 0.0,
        spark: str = "operator",
        spark_settings: dict = {},
    ) -> None:
        """Compares a table, or what a server counted, with the rows that a model was trained on.

        Args:
            data_uri: the data, CSV (also gzipped) or Parquet: a path or a URI (file:, s3://, s3a://, minio://) of a file, a directory or a glob.
            model_uri: the model: the output of train, or in a registry the folder of a version, or that of a model, which means its champion.
            delimiter: column delimiter; empty: detected from the data.
            quote: quote character; empty: detected from the data.
            encoding: text encoding, such as UTF-8 or ISO-8859-1; empty: detected from the data.
            header: whether the first row holds the column names; auto: detected.
            max_rejected_fraction: largest share of rows, 0 to 1, that may be rejected; the step fails above it.
            psi_limit: population stability index of a column or of the scores beyond which a significant change is an alarm, above 0.
            share_limit: change of the share of missing cells, and rise of that of new categories, beyond which it is an alarm, above 0 and below 1.
            significance: probability of an alarm if nothing has changed, at most, above 0 and below 1.
            min_area_under_roc: areaUnderROC, 0 to 1, of the labelled rows of a table: an alarm if its whole 95 % interval is below; 0: none is.
            spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
            spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        """
        with exit_handler(platform, "Monitoring, with report"):
            configure_task(
                components.drift(
                    data_uri=data_uri,
                    delimiter=delimiter,
                    quote=quote,
                    encoding=encoding,
                    header=header,
                    max_rejected_fraction=max_rejected_fraction,
                    model_uri=model_uri,
                    psi_limit=psi_limit,
                    share_limit=share_limit,
                    significance=significance,
                    min_area_under_roc=min_area_under_roc,
                    spark=spark,
                    spark_settings=spark_settings,
                    scheduled_time=platform.scheduled_time,
                ),
                platform,
                "Drift",
            )

    return monitoring_pipeline


monitoring_pipeline = make_pipeline(Platform())
