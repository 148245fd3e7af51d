"""The settings of the platform, read once from the environment when a command or a task starts.

The variables are named `SPARK_KFP_` and the setting's name. A command line flag overrides its variable, and child processes inherit the
result as environment variables.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from spark_jobs.errors import InputError

PREFIX = "SPARK_KFP_"
TRIAL = "TRIAL"
"""The variable, after the prefix, in which a trial's Job gets its plan; it is no setting."""
OBJECT_STORE = "spark-kfp-object-store"
"""Name of the Secret with the object store's credentials and of the ConfigMap with its endpoint; see spark-operator/."""
NODE_LOST_SECONDS = 350
"""Time from the loss of a node until Kubernetes deletes a task's pod on it: 50 s until the node counts as lost (node-monitor-grace-period
of the controller manager; 40 s before Kubernetes 1.32), then the 300 s that every pod tolerates it (the admission plugin
DefaultTolerationSeconds)."""
NEW_POD_SECONDS = 250
"""Time from the retry until the new pod renews the lease: Argo's queue, the image pull, the start, and the age of the last renewal when
the old pod was lost."""


def lease_seconds_for(retries: int, backoff_seconds: int) -> int:
    """Returns the duration of an application's lease: the longest time that KFP may need to retry a task whose node was lost.

    Args:
        retries: how often KFP retries a task.
        backoff_seconds: pause before the first retry; Argo doubles it before each further one.
    """
    longest_backoff = backoff_seconds * 2 ** (retries - 1) if retries else 0
    return NODE_LOST_SECONDS + longest_backoff + NEW_POD_SECONDS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run on this machine, of a command for a cluster, and of a task's process.

    Attributes:
        runs: directory with one folder for each run.
        run: folder of the run on this machine that this process belongs to; empty if it belongs to none.
        share_session: whether the steps of a run on one machine share one Spark session; if not, each step starts its own.
        run_id: id of the KFP run that this task belongs to; empty if it belongs to none.
        registry: directory or object store URI of the model registry.
        mlflow_uri: MLflow server that `spark-kfp models` shows the champion in, such as http://mlflow:5000; empty: none.
        kubeflow_registry_uri: Kubeflow Model Registry that shows it, such as http://model-registry-service.kubeflow:8080; empty: none.
        kubeflow_registry_token_path: file with the bearer token for that, such as the one of a pod's service account; empty: none.
        cache: directory of the class-data archive; it may be deleted at any time.
        reuse: whether a step is reused instead of executed if its inputs, data and code are the same as before.
        driver_memory_mib: heap of the driver; 2 GiB is enough for ten million rows of the bank data.
        namespace: namespace of the SparkApplications; empty: that of the task's pod, or of the kubeconfig.
        config_map: name of the ConfigMap with the platform's SparkApplication template.
        patience_seconds: how long requests are retried while the API server is unavailable.
        lease_seconds: how long a SparkApplication may run without a task that renews its lease, before the reaper deletes it. The runner
            writes it on the application. KFP may need 350 s to notice a lost node, then the backoff, then the start of a new pod.
        compile_tiers_bytes: size of the data from which the JVM uses its second compiler too, which pays only for long steps.
        debug: whether every error shows its stack trace; an error of the program itself always does.
    """

    runs: Path = Path("runs")
    run: str = ""
    share_session: bool = True
    run_id: str = ""
    registry: str = "models"
    mlflow_uri: str = ""
    kubeflow_registry_uri: str = ""
    kubeflow_registry_token_path: str = ""
    cache: Path = Path("~/.cache/spark-kfp")
    reuse: bool = True
    driver_memory_mib: int = 2048
    namespace: str = ""
    config_map: str = "spark-kfp"
    patience_seconds: int = 300
    lease_seconds: int = lease_seconds_for(retries=0, backoff_seconds=0)
    compile_tiers_bytes: int = 50_000_000
    debug: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Reads the settings from environment variables, by default those of this process.

        Raises:
            InputError: a value has not the type of its setting; the message names the variable.
        """
        environment = os.environ if environment is None else environment
        given: dict[str, object] = {}
        for item in fields(cls):
            text = environment.get(PREFIX + item.name.upper())
            if text is not None:
                given[item.name] = _parse(PREFIX + item.name.upper(), text, type(item.default))
        return cls(**given)  # type: ignore[arg-type]

    def to_environment(self) -> dict[str, str]:
        """Returns the settings as environment variables, which `from_environment` reads back."""
        return {PREFIX + item.name.upper(): str(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True, kw_only=True)
class KfpSettings:
    """The address of the KFP server and the credentials for it.

    Attributes:
        url: URL of the API, or of the UI, which forwards requests to the API: http://localhost:8080.
        token: bearer token; never printed.
        cookies: session cookies of multi-user Kubeflow, such as `authservice_session=...`; never printed.
        namespace: profile in multi-user Kubeflow; empty for a single-user server.
        ca_file: file of the CA certificates to trust instead of the public ones.
    """

    url: str = ""
    token: str = field(default="", repr=False)
    cookies: str = field(default="", repr=False)
    namespace: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        if self.url and not re.fullmatch(r"https?://[^/@\s]+(/[^\s#?]*)?", self.url):
            shown = "not a URL, or one with a user in it" if "@" in self.url else repr(self.url)
            raise InputError(
                f"--kfp is {shown}; it must be like http://localhost:8080, and a token goes into KFP_TOKEN"
            )
        for name, value in (("token", self.token), ("cookies", self.cookies)):
            # The value becomes an HTTP header; Python's own error about a wrong header would print the secret.
            if not (value.isprintable() and value.isascii()):
                raise InputError(f"KFP_{name.upper()} must be one line of plain ASCII")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> KfpSettings:
        """Reads SPARK_KFP_KFP, KFP_TOKEN and KFP_COOKIES; the namespace and the certificates are given by flags only.

        Raises:
            InputError: a value is not valid; the message names its variable.
        """
        environment = os.environ if environment is None else environment
        return cls(
            url=environment.get(PREFIX + "KFP", "").rstrip("/"),
            token=environment.get("KFP_TOKEN", "").strip(),
            cookies=environment.get("KFP_COOKIES", "").strip(),
        )


JAVA_OPTIONS = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")
"""Variables from which Java takes options itself."""


def java_environment() -> dict[str, str]:
    """Returns the variables by which Java is found and the user gives it options, as far as they are set."""
    names = ("JAVA_HOME", "PATH", *JAVA_OPTIONS)
    return {name: os.environ[name] for name in names if name in os.environ}


def trial_plan() -> str:
    """Returns what a trial of a search by Katib has to know, as its Job passes it on (`runtime.katib.trial_plan`); empty outside of one."""
    return os.environ.get(PREFIX + TRIAL, "")


def _parse(name: str, text: str, kind: type) -> object:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise InputError(f"{name} is {text!r}; it must be true or false")
        return text.lower() in ("true", "1")
    if kind is int:
        if not text.isdecimal():
            raise InputError(f"{name} is {text!r}; it must be a whole number")
        return int(text)
    return Path(text) if issubclass(kind, Path) else text
