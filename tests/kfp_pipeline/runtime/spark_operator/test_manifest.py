"""The SparkApplication of a step: what the platform says, what a run may change on top, and what it may not."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_pipeline.runtime.spark_operator.manifest import (
    OUTPUT_URI_ANNOTATION,
    RUN_LABEL,
    SPEC_HASH_ANNOTATION,
    STEP_LABEL,
    STEPS_KEY,
    TEMPLATE_KEY,
    application_name,
    build_application,
    driver_memory,
    images_of,
    label_value,
    spec_hash,
)
from spark_jobs.contract import LoadArgs, Step
from spark_jobs.errors import InputError

TEMPLATE = (Path(__file__).resolve().parents[4] / "spark-operator/base/spark-application.yaml").read_text()
ARGS = LoadArgs(data_uri="s3://data/bank.csv", label="deposit", output_uri="s3://kfp/run-1/load")


def build(
    steps: dict[str, Any] | None = None,
    overrides: dict[str, Any] | None = None,
    *,
    template: str = TEMPLATE,
    run: str = "run-1",
    args: LoadArgs = ARGS,
) -> dict[str, Any]:
    config = {"spark-application.yaml": template, "steps.yaml": yaml.safe_dump(steps or {})}
    return build_application(config, Step.LOAD, args, run=run, overrides=overrides or {})


def template_with(**spec: Any) -> str:
    """The platform's template with fields of its spec replaced."""
    document = yaml.safe_load(TEMPLATE)
    document["spec"].update(spec)
    return yaml.safe_dump(document)


def test_the_template_as_it_is_becomes_a_valid_application_with_the_steps_arguments() -> None:
    application = build()
    assert application["spec"]["image"] == yaml.safe_load(TEMPLATE)["spec"]["image"]
    assert application["spec"]["arguments"][0] == "load"
    assert "s3://data/bank.csv" in " ".join(application["spec"]["arguments"])
    assert application["metadata"]["annotations"][OUTPUT_URI_ANNOTATION] == ARGS.output_uri
    assert application["metadata"]["annotations"][SPEC_HASH_ANNOTATION] == spec_hash(application["spec"])


def memory(steps: dict[str, Any], overrides: dict[str, Any]) -> str:
    def spec(text: str) -> dict[str, Any]:
        return {"driver": {"memory": text}}

    given = [{name: spec(text) for name, text in layer.items()} for layer in (steps, overrides)]
    return str(build(*given)["spec"]["driver"]["memory"])


@pytest.mark.parametrize(
    ("steps", "overrides", "wins"),
    [
        ({}, {}, "2g"),
        ({"all": "3g"}, {}, "3g"),
        ({"load": "4g", "all": "3g"}, {}, "4g"),
        ({"load": "4g", "all": "3g"}, {"all": "5g"}, "5g"),
        ({"load": "4g"}, {"load": "6g", "all": "5g"}, "6g"),
        ({"train": "7g"}, {"evaluate": "8g"}, "2g"),
    ],
)
def test_the_run_is_over_the_platform_and_a_step_over_all(
    steps: dict[str, Any], overrides: dict[str, Any], wins: str
) -> None:
    assert memory(steps, overrides) == wins


@pytest.mark.parametrize(
    ("steps", "on_task", "overrides", "told"),
    [
        ("{}", {}, {}, "2g, from spark-application.yaml of the platform"),
        ("all: {driver: {memory: 2g}}", {}, {}, "2g, from steps.yaml of the platform, under all"),
        ("{all: {driver: {memory: 3g}}, load: {driver: {memory: 4g}}}", {}, {}, "4g, from steps.yaml of the platform, under load"),
        ("train: {driver: {memory: 4g}}", {}, {}, "2g, from spark-application.yaml of the platform"),
        ("all: {driver: {memory: 3g}}", {"limits": {"memory": "1400Mi"}}, {}, "1000m, from what is set on the task (TaskConfig)"),
        ("{}", {"limits": {"cpu": "1"}}, {}, "2g, from spark-application.yaml of the platform"),
        ("{}", {"limits": {"memory": "1400Mi"}}, {"all": {"driver": {"memory": "5g"}}}, "5g, from the run's Spark settings, under all"),
        ("{}", {}, {"all": {"driver": {"memory": "5g"}}, "load": {"driver": {"memory": "6g"}}},
         "6g, from the run's Spark settings, under load"),
        ("load: {driver: {memory: null}}", {}, {}, "as Spark sets it, 1g, from steps.yaml of the platform, under load"),
    ],
)  # fmt: skip
def test_it_is_told_where_the_drivers_memory_comes_from(
    steps: str, on_task: dict[str, Any], overrides: dict[str, Any], told: str
) -> None:
    config, given = {TEMPLATE_KEY: TEMPLATE, STEPS_KEY: steps}, {"resources": on_task}
    made = build_application(config, Step.LOAD, ARGS, run="", overrides=overrides, task_config=given)
    assert driver_memory(made, config, Step.LOAD, overrides, given) == told


