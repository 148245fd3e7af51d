"""Builds the SparkApplication of a step from the platform's template.

The template and the platform's changes for single steps are in a ConfigMap of the namespace, made from `spark-operator/`. A run may change
resources and a few Spark settings, but nothing that would give it more rights, such as the image or the service account. This module
does not submit anything.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml
from kubeflow_spark_api.models import SparkV1beta2SparkApplication
from pydantic import ValidationError

from kfp_pipeline.runtime.kubernetes_api import CONFIG_MAPS, Cluster
from kfp_pipeline.runtime.spark_operator.task_config import apply_task_config
from spark_jobs.arguments import StepArgs, to_argv
from spark_jobs.contract import MASTER_VARIABLE, Step
from spark_jobs.errors import InputError
from spark_jobs.session_requests import SESSION, request_name

Document = dict[str, Any]
TEMPLATE_KEY, STEPS_KEY = "spark-application.yaml", "steps.yaml"
MANAGED_BY = {"app.kubernetes.io/managed-by": "spark-kfp"}
STEP_LABEL, RUN_LABEL = "spark-kfp/step", "spark-kfp/run"
SPEC_HASH_ANNOTATION, ATTEMPT_ANNOTATION, OUTPUT_URI_ANNOTATION = (
    "spark-kfp/spec-hash",
    "spark-kfp/attempt",
    "spark-kfp/output-uri",
)
LEASE_ANNOTATION = "spark-kfp/lease-seconds"

POD_FIELDS = ("cores", "coreRequest", "coreLimit", "memory", "memoryOverhead", "nodeSelector", "tolerations")
RUN_MAY_SET: Mapping[str, Sequence[str] | None] = {
    "driver": POD_FIELDS,
    "executor": (*POD_FIELDS, "instances"),
    "dynamicAllocation": None,
    "nodeSelector": None,
    "memoryOverheadFactor": None,
    "sparkConf": None,
}
"""The fields of a SparkApplication's spec that a run may change, and which fields inside them; None: all, but see below for sparkConf."""
RUN_MAY_SET_IN_SPARK_CONF = re.compile(
    r"(?!.*(Class|class|shuffle\.manager)$)spark\.(sql\.(shuffle|files|adaptive|autoBroadcastJoinThreshold|parquet\.compression)|memory\.|default\.parallelism$|locality\."
    r"|task\.|speculation|network\.timeout$|rpc\.|shuffle\.|reducer\.|executor\.heartbeatInterval$|kryoserializer\.|serializer$|log\.level$)"
)
"""The keys of sparkConf that a run may set: tuning, but no class to load and no address."""

LOCAL_MASTER = "local[*]"
"""Spark's master URL of a step without executors."""
MEMORY = re.compile(r"[1-9][0-9]*([kmgtp]b?|b)?", re.IGNORECASE)
"""An amount of memory as Spark reads it; a bare number is MiB."""


def read_config(
    cluster: Cluster, name: str, template: str = TEMPLATE_KEY, folder: str = "spark-operator/"
) -> dict[str, str]:
    """Reads the data of a ConfigMap of the platform.

    Args:
        cluster: the namespace.
        name: name of the ConfigMap.
        template: the key that it must have.
        folder: the manifests that make it, for the error message.

    Raises:
        InputError: the ConfigMap does not exist, or lacks the template.
    """
    found = cluster.get(CONFIG_MAPS, name)
    if not found or template not in found.get("data", {}):
        raise InputError(
            f"namespace {cluster.namespace} has no ConfigMap {name!r} with {template}; make it: kubectl apply -k {folder}"
        )
    return dict(found["data"])


def build_application(
    config: Mapping[str, str],
    step: Step,
    args: StepArgs,
    *,
    run: str,
    overrides: Mapping[str, Any],
    task_config: Mapping[str, Any] | None = None,
) -> Document:
    """Builds the SparkApplication of a step.

    Args:
        config: the data of the platform's ConfigMap.
        step: the step.
        args: the step's arguments.
        run: the run's id, for a label.
        overrides: the run's Spark settings: a partial spec for each step; the one named `all` is for every step.
        task_config: what the pipeline's author set on the KFP task; the run's settings are merged after it.

    Returns:
        The object as the API server takes it.

    Raises:
        InputError: the template or a change is not valid, or the run may not change that field.
    """
    check_overrides(overrides)
    if SESSION in overrides:
        raise InputError(
            f"the run's Spark settings: {SESSION} is for a session that the steps share: say --spark=shared, or name a step"
        )
    for other in Step:  # a wrong setting of a later step fails before the first step runs
        _merged_template(config, other, overrides, {})
    application = _merged_template(config, step, overrides, task_config or {})
    application["spec"]["arguments"] = [str(step), *to_argv(args)]
    hashed = spec_hash(application["spec"])
    return _identified(application, step, str(vars(args)["output_uri"]), run, hashed)


