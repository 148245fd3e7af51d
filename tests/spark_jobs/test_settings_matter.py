"""No setting of the contract may be ignored without a test that says so.

For each field with a default, of every step, there is a case: another value, an outcome of the step, and how the outcome must then differ
from the default's. The cases stand in the table below. A setting of train that is not there gets the usual case of a hyperparameter, if
another value follows from its declaration (a boolean, choices, a range to search): the fitted model must then predict other probabilities.
A field without a case fails here. So does a case that would pass on a step that ignores the setting.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spark_jobs import storage
from spark_jobs.arguments import Argument, Role
from spark_jobs.contract import ARGUMENTS, ESTIMATORS, KatibArgs, Step, estimators_with
from spark_jobs.errors import InputError

Outcome = Callable[["Ended"], Any]
"""What is looked at, as a plain value."""
Difference = Callable[[Any, Any], bool]
"""Whether two outcomes, of the default and of the other value, stand to each other as they must."""


GATE = Path(__file__).parents[2] / "data" / "gate.toml"


@dataclass(frozen=True)
class Ended:
    """A step that has ended: its output, or why it refused, and of train the model and the table that it was made for."""

    directory: Path
    refused: str = ""
    model: Any = None
    table: Any = None

    def document(self, name: str) -> Any:
        assert not self.refused, self.refused
        return json.loads((self.directory / name).read_text())


@dataclass(frozen=True)
class Case:
    """How a setting shows.

    Attributes:
        value: other than the default.
        outcome: what it changes.
        differs: how.
        given: other settings of both runs, such as a penalty without which its kind has no effect.
        data: for load, the name of its table.
    """

    value: Any
    outcome: Outcome
    differs: Difference
    given: Mapping[str, Any] = field(default_factory=dict)
    data: str = "plain.csv"


def other(before: Any, after: Any) -> bool:
    return bool(before != after)


def more(before: Any, after: Any) -> bool:
    return bool(after > before)


def fewer(before: Any, after: Any) -> bool:
    return bool(after < before)


def is_now(value: Any) -> Difference:
    """The outcome becomes this value, and was not."""
    return lambda before, after: after == value and before != value


def is_refused(ended: Ended) -> bool:
    return bool(ended.refused)


def roles(ended: Ended) -> dict[str, str]:
    return {column["name"]: column["role"] for column in ended.document("profile.json")["columns"]}


def specification_text(ended: Ended) -> str:
    return (ended.directory / "specification.toml").read_text()


def profile(name: str) -> Outcome:
    return lambda ended: ended.document("profile.json")[name]


def classes(ended: Ended) -> set[str]:
    return set(ended.document("profile.json")["class_counts"])


def rows_of(name: str) -> Outcome:
    return lambda ended: sum(ended.document("features.json")["split"]["counts"][name].values())


def train_mean(ended: Ended) -> float:
    return float(ended.document("features.json")["numeric"][0]["mean"])


def features_of(column: str) -> Outcome:
    return lambda ended: [
        item["kind"] for item in ended.document("features.json")["features"] if item["column"] == column
    ]


def categories(ended: Ended) -> Any:
    return ended.refused or [item["values"] for item in ended.document("features.json")["categorical"]]


def scorecard(name: str) -> Outcome:
    return lambda ended: ended.document("scorecard.json")[name]


def size(ended: Ended) -> float:
    return float(np.linalg.norm(ended.document("scorecard.json")["coefficients"]))


def zeros(ended: Ended) -> int:
    return int(np.sum(np.array(ended.document("scorecard.json")["coefficients"]) == 0))


def iterations(ended: Ended) -> int:
    return int(ended.document("scorecard.json")["settings"]["iterations"])


def intercept(ended: Ended) -> float:
    return float(ended.document("scorecard.json")["intercepts"][0])


def probabilities(ended: Ended) -> list[Any]:
    """Rounded, as a fit that is repeated may differ in the last digits."""
    return [row.probability.toArray().round(6).tolist() for row in ended.model.transform(ended.table).collect()]


def bounds(ended: Ended) -> list[Any]:
    return [(item["low"], item["high"]) for item in ended.document("evaluation.json")["metrics"]]


def tried(name: str) -> Outcome:
    return lambda ended: [trial[name] for trial in ended.document("trials.json")["trials"]]


def smallest_penalty(ended: Ended) -> float:
    return float(min(found["reg_param"] for found in tried("settings")(ended)))


def columns(ended: Ended) -> set[str]:
    assert not ended.refused, ended.refused
    return set(ended.table.columns)


def kinds(ended: Ended) -> set[str]:
    return {row["kind"] for row in ended.table.collect()}


def own_predictions(ended: Ended) -> bool:
    return (ended.directory / "predictions").exists()


def alarms(ended: Ended) -> int:
    return len(ended.document("drift.json")["alarms"])


def kinds_never_seen(ended: Ended) -> bool:
    found = ended.document("drift.json")["columns"]
    return bool(sum(item["current"]["other"] for item in found))


def verdict(place: int, name: str) -> Outcome:
    """A number of the rule at this place."""
    return lambda ended: ended.document("verdict.json")["verdicts"][place]["numbers"].get(name)


REGISTRY = str(Path(tempfile.gettempdir()) / f"spark-kfp-registry-{os.getpid()}")
NAMED = {"model_name": "bank", "registry_uri": REGISTRY, "min_test_rows": 1}
"""Of a model that the first run with them makes the champion, so that the second compares itself with it."""
FEW = {"trials": 3}
PENALTY = {"reg_param": 0.05}
QUICK_AND_VISIBLE = {**PENALTY, "num_trees": 5}
"""Settings of a hyperparameter's usual case: some of a linear model have no effect without a penalty, and few trees are fitted soon."""
ORDERED = {"split": "ordered"}
FOREST = {"estimator": "random_forest"}
CASES: dict[Step, dict[str, Case]] = {
    Step.LOAD: {
        "specification_uri": Case(
            "plain.toml", roles, lambda before, after: (before["x"], after["x"]) == ("numeric", "dropped")
        ),
        "label": Case("label", classes, is_now({"yes", "no"}), {"specification_uri": "kind.toml"}),
        "positive": Case("no", specification_text, lambda before, after: "= \"no\"" in after and "= \"yes\"" in before),
        "delimiter": Case(";", lambda ended: ended.refused or set(roles(ended)), is_now({"a,b", "label"}), data="two_delimiters.csv"),
        "quote": Case("'", classes, is_now({"yes", "no"}), data="quoted.csv"),
        "encoding": Case("ISO-8859-15", classes, is_now({"5 €", "no"}), data="latin.csv"),
        "header": Case("no", profile("rows"), lambda before, after: after == before + 1, {"label": "_c1"}, "names.csv"),
        "max_rejected_fraction": Case(0.5, is_refused, is_now(False), {"specification_uri": "bad.toml"}, "bad.csv"),
        "min_class_rows": Case(10, classes, is_now({"a", "b", "other"}), data="small.csv"),
        "small_classes": Case("drop", classes, is_now({"a", "b"}), {"min_class_rows": 10}, "small.csv"),
    },
    Step.PREPROCESS: {
        "seed": Case(7, train_mean, other),
        "split": Case("ordered", train_mean, fewer),  # x rises in the file
        "order_by": Case("later", train_mean, other, ORDERED),
        "train_fraction": Case(0.3, rows_of("train"), fewer),
        "validation_fraction": Case(0.05, rows_of("test"), more),
        "max_categories": Case(2, categories, other),
        "numeric_form": Case("standardised", features_of("x"), is_now(["standardised"])),
        "numeric_bins": Case(4, features_of("x"), is_now(["interval"] * 3), {"numeric_form": "quantile_bins"}),
    },
    Step.TRAIN: {
        "reg_param": Case(0.5, size, fewer),
        "train_parts": Case(3, probabilities, other),
        "elastic_net_param": Case(1.0, zeros, more, PENALTY),
        "max_iter": Case(1, iterations, is_now(1)),
        "tol": Case(0.5, iterations, fewer),
        "fit_intercept": Case(False, intercept, is_now(0.0)),
        "standardization": Case(False, scorecard("coefficients"), other, PENALTY),
        "family": Case("multinomial", scorecard("coefficients"), other, PENALTY),
        "class_weights": Case("balanced", intercept, more),  # the positives are the rarer
        "threshold_rule": Case("half", scorecard("threshold"), is_now(0.5)),
        "num_trees": Case(3, lambda ended: len(ended.document("scorecard.json")["trees"]), is_now(3), FOREST),
        "fit_seed": Case(7, probabilities, other, {**FOREST, "num_trees": 5}),
    },
    Step.EVALUATE: {
        "title": Case("Who answers", lambda ended: ended.document("evaluation.json")["title"], is_now("Who answers")),
        "bootstrap_samples": Case(60, bounds, other),
    },
    Step.PROMOTE: {
        "model_name": Case("bank", is_refused, is_now(False), {"registry_uri": REGISTRY}),
        "registry_uri": Case(REGISTRY, is_refused, is_now(False), {"model_name": "bank"}),
        "rules_uri": Case(str(GATE), verdict(0, "areaUnderROC"), other, NAMED),
        "compare_by": Case("logLoss", verdict(4, "metric"), is_now("logLoss"), NAMED),
        "min_test_rows": Case(2, verdict(2, "limit"), is_now(2), {"model_name": "bank", "registry_uri": REGISTRY}),
        "max_balance_shift": Case(0.5, verdict(3, "limit"), is_now(0.5), NAMED),
        "max_test_psi": Case(0.3, verdict(6, "limit"), is_now(0.3), NAMED),
        "example_rows": Case(3, lambda ended: ended.document("verdict.json")["examples"], is_now(3), NAMED),
    },
    Step.TUNE: {
        "tuner": Case("katib", is_refused, is_now(True)),  # another program carries it out
        "estimators": Case("decision_tree", tried("estimator"), is_now(["decision_tree"] * 3), FEW),
        "search": Case("reg_param=1:2", smallest_penalty, lambda before, after: before < 1 <= after, FEW),
        "algorithms": Case("random", tried("settings"), other, {"trials": 7}),  # tpe's first five are random as well
        "trials": Case(2, lambda ended: len(tried("estimator")(ended)), is_now(2), {"search": "reg_param=0:1"}),
        "class_weights": Case("balanced", tried("metrics"), other, FEW),
        "patience": Case(1, lambda ended: len(tried("estimator")(ended)), fewer, {"trials": 4, "search": "reg_param=0:1e-12"}),
        "folds": Case(2, tried("metrics"), other, FEW),
        "early_stopping": Case("medianstop", tried("reports"), other, FEW),
        "objective": Case("logLoss", lambda ended: ended.document("trials.json")["objective"], is_now("logLoss"), FEW),
        "second_objective": Case(
            "logLoss", lambda ended: ended.document("trials.json")["second_objective"], is_now("logLoss"), FEW
        ),
        "search_seed": Case(7, tried("settings"), other, FEW),
    },
    Step.PREDICT: {
        "delimiter": Case(";", is_refused, is_now(True)),  # then there is one column
        "quote": Case("'", kinds, is_now({"p", "q"}), data="quoted_rows.csv"),
        "encoding": Case("ISO-8859-15", kinds, is_now({"5 €", "q"}), data="latin_rows.csv"),
        "header": Case("no", is_refused, is_now(True)),
        "max_rejected_fraction": Case(0.5, is_refused, is_now(False), data="bad_rows.csv"),
        "predictions_uri": Case("kept", own_predictions, is_now(False)),
        "keep_columns": Case("x", columns, fewer),
        "all_probabilities": Case(True, columns, more),
    },
    Step.DRIFT: {
        "delimiter": Case(";", is_refused, is_now(True)),
        "quote": Case("'", kinds_never_seen, is_now(False), data="quoted_rows.csv"),
        "encoding": Case("UTF-8", is_refused, is_now(True), data="latin_rows.csv"),
        "header": Case("no", is_refused, is_now(True)),
        "max_rejected_fraction": Case(0.5, is_refused, is_now(False), data="bad_rows.csv"),
        "psi_limit": Case(100.0, alarms, fewer, data="other_rows.csv"),
        "share_limit": Case(0.9, alarms, fewer, data="other_rows.csv"),
        "significance": Case(1e-200, alarms, is_now(0), data="other_rows.csv"),
        "min_area_under_roc": Case(0.999, alarms, more, data="plain.csv"),
        "train_data_uri": Case("rows.csv", is_refused, is_now(True)),  # the model is none of a registry
    },
}  # fmt: skip


