"""What `spark-operator/` holds, read offline: names, rights, secrets, and pods that Pod Security `restricted` admits."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_spark_api.models import SparkV1beta2SparkApplication
from pydantic import ValidationError

from kfp_pipeline.runtime.spark_operator.manifest import STEPS_KEY, TEMPLATE_KEY, build_application, driver_memory
from serving.settings import ServerSettings
from spark_jobs.contract import ARGUMENTS, LoadArgs, Step

Document = dict[str, Any]
PROJECT = Path(__file__).parents[2]
ROOT = PROJECT / "spark-operator"
BASE = ROOT / "base"
MINIKUBE, PRODUCTION = ROOT / "overlays" / "minikube", ROOT / "overlays" / "production"
CLUSTER_TESTS, SERVING_TESTS = PROJECT / "tests" / "e2e" / "cluster", PROJECT / "tests" / "e2e" / "serving"
KUBEFLOW_TASKS = ROOT / "overlays" / "kubeflow-tasks"
OVERLAYS = (MINIKUBE, PRODUCTION, CLUSTER_TESTS)
SERVING, KATIB, MONITORING = ROOT / "serving", ROOT / "katib", ROOT / "monitoring"
KUSTOMIZATIONS = (ROOT, BASE, *OVERLAYS, KUBEFLOW_TASKS, SERVING, SERVING_TESTS, KATIB, MONITORING)
FILES = sorted([*ROOT.rglob("*.yaml"), *CLUSTER_TESTS.rglob("*.yaml"), *SERVING_TESTS.rglob("*.yaml")])
UNLISTED = {BASE / "object-store-secret.template.yaml", KUBEFLOW_TASKS / "platform.yaml", SERVING / "kserve.yaml"}
"""Files that a user copies, or gives to spark-kfp, and no kustomization applies."""

EXPECTED_OBJECTS = {
    "Namespace": {"spark-kfp"},
    "ServiceAccount": {"spark-kfp-task", "spark-kfp-driver", "spark-kfp-reaper"},
    "Role": {"spark-kfp-task", "spark-kfp-driver", "spark-kfp-reaper"},
    "RoleBinding": {"spark-kfp-task", "spark-kfp-driver", "spark-kfp-reaper"},
    "ResourceQuota": {"spark-kfp"},
    "LimitRange": {"spark-kfp"},
    "NetworkPolicy": {
        "default-deny-ingress",
        "spark-driver",
        "spark-executor",
        "kfp-task",
        "spark-kfp-reaper",
        "bucket-job",
        "object-store-from-spark",
        "object-store-from-tasks",
        "object-store-from-bucket-job",
    },
    "Job": {"spark-kfp-bucket"},
    "Deployment": {"spark-kfp-reaper"},
}
SPARK, CORE, LEASES, KUBEFLOW = "sparkoperator.k8s.io", "", "coordination.k8s.io", "kubeflow.org"
EXPECTED_RIGHTS = {
    "spark-kfp-task": {
        (SPARK, "sparkapplications", ()): {"create", "get", "list", "watch", "delete"},
        (CORE, "pods", ()): {"get", "list", "watch"},
        (CORE, "pods/log", ()): {"get"},
        (CORE, "events", ()): {"get", "list"},
        (CORE, "configmaps", ("spark-kfp",)): {"get"},
        (CORE, "resourcequotas", ()): {"get", "list"},
        (LEASES, "leases", ()): {"create", "get", "update", "delete"},
    },
    "spark-kfp-driver": {(CORE, "pods", ()): {"create", "get", "list", "watch", "delete", "deletecollection"}},
    "spark-kfp-reaper": {
        (SPARK, "sparkapplications", ()): {"get", "list", "delete"},
        ("", "pods", ()): {"get"},
        (LEASES, "leases", ()): {"get", "list"},
    },
}
EXPECTED_KATIB_RIGHTS = {
    "spark-kfp-tuner": {
        (KUBEFLOW, "experiments", ()): {"create", "get", "list", "watch", "delete"},
        (KUBEFLOW, "trials", ()): {"get", "list", "delete"},
        (CORE, "configmaps", ("spark-kfp-katib",)): {"get"},
        (CORE, "namespaces", ()): {"get"},
    },
    "spark-kfp-trial": {(KUBEFLOW, "experiments", ()): {"get"}},
}
"""Role to (group, resource, names of objects) to verbs: what the code and Spark 4.3 call, seen on a real cluster."""
RIGHTS_TURNED_OFF = {
    "spark.kubernetes.executor.disableConfigMap": "true",
    "spark.kubernetes.driver.service.deleteOnTermination": "false",
    "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
    "spark.kubernetes.driver.reusePersistentVolumeClaim": "false",
}
"""What lets a driver do without rights on config maps, services and volume claims."""
EXPECTED_ENVIRONMENT = {
    "AWS_ENDPOINT_URL": ("configMapKeyRef", "spark-kfp-object-store", "endpoint"),
    "AWS_REGION": ("configMapKeyRef", "spark-kfp-object-store", "region"),
    "AWS_ACCESS_KEY_ID": ("secretKeyRef", "spark-kfp-object-store", "accesskey"),
    "AWS_SECRET_ACCESS_KEY": ("secretKeyRef", "spark-kfp-object-store", "secretkey"),
}
UNITS = {"m": 2**20, "g": 2**30, "Mi": 2**20, "Gi": 2**30}


def documents(path: Path) -> list[Document]:
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found is not None]


def document(path: Path) -> Document:
    (found,) = documents(path)
    return found


def kustomization(directory: Path) -> Document:
    return document(directory / "kustomization.yaml")


def files_of(directory: Path) -> Iterator[Path]:
    """The files that a directory's kustomization names."""
    settings = kustomization(directory)
    names = [name for name in settings.get("resources", []) if not (directory / name).is_dir()]
    names += [patch["path"] for patch in settings.get("patches", []) if "path" in patch]
    for generator in settings.get("configMapGenerator", []) + settings.get("secretGenerator", []):
        names += [name.partition("=")[2] or name for name in generator.get("files", [])]
    yield from ((directory / name).resolve() for name in names)


