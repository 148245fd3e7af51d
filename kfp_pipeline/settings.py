"""What the platform sets: read once from the environment, at the entry.

Every name starts with `SPARK_KFP_`. The command line sets the ones that its flags name; a task inherits them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from spark_jobs.errors import InputError

PREFIX = "SPARK_KFP_"
OBJECT_STORE = "spark-kfp-object-store"
"""Name of the Secret and of the ConfigMap that say who asks the object store, and where it is; see spark-operator/."""
NODE_LOST_SECONDS = 350
"""Until the cluster gives a task's pod up whose node is gone: 50 s without a sign of the node (node-monitor-grace-period of the controller
manager; 40 s before Kubernetes 1.32), then the 300 s for which every pod tolerates that (the admission plugin DefaultTolerationSeconds)."""
NEW_POD_SECONDS = 250
"""Until, after that and after the backoff, another pod follows the application: Argo's queue, the image, the start, and the time since the
last renewal."""


def lease_seconds_for(retries: int, backoff_seconds: int) -> int:
    """How long an application outlives the task that follows it, in seconds: as long as KFP may take to bring the task back.

    Args:
        retries: how often KFP repeats a task.
        backoff_seconds: before the first repetition; Argo doubles it before each further one.
    """
    longest_backoff = backoff_seconds * 2 ** (retries - 1) if retries else 0
    return NODE_LOST_SECONDS + longest_backoff + NEW_POD_SECONDS


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the task side.

    Attributes:
        runs: directory that holds one directory for each run.
        run: directory of the run on this machine that this process is part of; empty outside one.
        standbys: whether, on small data, the next step's Java and Spark start while a step runs; it takes some 0.3 GB more memory.
        run_id: id of KFP's run that this task is part of; empty outside one.
        cache: directory for the class-data archive; it may be removed at any time.
        reuse: whether a step whose inputs, data and code are the same as before is taken over instead of run again.
        driver_memory_mib: heap of the driver; 2 GiB handles ten million rows of the bank data.
        namespace: of the SparkApplications; empty: the task's own, or the kubeconfig's.
        config_map: name of the ConfigMap that holds the platform's SparkApplication template.
        patience_seconds: how long requests are repeated while the API server is away.
        lease_seconds: how long a SparkApplication goes on that no task follows any more, before the reaper deletes it; it is noted on the
            application. KFP may need 350 s to notice a lost node, then its backoff, then a new pod's start.
        compile_tiers_bytes: data from this size on gets the JVM's second compiler, which pays only for long steps.
        debug: whether an error shows where in the code it came from, a stack trace; a fault of the program always does.
    """

    runs: Path = Path("runs")
    run: str = ""
    standbys: bool = True
    run_id: str = ""
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
        """Reads the settings.

        Raises:
            InputError: a value is not of its field's type; the text names the variable.
        """
        environment = os.environ if environment is None else environment
        given: dict[str, object] = {}
        for item in fields(cls):
            text = environment.get(PREFIX + item.name.upper())
            if text is not None:
                given[item.name] = _parse(PREFIX + item.name.upper(), text, type(item.default))
        return cls(**given)  # type: ignore[arg-type]

    def to_environment(self) -> dict[str, str]:
        """The environment variables that `from_environment` reads back."""
        return {PREFIX + item.name.upper(): str(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True, kw_only=True)
class KfpSettings:
    """Where the KFP server is and who asks.

    Attributes:
        url: of the API or of the UI, which passes requests on: http://localhost:8080.
        token: bearer token; never printed.
        cookies: of a session of multi-user Kubeflow, such as `authservice_session=...`; never printed.
        namespace: profile of multi-user Kubeflow; empty for a server with one user.
        ca_file: certificates to trust instead of the public ones.
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
            if not (value.isprintable() and value.isascii()):  # it is a header; Python's own error would show it
                raise InputError(f"KFP_{name.upper()} must be one line of plain ASCII")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> KfpSettings:
        """Reads SPARK_KFP_KFP, KFP_TOKEN and KFP_COOKIES; namespace and certificates are flags.

        Raises:
            InputError: one is wrong; the text names it.
        """
        environment = os.environ if environment is None else environment
        return cls(
            url=environment.get(PREFIX + "KFP", "").rstrip("/"),
            token=environment.get("KFP_TOKEN", "").strip(),
            cookies=environment.get("KFP_COOKIES", "").strip(),
        )


def java_environment() -> dict[str, str]:
    """JAVA_HOME and PATH, as far as they are set: they say where Java is."""
    return {name: os.environ[name] for name in ("JAVA_HOME", "PATH") if name in os.environ}


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