def settable(step: Step) -> dict[str, Argument]:
    """What may be left out; a setting with a single choice has no other value."""
    found = ARGUMENTS[step].arguments(Role.SETTING, Role.GIVEN)
    return {item.name: item for item in found if not item.needed and len(item.choices) != 1}


def hyperparameter_case(item: Argument) -> Case | None:
    """The case of a setting of train that the table does not hold; None if no other value follows from its declaration."""
    values: list[Any] = list(item.choices)
    if item.type == "bool":
        values = [True, False]
    elif item.search:
        values = [item.search.high, item.search.low]
    given: dict[str, Any] = {}
    for estimator in estimators_with(item.name)[:1]:
        own = ESTIMATORS[estimator].settings()
        given = {"estimator": estimator, **{name: value for name, value in QUICK_AND_VISIBLE.items() if name in own}}
    kind_of_value = {"int": int, "float": float}.get(item.type, lambda value: value)
    return next(
        (Case(kind_of_value(value), probabilities, other, given) for value in values if value != item.default), None
    )


def case_of(step: Step, name: str) -> Case | None:
    item = settable(step)[name]
    return CASES.get(step, {}).get(name) or (hyperparameter_case(item) if step is Step.TRAIN else None)


FOR_KATIB = set(KatibArgs.settings()) - {"tuner"}
"""Settings that show in the Experiment: tests/kfp_pipeline/runtime/katib/test_experiment.py."""
FOR_REGISTRY = {"cooldown_hours"}
"""A setting that needs a registry with a champion: tests/spark_jobs/steps/test_drift.py."""
FOR_A_SECOND_VERSION = {"canary_share"}
"""It shows only beside a champion of another version: tests/spark_jobs/steps/test_promote.py."""
ELSEWHERE = FOR_KATIB | FOR_REGISTRY | FOR_A_SECOND_VERSION
SETTABLE = [(step, name) for step in Step for name in settable(step) if name not in ELSEWHERE]