def objects(directory: Path) -> list[Document]:
    """The objects that a directory adds, without those of the bases that it stands on."""
    names = [name for name in kustomization(directory).get("resources", []) if not (directory / name).is_dir()]
    return [found for name in names for found in documents(directory / name)]


def object_of(kind: str, name: str, directory: Path = BASE) -> Document:
    (found,) = [item for item in objects(directory) if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def template() -> Document:
    return document(BASE / "spark-application.yaml")


def pod_specs() -> dict[str, Document]:
    spec = template()["spec"]
    return {
        "bucket": object_of("Job", "spark-kfp-bucket")["spec"]["template"]["spec"],
        "reaper": object_of("Deployment", "spark-kfp-reaper")["spec"]["template"]["spec"],
        "driver": spec["driver"]["template"]["spec"],
        "executor": spec["executor"]["template"]["spec"],
        "trial": document(KATIB / "experiment.yaml")["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"],
    }


def breaches_of_restricted(pod: Document) -> set[str]:
    """What Pod Security `restricted` would refuse, and a root file system that may be written."""
    found = {name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)}
    general = pod.get("securityContext", {})
    for volume in pod.get("volumes", []):
        if not {"emptyDir", "configMap", "secret", "projected"} & set(volume):
            found.add("volume")
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        both = {**general, **own}
        profile = both.get("seccompProfile", {}).get("type")
        found |= {
            rule
            for rule, kept in {
                "runAsNonRoot": both.get("runAsNonRoot") is True,
                "runAsUser": both.get("runAsUser") == 185,
                "seccompProfile": profile in ("RuntimeDefault", "Localhost"),
                "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
                "privileged": not own.get("privileged"),
                "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
                "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
                "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
            }.items()
            if not kept
        }
    return found


