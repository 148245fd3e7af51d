"""Reads the time limits of a runner, a dataclass of seconds, from the `limits.yaml` of a ConfigMap."""

from __future__ import annotations

from typing import Any, TypeVar

import yaml

from spark_jobs.errors import InputError

LIMITS_KEY = "limits.yaml"
Kind = TypeVar("Kind")


def parse_limits(kind: type[Kind], text: str, config_map: str) -> Kind:
    """Parses `limits.yaml`; a limit that it does not name keeps its default.

    Args:
        kind: the dataclass of the limits.
        text: the content of the file; empty: there is none.
        config_map: what the ConfigMap is called in the error message.

    Raises:
        InputError: the text is not a mapping of the names of limits to numbers.
    """
    try:
        given: dict[str, Any] = yaml.safe_load(text) or {}
        return kind(**{name: float(value) for name, value in given.items()})
    except (TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise InputError(
            f"{LIMITS_KEY} of {config_map} must hold seconds by name of a limit, see docs/settings.md: {error}"
        ) from error