@pytest.mark.parametrize(("step", "name"), SETTABLE, ids=[f"{step}-{name}" for step, name in SETTABLE])
def test_every_setting_has_a_case(step: Step, name: str) -> None:
    assert case_of(step, name), (
        f"add a case of {name} to CASES: another value of it, and what that must change in {step}"
    )


def test_every_case_has_a_setting() -> None:
    assert {(step, name) for step, cases in CASES.items() for name in cases} <= set(SETTABLE)


def test_a_hyperparameter_with_another_value_in_its_declaration_needs_no_line_in_the_table() -> None:
    derived = {name: case for name, item in settable(Step.TRAIN).items() if (case := hyperparameter_case(item))}
    values = [derived[name].value for name in ("reg_param", "fit_intercept", "family")]
    assert values == [10.0, False, "binomial"]
    assert "tol" not in derived


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small tables, each with what one setting of load is about, and their specifications."""
    directory = tmp_path_factory.mktemp("tables")
    generator = np.random.default_rng(3)
    lines = ["x,wide,later,kind,label"]
    for i in range(500):
        x, later, kind = i / 500, generator.integers(0, 1000), generator.choice(["p", "q", "r"], p=[0.6, 0.3, 0.1])
        yes = generator.random() < 1 / (1 + np.exp(3 - 3 * x - (kind == "p")))
        lines.append(f"{x:.4f},{generator.normal() * 100:.3f},{later},{kind},{'yes' if yes else 'no'}")
    pairs = [("yes", i) if i % 3 else ("no", i) for i in range(40)]
    texts = {
        "plain.csv": lines,
        "two_delimiters.csv": ["a,b;label", *(f"{i % 3},{i % 2};{word}" for word, i in pairs)],
        "quoted.csv": ["x,label", *(f"{i % 7},'{word}'" for word, i in pairs)],
        "latin.csv": ["x,label", *(f"{i % 7},{'5 ¤' if word == 'yes' else word}" for word, i in pairs)],
        "names.csv": ["_c0,_c1", *(f"{'pq'[i % 2]},{'_c1' if i % 3 else 'no'}" for _, i in pairs)],
        "bad.csv": ["x,label", *(f"{'word' if i == 5 else i % 7},{word}" for word, i in pairs)],
        "small.csv": ["x,label", *(f"{i % 7},{'ab'[i % 2] if i > 7 else 'c'}" for i in range(60))],
        "quoted_rows.csv": [lines[0], *(f"0.5,1,2,'{'pq'[i % 2]}',yes" for i in range(20))],
        "latin_rows.csv": [lines[0], *(f"0.5,1,2,{'q' if i % 3 else '5 ¤'},yes" for i in range(20))],
        "other_rows.csv": [lines[0], *(f"{'' if i % 2 else 0.5},1,2,q,yes" for i in range(80))],
        "bad_rows.csv": [lines[0], "0.5,1,2,p,yes", "word,1,2,p,yes", "0.5,1,2,p,yes"],
        "plain.toml": ['label.name = "label"', 'columns.numeric = ["wide"]', 'columns.dropped = ["x"]'],
        "kind.toml": ['label.name = "kind"', 'columns.numeric = ["wide"]'],
        "bad.toml": ['label.name = "label"', 'columns.numeric = ["x"]'],
    }  # fmt: skip
    for name, written in texts.items():
        (directory / name).write_text("\n".join(written) + "\n", encoding="latin-1")
    return directory


def read_predictions(spark: Any, directory: Path) -> Any:
    """What predict has written; None if it has not, and for other steps."""
    written = list(directory.glob("predictions/*/*.parquet"))
    return storage.read_table(spark, str(directory / "predictions")) if written else None


def key_of(step: Step, data: str, settings: Mapping[str, Any]) -> str:
    return f"{step} {data} {sorted(settings.items())}"


def data_arguments(step: Step, path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The data of a step that reads some, and the label where nothing else names it."""
    if not ARGUMENTS[step].arguments(Role.GIVEN):
        return {}
    label = {"label": "label"} if step is Step.LOAD and "specification_uri" not in settings else {}
    return {"data_uri": path, **label}


