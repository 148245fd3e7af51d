"""The tuning pipeline as a KFP graph: load, preprocess, tune.

Generated from spark_jobs/contract.py by `make generate`: change that file, not this one.
"""

from typing import Any

from kfp import dsl

from kfp_pipeline import components
from kfp_pipeline.task_settings import Platform, configure_task, exit_handler


def make_pipeline(platform: Platform) -> Any:
    """Returns the pipeline, with the platform's settings on each of its tasks."""

    @dsl.pipeline(
        name="spark-kfp-tuning",
        display_name="Tune a Spark ML model",
        description="Load, preprocess, tune.",
        pipeline_config=platform.pipeline_config(),
    )
    def tuning_pipeline(
        data_uri: str,
        delimiter: str = "",
        quote: str = "",
        encoding: str = "",
        header: str = "auto",
        max_rejected_fraction: float = 0.01,
        specification_uri: str = "",
        label: str = "",
        positive: str = "",
        min_class_rows: int = 1,
        small_classes: str = "merge",
        seed: int = 42,
        split: str = "hash",
        order_by: str = "",
        train_fraction: float = 0.6,
        validation_fraction: float = 0.2,
        max_categories: int = 100,
        numeric_form: str = "as_is",
        numeric_bins: int = 20,
        tuner: str = "optuna",
        parallel_trials: int = 3,
        max_failed_trials: int = 3,
        goal: str = "",
        retain_trials: bool = False,
        resume_policy: str = "Never",
        estimators: str = "logistic_regression",
        search: str = "",
        class_weights: str = "none",
        algorithms: str = "tpe",
        trials: int = 20,
        patience: int = 0,
        folds: int = 1,
        early_stopping: str = "none",
        objective: str = "auto",
        second_objective: str = "none",
        search_seed: int = 42,
        spark: str = "operator",
        spark_settings: dict = {},
    ) -> None:
        """Searches the settings with which a Spark ML model does best on the validation rows.

        Args:
            data_uri: the data, CSV (also gzipped) or Parquet: a path or a URI (file:, s3://, s3a://, minio://) of a file, a directory or a glob.
            delimiter: column delimiter; empty: detected from the data.
            quote: quote character; empty: detected from the data.
            encoding: text encoding, such as UTF-8 or ISO-8859-1; empty: detected from the data.
            header: whether the first row holds the column names; auto: detected.
            max_rejected_fraction: largest share of rows, 0 to 1, that may be rejected; the step fails above it.
            specification_uri: data specification (TOML); empty: types are inferred, and label is required.
            label: name of the label column; required without a specification, overrides that of one.
            positive: value of the label that is the positive class; empty: taken from the specification, else inferred.
            min_class_rows: classes with fewer rows are handled as small_classes says; 1: no class is.
            small_classes: merge: all classes below min_class_rows become one class, other; drop: their rows go to the rejected rows.
            seed: seed of the split, -2^53 to 2^53: KFP passes numbers as doubles, which hold these exactly.
            split: hash: each row's values and the seed decide its set; ordered: the first rows are train, the last rows are test rows.
            order_by: column of numbers or dates by which an ordered split sorts; empty: the order of the file.
            train_fraction: share of train rows, above 0 and below 1.
            validation_fraction: share of validation rows, above 0 and below 1; the remaining rows are test rows.
            max_categories: largest number of values of a categorical column that become features, at least 2.
            numeric_form: how a numeric column becomes features: its value; standardised: less the mean, in standard deviations, of the train rows; quantile_bins: one feature for each of numeric_bins intervals with about equally many train rows.
            numeric_bins: largest number of intervals of a numeric column (quantile_bins), 2 to 1000.
            tuner: what carries out the trials: optuna, one after another in one Spark session; katib, on a cluster, each in a Job of its own.
            parallel_trials: number of trials at one time (katib), 1 to 1000.
            max_failed_trials: number of failed trials with which the search fails (katib), 1 to 10000.
            goal: value of the objective with which the search ends (katib); empty: it ends after all trials.
            retain_trials: keep the Jobs of ended trials (katib).
            resume_policy: whether the Experiment may be given more trials after its end (katib): Never; LongRunning, its Suggestion runs on; FromVolume.
            estimators: kinds of model to try, separated by commas, out of logistic_regression, decision_tree, random_forest, gbt, mlp.
            search: separated by commas: NAME=LOW:HIGH or NAME=LOW:HIGH:log replaces a setting's own range and leaves all others in the search; a NAME alone keeps its range, and then only the settings that are named are searched.
            class_weights: balanced: rows are weighted so that all classes count the same in the fits.
            algorithms: how the next trial is chosen: random, grid, tpe (tree of Parzen estimators), cmaes, bayesianoptimization (Gaussian process) or hyperband (on growing samples of the train rows); several, separated by commas, are compared.
            trials: number of trials of each algorithm, 1 to 10000.
            patience: the search of an algorithm ends after so many trials without a better one, 0 to 10000; 0: after all trials.
            folds: 1: a trial is fitted on the train rows and judged on the validation rows; 2 to 20: on so many parts of both together, each judged by a fit on the others.
            early_stopping: medianstop: a trial that after a fold, or with one fold on a sample of the train rows, is worse than the median of the earlier trials there, ends.
            objective: metric of the validation rows by which trials are compared; auto: areaUnderROC for two classes, logLoss for more.
            second_objective: another metric of the validation rows to search by (random, grid, tpe): the trials that no other one beats in both are the Pareto front; the one that is best in the first competes with the defaults.
            search_seed: seed of the search, 0 to 2^32 - 1.
            spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
            spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        """
        with exit_handler(platform, "Tuning, with the table of trials"):
            load = configure_task(
                components.load(
                    data_uri=data_uri,
                    delimiter=delimiter,
                    quote=quote,
                    encoding=encoding,
                    header=header,
                    max_rejected_fraction=max_rejected_fraction,
                    specification_uri=specification_uri,
                    label=label,
                    positive=positive,
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
                    numeric_form=numeric_form,
                    numeric_bins=numeric_bins,
                    spark=spark,
                    spark_settings=spark_settings,
                    code_version=load.outputs["code_version"],
                ),
                platform,
                "Preprocess",
                cached=True,
            )
            configure_task(
                components.tune(
                    tuner=tuner,
                    parallel_trials=parallel_trials,
                    max_failed_trials=max_failed_trials,
                    goal=goal,
                    retain_trials=retain_trials,
                    resume_policy=resume_policy,
                    preprocess_uri=preprocess.outputs["Output"],
                    estimators=estimators,
                    search=search,
                    class_weights=class_weights,
                    algorithms=algorithms,
                    trials=trials,
                    patience=patience,
                    folds=folds,
                    early_stopping=early_stopping,
                    objective=objective,
                    second_objective=second_objective,
                    search_seed=search_seed,
                    spark=spark,
                    spark_settings=spark_settings,
                    code_version=load.outputs["code_version"],
                ),
                platform,
                "Tune",
                cached=True,
            )

    return tuning_pipeline


tuning_pipeline = make_pipeline(Platform())