def test_mappings_are_merged_lists_replaced_and_null_removes() -> None:
    steps = {"all": {"driver": {"coreRequest": None, "tolerations": [{"key": "a", "operator": "Exists"}]}}}
    overrides = {
        "all": {"driver": {"tolerations": [{"key": "b", "operator": "Exists"}]}},
        "load": {"sparkConf": {"spark.sql.shuffle.partitions": None}},
    }
    spec = build(steps, overrides)["spec"]
    assert "coreRequest" not in spec["driver"]
    assert [item["key"] for item in spec["driver"]["tolerations"]] == ["b"]
    assert "spark.sql.shuffle.partitions" not in spec["sparkConf"]
    assert spec["sparkConf"]["spark.authenticate"] == "true"
    assert spec["driver"]["serviceAccount"] == "spark-kfp-driver"


def test_an_empty_step_changes_nothing() -> None:
    assert build({"all": None, "load": None}, {"load": None}) == build()


def test_building_leaves_what_it_was_given_as_it_was() -> None:
    overrides = {"all": {"executor": {"nodeSelector": {"a": "b"}}}, "load": {"executor": {"nodeSelector": {"a": "c"}}}}
    build({}, overrides)
    assert overrides["all"] == {"executor": {"nodeSelector": {"a": "b"}}}


@pytest.mark.parametrize(
    "change",
    [
        {"driver": {"cores": 2, "memory": "3g", "memoryOverhead": "1g", "coreLimit": "2"}},
        {"executor": {"instances": 3}},
        {"dynamicAllocation": {"enabled": True, "maxExecutors": 4}},
        {"nodeSelector": {"disk": "ssd"}},
        {"memoryOverheadFactor": "0.2"},
        {"sparkConf": {"spark.sql.adaptive.enabled": "false"}},
        {"sparkConf": {"spark.sql.files.maxPartitionBytes": "1m"}},
        {"sparkConf": {"spark.memory.fraction": "0.5"}},
        {"sparkConf": {"spark.default.parallelism": "4"}},
        {"sparkConf": {"spark.network.timeout": "300s"}},
    ],
    ids=str,
)
def test_a_run_may_ask_for_resources(change: dict[str, Any]) -> None:
    spec = build({}, {"load": change})["spec"]
    for name, value in change.items():
        assert spec[name] == value or value.items() <= spec[name].items()


