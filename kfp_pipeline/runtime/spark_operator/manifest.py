"""The SparkApplication of a step: the platform's template with its blanks filled.

The template and the platform's changes for single steps lie in a ConfigMap of the namespace, made from `spark-operator/`; a run may
change resources on top of them, and nothing that would give it other rights. Knows nothing of how an application is submitted.
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
from spark_jobs.contract import Step
from spark_jobs.errors import InputError

Document = dict[str, Any]
TEMPLATE_KEY, STEPS_KEY, LIMITS_KEY = "spark-application.yaml", "steps.yaml", "limits.yaml"
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
"""What a run may change, and which fields of it (None: all; for sparkConf the keys below)."""
RUN_MAY_SET_IN_SPARK_CONF = re.compile(
    r"(?!.*(Class|class|shuffle\.manager)$)spark\.(sql\.(shuffle|files|adaptive|autoBroadcastJoinThreshold|parquet\.compression)|memory\.|default\.parallelism$|locality\."
    r"|task\.|speculation|network\.timeout$|rpc\.|shuffle\.|reducer\.|executor\.heartbeatInterval$|kryoserializer\.|serializer$|log\.level$)"
)

MEMORY = re.compile(r"[1-9][0-9]*([kmgtp]b?|b)?", re.IGNORECASE)
"""An amount of memory as Spark reads it; a bare number is MiB."""


def read_config(cluster: Cluster, name: str) -> dict[str, str]:
    """The ConfigMap that holds the platform's template.

    Raises:
        InputError: it is not there, or lacks the template.
    """
    found = cluster.get(CONFIG_MAPS, name)
    if not found or TEMPLATE_KEY not in found.get("data", {}):
        raise InputError(
            f"namespace {cluster.namespace} has no ConfigMap {name!r} with {TEMPLATE_KEY}; make it: kubectl apply -k spark-operator/"
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
    """The SparkApplication of a step.

    Args:
        config: the ConfigMap's data.
        step: which step.
        args: its arguments.
        run: name of the run, for a label.
        overrides: what the run changes, step to a partial SparkApplication spec; of `all` for every step.
        task_config: what the pipeline's author has set on the task; the run's changes come after it.

    Raises:
        InputError: template or changes are not valid, or the run may not change that.
    """
    check_overrides(overrides)
    for other in Step:  # a wrong setting of a later step is told before the first one runs
        _changed(config, other, overrides, {})
    application = _changed(config, step, overrides, task_config or {})
    spec = application["spec"]
    spec["arguments"] = [str(step), *to_argv(args)]
    output = str(vars(args)["output_uri"])
    metadata = application["metadata"]
    metadata["name"] = application_name(step, output)
    labels = {**MANAGED_BY, STEP_LABEL: str(step), **({RUN_LABEL: label_value(run)} if run else {})}
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    noted = {OUTPUT_URI_ANNOTATION: output, SPEC_HASH_ANNOTATION: spec_hash(spec)}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **noted}
    return application


def _changed(
    config: Mapping[str, str], step: Step, overrides: Mapping[str, Any], task_config: Mapping[str, Any]
) -> Document:
    """The template with the changes of the platform, the pipeline's author and the run, in this order."""
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
        for path, change in _one_by_one(overrides.get(name) or {}):
            _merge(spec, change)
            _validate(application, f"the run's Spark settings: {name}.{path}")
    return application