def rights(role: Document) -> dict[tuple[str, str, tuple[str, ...]], set[str]]:
    found: dict[tuple[str, str, tuple[str, ...]], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                key = (group, resource, tuple(rule.get("resourceNames", ())))
                found.setdefault(key, set()).update(rule["verbs"])
    return found


def lost(given: Any, kept: Any, path: str = "") -> list[str]:
    """The fields of a document that a typed model of it does not keep."""
    if isinstance(given, dict):
        if not isinstance(kept, dict):
            return [path]
        return [part for key, value in given.items() for part in lost(value, kept.get(key), f"{path}.{key}")]
    if isinstance(given, list):
        if not isinstance(kept, list) or len(given) != len(kept):
            return [path]
        return [part for left, right in zip(given, kept, strict=True) for part in lost(left, right, f"{path}[]")]
    return [] if given == kept else [path]


def values(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every scalar of a document with the keys that lead to it."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from values(value, f"{path}/{key}")
    elif isinstance(node, list):
        for value in node:
            yield from values(value, path)
    else:
        yield path, str(node)


def secret_values(node: Document) -> list[str]:
    """Where a document holds a secret's value instead of a reference to it."""
    found = [
        path for path, value in values(node) if re.search(r"/(stringData|data)/(access|secret)key$", path) and value
    ]
    found += [path for path, value in values(node) if re.match(r"(access|secret)key=.", value)]
    for container in containers(node):
        for variable in container.get("env", []):
            if re.search(r"KEY|SECRET|TOKEN|PASSWORD", variable["name"]) and "value" in variable:
                found.append(variable["name"])
    return found


def containers(node: Any) -> Iterator[Document]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("containers", "initContainers"):
                yield from value
            else:
                yield from containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


def application(overlay: Path, step: Step) -> Document:
    """The SparkApplication that the code makes of an overlay's files."""
    texts = {TEMPLATE_KEY: (BASE / TEMPLATE_KEY).read_text(encoding="utf-8")}
    texts[STEPS_KEY] = (overlay / STEPS_KEY).read_text(encoding="utf-8")
    arguments = LoadArgs(data_uri="s3://bucket/data.csv", output_uri="s3://bucket/run/load")
    return build_application(texts, step, arguments, run="run", overrides={})


def bytes_of(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\D+)", size).groups()  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


def pod_bytes(pod: Document) -> int:
    """What a driver or executor asks for: Spark adds 0.4 of its memory for Python, at least 384 MiB."""
    memory = bytes_of(pod["memory"])
    return (memory + max(int(0.4 * memory), 384 * 2**20)) * int(pod.get("instances", 1))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_file_is_yaml(path: Path) -> None:
    found = documents(path)
    assert found or path.name == "steps.yaml"
    assert all(isinstance(item, dict) for item in found)


@pytest.mark.parametrize("directory", KUSTOMIZATIONS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_kustomization_lists_the_files_beside_it_and_no_others(directory: Path) -> None:
    beside = [*directory.glob("*.yaml"), *directory.glob("*.json")]
    there = {path.resolve() for path in beside} - {directory / "kustomization.yaml"} - UNLISTED
    assert set(files_of(directory)) == there
    for name in kustomization(directory)["resources"]:
        assert (directory / name).is_file() or (directory / name / "kustomization.yaml").is_file()


def test_root_is_the_base() -> None:
    assert kustomization(ROOT)["resources"] == ["base"]


def test_base_holds_the_objects_that_the_code_knows() -> None:
    found: dict[str, set[str]] = {}
    for item in objects(BASE):
        found.setdefault(item["kind"], set()).add(item["metadata"]["name"])
    assert found == EXPECTED_OBJECTS
    assert kustomization(BASE)["namespace"] == "spark-kfp"
    generators = {item["name"]: item for item in kustomization(BASE)["configMapGenerator"]}
    assert generators["spark-kfp"]["files"] == [TEMPLATE_KEY, STEPS_KEY]
    assert generators["spark-kfp-object-store"]["literals"] == [
        "endpoint=http://seaweedfs.kubeflow:9000",
        "region=us-east-1",
    ]
    (tasks,) = kustomization(KUBEFLOW_TASKS)["configMapGenerator"]
    assert tasks["literals"] == generators["spark-kfp-object-store"]["literals"], "drivers and tasks use the same store"


@pytest.mark.parametrize("directory", [BASE, *OVERLAYS, KATIB], ids=lambda path: path.name)
def test_generated_names_carry_no_hash_as_the_code_looks_them_up(directory: Path) -> None:
    assert kustomization(directory)["generatorOptions"]["disableNameSuffixHash"] is True


def test_namespace_enforces_restricted() -> None:
    labels = object_of("Namespace", "spark-kfp")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_secrets_have_values_only_where_marked_for_development(path: Path) -> None:
    found = [place for item in documents(path) for place in secret_values(item)]
    if path in (MINIKUBE / "kustomization.yaml", KUBEFLOW_TASKS / "kustomization.yaml"):
        assert "FOR DEVELOPMENT ONLY" in path.read_text(encoding="utf-8")
    elif path != CLUSTER_TESTS / "kustomization.yaml":
        assert found == []


@pytest.mark.parametrize(
    "planted",
    [
        {"kind": "Secret", "stringData": {"accesskey": "x"}},
        {"kind": "Secret", "data": {"secretkey": "eA=="}},
        {"secretGenerator": [{"literals": ["secretkey=x"]}]},
        {"spec": {"containers": [{"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}]}]}},
    ],
    ids=["stringData", "data", "generator", "environment"],
)
def test_planted_secret_is_found(planted: Document) -> None:
    assert secret_values(planted)


def test_secret_template_has_the_keys_that_the_pods_read() -> None:
    found = document(BASE / "object-store-secret.template.yaml")
    assert found["metadata"]["name"] == "spark-kfp-object-store"
    assert found["stringData"] == {"accesskey": "", "secretkey": ""}


@pytest.mark.parametrize("name", sorted(EXPECTED_RIGHTS))
def test_role_grants_the_least_that_its_program_calls(name: str) -> None:
    assert rights(object_of("Role", name)) == EXPECTED_RIGHTS[name]


@pytest.mark.parametrize("name", sorted(EXPECTED_KATIB_RIGHTS))
def test_role_for_katib_grants_the_least_that_its_program_calls(name: str) -> None:
    assert rights(object_of("Role", name, KATIB)) == EXPECTED_KATIB_RIGHTS[name]


def test_a_trials_account_may_what_a_task_may_and_read_its_experiment() -> None:
    bound = [item for item in objects(KATIB) if item["kind"] == "RoleBinding"]
    roles = {item["roleRef"]["name"] for item in bound if item["subjects"][0]["name"] == "spark-kfp-trial"}
    assert roles == {"spark-kfp-trial", "spark-kfp-task"}
    assert pod_specs()["trial"]["serviceAccountName"] == "spark-kfp-trial"


@pytest.mark.parametrize("directory", [BASE, *OVERLAYS, KATIB], ids=lambda path: path.name)
def test_no_role_has_a_wildcard_or_reaches_beyond_the_namespace(directory: Path) -> None:
    for item in objects(directory):
        assert item["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        if item["kind"] == "Role":
            assert "*" not in [value for _, value in values(item["rules"])]


def test_each_role_is_bound_to_its_account_and_the_tasks_also_to_pipeline_runner() -> None:
    found = {}
    for item in objects(BASE):
        if item["kind"] == "RoleBinding":
            assert item["roleRef"]["kind"] == "Role"
            assert {subject["kind"] for subject in item["subjects"]} == {"ServiceAccount"}
            subjects = {(subject["namespace"], subject["name"]) for subject in item["subjects"]}
            found[item["roleRef"]["name"]] = subjects
    assert found == {
        "spark-kfp-task": {("spark-kfp", "spark-kfp-task"), ("spark-kfp", "pipeline-runner")},
        "spark-kfp-driver": {("spark-kfp", "spark-kfp-driver")},
        "spark-kfp-reaper": {("spark-kfp", "spark-kfp-reaper")},
    }


def test_template_turns_off_what_the_drivers_role_does_not_allow() -> None:
    assert RIGHTS_TURNED_OFF.items() <= template()["spec"]["sparkConf"].items()


def test_only_driver_and_reaper_hold_a_token_of_the_api_server() -> None:
    tokens = {name: pod["automountServiceAccountToken"] for name, pod in pod_specs().items() if name != "trial"}
    assert tokens == {"bucket": False, "reaper": True, "driver": True, "executor": False}
    assert pod_specs()["reaper"]["serviceAccountName"] == "spark-kfp-reaper"
    assert template()["spec"]["driver"]["serviceAccount"] == "spark-kfp-driver"


@pytest.mark.parametrize("name", ["bucket", "reaper", "driver", "executor", "trial"])
def test_pod_meets_restricted(name: str) -> None:
    pod = pod_specs()[name]
    assert breaches_of_restricted(pod) == set()
    (container,) = pod["containers"]
    # Katib sends a trial's output into a file, so its log would be empty.
    assert container["terminationMessagePolicy"] == ("File" if name == "trial" else "FallbackToLogsOnError")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert mounts["tmp"] == "/tmp"


PLANTED: dict[str, Callable[[Document], Any]] = {
    "runAsNonRoot": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "runAsUser": lambda pod: pod["securityContext"].update(runAsUser=0),
    "seccompProfile": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "allowPrivilegeEscalation": lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "privileged": lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    "capabilities": lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    "readOnlyRootFilesystem": lambda pod: pod["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
    "hostPort": lambda pod: pod["containers"][0].update(ports=[{"hostPort": 80}]),
    "hostNetwork": lambda pod: pod.update(hostNetwork=True),
    "volume": lambda pod: pod["volumes"].append({"name": "node", "hostPath": {"path": "/"}}),
}


@pytest.mark.parametrize("rule", PLANTED)
def test_planted_breach_of_restricted_is_found(rule: str) -> None:
    pod = copy.deepcopy(pod_specs()["driver"])
    PLANTED[rule](pod)
    assert breaches_of_restricted(pod) == {rule}


def test_ended_bucket_job_goes_so_that_the_next_version_can_be_applied() -> None:
    assert object_of("Job", "spark-kfp-bucket")["spec"]["ttlSecondsAfterFinished"] <= 600


@pytest.mark.parametrize("name", ["bucket", "driver", "executor", "trial"])
def test_pod_takes_the_object_store_by_reference(name: str) -> None:
    (container,) = pod_specs()[name]["containers"]
    found = {}
    for variable in container["env"]:
        ((kind, reference),) = variable["valueFrom"].items()
        found[variable["name"]] = (kind, reference["name"], reference["key"])
    assert found == EXPECTED_ENVIRONMENT


def test_template_is_a_whole_application_of_the_operators_schema() -> None:
    found = template()
    typed = SparkV1beta2SparkApplication.from_dict(found)
    assert typed is not None
    assert lost(found, typed.to_dict()) == []


def test_typed_model_refuses_a_planted_fault() -> None:
    wrong, misspelt = template(), template()
    wrong["spec"]["driver"]["cores"] = "many"
    with pytest.raises(ValidationError):
        SparkV1beta2SparkApplication.from_dict(wrong)
    misspelt["spec"]["driver"]["memmory"] = "1g"
    assert lost(misspelt, SparkV1beta2SparkApplication.from_dict(misspelt).to_dict()) == [".spec.driver.memmory"]


def test_template_says_what_the_image_and_the_operator_need() -> None:
    spec = template()["spec"]
    expected = {
        "type": "Python",
        "pythonVersion": "3",
        "mode": "cluster",
        "sparkVersion": "4.3.0",
        "imagePullPolicy": "IfNotPresent",
        "mainApplicationFile": "local:///opt/spark-kfp/main.py",
        "restartPolicy": {"type": "Never"},
        "timeToLiveSeconds": 86400,
    }
    assert {key: spec[key] for key in expected} == expected
    for role in ("driver", "executor"):
        (container,) = spec[role]["template"]["spec"]["containers"]
        assert container["name"] == f"spark-kubernetes-{role}"
        assert {"name": "spark-local-dir-1", "mountPath": "/var/data/spark"} in container["volumeMounts"]
        assert {"cores", "coreRequest", "memory"} <= spec[role].keys()


def test_image_tags_are_the_projects_version() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert template()["spec"]["image"] == f"spark-kfp-spark:{version}"
    assert pod_specs()["trial"]["containers"][0]["image"] == f"spark-kfp-task:{version}"
    for directory in (BASE, PRODUCTION, CLUSTER_TESTS):
        assert [image["newTag"] for image in kustomization(directory)["images"]] == [version]
    for overlay in (PRODUCTION, CLUSTER_TESTS):
        assert application(overlay, Step.LOAD)["spec"]["image"].endswith(f"/spark-kfp-spark:{version}")


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`spark-operator/` with the one line edited that the documents name."""
    folder = tmp_path_factory.mktemp("edited") / "spark-operator"
    shutil.copytree(ROOT, folder)
    path = folder / "base" / "spark-application.yaml"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    driver = lines.index("  driver:\n")
    (number,) = [n for n, line in enumerate(lines) if n > driver and line.startswith("    memory:")][:1]
    lines[number] = "    memory: 7g\n"
    path.write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("step", list(Step))
@pytest.mark.parametrize("folder", [".", "base", "overlays/minikube", "overlays/production"])
def test_one_line_sets_every_drivers_memory_on_every_path_that_the_documents_show(
    edited: Path, folder: str, step: Step
) -> None:
    config = config_of(edited / folder)
    arguments = ARGUMENTS[step](**{name: "s3://bucket/x" for name in ARGUMENTS[step].names() if name.endswith("_uri")})
    found = build_application(config, step, arguments, run="run", overrides={})
    assert found["spec"]["driver"]["memory"] == "7g"
    assert driver_memory(found, config, step, {}, {}) == "7g, from spark-application.yaml of the platform"


def config_of(directory: Path) -> dict[str, str]:
    """The data of the ConfigMap spark-kfp that `kubectl kustomize` makes of a directory: a generator's files come after its bases'."""
    found: dict[str, str] = {}
    settings = kustomization(directory)
    for name in settings.get("resources", []):
        if (directory / name).is_dir():
            found |= config_of(directory / name)
    for generator in settings.get("configMapGenerator", []):
        if generator["name"] == "spark-kfp":
            assert generator.get("behavior", "create") == ("merge" if found else "create")
            found |= {name: (directory / name).read_text(encoding="utf-8") for name in generator["files"]}
    return found


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here to compare with")
@pytest.mark.parametrize("folder", [".", "base", "overlays/minikube", "overlays/production"])
def test_kubectl_makes_the_same_config_map(edited: Path, folder: str) -> None:
    made = subprocess.run(
        ["kubectl", "kustomize", str(edited / folder)], capture_output=True, text=True, check=True
    ).stdout
    (found,) = [
        item
        for item in yaml.safe_load_all(made)
        if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "spark-kfp")
    ]
    assert found["data"] == config_of(edited / folder)


@pytest.mark.parametrize("step", list(Step))
@pytest.mark.parametrize("overlay", [BASE, *OVERLAYS], ids=lambda path: path.name)
def test_application_of_every_step_is_valid_and_fits_the_quota(overlay: Path, step: Step) -> None:
    spec = application(overlay, step)["spec"]
    quota = document((overlay if overlay == PRODUCTION else BASE) / "resource-quota.yaml")["spec"]["hard"]
    assert pod_bytes(spec["driver"]) + pod_bytes(spec["executor"]) <= bytes_of(quota["limits.memory"])
    for role in ("driver", "executor"):
        assert breaches_of_restricted(spec[role]["template"]["spec"]) == set()


def test_production_is_larger_and_tells_prometheus() -> None:
    small, large = application(BASE, Step.TRAIN)["spec"], application(PRODUCTION, Step.TRAIN)["spec"]
    assert pod_bytes(large["executor"]) > pod_bytes(small["executor"])
    (monitor,) = [item for item in objects(PRODUCTION) if item["kind"] == "PodMonitor"]
    paths = {endpoint["path"].rstrip("/") for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert large["sparkConf"]["spark.metrics.conf.*.sink.prometheusServlet.path"] in paths
    assert large["sparkConf"]["spark.ui.prometheus.enabled"] == "true"
    assert "spark.ui.prometheus.enabled" not in small["sparkConf"]


def test_only_production_and_the_alarms_need_the_prometheus_operator() -> None:
    needing = {directory for directory in KUSTOMIZATIONS if any(i["kind"] == "PodMonitor" for i in objects(directory))}
    assert needing == {PRODUCTION, MONITORING}


def test_the_servers_that_are_scraped_are_those_of_the_deployment_and_prometheus_may_reach_them() -> None:
    (monitor,) = [item for item in objects(MONITORING) if item["kind"] == "PodMonitor"]
    (policy,) = [item for item in objects(MONITORING) if item["kind"] == "NetworkPolicy"]
    (deployment,) = [item for item in objects(SERVING) if item["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]
    selected = monitor["spec"]["selector"]["matchLabels"]
    assert selected.items() <= pod["metadata"]["labels"].items()
    assert policy["spec"]["podSelector"]["matchLabels"] == selected
    ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}
    assert policy["spec"]["ingress"][0]["ports"][0]["port"] == ports[monitor["spec"]["podMetricsEndpoints"][0]["port"]]


def serving_object(kind: str) -> Document:
    return object_of(kind, "spark-kfp-serving", SERVING)


def test_the_servers_drain_and_last_requests_end_before_kubernetes_kills_them() -> None:
    pod = serving_object("Deployment")["spec"]["template"]["spec"]
    environment = {item["name"]: item["value"] for item in pod["containers"][0]["env"] if "value" in item}
    settings = ServerSettings.from_environment({}, environment)
    assert settings.drain_seconds >= 5
    assert settings.drain_seconds + settings.shutdown_seconds < pod["terminationGracePeriodSeconds"]


def test_the_server_may_call_the_same_object_stores_as_a_task_and_any_dns() -> None:
    def ports(policy: Document) -> set[tuple[str, int]]:
        return {(port["protocol"], port["port"]) for rule in policy["spec"]["egress"] for port in rule["ports"]}

    needed = ports(object_of("NetworkPolicy", "object-store-from-tasks")) | {("UDP", 53), ("TCP", 53)}
    assert needed == ports(serving_object("NetworkPolicy"))
    assert {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]} in serving_object(
        "NetworkPolicy"
    )["spec"]["egress"]


def test_servers_without_a_champion_do_not_keep_a_node_from_being_drained() -> None:
    assert serving_object("PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("name", ["spark-driver", "spark-executor", "object-store-from-spark"])
def test_network_policy_selects_by_the_label_that_the_template_sets(name: str) -> None:
    selector = object_of("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
    label = "app.kubernetes.io/managed-by"
    assert selector[label] == template()["metadata"]["labels"][label]


def test_nobody_calls_a_pod_unless_a_policy_says_so() -> None:
    found = object_of("NetworkPolicy", "default-deny-ingress")["spec"]
    assert found == {"podSelector": {}, "policyTypes": ["Ingress"]}


@pytest.mark.parametrize("role", ["bucket", "reaper"])
def test_network_policy_finds_the_pods_of_the_base(role: str) -> None:
    kind, name = {"bucket": ("Job", "spark-kfp-bucket"), "reaper": ("Deployment", "spark-kfp-reaper")}[role]
    labels = object_of(kind, name)["spec"]["template"]["metadata"]["labels"]
    selectors = [
        policy["spec"]["podSelector"].get("matchLabels", {})
        for policy in objects(BASE)
        if policy["kind"] == "NetworkPolicy"
    ]
    assert {"spark-kfp/role": role} in selectors
    assert labels["spark-kfp/role"] == role
