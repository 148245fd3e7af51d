"""The KFP components, one for each step. Their inputs are the arguments of the step and the inputs of the platform.

Generated from spark_jobs/contract.py by `make generate`: change that file, not this one.
The body of a component is one call into `kfp_pipeline.runtime`. A component declares output artifacts for KFP's UI and its lineage, lets
Spark write to their URIs, and returns the URI as text. It takes no artifact as input, because KFP's launcher would copy the whole table
into the task's pod. The module has no `from __future__ import annotations`: KFP reads the annotations as types, not as text.
"""

from typing import NamedTuple

from kfp import dsl

from kfp_pipeline.component_settings import TASK_CONFIG_PASSTHROUGHS, TASK_IMAGE


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def load(
    data_uri: str,
    spark: str,
    spark_settings: dict,
    scheduled_time: str,
    task_config: dsl.TaskConfig,
    table: dsl.Output[dsl.Dataset],
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
) -> NamedTuple("Loaded", [("uri", str), ("code_version", str)]):
    """Reads a CSV or Parquet table and writes it as Parquet with types.

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
        spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
        spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        scheduled_time: when the run was due, like 2026-12-31T23:59:59Z, for {{date}} in data_uri; KFP fills it in.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.loading import run_load

    return run_load(inputs)


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def preprocess(
    load_uri: str,
    spark: str,
    spark_settings: dict,
    code_version: str,
    task_config: dsl.TaskConfig,
    features: dsl.Output[dsl.Dataset],
    seed: int = 42,
    split: str = "hash",
    order_by: str = "",
    train_fraction: float = 0.6,
    validation_fraction: float = 0.2,
    max_categories: int = 100,
    numeric_form: str = "as_is",
    numeric_bins: int = 20,
) -> str:
    """Splits the table into train, validation and test rows and computes their feature vectors.

    Args:
        load_uri: output of load.
        seed: seed of the split, -2^53 to 2^53: KFP passes numbers as doubles, which hold these exactly.
        split: hash: each row's values and the seed decide its set; ordered: the first rows are train, the last rows are test rows.
        order_by: column of numbers or dates by which an ordered split sorts; empty: the order of the file.
        train_fraction: share of train rows, above 0 and below 1.
        validation_fraction: share of validation rows, above 0 and below 1; the remaining rows are test rows.
        max_categories: largest number of values of a categorical column that become features, at least 2.
        numeric_form: how a numeric column becomes features: its value; standardised: less the mean, in standard deviations, of the train rows; quantile_bins: one feature for each of numeric_bins intervals with about equally many train rows.
        numeric_bins: largest number of intervals of a numeric column (quantile_bins), 2 to 1000.
        spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
        spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        code_version: version of the steps' code, so that KFP's cache knows it.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.step import run_task

    return run_task("preprocess", inputs)


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def train(
    preprocess_uri: str,
    spark: str,
    spark_settings: dict,
    code_version: str,
    task_config: dsl.TaskConfig,
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    step_size: float = 0.1,
    fit_seed: int = 42,
    max_iter: int = 100,
    tol: float = 1e-06,
    reg_param: float = 0.0,
    elastic_net_param: float = 0.0,
    fit_intercept: bool = True,
    standardization: bool = True,
    family: str = "auto",
    max_depth: int = 5,
    max_bins: int = 32,
    min_instances_per_node: int = 10,
    num_trees: int = 50,
    subsampling_rate: float = 1.0,
    feature_subset_strategy: str = "auto",
    layers: int = 1,
    units: int = 8,
    solver: str = "l-bfgs",
    tune_uri: str = "",
    estimator: str = "logistic_regression",
    class_weights: str = "none",
    threshold_rule: str = "max_f1",
    train_parts: int = 9,
) -> str:
    """Fits an estimator on the train rows and chooses the decision threshold on the validation rows.

    Args:
        step_size: factor by which each further tree counts, and of each step of solver gd (learning rate), above 0 and at most 1 (gbt, mlp).
        fit_seed: seed of what the fit itself draws at random, such as the rows and features of each tree or the first weights, -2^53 to 2^53; it does not change the split of the rows (decision_tree, random_forest, gbt, mlp).
        max_iter: maximum number of iterations of the optimiser, 1 to 1000000 (logistic_regression, mlp).
        tol: convergence tolerance, above 0 (logistic_regression, mlp).
        reg_param: regularisation strength, 0 or more (logistic_regression).
        elastic_net_param: share of L1 in the penalty, 0 (ridge) to 1 (lasso) (logistic_regression).
        fit_intercept: fit an intercept (logistic_regression).
        standardization: scale features before the penalty is applied (logistic_regression).
        family: auto: binomial for two classes, else multinomial (logistic_regression).
        max_depth: largest number of splits from the root of a tree to a leaf, 1 to 30; at 30 a tree may have 2^30 leaves (decision_tree, random_forest, gbt).
        max_bins: number of intervals between whose ends a numeric feature may be split, 2 to 100000 (decision_tree, random_forest, gbt).
        min_instances_per_node: smallest number of train rows in a leaf, 1 or more (decision_tree, random_forest, gbt).
        num_trees: number of trees, 1 to 10000 (random_forest, gbt).
        subsampling_rate: share of the train rows that are drawn for each tree, above 0 and at most 1 (random_forest, gbt).
        feature_subset_strategy: how many features are drawn as candidates of each split; auto: sqrt for a random forest, all for gbt (random_forest, gbt).
        layers: number of hidden layers, 1 to 5 (mlp).
        units: number of units of each hidden layer, 1 to 512 (mlp).
        solver: optimiser: l-bfgs, or gd for gradient descent with step_size (mlp).
        preprocess_uri: output of preprocess.
        tune_uri: output of tune; empty: the settings are those given; else they are the best of the search, and the fit takes the validation rows, too.
        estimator: kind of model.
        class_weights: balanced: rows are weighted so that all classes count the same in the fit.
        threshold_rule: what the decision threshold maximises on the validation rows: F1, accuracy or Youden's index; half: it is 0.5.
        train_parts: number of parts, of 9, of the train rows on which the model is fitted, 1 to 9; for a search's trials.
        spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
        spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        code_version: version of the steps' code, so that KFP's cache knows it.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.step import run_task

    return run_task("train", inputs)


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def evaluate(
    preprocess_uri: str,
    train_uri: str,
    spark: str,
    spark_settings: dict,
    task_config: dsl.TaskConfig,
    report: dsl.Output[dsl.HTML],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    curves: dsl.Output[dsl.ClassificationMetrics],
    summary: dsl.Output[dsl.Markdown],
    title: str = "",
    bootstrap_samples: int = 500,
) -> str:
    """Evaluates the model on the test rows and writes the report.

    Args:
        preprocess_uri: output of preprocess.
        train_uri: output of train.
        title: title of the report; empty: made from the name of the label.
        bootstrap_samples: number of bootstrap samples for the confidence intervals, 50 to 100000.
        spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
        spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.step import run_task

    return run_task("evaluate", inputs)


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def promote(
    load_uri: str,
    preprocess_uri: str,
    train_uri: str,
    evaluate_uri: str,
    spark: str,
    spark_settings: dict,
    task_config: dsl.TaskConfig,
    promotion: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    verdict: dsl.Output[dsl.Markdown],
    model_name: str = "",
    registry_uri: str = "",
    rules_uri: str = "",
    compare_by: str = "areaUnderROC",
    min_test_rows: int = 30,
    max_balance_shift: float = 0.1,
    max_test_psi: float = 0.2,
    example_rows: int = 20,
    canary_share: float = 0.0,
) -> str:
    """Registers the model and makes it the champion, or the canary, if the gate lets it; a refusal is a normal end.

    Args:
        load_uri: output of load.
        preprocess_uri: output of preprocess.
        train_uri: output of train.
        evaluate_uri: output of evaluate.
        model_name: name of the model in the registry; empty: the model is not promoted.
        registry_uri: directory or URI of the registry; on one machine empty means the setting SPARK_KFP_REGISTRY.
        rules_uri: TOML file with the rules of the gate; on one machine empty means the gate.toml beside the data, else in the working folder; without one there are no bounds.
        compare_by: metric in which the model must not be worse than the champion.
        min_test_rows: smallest number of test rows of each class.
        max_balance_shift: largest change, 0 to 1, of the share of a class in the train rows since the champion.
        max_test_psi: largest population stability index of a column, between train and test rows, and of the scores, between validation and test rows; a larger one counts if it is significant, above 0.
        example_rows: number of test rows that the version keeps, with Spark's probabilities, for a server to check itself; 0: none, 0 to 1000.
        canary_share: share of the requests that a model which passes gets as the canary beside a champion; 0: it becomes the champion at once.
        spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
        spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.step import run_task

    return run_task("promote", inputs)


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def tune(
    preprocess_uri: str,
    spark: str,
    spark_settings: dict,
    code_version: str,
    task_config: dsl.TaskConfig,
    report: dsl.Output[dsl.HTML],
    tuning: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
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
) -> str:
    """Searches the settings of estimators by trials, each fitted on the train rows and judged on the validation rows.

    Args:
        tuner: what carries out the trials: optuna, one after another in one Spark session; katib, on a cluster, each in a Job of its own.
        parallel_trials: number of trials at one time (katib), 1 to 1000.
        max_failed_trials: number of failed trials with which the search fails (katib), 1 to 10000.
        goal: value of the objective with which the search ends (katib); empty: it ends after all trials.
        retain_trials: keep the Jobs of ended trials (katib).
        resume_policy: whether the Experiment may be given more trials after its end (katib): Never; LongRunning, its Suggestion runs on; FromVolume.
        preprocess_uri: output of preprocess.
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
        code_version: version of the steps' code, so that KFP's cache knows it.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.step import run_task

    return run_task("tune", inputs)


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def predict(
    data_uri: str,
    model_uri: str,
    spark: str,
    spark_settings: dict,
    scheduled_time: str,
    task_config: dsl.TaskConfig,
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    delimiter: str = "",
    quote: str = "",
    encoding: str = "",
    header: str = "auto",
    max_rejected_fraction: float = 0.01,
    predictions_uri: str = "",
    keep_columns: str = "*",
    all_probabilities: bool = False,
) -> str:
    """Scores a table with a trained model: batch scoring.

    Args:
        data_uri: the data, CSV (also gzipped) or Parquet: a path or a URI (file:, s3://, s3a://, minio://) of a file, a directory or a glob.
        delimiter: column delimiter; empty: detected from the data.
        quote: quote character; empty: detected from the data.
        encoding: text encoding, such as UTF-8 or ISO-8859-1; empty: detected from the data.
        header: whether the first row holds the column names; auto: detected.
        max_rejected_fraction: largest share of rows, 0 to 1, that may be rejected; the step fails above it.
        model_uri: the model: the output of train, or in a registry the folder of a version, or that of a model, which means its champion.
        predictions_uri: directory that keeps the predictions of all runs, where a file that is scored already is not scored again; empty: output_uri.
        keep_columns: columns of the table that the predictions keep, separated by commas, as they are in the table; *: all; empty: none.
        all_probabilities: write the probability of each class, not only of the positive one.
        spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
        spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        scheduled_time: when the run was due, like 2026-12-31T23:59:59Z, for {{date}} in data_uri; KFP fills it in.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.step import run_task

    return run_task("predict", inputs)


@dsl.component(base_image=TASK_IMAGE, install_kfp_package=False, task_config_passthroughs=TASK_CONFIG_PASSTHROUGHS)
def drift(
    data_uri: str,
    model_uri: str,
    spark: str,
    spark_settings: dict,
    scheduled_time: str,
    task_config: dsl.TaskConfig,
    report: dsl.Output[dsl.HTML],
    drift: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    delimiter: str = "",
    quote: str = "",
    encoding: str = "",
    header: str = "auto",
    max_rejected_fraction: float = 0.01,
    psi_limit: float = 0.2,
    share_limit: float = 0.05,
    significance: float = 0.01,
    min_area_under_roc: float = 0.0,
    train_data_uri: str = "",
    cooldown_hours: float = 24.0,
) -> str:
    """Compares a table, or what a server counted, with the rows that a model was trained on.

    Args:
        data_uri: the data, CSV (also gzipped) or Parquet: a path or a URI (file:, s3://, s3a://, minio://) of a file, a directory or a glob.
        delimiter: column delimiter; empty: detected from the data.
        quote: quote character; empty: detected from the data.
        encoding: text encoding, such as UTF-8 or ISO-8859-1; empty: detected from the data.
        header: whether the first row holds the column names; auto: detected.
        max_rejected_fraction: largest share of rows, 0 to 1, that may be rejected; the step fails above it.
        model_uri: the model: the output of train, or in a registry the folder of a version, or that of a model, which means its champion.
        psi_limit: population stability index of a column or of the scores beyond which a significant change is an alarm, above 0.
        share_limit: change of the share of missing cells, and rise of that of new categories, beyond which it is an alarm, above 0 and below 1.
        significance: probability of an alarm if nothing has changed, at most, above 0 and below 1.
        min_area_under_roc: areaUnderROC, 0 to 1, of the labelled rows of a table: an alarm if its whole 95 % interval is below; 0: none is.
        train_data_uri: labelled data on which an alarm starts a training; model_uri is then that of a model in a registry.
        cooldown_hours: an alarm starts no training so many hours after the last one for the same model was started, 0 or more.
        spark: where Spark runs: operator (an application for each step), shared (one for the run), or local[*] on one machine.
        spark_settings: resources for this run, STEP (or all; session for a shared one) to a partial SparkApplication spec: {"train": {"driver": {"memory": "4g"}}}.
        scheduled_time: when the run was due, like 2026-12-31T23:59:59Z, for {{date}} in data_uri; KFP fills it in.
        task_config: filled in by KFP.
    """
    inputs = dict(locals())
    from kfp_pipeline.runtime.step import run_task

    return run_task("drift", inputs)