def build_session_application(
    config: Mapping[str, str],
    session_uri: str,
    run_folder: str,
    *,
    run: str,
    overrides: Mapping[str, Any],
    task_config: Mapping[str, Any] | None = None,
) -> Document:
    """Builds the SparkApplication whose session the steps of a run share.

    Args:
        config: see `build_application`.
        session_uri: URI of the session's folder, another one for each attempt; it does not count in the digest of the spec.
        run_folder: URI of the run's folder, from which the name is made.
        run: see `build_application`.
        overrides: the run's Spark settings: a partial spec named `session`, and one named `all`.
        task_config: see `build_application`; all tasks of the run must have the same.

    Raises:
        InputError: as `build_application`, or the settings name a single step.
    """
    check_overrides(overrides)
    if steps := [name for name in overrides if name in list(Step)]:
        raise InputError(
            f"the run's Spark settings: with --spark=shared no step has a driver of its own, so {', '.join(steps)} can have no settings; "
            f"give them to {SESSION}, or say --spark=operator"
        )
    platform = _document(config, STEPS_KEY) if config.get(STEPS_KEY) else {}
    for where, changes in ((f"{STEPS_KEY} of the platform", platform), ("the run's Spark settings", overrides)):
        if "executor" in (changes.get(SESSION) or {}):
            raise InputError(
                f"{where}: a session that steps share has no executors, its Spark runs in the driver; take executor out of {SESSION}"
            )
    application = _merged_template(config, SESSION, overrides, task_config or {})
    hashed = spec_hash(application["spec"])
    application["spec"]["arguments"] = [SESSION, session_uri]
    return _identified(application, SESSION, session_uri, run, hashed, name_from=run_folder)


def _identified(
    application: Document, program: str, output: str, run: str, hashed: str, name_from: str = ""
) -> Document:
    """Adds the name, labels and annotations by which the application is found again."""
    metadata = application["metadata"]
    metadata["name"] = application_name(program, name_from or output)
    labels = {**MANAGED_BY, STEP_LABEL: str(program), **({RUN_LABEL: label_value(run)} if run else {})}
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    annotations = {OUTPUT_URI_ANNOTATION: output, SPEC_HASH_ANNOTATION: hashed}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    return application


def _merged_template(
    config: Mapping[str, str], step: str, overrides: Mapping[str, Any], task_config: Mapping[str, Any]
) -> Document:
    """Merges the changes of the platform, the pipeline's author and the run into the template, in this order."""
    application = _document(config, TEMPLATE_KEY)
    platform = _document(config, STEPS_KEY) if config.get(STEPS_KEY) else {}
    _check_steps(platform, f"{STEPS_KEY} of the ConfigMap")
    application["metadata"] = application.get("metadata") or {}
    spec = application["spec"] = application.get("spec") or {}
    for change in (platform.get("all"), platform.get(step)):
        _merge(spec, change or {})
    apply_task_config(spec, task_config)
    _validate(application, "the SparkApplication")
    for name in ("all", step):
        # Validated one setting at a time, so that the error names the wrong one.
        for path, change in _single_settings(overrides.get(name) or {}):
            _merge(spec, change)
            _validate(application, f"the run's Spark settings: {name}.{path}")
    if (spec.get("executor") or {}).get("instances") == 0:
        _run_in_driver(spec)
    return application


def _run_in_driver(spec: Document) -> None:
    """Lets Spark run in the driver's pod alone. The operator and its schema know no application without executors, so the step does it.

    Raises:
        InputError: the spec asks for executors elsewhere.
    """
    if (spec.get("dynamicAllocation") or {}).get("enabled"):
        raise InputError(
            "executor.instances is 0, so dynamicAllocation has nothing to allocate; set enabled: false there"
        )
    del spec["executor"]["instances"]
    spec["sparkConf"] = {**(spec.get("sparkConf") or {}), f"spark.kubernetes.driverEnv.{MASTER_VARIABLE}": LOCAL_MASTER}