def driver_memory(
    application: Mapping[str, Any],
    config: Mapping[str, str],
    step: Step,
    overrides: Mapping[str, Any],
    task_config: Mapping[str, Any],
) -> str:
    """The heap of an application's driver, and which of the places that may set it has: the last in the order in which they are merged.

    Args:
        application: as `build_application` has made it of the other arguments.
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


def application_name(step: Step, output_uri: str) -> str:
    """The name: the same for every attempt of one task, different for any two tasks. At most 56 characters, DNS-1035."""
    return f"spark-kfp-{step}-{hashlib.sha256(output_uri.encode()).hexdigest()[:12]}"


def spec_hash(spec: Mapping[str, Any]) -> str:
    """A digest of a spec, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def _document(config: Mapping[str, str], key: str) -> Document:
    try:
        found = yaml.safe_load(config[key])
    except yaml.YAMLError as error:
        raise InputError(f"{key} of the ConfigMap is not YAML: {error}") from error
    if found is None and key != TEMPLATE_KEY:  # comments only
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{key} of the ConfigMap must hold a mapping")
    return found


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Looks at what a run wants to change, without the platform's template.

    Raises:
        InputError: it names no step, or what a run may not change.
    """
    _check_steps(overrides, "the run's Spark settings")
    for change in overrides.values():
        _check_allowed(change or {})


def _check_steps(changes: Mapping[str, Any], where: str) -> None:
    for name, change in changes.items():
        if name not in ("all", *Step):
            raise InputError(f"{where}: {name!r} is no step; use all, {', '.join(Step)}")
        if change is not None and not isinstance(change, Mapping):
            raise InputError(f"{where}: {name} must be a mapping like {{driver: {{memory: 2g}}}}")


def _check_allowed(change: Mapping[str, Any]) -> None:
    """Refuses what a run may not change: image, service account, volumes, environment, templates of pods."""
    for key, value in change.items():
        if key not in RUN_MAY_SET:
            raise InputError(
                f"a run may not set {key!r} of its SparkApplication; it may set {', '.join(RUN_MAY_SET)}. "
                f"Whoever runs the platform sets the rest in spark-operator/"
            )
        if not isinstance(value, Mapping) and key != "memoryOverheadFactor":
            raise InputError(f"{key!r} of the run's Spark settings must be a mapping")
        allowed = RUN_MAY_SET[key]
        for name in map(str, value if isinstance(value, Mapping) else ()):
            if allowed is not None and name not in allowed:
                raise InputError(f"a run may not set {key}.{name}; of {key} it may set {', '.join(allowed)}")
            if key == "sparkConf" and not RUN_MAY_SET_IN_SPARK_CONF.match(name):
                raise InputError(f"a run may not set {name}; whoever runs the platform sets it in spark-operator/")


def _merge(target: Document, change: Mapping[str, Any]) -> None:
    """Merges as JSON merge patch does: mappings by key, null removes, anything else replaces (RFC 7396)."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            inner = target[key] if isinstance(target.get(key), dict) else {}
            target[key] = inner
            _merge(inner, value)
        else:
            target[key] = copy.deepcopy(value)


def _one_by_one(change: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Document]]:
    """The single settings of a change: the path of each, and the change that makes it alone."""
    for key, value in change.items():
        if isinstance(value, Mapping) and value:
            for inner, single in _one_by_one(value, f"{path}{key}."):
                yield inner, {key: single}
        else:
            yield f"{path}{key}", {key: value}


def _validate(application: Document, what: str) -> None:
    """Checks types and names of fields by the operator's own schema, and amounts of memory as the JVM reads them."""
    if wrong := _no_json(application, ""):
        raise InputError(f"{what} is not valid: {wrong}; put it in quotes")
    try:
        typed = SparkV1beta2SparkApplication.from_dict(application)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{what} is not valid: {where}: {first['msg']} ({first['input']!r})") from error
    except (TypeError, AttributeError, ValueError) as error:  # a list or a mapping was due
        raise InputError(f"{what} is not valid: {error}") from error
    assert typed is not None
    unknown = _unknown(application, typed.to_dict(), "")
    if unknown:
        raise InputError(f"{what} is not valid: unknown field {unknown}; check its spelling")
    for role in ("driver", "executor"):
        for name in ("memory", "memoryOverhead"):
            amount = (application["spec"].get(role) or {}).get(name)
            if amount is not None and not MEMORY.fullmatch(amount):
                raise InputError(f"{what} is not valid: {role}.{name} is {amount!r}; write it like 512m or 4g")


def _no_json(given: Any, path: str) -> str:
    """The first name or value that YAML has made something of which JSON does not know, such as a date."""
    if isinstance(given, Mapping):
        odd = next((name for name in given if not isinstance(name, str)), None)
        if odd is not None:
            return f"{path}{odd} is a name that is no text"
        return next((found for name, value in given.items() if (found := _no_json(value, f"{path}{name}."))), "")
    if isinstance(given, list):
        return next((found for n, value in enumerate(given) if (found := _no_json(value, f"{path}{n}."))), "")
    known = given is None or isinstance(given, str | int | float | bool)
    return "" if known else f"{path.rstrip('.')} is {given!r}"


def _unknown(given: Any, known: Any, path: str) -> str:
    """The first field that the schema does not keep."""
    if isinstance(given, dict) and isinstance(known, dict):
        for key, value in given.items():
            if key not in known and value not in (None, {}, []):
                return f"{path}{key}"
            found = _unknown(value, known.get(key), f"{path}{key}.")
            if found:
                return found
    if isinstance(given, list) and isinstance(known, list):
        for number, (left, right) in enumerate(zip(given, known, strict=False)):
            found = _unknown(left, right, f"{path}{number}.")
            if found:
                return found
    return ""


def label_value(text: str) -> str:
    """A text as a label's value: itself if a label can hold it, else what it can hold and a digest, so that no two texts share one."""
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", text):
        return text
    kept = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:52].strip("-_.")
    return f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:10]}".strip("-")