@pytest.mark.parametrize("where", ["all", "load"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image": "evil:1"}, "image"),
        ({"imagePullPolicy": "Always"}, "imagePullPolicy"),
        ({"imagePullSecrets": ["other"]}, "imagePullSecrets"),
        ({"mainApplicationFile": "s3a://evil/main.py"}, "mainApplicationFile"),
        ({"arguments": ["train"]}, "arguments"),
        ({"deps": {"jars": ["http://evil/x.jar"]}}, "deps"),
        ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volumes"),
        ({"hadoopConf": {"fs.s3a.endpoint": "http://evil"}}, "hadoopConf"),
        ({"proxyUser": "root"}, "proxyUser"),
        ({"restartPolicy": {"type": "Always"}}, "restartPolicy"),
        ({"timeToLiveSeconds": 1}, "timeToLiveSeconds"),
        ({"driver": {"serviceAccount": "admin"}}, "driver.serviceAccount"),
        ({"driver": {"image": "evil:1"}}, "driver.image"),
        ({"driver": {"volumeMounts": []}}, "driver.volumeMounts"),
        ({"driver": {"env": [{"name": "A", "value": "b"}]}}, "driver.env"),
        ({"driver": {"envFrom": []}}, "driver.envFrom"),
        ({"driver": {"envSecretKeyRefs": {}}}, "driver.envSecretKeyRefs"),
        ({"driver": {"secrets": []}}, "driver.secrets"),
        ({"driver": {"template": {"spec": {"hostNetwork": True}}}}, "driver.template"),
        ({"driver": {"template": None}}, "driver.template"),
        ({"driver": {"hostNetwork": True}}, "driver.hostNetwork"),
        ({"driver": {"securityContext": {"privileged": True}}}, "driver.securityContext"),
        ({"driver": {"podSecurityContext": None}}, "driver.podSecurityContext"),
        ({"driver": {"javaOptions": "-javaagent:x"}}, "driver.javaOptions"),
        ({"driver": {"labels": {}}}, "driver.labels"),
        ({"driver": {"sidecars": []}}, "driver.sidecars"),
        ({"driver": {"instances": 2}}, "driver.instances"),
        ({"executor": {"serviceAccount": "admin"}}, "executor.serviceAccount"),
        ({"executor": {"template": {}}}, "executor.template"),
        ({"executor": {"hostNetwork": True}}, "executor.hostNetwork"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_may_not_give_itself_other_rights(where: str, change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=rf"may not set '?{re.escape(named)}'?\b"):
        build({}, {where: change})


@pytest.mark.parametrize(
    "key",
    [
        "spark.kubernetes.driver.podTemplateFile",
        "spark.kubernetes.authenticate.driver.serviceAccountName",
        "spark.kubernetes.container.image",
        "spark.hadoop.fs.s3a.endpoint",
        "spark.hadoop.fs.s3a.access.key",
        "spark.jars",
        "spark.jars.packages",
        "spark.files",
        "spark.submit.pyFiles",
        "spark.driver.extraJavaOptions",
        "spark.driver.extraClassPath",
        "spark.executor.extraJavaOptions",
        "spark.executorEnv.LD_PRELOAD",
        "spark.plugins",
        "spark.sql.extensions",
        "spark.sql.catalog.evil",
        "spark.extraListeners",
        "spark.authenticate",
        "spark.master",
        "spark.pyspark.python",
        "spark.eventLog.dir",
        "spark.network.timeout.more",
        "spark.default.parallelism.more",
        "spark.serializer.more",
        "xspark.memory.fraction",
        "spark.memoryX",
        "",
    ],
)
def test_a_run_may_not_configure_what_loads_code_or_gives_rights(key: str) -> None:
    with pytest.raises(InputError, match=f"may not set {re.escape(key)};"):
        build({}, {"load": {"sparkConf": {key: "x"}}})
    with pytest.raises(InputError, match="may not set"):  # nor take away
        build({}, {"load": {"sparkConf": {key: None}}})


def test_what_a_run_may_not_set_the_platform_may() -> None:
    change = {"image": "ours:2", "sparkConf": {"spark.jars.packages": "a:b:1"}, "driver": {"serviceAccount": "other"}}
    spec = build({"load": change})["spec"]
    assert (spec["image"], spec["driver"]["serviceAccount"]) == ("ours:2", "other")
    assert spec["sparkConf"]["spark.jars.packages"] == "a:b:1"


@pytest.mark.parametrize("change", [{"driver": "4g"}, {"driver": None}, {"sparkConf": ["a"]}, {"executor": 3}], ids=str)
def test_a_part_of_the_runs_settings_that_is_no_mapping_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"'{next(iter(change))}' of the run's Spark settings must be a mapping"):
        build({}, {"load": change})


@pytest.mark.parametrize(
    ("steps", "overrides", "where"),
    [
        ({"trian": {}}, {}, "steps.yaml of the ConfigMap: 'trian'"),
        ({}, {"trian": {}}, "the run's Spark settings: 'trian'"),
        ({"load": "4g"}, {}, "steps.yaml of the ConfigMap: load must be a mapping"),
        ({}, {"train": ["4g"]}, "the run's Spark settings: train must be a mapping"),
    ],
)
def test_a_step_that_is_not_there_is_named_with_where_it_stands(
    steps: dict[str, Any], overrides: dict[str, Any], where: str
) -> None:
    with pytest.raises(InputError, match=where):
        build(steps, overrides)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"sparkVersoin": "4"}, "sparkVersoin"),
        ({"driver": {"memroy": "2g"}}, "driver.memroy"),
        ({"executor": {"instance": 2}}, "executor.instance"),
        ({"dynamicAllocation": {"enabld": True}}, "dynamicAllocation.enabld"),
        ({"volumes": [{"name": "a", "emptyDirr": {"medium": "Memory"}}]}, "volumes.0.emptyDirr"),
    ],
)
def test_a_typo_in_the_template_is_named(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=rf"unknown field spec\.{re.escape(named)};"):
        build(template=template_with(**spec))


