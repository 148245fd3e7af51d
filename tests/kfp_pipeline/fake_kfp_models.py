"""What `fake_kfp_server` takes and answers: the models of `kfp_server_api`, and a pipeline's own inputs."""

from __future__ import annotations

import re
from typing import Any

import kfp_server_api

Document = dict[str, Any]
PLAIN = {"str": str, "int": int, "bool": bool, "object": object, "datetime": str}
NUMBER = (int, float)
PARAMETERS = {
    "STRING": str,
    "NUMBER_INTEGER": NUMBER,
    "NUMBER_DOUBLE": NUMBER,
    "BOOLEAN": bool,
    "STRUCT": dict,
    "LIST": list,
}


class Refusal(Exception):  # noqa: N818 - a refusal is an answer
    """An answer that is no success."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check(model: str, value: Any) -> None:
    """Refuses what is not of a model of `kfp_server_api`."""
    if model in PLAIN:
        if not isinstance(value, PLAIN[model]):
            raise Refusal(400, f"{value!r} is no {model}")
        return
    if found := re.fullmatch(r"(list|dict)[\[(](?:str, )?(.+)[\])]", model):
        for item in value.values() if found[1] == "dict" else value:
            check(found[2], item)
        return
    kind = getattr(kfp_server_api, model)
    if not kind.openapi_types:
        if value not in kind.allowable_values:
            raise Refusal(400, f"{value!r} is not one of {kind.allowable_values}")
        return
    types = {kind.attribute_map[name]: type_ for name, type_ in kind.openapi_types.items()}
    for name, item in value.items():
        if name not in types:
            raise Refusal(400, f"{model} has no field {name}")
        check(types[name], item)


def check_parameters(spec: Document, given: Document) -> None:
    """Refuses what the pipeline does not take, as the server does when a run is made."""
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    for name, item in inputs.items():
        if name not in given and "defaultValue" not in item and not item.get("isOptional"):
            raise Refusal(400, f"parameter {name} is required but is not provided")
    for name, value in given.items():
        if name not in inputs:
            raise Refusal(400, f"unknown parameter: {name}")
        wanted = PARAMETERS[inputs[name]["parameterType"]]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise Refusal(400, f"input parameter {name} requires type {inputs[name]['parameterType']}")
