"""What the platform sets for a run on this machine: read once from the environment, at the entry.

Every name starts with `SPARK_KFP_`. The command line sets the ones that its flags name; a task inherits them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

PREFIX = "SPARK_KFP_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the task side.

    Attributes:
        runs: directory that holds one directory for each run.
        run: directory of the run that this process is part of; empty outside a run.
        cache: directory for the class-data archive; it may be removed at any time.
        reuse: whether a step whose inputs, data and code are the same as before is taken over instead of run again.
        driver_memory_mib: heap of the driver; 2 GiB handles ten million rows of the bank data.
        compile_tiers_bytes: data from this size on gets the JVM's second compiler, which pays only for long steps.
    """

    runs: Path = Path("runs")
    run: str = ""
    cache: Path = Path("~/.cache/spark-kfp")
    reuse: bool = True
    driver_memory_mib: int = 2048
    compile_tiers_bytes: int = 50_000_000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Reads the settings.

        Raises:
            ValueError: a value is not of its field's type; the text names the variable.
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


def _parse(name: str, text: str, kind: type) -> object:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name} is {text!r}; it must be true or false")
        return text.lower() == "true"
    if kind is int:
        if not text.isdecimal():
            raise ValueError(f"{name} is {text!r}; it must be a whole number")
        return int(text)
    return Path(text) if issubclass(kind, Path) else text
