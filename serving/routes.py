"""The routes that describe the served model, by FastAPI: its columns, its health, metrics, OpenAPI, and the form for a person.

Health and metadata follow the Open Inference Protocol, inference_rest.md in https://github.com/kserve/open-inference-protocol; the list of
models is that of KServe's own server, v1_endpoints.py in https://github.com/kserve/kserve.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from serving.bodies import CORRECTED_OUTPUT, LABEL_OUTPUT, PROBABILITIES_OUTPUT, description, metadata_v2
from serving.champion import Champion
from serving.metrics import CONTENT_TYPE, Metrics
from serving.model_source import ServedModel

PAGE = {
    "/": ("form.html", "text/html"),
    "/form.css": ("form.css", "text/css"),
    "/form.js": ("form.js", "text/javascript"),
}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def make_api(champion: Champion, metrics: Metrics) -> FastAPI:
    """Returns the application with all routes that score no rows."""
    api = FastAPI(title="spark-kfp serving", version=own_version(), docs_url=None, redoc_url=None, openapi_url=None)
    api.add_exception_handler(HTTPException, _error)
    for path in PAGE:
        api.add_api_route(path, _page, include_in_schema=False)
    _add_health(api, champion)
    _add_models(api, champion)

    @api.get("/metrics", response_class=PlainTextResponse, summary="Counts in Prometheus' text format")
    async def read_metrics() -> Response:
        return Response(metrics.text(champion), media_type=CONTENT_TYPE)

    @api.get("/openapi.json", include_in_schema=False)
    async def read_openapi() -> dict[str, Any]:
        return openapi(api, champion)

    return api


def _add_health(api: FastAPI, champion: Champion) -> None:
    @api.get("/v2", summary="Metadata of the server")
    async def read_server() -> dict[str, Any]:
        return {"name": "spark-kfp", "version": own_version(), "extensions": []}

    @api.get("/v2/health/live", summary="Is the server running?")
    async def read_live() -> dict[str, bool]:
        return {"live": True}

    @api.get("/v2/health/ready", summary="Can the server answer?")
    async def read_ready() -> JSONResponse:
        # The specification names the field `live`, KServe's server and clients `ready`.
        ready = champion.in_use.champion is not None
        return JSONResponse({"live": True, "ready": ready}, 200 if ready else 503)


def _find(champion: Champion, name: str, wanted: str = "") -> ServedModel:
    model = champion.version(wanted) if wanted else champion.in_use.champion
    if name != champion.name or (wanted and model is None):
        raise HTTPException(404, f"there is no such model; the one served here is {champion.name!r}")
    if model is None:
        raise HTTPException(503, champion.absence())
    return model


def _add_models(api: FastAPI, champion: Champion) -> None:
    async def list_models() -> dict[str, list[str]]:
        return {"models": [champion.name]}

    async def describe(name: str) -> dict[str, Any]:
        return description(_find(champion, name))

    async def read_metadata(name: str, version: str = "") -> dict[str, Any]:
        in_use = champion.in_use
        versions = [each.version for each in (in_use.champion, in_use.canary) if each]
        return {**metadata_v2(_find(champion, name, version)), "versions": versions}

    async def read_ready(name: str, version: str = "") -> JSONResponse:
        try:
            _find(champion, name, version)
        except HTTPException as error:
            if error.status_code == HTTPStatus.NOT_FOUND:
                raise
            return JSONResponse({"name": name, "ready": False}, error.status_code)
        return JSONResponse({"name": name, "ready": True})

    api.add_api_route("/v1/models", list_models, summary="The models served here")
    api.add_api_route("/v1/models/{name}", describe, summary="The model's columns, labels and threshold")
    api.add_api_route("/v2/models", list_models, summary="The models served here", operation_id="list_models_v2")
    for path, route, about in (
        ("", read_metadata, "Inputs and outputs of the model"),
        ("/ready", read_ready, "Can the model answer?"),
    ):
        api.add_api_route(f"/v2/models/{{name}}{path}", route, summary=about)
        api.add_api_route(
            f"/v2/models/{{name}}/versions/{{version}}{path}", route, summary=about, include_in_schema=False
        )


async def _page(request: Request) -> Response:
    """Returns the form: one page with its style and its script."""
    name, kind = PAGE[request.url.path]
    return Response(files("serving").joinpath("page", name).read_bytes(), media_type=kind, headers=PAGE_HEADERS)


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)


def openapi(api: FastAPI, champion: Champion) -> dict[str, Any]:
    """Returns the OpenAPI document; the requests that score rows have the columns of the champion."""
    document = get_openapi(title=api.title, version=api.version, routes=api.routes)
    name, model = champion.name, champion.in_use.champion
    row: dict[str, Any] = model.columns.schema() if model else {"type": "object"}
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {"Row": row, "Prediction": PREDICTION, "Error": ERROR}
    instances = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Row"}}
    one = {
        "type": "object",
        "required": ["instances"],
        "properties": {"instances": instances},
        "additionalProperties": False,
    }
    answer = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": {"$ref": "#/components/schemas/Prediction"}},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
        },
    }
    example = {"instances": [model.columns.example()]} if model else {}
    for verb, about in (("predict", "Score rows"), ("explain", "Score rows, and say which values pushed the score")):
        document["paths"][f"/v1/models/{name}:{verb}"] = _operation(f"{verb}_v1", about, one, answer, example)
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"enum": list(row.get("properties", ()))},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"type": "string"},
            "data": {"type": "array"},
        },
    }
    two = {"type": "object", "required": ["inputs"], "properties": {"inputs": {"type": "array", "items": tensor}}}
    outputs = f"Outputs: `{LABEL_OUTPUT}` and `{PROBABILITIES_OUTPUT}`; with a base rate `{CORRECTED_OUTPUT}`, too."
    document["paths"][f"/v2/models/{name}/infer"] = _operation(
        "infer_v2", f"Score rows by the Open Inference Protocol. {outputs}", two, {"type": "object"}, _v2_example(model)
    )
    return document


def _v2_example(model: ServedModel | None) -> dict[str, Any]:
    tensors = metadata_v2(model)["inputs"] if model else []
    example = model.columns.example() if model else {}
    return {"inputs": [{**each, "shape": [1], "data": [example[each["name"]]]} for each in tensors]}


def _operation(
    name: str, about: str, body: dict[str, Any], answer: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    errors = {
        str(status): {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, text in ERRORS.items()
    }
    return {
        "post": {
            "operationId": name,
            "summary": about,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
            "responses": {
                "200": {"description": "The scores", "content": {"application/json": {"schema": answer}}},
                **errors,
            },
        }
    }


PREDICTION = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "description": "The predicted label value."},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}},
        "corrected_probabilities": {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
            "description": "With a base rate in the specification only: the probabilities in the population that it states. "
            "`label` comes from `probabilities` and the threshold.",
        },
        "explanation": {"type": "object", "description": "With :explain only."},
    },
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {"type": "string"},
        "row": {"type": "integer", "description": "Number of the wrong row, from 0."},
        "column": {"type": "string", "description": "The column that is wrong."},
        "field": {"type": "string", "description": "The field of the request that is wrong."},
    },
}
ERRORS = {
    400: "The request is wrong; the answer names the field, or the row and the column.",
    401: "The API key is missing or wrong.",
    404: "There is no such model or version.",
    408: "The headers or the body came too slowly.",
    413: "The body is too long, or has too many rows.",
    415: "The body is no JSON.",
    429: "Too many requests.",
    431: "The headers are too long.",
    503: "There is no champion yet, or there are too many connections.",
}


def own_version() -> str:
    """Returns the version of spark-kfp."""
    try:
        return version("spark-kfp")
    except PackageNotFoundError:  # a copy of the source that is not installed
        return "unknown"
