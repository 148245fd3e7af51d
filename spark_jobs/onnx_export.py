"""Writes the numbers of a scorecard as an ONNX model, for a program that has an ONNX runtime and no Python.

    spark-kfp models export NAME VERSION model.onnx

It has one input of shape [rows, 1] for each column, under the column's name: numbers are doubles, of which NaN is missing, and categories
are text, of which the empty one is missing. Its outputs are `label`, [rows], and `probabilities`, [rows, labels], in the order of the
scorecard's labels; with a base rate in the specification `corrected_probabilities`, too. All arithmetic is in double precision.
Operators: https://onnx.ai/onnx/operators/ and, for trees, TreeEnsemble of ai.onnx.ml 5.

What the scorer does with text is not in the graph: a number must be a number, and a category the text without blanks around it. Nor are
its checks: no number is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spark_jobs.errors import InputError

DOUBLE, INT64, STRING, UINT8 = 11, 7, 8, 2
"""`TensorProto.DataType` of onnx/onnx.proto in https://github.com/onnx/onnx."""
OPSET, ML_OPSET, IR_VERSION = 18, 5, 10
"""ONNX 1.16 of 2024: the first with TreeEnsemble, which has doubles."""
BRANCH_LEQ = 0
"""The mode of a node whose true branch is for features of at most its split."""
SUM = 1
"""The aggregate function of TreeEnsemble that adds the trees up."""
OUTPUTS = ("label", "probabilities", "corrected_probabilities")
OWN_NAMES = "/"
"""Begins the names inside the graph, so that no column has one of them."""
NUMBER_KINDS = ("numeric", "standardised", "interval")


class Graph:
    """The nodes and constants of a graph; each method adds a node and returns the name of its output."""

    def __init__(self) -> None:
        from onnx import helper  # noqa: PLC0415 - the package of an extra; the command line imports this module without it

        self.helper: Any = helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        name = output or f"{OWN_NAMES}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def doubles(self, shape: Sequence[int], values: Sequence[float]) -> str:
        return self._constant(DOUBLE, shape, values)

    def integers(self, *values: int) -> str:
        return self._constant(INT64, [len(values)], values)

    def texts(self, values: Sequence[str]) -> str:
        return self._constant(STRING, [len(values)], [value.encode() for value in values])

    def _constant(self, kind: int, shape: Sequence[int], values: Sequence[Any]) -> str:
        name = f"{OWN_NAMES}constant_{len(self.constants)}"
        self.constants.append(self.helper.make_tensor(name, kind, shape, values))
        return name

    def one_hot(self, index: str, rows: Sequence[int | None], width: int) -> str:
        """Adds rows of zeros with a 1 at the place that a table has for an index, or without one."""
        table = [float(place == column) for place in rows for column in range(width)]
        return self.add("Gather", self.doubles([len(rows), width], table), index, axis=0)

    def affine(self, matrix: str, weights: Sequence[Sequence[float]], intercepts: Sequence[float]) -> str:
        """Adds matrix times weights, of shape (outputs, inputs), plus intercepts."""
        inputs = len(weights[0])
        turned = [row[place] for place in range(inputs) for row in weights]
        product = self.add("MatMul", matrix, self.doubles([inputs, len(weights)], turned))
        return self.add("Add", product, self.doubles([len(intercepts)], intercepts))

    def both(self, positive: str) -> str:
        """Adds the probability of the negative class before that of the positive one."""
        return self.add("Concat", self.add("Sub", self.doubles([1], [1.0]), positive), positive, axis=1)