@pytest.mark.parametrize(
    ("spec", "named"), [({"driver": {"cores": "one"}}, "cores"), ({"executor": {"instances": "many"}}, "instances")]
)
def test_a_value_of_the_wrong_type_is_named(spec: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"not valid: .*{named}.*"):
        build(template=template_with(**spec))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"driver": {"memory": "2g", "cores": "many"}}, "train.driver.cores is not valid"),
        ({"driver": {"tolerations": 3}}, "train.driver.tolerations is not valid"),
        ({"sparkConf": {"spark.task.maxFailures": [1]}}, "train.sparkConf.spark.task.maxFailures is not valid"),
        ({"executor": {"memory": "4 giga"}}, "train.executor.memory is not valid: .* write it like 512m or 4g"),
        ({"driver": {"memoryOverhead": "0.5g"}}, "train.driver.memoryOverhead is not valid: .* write it like"),
        ({"image": "other"}, "may not set 'image'"),
    ],
)
def test_a_wrong_setting_of_a_later_step_is_told_by_its_path_before_the_first_step_runs(
    change: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        build({}, {"train": change})


@pytest.mark.parametrize("amount", ["512", "512m", "4g", "4G", "2gb", "1048576k", "1t", "100b"])
def test_an_amount_of_memory_that_spark_reads_is_taken(amount: str) -> None:
    assert build({}, {"load": {"driver": {"memory": amount}}})["spec"]["driver"]["memory"] == amount


@pytest.mark.parametrize("text", ["a: [", "- a", "", "just words"])
def test_a_template_that_is_no_mapping_is_told(text: str) -> None:
    with pytest.raises(InputError, match=r"spark-application\.yaml of the ConfigMap"):
        build(template=text)


def test_the_hash_knows_no_order_of_keys_but_every_value() -> None:
    assert spec_hash({"a": {"b": 1, "c": 2}, "d": 3}) == spec_hash({"d": 3, "a": {"c": 2, "b": 1}})
    assert spec_hash({"a": [1, 2]}) != spec_hash({"a": [2, 1]})
    assert spec_hash({"a": 1}) != spec_hash({"a": "1"})


def test_the_hash_changes_with_what_a_run_changes_but_not_with_its_name() -> None:
    def digest(**given: Any) -> str:
        return str(build(**given)["metadata"]["annotations"][SPEC_HASH_ANNOTATION])

    assert digest() == digest(run="another")
    assert digest() != digest(overrides={"load": {"driver": {"memory": "9g"}}})
    assert digest() != digest(args=replace(ARGS, label="other"))


def test_the_name_is_that_of_the_output_and_of_nothing_else() -> None:
    assert build()["metadata"]["name"] == build({}, {"all": {"driver": {"cores": 2}}}, run="2")["metadata"]["name"]
    others = {application_name(step, f"s3://kfp/{number}") for step in Step for number in range(50)}
    assert len(others) == 50 * len(Step)


@pytest.mark.parametrize("uri", ["s3://a/b", "s3://Ä/ö ü", "", "x" * 5000])
def test_the_name_is_dns_1035_with_room_for_the_drivers_suffix(uri: str) -> None:
    for step in Step:
        name = application_name(step, uri)
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(f"{name}-driver") <= 63


@pytest.mark.parametrize(
    "run", ["run 1", "-x-", "Ärger/über:alles", "a" * 62 + "-b", "x" * 200, "___", "(nightly)", "1", "a\n"]
)
def test_a_run_of_any_name_gives_a_valid_label(run: str) -> None:
    label = build(run=run)["metadata"]["labels"][RUN_LABEL]
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", label)
    assert len(label) <= 63


@pytest.mark.parametrize(
    ("one", "other"), [("a b", "a-b"), ("täglich", "t-glich"), ("x" * 64, "x" * 65), ("_a", "a"), ("Ä", "Ö")]
)
def test_two_runs_never_share_a_label(one: str, other: str) -> None:
    assert label_value(one) != label_value(other)
    assert label_value(label_value(one)) == label_value(one), "what status shows names the run too"


def test_the_id_that_kfp_gives_a_run_is_its_label() -> None:
    assert label_value("0e3f9a0c-7d1b-4c55-9a39-1f2d3c4b5a69") == "0e3f9a0c-7d1b-4c55-9a39-1f2d3c4b5a69"


def test_labels_of_the_template_stay_and_without_a_run_there_is_no_label_for_it() -> None:
    document = yaml.safe_load(TEMPLATE)
    document["metadata"]["labels"]["team"] = "risk"
    labels = build(template=yaml.safe_dump(document), run="")["metadata"]["labels"]
    assert labels == {"app.kubernetes.io/managed-by": "spark-kfp", STEP_LABEL: "load", "team": "risk"}


@pytest.mark.parametrize(
    "text",
    [
        "sparkConf: {1: x}",
        "nodeSelector: {1: x, b: c}",
        "driver: {memory: 2024-01-01}",
        "nodeSelector: {a: 2024-01-01}",
    ],
)
def test_what_yaml_takes_for_a_number_or_a_date_is_refused_as_bad_input(text: str) -> None:
    with pytest.raises(InputError):
        build({}, {"load": yaml.safe_load(text)})


@pytest.mark.parametrize("where", ["metadata", "spec", "labels"])
def test_an_empty_part_of_the_template_is_filled_or_refused_but_no_crash(where: str) -> None:
    document = yaml.safe_load(TEMPLATE)
    (document["metadata"] if where == "labels" else document)[where] = None
    try:
        assert build(template=yaml.safe_dump(document))["metadata"]["labels"][STEP_LABEL] == "load"
    except InputError:
        assert where == "spec"


@pytest.mark.parametrize(
    "key",
    ["spark.shuffle.manager", "spark.shuffle.sort.io.plugin.class", "spark.sql.adaptive.customCostEvaluatorClass"],
)
def test_a_run_may_not_name_a_class_to_load(key: str) -> None:
    with pytest.raises(InputError, match="may not set"):
        build({}, {"load": {"sparkConf": {key: "evil.Class"}}})


def test_without_executors_spark_runs_in_the_driver() -> None:
    for steps, overrides in (
        ({"all": {"executor": {"instances": 0}}}, {}),
        ({}, {"load": {"executor": {"instances": 0}}}),
    ):
        spec = build(steps, overrides)["spec"]
        assert "instances" not in spec["executor"], "the operator's schema wants at least one"
        assert spec["sparkConf"]["spark.kubernetes.driverEnv.SPARK_KFP_MASTER"] == "local[*]"
    assert not [name for name in build()["spec"]["sparkConf"] if "driverEnv" in name]


def test_without_executors_there_is_nothing_to_allocate() -> None:
    wanted = {"executor": {"instances": 0}, "dynamicAllocation": {"enabled": True, "maxExecutors": 4}}
    with pytest.raises(InputError, match=r"instances is 0, .* enabled: false"):
        build({"train": wanted}, {"load": wanted})


def test_images_are_found_wherever_the_template_names_one() -> None:
    template = "spec: {image: a, driver: {image: b, sidecars: [{name: x, image: c}]}}"
    assert images_of({"spark-application.yaml": template, "steps.yaml": ""}) == ["a", "b", "c"]
