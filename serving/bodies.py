"""The bodies of requests and answers: rows from JSON, and JSON from scores, in two protocols.

Version 1: `{"instances": [row, ...]}` gives `{"predictions": [...]}`; a row maps column names to values.
Version 2 is the Open Inference Protocol: one input tensor for each column, of shape [rows]; see inference_rest.md in
https://github.com/kserve/open-inference-protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from serving.columns import CATEGORICAL, Columns
from serving.model_source import ServedModel
from serving.scorer import RowError, Score

Row = Mapping[str, Any]
WHOLE = {f"INT{bits}": range(-(2 ** (bits - 1)), 2 ** (bits - 1)) for bits in (8, 16, 32, 64)}
WHOLE |= {f"UINT{bits}": range(2**bits) for bits in (8, 16, 32, 64)}
DATATYPES: dict[str, tuple[frozenset[type], str]] = {
    "BOOL": (frozenset([bool]), "true or false"),
    "BYTES": (frozenset([str]), "a text"),
    **dict.fromkeys(["FP16", "FP32", "FP64"], (frozenset([int, float]), "a number")),
    **{name: (frozenset([int]), f"a whole number from {kept[0]} to {kept[-1]}") for name, kept in WHOLE.items()},
}
"""The types of the values of each datatype, and what it wants in words. Beside them null may stand, for a missing value."""
LABEL_OUTPUT, PROBABILITIES_OUTPUT, CORRECTED_OUTPUT = "label", "probabilities", "corrected_probabilities"
MAX_SHOWN = 200
"""Most characters of a caller's text that are sent back in an error."""


class RequestError(Exception):
    """A request is wrong. The message is for the caller alone: it may hold his values, so it is never logged.

    Attributes:
        status: HTTP status.
        kind: what is wrong, in one word that holds no value, for the log and the metrics.
        details: further fields of the answer, such as `column` and `row`.
    """

    def __init__(self, status: int, kind: str, message: str, **details: Any) -> None:
        self.status, self.kind, self.details = status, kind, details
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        return {"error": str(self), **self.details}


def _refuse_constant(name: str) -> None:
    raise RequestError(
        400, "number", f"the body holds {name}, which is no number of JSON; send null where a value is missing"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of JSON, and refuses a name that is there twice: of the two values one would be dropped in silence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        name = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise RequestError(400, "twice", f"{_shown(name)} is there twice in one object", column=name[:MAX_SHOWN])
    return found


decode = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_object).decode
"""Made once: `json.loads` makes a decoder for each call that refuses a constant."""