def onnx_model(scorecard: Mapping[str, Any], *, name: str, version: str) -> bytes:
    """Returns the model file.

    Args:
        scorecard: the parsed scorecard.json.
        name: name of the model.
        version: ID of its version, kept among the file's properties.

    Raises:
        InputError: the scorecard has no form that this release knows, or no features.
    """
    from onnx import checker, helper  # noqa: PLC0415 - see Graph

    form, features = str(scorecard.get("form")), scorecard.get("features", ())
    if form not in FORMS or not features:
        raise InputError(
            f"model {name!r}, version {version}: a scorecard of form {form!r} with {len(features)} features cannot be written as ONNX; "
            f"the forms are {', '.join(FORMS)}"
        )
    _check_columns(scorecard, name)
    graph, labels = Graph(), list(scorecard["labels"])
    probabilities = graph.add("Identity", FORMS[form](graph, scorecard), output="probabilities")
    _add_label(graph, probabilities, scorecard["threshold"], labels)
    inputs = [_value(graph, item["name"], DOUBLE, 1) for item in scorecard["numeric"]]
    inputs += [_value(graph, item["name"], STRING, 1) for item in scorecard["categorical"]]
    outputs = [_value(graph, "label", STRING), _value(graph, "probabilities", DOUBLE, len(labels))]
    if correction := scorecard.get("correction"):
        odds = graph.add("Mul", probabilities, graph.doubles([1, 2], [1.0, math.exp(correction["shift"])]))
        whole = graph.add("ReduceSum", odds, graph.integers(1), keepdims=1)
        graph.add("Div", odds, whole, output=OUTPUTS[2])
        outputs.append(_value(graph, OUTPUTS[2], DOUBLE, 2))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "scorecard", inputs, outputs, graph.constants),
        opset_imports=opsets,
        ir_version=IR_VERSION,
        producer_name="spark-kfp",
    )
    helper.set_model_props(model, {"model": name, "version": version, "labels": json.dumps(labels)})
    checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _check_columns(scorecard: Mapping[str, Any], name: str) -> None:
    for item in (*scorecard["numeric"], *scorecard["categorical"]):
        if item["name"] in OUTPUTS or item["name"].startswith(OWN_NAMES):
            raise InputError(
                f"model {name!r}: column {item['name']!r} cannot be an input of an ONNX model whose outputs are {' and '.join(OUTPUTS)}, "
                f"and whose own names begin with {OWN_NAMES!r}; rename the column and train again"
            )


def _value(graph: Graph, name: str, kind: int, *width: int) -> Any:
    return graph.helper.make_tensor_value_info(name, kind, ["rows", *width])


def _features(graph: Graph, scorecard: Mapping[str, Any]) -> str:
    """Adds the matrix of the features, in their order."""
    pieces: list[str] = []
    places: list[int] = []
    for item in scorecard["numeric"]:
        _add_numeric(graph, item, scorecard["features"], pieces, places)
    for item in scorecard["categorical"]:
        _add_categorical(graph, item, scorecard["features"], pieces, places)
    joined = graph.add("Concat", *pieces, axis=1)
    order = [places.index(place) for place in range(len(places))]
    return joined if order == sorted(order) else graph.add("Gather", joined, graph.integers(*order), axis=1)


def _places(features: Sequence[Mapping[str, Any]], column: str, *kinds: str) -> list[int]:
    return [place for place, each in enumerate(features) if each["column"] == column and each["kind"] in kinds]


def _add_numeric(
    graph: Graph, item: Mapping[str, Any], features: Sequence[Mapping[str, Any]], pieces: list[str], places: list[int]
) -> None:
    name, own = item["name"], _places(features, item["name"], *NUMBER_KINDS)
    missing = graph.add("IsNaN", name)
    number = graph.add("Where", missing, graph.doubles([1, 1], [item["mean"]]), name)
    if indicator := _places(features, name, "missing"):
        pieces.append(graph.add("Cast", missing, to=DOUBLE))
        places += indicator
    if item["splits"]:
        above = graph.add("GreaterOrEqual", number, graph.doubles([1, len(item["splits"])], item["splits"]))
        counted = graph.add("ReduceSum", graph.add("Cast", above, to=INT64), graph.integers(1), keepdims=0)
        pieces.append(graph.one_hot(counted, [None, *range(len(own))], len(own)))
    else:
        centered = graph.add("Sub", number, graph.doubles([1, 1], [item["center"]]))
        pieces.append(graph.add("Div", centered, graph.doubles([1, 1], [item["scale"]])))
    places += own


def _add_categorical(
    graph: Graph, item: Mapping[str, Any], features: Sequence[Mapping[str, Any]], pieces: list[str], places: list[int]
) -> None:
    name, own = item["name"], _places(features, item["name"], "category", "other")
    if not own:
        return
    known = {
        features[place]["category"]: number for number, place in enumerate(own) if features[place]["kind"] != "other"
    }
    other = next((number for number, place in enumerate(own) if features[place]["kind"] == "other"), None)
    values = list(item["values"])
    text = graph.add("Squeeze", name, graph.integers(1))
    index = graph.add(
        "LabelEncoder",
        text,
        domain="ai.onnx.ml",
        keys_strings=values,
        values_int64s=list(range(len(values))),
        default_int64=len(values),
    )
    pieces.append(graph.one_hot(index, [*(known.get(value) for value in values), other], len(own)))
    places += own


def _linear(graph: Graph, scorecard: Mapping[str, Any]) -> str:
    margins = graph.affine(_features(graph, scorecard), scorecard["coefficients"], scorecard["intercepts"])
    if len(scorecard["intercepts"]) > 1:
        return graph.add("Softmax", margins, axis=1)
    return graph.both(graph.add("Sigmoid", margins))