@pytest.fixture(scope="module")
def ended_of(
    spark: Any, run_step: Callable[..., Any], tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Step, str, Mapping[str, Any]], Ended]:
    """Runs a step with some settings on what the steps before it, with their defaults, have left; each only once."""
    known: dict[str, Ended] = {}

    def run(step: Step, data: str, settings: Mapping[str, Any]) -> Ended:
        key = key_of(step, data, settings)
        if key in known:
            return known[key]
        directory = tmp_path_factory.mktemp(step)
        arguments: dict[str, Any] = {"output_uri": directory, **data_arguments(step, tables / data, settings)}
        if step in (Step.PREDICT, Step.DRIFT):
            arguments["model_uri"] = run(Step.TRAIN, "plain.csv", {}).directory
        for item in filter(lambda item: item.needed, ARGUMENTS[step].arguments(Role.FROM_STEP)):
            arguments[item.name] = run(Step(item.step), data, {}).directory
        if "report_uri" in ARGUMENTS[step].names():
            arguments["report_uri"] = directory / "report.html"
        arguments |= {
            name: tables / value if name in ("specification_uri", "predictions_uri") else value
            for name, value in settings.items()
        }
        refused, models, write_model = "", [], storage.write_model

        def keep(model: Any, uri: str) -> None:
            models.append(model)
            # Else nobody reads it, and saving models is most of the time.
            if not settings or "estimator" in settings:
                write_model(model, uri)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, "write_model", keep)
            try:
                run_step(step, **arguments)
            except InputError as error:
                refused = str(error)
        scored = read_predictions(spark, directory)
        table = (
            storage.read_table(spark, f"{known[key_of(Step.LOAD, data, {})].directory}/rows")
            if step is Step.TRAIN
            else scored
        )
        known[key] = Ended(directory, refused, *models[-1:], table=table)
        return known[key]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("step", "name"), SETTABLE, ids=[f"{step}-{name}" for step, name in SETTABLE])
def test_the_setting_changes_what_it_is_for(
    step: Step, name: str, ended_of: Callable[[Step, str, Mapping[str, Any]], Ended]
) -> None:
    case = case_of(step, name)
    assert case
    default = ended_of(step, case.data, case.given)
    changed = ended_of(step, case.data, {**case.given, name: case.value})
    assert case.value != settable(step)[name].default
    before, after = case.outcome(default), case.outcome(changed)
    assert case.differs(before, after), f"{name}={case.value!r}: {after!r} after {before!r}"
    # What a step that ignores the setting would give is the default's outcome: the case must not pass on that.
    assert not case.differs(before, before), f"the case of {name} passes although the setting is ignored"