def read_json(body: bytes) -> dict[str, Any]:
    """Parses the body of a request.

    Raises:
        RequestError: it is no JSON object.
    """
    try:
        document = decode(body.decode().removeprefix("\ufeff"))
    except RecursionError:
        raise RequestError(400, "nesting", "the body is nested too deeply") from None
    except UnicodeDecodeError:
        raise RequestError(400, "encoding", "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise RequestError(400, "json", f"the body is no JSON: {str(error)[:MAX_SHOWN]}") from None
    except ValueError:  # https://docs.python.org/3/library/stdtypes.html#integer-string-conversion-length-limitation
        raise RequestError(400, "number", "the body holds a whole number of more than 4,300 digits") from None
    if not isinstance(document, dict):
        raise RequestError(400, "json", f"the body must be a JSON object, and it is {_kind(document)}")
    return document


def rows_of_v1(document: Mapping[str, Any], max_rows: int) -> Sequence[Row]:
    """Returns the rows of a request of version 1.

    Raises:
        RequestError: it has another form; the message names the field.
    """
    for name in document:
        if name != "instances":
            raise RequestError(400, "field", f'unknown field {_shown(name)}; a request is {{"instances": [row, ...]}}')
    rows = document.get("instances")
    if not isinstance(rows, list) or not rows:
        found = "is missing" if "instances" not in document else f"is {_kind(rows)}"
        raise RequestError(400, "field", f"field 'instances' {found}; it must be a list of rows", field="instances")
    _check_count(len(rows), max_rows)
    return rows


def rows_of_v2(document: Mapping[str, Any], max_rows: int) -> Sequence[Row]:
    """Returns the rows of a request of the Open Inference Protocol.

    Raises:
        RequestError: it has another form; the message names the field or the input.
    """
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise RequestError(
            400, "field", "field 'inputs' must be a list of tensors, one for each column", field="inputs"
        )
    tensors: dict[str, list[Any]] = {}
    for number, tensor in enumerate(inputs):
        name, values = _tensor(tensor, f"inputs[{number}]", max_rows)
        if name in tensors:
            raise RequestError(400, "column", f"input {_shown(name)} is there twice", column=name[:MAX_SHOWN])
        tensors[name] = values
    counts = {len(values) for values in tensors.values()}
    if len(counts) != 1:
        found = ", ".join(f"{_shown(name)} {len(values)}" for name, values in list(tensors.items())[:20])
        raise RequestError(400, "shape", f"the inputs have different numbers of rows: {found}", field="inputs")
    return [dict(zip(tensors, values, strict=True)) for values in zip(*tensors.values(), strict=True)]


def _tensor(tensor: Any, where: str, max_rows: int) -> tuple[str, list[Any]]:
    if not isinstance(tensor, dict):
        raise RequestError(400, "field", f"{where} must be an object, and it is {_kind(tensor)}", field=where)
    name, shape, datatype, data = (tensor.get(key) for key in ("name", "shape", "datatype", "data"))
    if not isinstance(name, str) or not name:
        raise RequestError(400, "field", f"{where}.name must be the name of a column", field=f"{where}.name")
    column = name[:MAX_SHOWN]
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        known = ", ".join(sorted(DATATYPES))
        raise RequestError(400, "datatype", f"input {_shown(name)}: datatype must be one of {known}", column=column)
    if not isinstance(data, list):
        raise RequestError(
            400, "data", f"input {_shown(name)}: data must be a list, and it is {_kind(data)}", column=column
        )
    if not isinstance(shape, list) or not _is_shape(shape):
        raise RequestError(400, "shape", f"input {_shown(name)}: shape must be [ROWS] or [ROWS, 1]", column=column)
    if data and isinstance(data[0], list):  # the natural form of [ROWS, 1]
        if any(not isinstance(each, list) or len(each) != 1 for each in data):
            raise RequestError(400, "shape", f"input {_shown(name)}: data does not have the shape", column=column)
        data = [each[0] for each in data]
    if shape[0] != len(data):
        message = f"input {_shown(name)}: shape says {shape[0]} rows, and data has {len(data)}"
        raise RequestError(400, "shape", message, column=column)
    _check_count(len(data), max_rows)
    _check_data(name, datatype, data)
    return name, data


def _check_data(name: str, datatype: str, data: list[Any]) -> None:
    types, wanted = DATATYPES[datatype]
    whole = WHOLE.get(datatype)
    if whole is None and set(map(type, data)) <= {*types, type(None)}:
        return
    for number, value in enumerate(data):
        if value is not None and (type(value) not in types or (whole is not None and value not in whole)):
            found = f"{_kind(value)}{' beyond that' if type(value) in types else ''}"
            message = f"input {_shown(name)}, row {number}: datatype {datatype} wants {wanted}, and this is {found}"
            raise RequestError(400, "datatype", message, row=number, column=name[:MAX_SHOWN])


def _is_shape(shape: list[Any]) -> bool:
    if not all(type(size) is int and size > 0 for size in shape):
        return False
    return len(shape) == 1 or shape[1:] == [1]


def _check_count(count: int, max_rows: int) -> None:
    if not 0 < count <= max_rows:
        raise RequestError(413 if count else 400, "rows", f"{count} rows in one request; send 1 to {max_rows}")


def score_rows(model: ServedModel, rows: Sequence[Row]) -> list[Score]:
    """Scores rows and checks them.

    Raises:
        RequestError: a row is wrong; the message names it and its column.
    """
    scores, score, check, number = [], model.scorer.score, model.columns.check, 0
    try:
        for number, row in enumerate(rows):  # noqa: B007 - the error below names it
            scores.append(score(row))
            check(row)
    except RowError as error:
        raise _row_error(error, number) from None
    return scores


def _row_error(error: RowError, number: int) -> RequestError:
    """Returns the answer to a wrong row: it names the column and, from 0, the row."""
    message = str(error)
    if len(message) > MAX_SHOWN + len(error.column[:MAX_SHOWN]):
        message = f"{message[: MAX_SHOWN + len(error.column[:MAX_SHOWN])]}..."
    return RequestError(400, "row", f"row {number}: {message}", row=number, column=error.column[:MAX_SHOWN])


def answer_v1(model: ServedModel, scores: Sequence[Score]) -> dict[str, Any]:
    """Returns the answer of version 1; with a base rate each prediction has the corrected probabilities, too."""
    predictions = [{"label": score.label, "probabilities": score.probabilities} for score in scores]
    if model.scorer.correction:
        for score, prediction in zip(scores, predictions, strict=True):
            prediction[CORRECTED_OUTPUT] = model.scorer.corrected(score)
    return {
        "predictions": predictions,
        "model_name": model.name,
        "model_version": model.version,
    }


def answer_v2(model: ServedModel, scores: Sequence[Score], document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the answer of the Open Inference Protocol: the outputs asked for, or both.

    Raises:
        RequestError: an output is asked for that the model does not have, or the id is no text.
    """
    labels = model.scorer.labels
    made: dict[str, dict[str, Any]] = {
        LABEL_OUTPUT: {"shape": [len(scores)], "datatype": "BYTES", "data": [score.label for score in scores]},
        PROBABILITIES_OUTPUT: {
            "shape": [len(scores), len(labels)],
            "datatype": "FP64",
            "parameters": {f"label_{place}": label for place, label in enumerate(labels)},
            "data": [score.probabilities[label] for score in scores for label in labels],
        },
    }
    if model.scorer.correction:
        corrected = [model.scorer.corrected(score)[label] for score in scores for label in labels]
        made[CORRECTED_OUTPUT] = {**made[PROBABILITIES_OUTPUT], "data": corrected}
    answer = {"model_name": model.name, "model_version": model.version}
    if "id" in document:
        if not isinstance(document["id"], str):
            raise RequestError(400, "field", "field 'id' must be a text", field="id")
        answer["id"] = document["id"]
    names = _asked_outputs(document.get("outputs"), list(made))
    return {**answer, "outputs": [{"name": name, **made[name]} for name in names]}


def _asked_outputs(asked: Any, known: list[str]) -> list[str]:
    if asked is None or asked == []:
        return known
    names = (
        [each.get("name") if isinstance(each, dict) else None for each in asked] if isinstance(asked, list) else [None]
    )
    for name in names:
        if name not in known:
            raise RequestError(
                400, "field", f"field 'outputs': {_shown(name)} is none of {', '.join(known)}", field="outputs"
            )
    return [str(name) for name in names]


def metadata_v2(model: ServedModel) -> dict[str, Any]:
    """Returns the metadata of a model in the Open Inference Protocol."""
    inputs = [
        {"name": column.name, "datatype": "BYTES" if column.kind == CATEGORICAL else "FP64", "shape": [-1]}
        for column in model.columns.columns
    ]
    outputs = [
        {"name": LABEL_OUTPUT, "datatype": "BYTES", "shape": [-1]},
        {"name": PROBABILITIES_OUTPUT, "datatype": "FP64", "shape": [-1, len(model.scorer.labels)]},
    ]
    if model.scorer.correction:
        outputs.append({**outputs[-1], "name": CORRECTED_OUTPUT})
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "spark-kfp_scorecard",
        "inputs": inputs,
        "outputs": outputs,
    }


def description(model: ServedModel) -> dict[str, Any]:
    """Returns what the form needs to know of a model: its columns, labels and threshold."""
    columns: Columns = model.columns
    return {
        "name": model.name,
        "version": model.version,
        "ready": True,
        "title": model.title,
        "label": columns.label,
        "labels": model.scorer.labels,
        "threshold": model.scorer.threshold,
        "correction": model.scorer.correction,
        "columns": [
            {
                "name": each.name,
                "kind": each.kind,
                "categories": list(each.categories),
                "limits": each.limits,
                "seen": each.seen,
                "whole": each.whole,
                "example": each.example,
            }
            for each in columns.columns
        ],
    }


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list" if value else "an empty list", str: "a text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")


def _shown(name: Any) -> str:
    text = repr(name) if isinstance(name, str) else _kind(name)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