def _averaged_trees(graph: Graph, scorecard: Mapping[str, Any]) -> str:
    """Adds the sums of the leaves' probabilities, divided by the sum of these.

    A leaf of TreeEnsemble has one number, so each class has trees of its own.
    """
    classes = range(len(scorecard["labels"]))
    trees = [(tree, place) for tree in scorecard["trees"] for place in classes]
    sums = _ensemble(graph, scorecard, trees, lambda value, place: value[place])
    return graph.add("Div", sums, graph.add("ReduceSum", sums, graph.integers(1), keepdims=1))


def _boosted_trees(graph: Graph, scorecard: Mapping[str, Any]) -> str:
    log_odds = _ensemble(graph, scorecard, [(tree, 0) for tree in scorecard["trees"]], lambda value, _: value)
    return graph.both(graph.add("Sigmoid", log_odds))


def _ensemble(
    graph: Graph,
    scorecard: Mapping[str, Any],
    trees: Sequence[tuple[Mapping[str, Any], int]],
    weight: Callable[[Any, int], float],
) -> str:
    """Adds the sums over trees, of shape [rows, targets].

    Args:
        graph: the graph.
        scorecard: the scorecard.
        trees: trees, each with the number of the target to which it adds.
        weight: what a leaf of a tree adds, from its value and the target.
    """
    roots: list[int] = []
    nodes: list[tuple[int, float, int, bool, int, bool]] = []
    leaves: list[tuple[int, float]] = []
    for tree, target in trees:
        inner = [place for place, left in enumerate(tree["left"]) if left >= 0]
        number = {place: len(nodes) + order for order, place in enumerate(inner)}
        roots.append(len(nodes))
        for place, value in enumerate(tree["value"]):
            if place not in number:
                number[place] = len(leaves)
                leaves.append((target, float(weight(value, target))))
        for place in inner:
            left, right = tree["left"][place], tree["right"][place]
            split = float(tree["threshold"][place])
            nodes.append((
                tree["feature"][place], split, number[left], tree["left"][left] < 0, number[right], tree["left"][right] < 0
            ))  # fmt: skip
        if not inner:  # a tree of one leaf becomes a node with two equal ones; with one, onnxruntime up to 1.23 adds another tree's leaf
            nodes.append((0, 0.0, number[0], True, len(leaves), True))
            leaves.append(leaves[number[0]])
    features, splits, true, true_is_leaf, false, false_is_leaf = (list(each) for each in zip(*nodes, strict=True))
    targets, weights = (list(each) for each in zip(*leaves, strict=True))
    return graph.add(
        "TreeEnsemble",
        _features(graph, scorecard),
        domain="ai.onnx.ml",
        aggregate_function=SUM,
        n_targets=max(targets) + 1,
        tree_roots=roots,
        nodes_featureids=features,
        nodes_splits=graph.helper.make_tensor("splits", DOUBLE, [len(splits)], splits),
        nodes_modes=graph.helper.make_tensor("modes", UINT8, [len(nodes)], [BRANCH_LEQ] * len(nodes)),
        nodes_truenodeids=true,
        nodes_trueleafs=[int(each) for each in true_is_leaf],
        nodes_falsenodeids=false,
        nodes_falseleafs=[int(each) for each in false_is_leaf],
        leaf_targetids=targets,
        leaf_weights=graph.helper.make_tensor("weights", DOUBLE, [len(weights)], weights),
    )


def _network(graph: Graph, scorecard: Mapping[str, Any]) -> str:
    values, layers = _features(graph, scorecard), scorecard["layers"]
    for layer in layers[:-1]:
        values = graph.add("Sigmoid", graph.affine(values, layer["weights"], layer["intercepts"]))
    return graph.add("Softmax", graph.affine(values, layers[-1]["weights"], layers[-1]["intercepts"]), axis=1)


FORMS: Mapping[str, Callable[[Graph, Mapping[str, Any]], str]] = {
    "linear": _linear,
    "averaged_trees": _averaged_trees,
    "boosted_trees": _boosted_trees,
    "network": _network,
}
"""How the numbers of a scorecard give the probabilities of the classes, by the scorecard's form."""


def _add_label(graph: Graph, probabilities: str, threshold: float | None, labels: Sequence[str]) -> None:
    """Adds the predicted label: the positive one above the threshold, or the most probable of more than two, the first of equal ones."""
    if threshold is None:
        index = graph.add("ArgMax", probabilities, axis=1, keepdims=0)
    else:
        positive = graph.add("Gather", probabilities, graph.integers(1), axis=1)
        above = graph.add("Greater", graph.add("Squeeze", positive, graph.integers(1)), graph.doubles([1], [threshold]))
        index = graph.add("Cast", above, to=INT64)
    graph.add("Gather", graph.texts(labels), index, output="label", axis=0)
