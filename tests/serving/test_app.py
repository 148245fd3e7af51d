"""The application without a server: what it answers in both protocols, what it refuses, counts and logs."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable
from typing import Any

import pytest

from serving.app import Application
from serving.champion import Champion
from serving.model_source import build_model, place_of
from serving.request_log import JsonLines
from serving.settings import ServerSettings

PREDICT, INFER = "/v1/models/bank:predict", "/v2/models/bank/infer"


def application(scorecard: dict[str, Any], **settings: Any) -> Application:
    model = build_model("bank", "v1", scorecard)
    return Application(ServerSettings(scorecard="x", **settings), Champion("bank", None, model))


@pytest.fixture
def app(scorecard: dict[str, Any]) -> Application:
    return application(scorecard)


def probability(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def test_rows_are_scored_in_their_order(app: Application, call: Any, row: dict[str, Any]) -> None:
    answer = call(app, "POST", PREDICT, {"instances": [row, {"age": None, "income": "1e3", "kind": "new"}]})
    assert (answer.status, answer.headers["x-model-version"]) == (200, "v1")
    found = [each["probabilities"]["yes"] for each in answer.json()["predictions"]]
    assert found == pytest.approx([probability(-1 + 0.6 + 0.7 - 1.5), probability(-1 + 0.8 + 1.0 + 0.25)], abs=1e-15)
    assert [each["label"] for each in answer.json()["predictions"]] == ["no", "yes"]


def test_a_byte_order_mark_is_passed_over_and_other_encodings_are_refused(
    app: Application, call: Any, row: dict[str, Any]
) -> None:
    text = json.dumps({"instances": [row]})
    assert call(app, "POST", PREDICT, text.encode("utf-8-sig")).status == 200
    assert call(app, "POST", PREDICT, text.encode("utf-16")).status == 400


def test_a_base_rate_corrects_the_probabilities_and_not_the_label(
    scorecard: dict[str, Any], call: Any, row: dict[str, Any]
) -> None:
    base, sample = 0.1, 0.5
    shift = math.log(base / (1 - base)) - math.log(sample / (1 - sample))
    corrected = {**scorecard, "correction": {"base_rate": base, "sample_rate": sample, "shift": shift}}
    served = application(corrected)
    likely = {**row, "kind": "common"}
    (found,) = call(served, "POST", PREDICT, {"instances": [likely]}).json()["predictions"]
    margin = -1 + 0.6 + 0.7
    assert found["label"] == "yes"
    assert found["probabilities"]["yes"] == pytest.approx(probability(margin), abs=1e-15)
    assert found["corrected_probabilities"]["yes"] == pytest.approx(probability(margin + shift), abs=1e-15)
    assert sum(found["corrected_probabilities"].values()) == pytest.approx(1, abs=1e-15)
    answered = call(served, "POST", INFER, tensors(age=[30], income=[700], kind=["common"])).json()
    outputs = {each["name"]: each["data"] for each in answered["outputs"]}
    assert outputs["corrected_probabilities"] == list(found["corrected_probabilities"].values())
    assert outputs["corrected_probabilities"] != outputs["probabilities"]
    assert len(call(served, "GET", "/v2/models/bank").json()["outputs"]) == 3
    assert call(served, "GET", "/v1/models/bank").json()["correction"]["base_rate"] == base


def tensors(**columns: list[Any]) -> dict[str, Any]:
    return {
        "inputs": [
            {"name": name, "shape": [len(data)], "datatype": "BYTES" if name == "kind" else "FP64", "data": data}
            for name, data in columns.items()
        ]
    }


def test_the_open_inference_protocol_gives_the_same_scores(app: Application, call: Any, row: dict[str, Any]) -> None:
    one = call(app, "POST", PREDICT, {"instances": [row]}).json()["predictions"][0]
    two = call(app, "POST", INFER, {"id": "a", **tensors(age=[30], income=[700], kind=["rare"])}).json()
    assert (two["model_name"], two["model_version"], two["id"]) == ("bank", "v1", "a")
    label, probabilities = two["outputs"]
    assert (label["name"], label["shape"], label["datatype"], label["data"]) == ("label", [1], "BYTES", [one["label"]])
    assert (probabilities["shape"], probabilities["data"]) == ([1, 2], list(one["probabilities"].values()))
    assert probabilities["parameters"] == {"label_0": "no", "label_1": "yes"}


def test_a_tensor_may_be_a_column_vector_and_an_output_chosen(app: Application, call: Any) -> None:
    document = tensors(age=[30, None], income=[700, 1], kind=["rare", None])
    document["inputs"][0] |= {"shape": [2, 1], "data": [[30], [None]]}
    answer = call(app, "POST", INFER, {**document, "outputs": [{"name": "label"}]})
    assert [(each["name"], each["data"]) for each in answer.json()["outputs"]] == [("label", ["no", "yes"])]


@pytest.mark.parametrize(
    ("path", "status", "document"),
    [
        ("/v2", 200, {"name": "spark-kfp", "extensions": []}),
        ("/v2/health/live", 200, {"live": True}),
        ("/v2/health/ready", 200, {"live": True, "ready": True}),
        ("/v2/models/bank/ready", 200, {"name": "bank", "ready": True}),
        ("/v2/models/bank/versions/v1/ready", 200, {"name": "bank", "ready": True}),
        ("/v2/models/bank", 200, {"name": "bank", "versions": ["v1"], "platform": "spark-kfp_scorecard"}),
        ("/v1/models", 200, {"models": ["bank"]}),
        ("/v1/models/bank", 200, {"name": "bank", "ready": True, "label": "bought", "threshold": 0.5}),
        ("/v2/models/other", 404, {"error": "there is no such model; the one served here is 'bank'"}),
        ("/v2/models/bank/versions/v9/ready", 404, {}),
        ("/nothing", 404, {"error": "Not Found"}),
    ],
)
def test_what_is_served_can_be_read(
    app: Application, call: Any, path: str, status: int, document: dict[str, Any]
) -> None:
    answer = call(app, "GET", path)
    assert answer.status == status
    assert document.items() <= answer.json().items()


def instances(**cells: Any) -> dict[str, Any]:
    return {
        "instances": [{"age": 30, "income": 700, "kind": "rare"}, {"age": 30, "income": 700, "kind": "rare", **cells}]
    }


WRONG_ROWS = [
    ({"agee": 3}, "agee", "column 'agee' is unknown to the model; did you mean 'age'?"),
    ({"bought": "yes"}, "bought", "is the label"),
    ({"age": "old"}, "age", "'old' is not a number"),
    ({"age": True}, "age", "True is not a number"),
    ({"age": [1]}, "age", "is not a number"),
    ({"age": {"a": 1}}, "age", "is not a number"),
    ({"age": 17}, "age", "is 17; the specification allows 18 to 120"),
    ({"age": " 121 "}, "age", "is 121; the specification allows 18 to 120"),
    ({"income": 1e200}, "income", "is infinite or beyond 1e\\+100"),
    ({"income": "inf"}, "income", "is infinite"),
    ({"income": 10**4000}, "income", "is infinite"),
    ({"kind": ["rare"]}, "kind", "is neither text, number nor truth value"),
    ({"kind": {"x": 1}}, "kind", "is neither text, number nor truth value"),
]


@pytest.mark.parametrize(("cells", "column", "text"), WRONG_ROWS)
def test_a_wrong_row_is_refused_with_its_number_and_column(
    app: Application, call: Any, cells: Any, column: str, text: str
) -> None:
    answer = call(app, "POST", PREDICT, instances(**cells))
    assert (answer.status, answer.json()["row"], answer.json()["column"]) == (400, 1, column)
    assert re.search(text, answer.json()["error"])


def test_a_missing_column_is_named(app: Application, call: Any) -> None:
    answer = call(app, "POST", PREDICT, {"instances": [{"age": 30, "kind": "rare"}]})
    assert answer.json()["error"] == "row 0: column 'income' is missing from the row; give null where there is no value"


def test_a_column_that_the_specification_drops_may_come_along(app: Application, call: Any) -> None:
    assert call(app, "POST", PREDICT, instances(note="x")).status == 200


WRONG_BODIES: list[tuple[bytes, int, str]] = [
    (b"", 400, "no JSON"),
    (b"{", 400, "no JSON"),
    (b"[]", 400, "must be a JSON object"),
    (b"null", 400, "must be a JSON object"),
    (b'{"instances": []}', 400, "field 'instances' is an empty list"),
    (b'{"instances": {}}', 400, "field 'instances' is an object"),
    (b"{}", 400, "field 'instances' is missing"),
    (b'{"instances": [1]}', 400, "a row maps column names to values"),
    (b'{"instances": [null]}', 400, "a row maps column names to values"),
    (b'{"instances": [[1, 2]]}', 400, "a row maps column names to values"),
    (b'{"rows": []}', 400, "unknown field 'rows'"),
    (b'{"instances": [{"age": NaN, "income": 1, "kind": "a"}]}', 400, "NaN, which is no number"),
    (b'{"instances": [{"age": -Infinity, "income": 1, "kind": "a"}]}', 400, "-Infinity, which is no number"),
    (b'{"instances": [{"age": 1e999, "income": 1, "kind": "a"}]}', 400, "column 'age' is infinite"),
    (
        b'{"instances": [{"age": ' + b"9" * 5000 + b', "income": 1, "kind": "a"}]}',
        400,
        "number of more than 4,300 digits",
    ),
    (b'{"instances": [{"age": 20, "age": 30, "income": 1, "kind": "a"}]}', 400, "'age' is there twice in one object"),
    (b'{"instances": [{"age": 20}], "instances": [{"age": 20}]}', 400, "'instances' is there twice"),
    (b'{"instances": [{"age": {"' + b"x" * 999 + b'": 1, "' + b"x" * 999 + b'": 2}}]}', 400, "is there twice"),
    (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested too deeply"),
    (b'{"instances": [{"age": ' + b"[" * 500 + b"]" * 500 + b', "income": 1, "kind": "a"}]}', 400, "column 'age'"),
    (b'{"instances": [{"\\ud800": 1, "age": 20, "income": 1, "kind": "\\udfff"}]}', 400, "is unknown to the model"),
    (b"\xff\xfe{}", 400, "the body is n"),
    (b'{"instances": [' + b"{}," * 10_000 + b"{}]}", 413, "10001 rows"),
    (b'{"instances": ["' + b"x" * (5 << 20) + b'"]}', 413, "longer than"),
]


@pytest.mark.parametrize(("body", "status", "text"), WRONG_BODIES, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_a_wrong_body_is_the_callers_fault(
    app: Application, call: Any, body: bytes, status: int, text: str, verb: str
) -> None:
    answer = call(app, "POST", f"/v1/models/bank:{verb}", body)
    assert (answer.status, text in answer.json()["error"]) == (status, True), answer.json()
    assert len(answer.body) < 2000
    assert not re.search(r"sys\.|Error\b", answer.json()["error"])


def typed(datatype: str, value: Any) -> dict[str, Any]:
    document = tensors(age=[value], income=[700], kind=["rare"])
    document["inputs"][0]["datatype"] = datatype
    return document


@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT64", 41), ("UINT8", 41), ("FP16", 41), ("FP64", 41.5), ("BYTES", "41"), ("INT8", None), ("BOOL", None)],
)
def test_a_tensor_of_the_right_datatype_is_scored(app: Application, call: Any, datatype: str, value: Any) -> None:
    assert call(app, "POST", INFER, typed(datatype, value)).status == 200


WRONG_TENSORS: list[tuple[Any, str]] = [
    ({}, "field 'inputs' must be a list"),
    ({"inputs": [1]}, "inputs[0] must be an object"),
    ({"inputs": [{"name": 3}]}, "inputs[0].name must be the name of a column"),
    ({"inputs": [{"name": "age", "datatype": "TEXT"}]}, "datatype must be one of"),
    ({"inputs": [{"name": "age", "datatype": ["FP64"]}]}, "datatype must be one of"),
    ({"inputs": [{"name": "age", "datatype": "FP64", "data": 3}]}, "data must be a list"),
    ({"inputs": [{"name": "age", "datatype": "FP64", "data": [3]}]}, "shape must be"),
    ({"inputs": [{"name": "age", "datatype": "FP64", "data": [3], "shape": [True]}]}, "shape must be"),
    ({"inputs": [{"name": "age", "datatype": "FP64", "data": [3], "shape": [2]}]}, "shape says 2 rows, and data has 1"),
    ({"inputs": [{"name": "age", "datatype": "FP64", "data": [[3, 4]], "shape": [1, 1]}]}, "does not have the shape"),
    (typed("BOOL", 41.0), "input 'age', row 0: datatype BOOL wants true or false, and this is a number"),
    (typed("BOOL", 1), "wants true or false"),
    (typed("BYTES", 41), "wants a text, and this is a number"),
    (typed("FP64", "41"), "wants a number, and this is a text"),
    (typed("FP32", True), "wants a number, and this is a truth value"),
    (typed("FP64", {"a": 1}), "wants a number, and this is an object"),
    (typed("INT64", 41.5), "wants a whole number"),
    (typed("INT8", 128), "wants a whole number from -128 to 127, and this is a number beyond that"),
    (typed("UINT64", -1), "wants a whole number from 0 to 18446744073709551615"),
    (typed("INT64", True), "and this is a truth value"),
    (typed("BOOL", True), "column 'age': True is not a number"),
    (tensors(age=[1, 2], income=[3]), "different numbers of rows: 'age' 2, 'income' 1"),
    (tensors(age=[30], income=[3]), "column 'kind' is missing"),
    (tensors(age=[30], income=[3], kind=["a"], more=[1]), "column 'more' is unknown"),
    ({**tensors(age=[30], income=[3], kind=["a"]), "outputs": [{"name": "x"}]}, "'x' is none of label, probabilities"),
    ({**tensors(age=[30], income=[3], kind=["a"]), "outputs": 3}, "field 'outputs'"),
    ({**tensors(age=[30], income=[3], kind=["a"]), "id": 3}, "field 'id' must be a text"),
    ({"inputs": 2 * tensors(age=[30])["inputs"]}, "input 'age' is there twice"),
]


@pytest.mark.parametrize(("document", "text"), WRONG_TENSORS, ids=lambda value: str(value)[:30])
def test_a_wrong_tensor_is_the_callers_fault(app: Application, call: Any, document: Any, text: str) -> None:
    answer = call(app, "POST", INFER, document)
    assert (answer.status, text in answer.json()["error"]) == (400, True), answer.json()


def test_other_methods_types_and_models_are_refused(app: Application, call: Any) -> None:
    body = instances()
    assert call(app, "GET", PREDICT).headers["allow"] == "POST"
    assert call(app, "GET", PREDICT).status == 405
    assert call(app, "POST", "/v1/models/other:predict", body).status == 404
    assert call(app, "POST", "/v2/models/bank/versions/v9/infer", tensors(age=[1])).status == 404
    for headers in ({"content-type": "text/plain"}, {"content-type": ""}, {"content-encoding": "gzip"}):
        assert call(app, "POST", PREDICT, body, headers=headers).status == 415
    assert call(app, "POST", PREDICT, body, headers={"content-length": "99999999"}).status == 413
    assert call(app, "POST", PREDICT, body, headers={"content-type": "application/json; charset=utf-8"}).status == 200


def test_a_body_in_parts_is_read_to_its_end_or_limit(scorecard: dict[str, Any], call: Any) -> None:
    app = application(scorecard, max_body_bytes=1000, body_seconds=0.2)
    text = json.dumps(instances()).encode()
    parts = [{"type": "http.request", "body": text[:9], "more_body": True}, {"type": "http.request", "body": text[9:]}]
    assert call(app, "POST", PREDICT, chunks=parts).status == 200
    assert (
        call(app, "POST", PREDICT, chunks=[{"type": "http.request", "body": b" " * 600, "more_body": True}] * 9).status
        == 413
    )
    assert call(app, "POST", PREDICT, chunks=parts[:1]).status == 408
    assert call(app, "POST", PREDICT, chunks=[parts[0], {"type": "http.disconnect"}]).status == 0


def test_a_key_is_asked_of_whoever_scores(scorecard: dict[str, Any], call: Any) -> None:
    app = application(scorecard, api_key="secret")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret"}, {"x-api-key": "secre"}):
        assert call(app, "POST", PREDICT, instances(), headers=headers).status == 401
        assert call(app, "GET", "/v1/models/bank", headers=headers).status == 401
        assert call(app, "GET", "/openapi.json", headers=headers).status == 401
    for headers in ({"authorization": "Bearer secret"}, {"x-api-key": "secret"}):
        assert call(app, "POST", PREDICT, instances(), headers=headers).status == 200
    for path in ("/v2/health/ready", "/metrics", "/"):
        assert call(app, "GET", path).status == 200


def test_more_requests_than_allowed_are_refused(scorecard: dict[str, Any], call: Any) -> None:
    app = application(scorecard, requests_per_second=0.3)
    statuses = [call(app, "POST", PREDICT, instances()).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_without_a_champion_nothing_is_ready(call: Any, registry: Any) -> None:
    app = Application(ServerSettings(registry="x"), Champion("bank", place_of(str(registry.root))))
    for path in ("/v2/health/ready", "/v2/models/bank/ready", "/v1/models/bank"):
        assert call(app, "GET", path).status == 503
    assert call(app, "GET", "/v2/health/live").status == 200
    assert call(app, "POST", PREDICT, instances()).json() == {
        "error": "model 'bank' has no champion: the registry was not read yet"
    }
    app.champion.refresh()
    assert "there is no champion.json yet; promote a version" in call(app, "POST", PREDICT, instances()).json()["error"]
    registry.point("gone")
    app.champion.refresh()
    for method, path in (("POST", PREDICT), ("GET", "/v1/models/bank")):
        answer = call(app, method, path, instances())
        assert answer.status == 503
        assert "bank/versions/gone" in answer.json()["error"]
    assert call(app, "GET", "/openapi.json").status == 200


def metric_lines(app: Application, call: Callable[..., Any]) -> set[str]:
    return set(call(app, "GET", "/metrics").body.decode().splitlines())


def test_metrics_count_requests_scores_and_cells(app: Application, call: Any) -> None:
    call(
        app,
        "POST",
        PREDICT,
        {"instances": [{"age": None, "income": 1, "kind": "new"}, {"age": 20, "income": " ", "kind": None}]},
    )
    call(app, "POST", PREDICT, instances(age="x"))
    name = "spark_kfp_serving_"
    assert {
        f'{name}requests_total{{route="v1:predict",status="200"}} 1',
        f'{name}requests_total{{route="v1:predict",status="400"}} 1',
        f'{name}request_seconds_count{{route="v1:predict"}} 2',
        f'{name}rejected_total{{kind="row"}} 1',
        f'{name}score_count{{model="bank",version="v1"}} 2',
        f'{name}missing_values_total{{model="bank",version="v1",column="age"}} 1',
        f'{name}missing_values_total{{model="bank",version="v1",column="income"}} 1',
        f'{name}missing_values_total{{model="bank",version="v1",column="kind"}} 1',
        f'{name}unseen_categories_total{{model="bank",version="v1",column="kind"}} 1',
        f'{name}model_info{{model="bank",version="v1",role="champion",kind="logistic regression"}} 1',
    } <= metric_lines(app, call)


def test_openapi_has_types_ranges_and_examples_of_the_columns(app: Application, call: Any) -> None:
    document = call(app, "GET", "/openapi.json").json()
    row = document["components"]["schemas"]["Row"]
    assert row["properties"]["age"] | {"description": ""} == {
        "type": ["number", "null"], "minimum": 18.0, "maximum": 120.0, "examples": [40.0], "description": ""
    }  # fmt: skip
    assert row["properties"]["kind"]["examples"] == ["common", "rare"]
    for path, operation in document["paths"].items():
        if "post" in operation:
            example = operation["post"]["requestBody"]["content"]["application/json"]["example"]
            assert call(app, "POST", path, example).status == 200


@pytest.mark.parametrize(
    ("low", "high", "about"),
    [(-2547, 81204, (-10000, 90000)), (18, 95, (10, 100)), (0.634, 5.045, (0, 6)), (0.1234, 0.1312, (0.123, 0.132))],
)
def test_no_extreme_of_the_table_is_told(
    scorecard: dict[str, Any], call: Any, low: float, high: float, about: tuple[float, float]
) -> None:
    profile = {"columns": [{"name": "income", "min": low, "max": high}]}
    model = build_model("bank", "v1", scorecard, profile)
    app = Application(ServerSettings(scorecard="x"), Champion("bank", None, model))
    described = call(app, "GET", "/v1/models/bank").json()["columns"]
    assert [each["seen"] for each in described] == [None, list(about), None]
    properties = call(app, "GET", "/openapi.json").json()["components"]["schemas"]["Row"]["properties"]
    assert f"The table has about {about[0]:g} to {about[1]:g}." in properties["income"]["description"]


def test_the_examples_of_a_linear_model_are_explained_exactly(app: Application, call: Any, row: dict[str, Any]) -> None:
    found = call(app, "POST", "/v1/models/bank:explain", {"instances": [row]}).json()["predictions"][0]
    explanation, positive = found["explanation"], found["probabilities"]["yes"]
    assert explanation["columns"] == pytest.approx({"age": -0.2, "income": 0.2, "kind": -1.5})
    log_odds = math.log(positive / (1 - positive))
    usual = math.log(explanation["usual"] / (1 - explanation["usual"]))
    assert usual + sum(explanation["columns"].values()) == pytest.approx(log_odds, abs=1e-12)
    assert explanation["method"] == "exact"


def test_another_model_is_explained_by_ablation(scorecard: dict[str, Any], call: Any) -> None:
    leaves = {"feature": [0, -1, -1], "threshold": [35.0, None, None], "left": [1, -1, -1], "right": [2, -1, -1]}
    trees = [{**leaves, "value": [None, -2.0, 3.0]}]
    app = application({**scorecard, "form": "boosted_trees", "trees": trees})
    found = call(
        app, "POST", "/v1/models/bank:explain", {"instances": [{"age": 30, "income": 1, "kind": "rare"}]}
    ).json()
    explanation = found["predictions"][0]["explanation"]
    assert explanation["method"] == "ablation"
    assert explanation["columns"] == pytest.approx({"age": probability(-2) - probability(3), "income": 0, "kind": 0})


def test_no_value_of_a_customer_is_in_the_log(app: Application, call: Any, caplog: pytest.LogCaptureFixture) -> None:
    secret = "Smith-4711"
    caplog.set_level(logging.DEBUG)
    for document in (
        instances(kind=secret),
        instances(age=secret),
        instances(**{secret: 1}),
        {secret: 1},
        tensors(**{secret: [1, 2], "b": [1]}),
    ):
        call(app, "POST", PREDICT, document, headers={"x-request-id": f"{secret} x"})
        call(app, "POST", INFER, document)
        call(app, "POST", f"/v1/models/{secret}:predict", document)
    call(app, "GET", f"/{secret}")
    app.champion.choose = lambda: (_ for _ in ()).throw(ValueError(secret))  # type: ignore[method-assign, assignment]
    assert call(app, "POST", PREDICT, instances(kind=secret)).status == 500
    lines = [JsonLines().format(record) for record in caplog.records if record.name.startswith("serving")]
    assert len(lines) == 18
    assert secret not in "".join(lines)
    assert secret not in "".join(metric_lines(app, call))
    assert {"request_id", "route", "status", "ms", "time", "level", "message"} <= json.loads(lines[0]).keys()
    assert any('"frames"' in line for line in lines)


def test_a_request_keeps_its_id(app: Application, call: Any) -> None:
    assert call(app, "POST", PREDICT, instances(), headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(call(app, "GET", "/v2", headers={"x-request-id": "a b"}).headers["x-request-id"]) == 32
