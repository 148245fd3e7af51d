"""The training pipeline as a KFP graph: load, preprocess, train, evaluate.

Generated from spark_jobs/contract.py by `make generate`: change that file, not this one.
"""

from typing import Any

from kfp import dsl

from kfp_pipeline import components
from kfp_pipeline.task_settings import Platform, configure_task, exit_handler


def make_pipeline(platform: Platform) -> Any:
    """Returns the pipeline, with the platform's settings on each of its tasks."""

    @dsl.pipeline(
        name="spark-kfp-training",
        display_name="Train a Spark ML model",
        description="Load, preprocess, train, evaluate.",
        pipeline_config=platform.pipeline_config(),
    )
    def training_pipeline(
        data_uri: str,
        specification_uri: str = "",
        label: str = "",
        positive: str = "",
        delimiter: str = "",
        quote: str = "",
        encoding: str = "",
        header: str = "auto",
        max_rejected_fraction: float = 0.01,
        min_class_rows: int = 1,
        small_classes: str = "merge",
        seed: int = 42,
        split: str = "hash",
        order_by: str = "",
        train_fraction: float = 0.6,
        validation_fraction: float = 0.2,
        max_categories: int = 100,
        reg_param: float = 0.0,
        elastic_net_param: float = 0.0,
        max_iter: int = 100,
        tol: float = 1e-06,
        fit_intercept: bool = True,
        standardization: bool = True,
        family: str = "auto",
        estimator: str = "logistic_regression",
        class_weights: str = "none",
        threshold_rule: str = "max_f1",
        title: str = "",
        bootstrap_samples: int = 500,
        spark: str = "operator",
        spark_settings: dict = {},
    ) -> None:
        """Trains and evaluates a Spark ML model.

        Args:
            data_uri: CSV or Parquet: a file, a directory, a glob, gzip allowed; a path, file:, s3a:// or minio://.
            specification_uri: data specification (TOML); empty: types are inferred and label is needed.
            label: name of the label column, when there is no specification or to override its own.
            positive: the label value that counts as positive; empty: from the specification, else inferred.
            delimiter: column delimiter; empty: found in the data.
            quote: quote character; empty: found in the data.
            encoding: text encoding, such as UTF-8 or ISO-8859-1; empty: found in the data.
            header: whether the first row holds the column names.
            max_rejected_fraction: largest share of rows, 0 to 1, that may be rejected.
            min_class_rows: a class of fewer rows is small; 1: none is.
            small_classes: merge: small classes become one class, named other; drop: their rows are kept apart with the rejected ones.
            seed: seed of the split, -2^53 to 2^53: what KFP's numbers hold exactly.
            split: hash: by a hash of the row's values; ordered: the last rows are the test rows.
            order_by: column of numbers or dates that an ordered split follows; empty: the order of the file.
            train_fraction: share of train rows, above 0 and below 1.
            validation_fraction: share of validation rows, above 0 and below 1; what remains is test.
            max_categories: most values of a categorical column that are features, at least 2.
            reg_param: regularisation strength, 0 or more.
            elastic_net_param: share of L1 in the penalty, 0 (ridge) to 1 (lasso).
            max_iter: most iterations of the optimiser, 1 to 1000000.
            tol: convergence tolerance, above 0.
            fit_intercept: fit an intercept.
            standardization: scale features before the penalty is applied.
            family: auto: binomial for two classes, else multinomial.
            estimator: kind of model.
            class_weights: balanced: each class weighs the same in the fit.
            threshold_rule: how the decision threshold is chosen on the validation rows; half: 0.5.
            title: title of the report; empty: named after the label.
            bootstrap_samples: bootstrap samples behind the intervals, 50 to 100000.
            spark: where Spark runs: operator, or local[*] on one machine.
            spark_settings: resources for this run, STEP (or all) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        """
        with exit_handler(platform, "Training, with curves and report"):
            load = configure_task(
                components.load(
                    data_uri=data_uri,
                    specification_uri=specification_uri,
                    label=label,
                    positive=positive,
                    delimiter=delimiter,
                    quote=quote,
                    encoding=encoding,
                    header=header,
                    max_rejected_fraction=max_rejected_fraction,
                    min_class_rows=min_class_rows,
                    small_classes=small_classes,
                    spark=spark,
                    spark_settings=spark_settings,
                    scheduled_time=platform.scheduled_time,
                ),
                platform,
                "Load",
            )
            preprocess = configure_task(
                components.preprocess(
                    load_uri=load.outputs["uri"],
                    seed=seed,
                    split=split,
                    order_by=order_by,
                    train_fraction=train_fraction,
                    validation_fraction=validation_fraction,
                    max_categories=max_categories,
                    spark=spark,
                    spark_settings=spark_settings,
                    code_version=load.outputs["code_version"],
                ),
                platform,
                "Preprocess",
                cached=True,
            )
            train = configure_task(
                components.train(
                    reg_param=reg_param,
                    elastic_net_param=elastic_net_param,
                    max_iter=max_iter,
                    tol=tol,
                    fit_intercept=fit_intercept,
                    standardization=standardization,
                    family=family,
                    preprocess_uri=preprocess.outputs["Output"],
                    estimator=estimator,
                    class_weights=class_weights,
                    threshold_rule=threshold_rule,
                    spark=spark,
                    spark_settings=spark_settings,
                    code_version=load.outputs["code_version"],
                ),
                platform,
                "Train",
                cached=True,
            )
            configure_task(
                components.evaluate(
                    preprocess_uri=preprocess.outputs["Output"],
                    train_uri=train.outputs["Output"],
                    title=title,
                    bootstrap_samples=bootstrap_samples,
                    spark=spark,
                    spark_settings=spark_settings,
                ),
                platform,
                "Evaluate",
            )

    return training_pipeline


training_pipeline = make_pipeline(Platform())