def steps_with_settings(config: Mapping[str, str]) -> list[str]:
    """Lists the steps for which the platform has settings of their own, which a shared session cannot take."""
    platform = _document(config, STEPS_KEY) if config.get(STEPS_KEY) else {}
    return [name for name, change in platform.items() if name in list(Step) and change]


def images_of(config: Mapping[str, str]) -> list[str]:
    """Lists every image that the platform's SparkApplication template and its changes for single steps name."""
    documents = [_document(config, key) for key in (TEMPLATE_KEY, STEPS_KEY) if config.get(key)]
    return sorted({name for document in documents for name in _images(document)})


def _images(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from (str(value),) if name == "image" else _images(value)
    elif isinstance(part, list):
        for item in part:
            yield from _images(item)


def driver_memory(
    application: Mapping[str, Any],
    config: Mapping[str, str],
    step: str,
    overrides: Mapping[str, Any],
    task_config: Mapping[str, Any],
) -> str:
    """Describes the driver's memory and where it was set, for the task's log: the last place in the order of merging counts.

    Args:
        application: as `build_application` made it from the other arguments.
        config: see `build_application`.
        step: the step, or `session`.
        overrides: see `build_application`.
        task_config: see `build_application`.
    """
    platform = _document(config, STEPS_KEY) if config.get(STEPS_KEY) else {}
    resources = task_config.get("resources") or {}
    set_on_task = any((resources.get(kind) or {}).get("memory") for kind in ("limits", "requests"))
    places = [
        (f"{TEMPLATE_KEY} of the platform", _document(config, TEMPLATE_KEY).get("spec")),
        *((f"{STEPS_KEY} of the platform, under {name}", platform.get(name)) for name in ("all", step)),
        ("what is set on the task (TaskConfig)", {"driver": {"memory": None}} if set_on_task else {}),
        *((f"the run's Spark settings, under {name}", overrides.get(name)) for name in ("all", step)),
    ]
    setting = [place for place, change in places if "memory" in ((change or {}).get("driver") or {})]
    memory = (application["spec"].get("driver") or {}).get("memory") or "as Spark sets it, 1g"
    return f"{memory}, from {setting[-1] if setting else 'nobody'}"


def application_name(program: str, uri: str) -> str:
    """Makes the name of an application from a step and the URI of its output, or from `session` and the URI of the run's folder.

    The name is the same for each attempt of a task, because KFP keeps the artifact's URI in a retry.

    The names of two tasks always differ. A name is a DNS-1035 label of at most 56 characters: Spark appends `-driver` for the pod.
    """
    return f"spark-kfp-{request_name(program, uri)}"


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Computes a digest of a spec that does not depend on the order of its keys."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def _document(config: Mapping[str, str], key: str) -> Document:
    try:
        found = yaml.safe_load(config[key])
    except yaml.YAMLError as error:
        raise InputError(f"{key} of the ConfigMap is not YAML: {error}") from error
    if found is None and key != TEMPLATE_KEY:  # a file with comments only
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{key} of the ConfigMap must hold a mapping")
    return found


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Checks the Spark settings of a run without the platform's template.

    Raises:
        InputError: a name is no step, or a run may not change that field.
    """
    _check_steps(overrides, "the run's Spark settings")
    for change in overrides.values():
        _check_allowed(change or {})


def _check_steps(changes: Mapping[str, Any], where: str) -> None:
    for name, change in changes.items():
        if name not in ("all", SESSION, *Step):
            raise InputError(f"{where}: {name!r} is no step; use all, {SESSION}, {', '.join(Step)}")
        if change is not None and not isinstance(change, Mapping):
            raise InputError(f"{where}: {name} must be a mapping like {{driver: {{memory: 2g}}}}")


def _check_allowed(change: Mapping[str, Any]) -> None:
    """Refuses fields that a run may not change, such as image, service account, volumes, environment and pod templates."""
    for key, value in change.items():
        if key not in RUN_MAY_SET:
            raise InputError(
                f"a run may not set {key!r} of its SparkApplication; it may set {', '.join(RUN_MAY_SET)}. "
                f"The platform team sets the rest in spark-operator/"
            )
        if not isinstance(value, Mapping) and key != "memoryOverheadFactor":
            raise InputError(f"{key!r} of the run's Spark settings must be a mapping")
        allowed = RUN_MAY_SET[key]
        for name in map(str, value if isinstance(value, Mapping) else ()):
            if allowed is not None and name not in allowed:
                raise InputError(f"a run may not set {key}.{name}; of {key} it may set {', '.join(allowed)}")
            if key == "sparkConf" and not RUN_MAY_SET_IN_SPARK_CONF.match(name):
                raise InputError(f"a run may not set {name}; the platform team sets it in spark-operator/")


def _merge(target: Document, change: Mapping[str, Any]) -> None:
    """Applies a JSON merge patch (RFC 7396): it merges mappings by key, null removes a key, and any other value replaces."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            inner = target[key] if isinstance(target.get(key), dict) else {}
            target[key] = inner
            _merge(inner, value)
        else:
            target[key] = copy.deepcopy(value)


def _single_settings(change: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Document]]:
    """Splits a change into its single settings: yields the path of each and a change with this setting only."""
    for key, value in change.items():
        if isinstance(value, Mapping) and value:
            for inner, single in _single_settings(value, f"{path}{key}."):
                yield inner, {key: single}
        else:
            yield f"{path}{key}", {key: value}


