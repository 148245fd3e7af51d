"""The scoring pipeline as a KFP graph: predict.

Generated from spark_jobs/contract.py by `make generate`: change that file, not this one.
"""

from typing import Any

from kfp import dsl

from kfp_pipeline import components
from kfp_pipeline.task_settings import Platform, configure_task, exit_handler


def make_pipeline(platform: Platform) -> Any:
    """Returns the pipeline, with the platform's settings on each of its tasks."""

    @dsl.pipeline(
        name="spark-kfp-scoring",
        display_name="Score a table",
        description="Predict.",
        pipeline_config=platform.pipeline_config(),
    )
    def scoring_pipeline(
        data_uri: str,
        model_uri: str,
        delimiter: str = "",
        quote: str = "",
        encoding: str = "",
        header: str = "auto",
        max_rejected_fraction: float = 0.01,
        predictions_uri: str = "",
        keep_columns: str = "*",
        all_probabilities: bool = False,
        spark: str = "operator",
        spark_settings: dict = {},
    ) -> None:
        """Scores a table with a trained model.

        Args:
            data_uri: the data, CSV (also gzipped) or Parquet: a path or a URI (file:, s3://, s3a://, minio://) of a file, a directory or a glob.
            model_uri: the model: the output of train, or in a registry the folder of a version, or that of a model, which means its champion.
            delimiter: column delimiter; empty: detected from the data.
            quote: quote character; empty: detected from the data.
            encoding: text encoding, such as UTF-8 or ISO-8859-1; empty: detected from the data.
            header: whether the first row holds the column names; auto: detected.
            max_rejected_fraction: largest share of rows, 0 to 1, that may be rejected; the step fails above it.
            predictions_uri: directory that keeps the predictions of all runs, where a file that is scored already is not scored again; empty: output_uri.
            keep_columns: columns of the table that the predictions keep, separated by commas, as they are in the table; *: all; empty: none.
            all_probabilities: write the probability of each class, not only of the positive one.
            spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
            spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        """
        with exit_handler(platform, "Scoring"):
            configure_task(
                components.predict(
                    data_uri=data_uri,
                    delimiter=delimiter,
                    quote=quote,
                    encoding=encoding,
                    header=header,
                    max_rejected_fraction=max_rejected_fraction,
                    model_uri=model_uri,
                    predictions_uri=predictions_uri,
                    keep_columns=keep_columns,
                    all_probabilities=all_probabilities,
                    spark=spark,
                    spark_settings=spark_settings,
                    scheduled_time=platform.scheduled_time,
                ),
                platform,
                "Predict",
            )

    return scoring_pipeline


scoring_pipeline = make_pipeline(Platform())