def _validate(application: Document, what: str) -> None:
    """Checks names and types of fields by the operator's schema, and amounts of memory by the JVM's syntax."""
    check_by_model(SparkV1beta2SparkApplication, application, what)
    for role in ("driver", "executor"):
        for name in ("memory", "memoryOverhead"):
            amount = (application["spec"].get(role) or {}).get(name)
            if amount is not None and not MEMORY.fullmatch(amount):
                raise InputError(f"{what} is not valid: {role}.{name} is {amount!r}; write it like 512m or 4g")


def check_by_model(model: Any, document: Mapping[str, Any], what: str, path: str = "") -> None:
    """Checks names and types of a document's fields by a typed model of its schema.

    Args:
        model: the model's class.
        document: the document.
        what: what is checked, for the error message.
        path: where the document stands in what is checked, such as `spec.template.`; empty: it is the whole.

    Raises:
        InputError: a field is unknown or of another type.
    """
    if wrong := _not_json(document, path):
        raise InputError(f"{what} is not valid: {wrong}; put it in quotes")
    try:
        typed = model.from_dict(copy.deepcopy(dict(document)))
    except ValidationError as error:
        first = error.errors()[0]
        where = path + ".".join(map(str, first["loc"]))
        raise InputError(f"{what} is not valid: {where}: {first['msg']} ({first['input']!r})") from error
    except (TypeError, AttributeError, ValueError) as error:  # a scalar where the schema wants a list or a mapping
        raise InputError(f"{what} is not valid: {error}") from error
    if unknown := _unknown_field(document, typed.to_dict(), path):
        raise InputError(f"{what} is not valid: unknown field {unknown}; check its spelling")


def _not_json(given: Any, path: str) -> str:
    """Describes the first key or value for which JSON has no type, such as a date, which YAML makes of 2026-01-31."""
    if isinstance(given, Mapping):
        odd = next((name for name in given if not isinstance(name, str)), None)
        if odd is not None:
            return f"{path}{odd} is a name that is no text"
        return next((found for name, value in given.items() if (found := _not_json(value, f"{path}{name}."))), "")
    if isinstance(given, list):
        return next((found for n, value in enumerate(given) if (found := _not_json(value, f"{path}{n}."))), "")
    known = given is None or isinstance(given, str | int | float | bool)
    return "" if known else f"{path.rstrip('.')} is {given!r}"


def _unknown_field(given: Any, known: Any, path: str) -> str:
    """Finds the first field that the schema does not have: the typed model has dropped it from `known`."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known and value not in (None, {}, []):
                return f"{path}{key}"
            found = _unknown_field(value, known.get(key), f"{path}{key}.")
            if found:
                return found
    if isinstance(given, list) and isinstance(known, list):
        for number, (left, right) in enumerate(zip(given, known, strict=False)):
            found = _unknown_field(left, right, f"{path}{number}.")
            if found:
                return found
    return ""


def label_value(text: str) -> str:
    """Makes a valid label value: the text if it is valid, else its valid characters and a digest, so that two texts never share one."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", text):
        return text
    kept = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:52].strip("-_.")
    return f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:10]}".strip("-")
