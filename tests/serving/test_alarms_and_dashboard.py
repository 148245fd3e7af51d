"""`spark-operator/monitoring/`: the alarms fire when they should, and every metric and label in them and in the dashboard is exposed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.app import Application
from serving.capture import Capture
from serving.champion import Champion
from serving.drift_results import DriftResults
from serving.model_source import place_of
from serving.settings import ServerSettings

MONITORING = Path(__file__).parents[2] / "spark-operator" / "monitoring"
RULES_TEST = Path(__file__).parent / "rules_test.yaml"
ADDED_BY_PROMETHEUS = {"le"}
BATCHES = [
    {"by": "a", "at": "2026-11-28T06:00:00+00:00", "alarms": 1, "largest_psi": 0.4,
     "metrics": [{"name": "areaUnderROC", "value": 0.71, "low": 0.66, "high": 0.76}]},
    {"by": "b", "at": "2026-11-29T06:00:00+00:00", "alarms": 2, "largest_psi": 0.7, "metrics": []},
]  # fmt: skip


@pytest.fixture
def champion(registry: Any, scorecard: dict[str, Any]) -> Champion:
    registry.add("one", scorecard)
    registry.point("one", {"version": "gone", "share": 0.1})
    document = json.loads((registry.root / "bank/versions/one/version.json").read_text())
    document["created"] = "2026-11-01T00:00:00+00:00"
    (registry.root / "bank/versions/one/version.json").write_text(json.dumps(document))
    found = Champion("bank", place_of(str(registry.root)))
    found.refresh()
    return found


@pytest.fixture
def drift(champion: Champion, registry: Any) -> DriftResults:
    (registry.root / "bank/monitoring").mkdir()
    (registry.root / "bank/monitoring/one.jsonl").write_text("".join(json.dumps(each) + "\n" for each in BATCHES))
    found = DriftResults(champion)
    found.refresh()
    return found


@pytest.fixture
def text(champion: Champion, drift: DriftResults, call: Callable[..., Any], tmp_path: Path) -> str:
    """What a server exposes that has met all that it counts."""
    capture = Capture(tmp_path / "counts", 30)
    app = Application(ServerSettings(registry="unused"), champion, capture, drift)
    for rows in ([{"age": 30, "income": None, "kind": "new"}], []):
        call(app, "POST", "/v1/models/bank:predict", {"instances": rows})
    found: str = call(app, "GET", "/metrics").body.decode()
    capture.close()
    return found


@pytest.fixture
def exposed(text: str) -> Mapping[str, set[str]]:
    """The labels of each exposed series by its name."""
    labels: dict[str, set[str]] = defaultdict(set)
    for name, inside in re.findall(r"^(\w+)\{(.*)\} \S+$", text, re.MULTILINE):
        labels[name] |= set(re.findall(r'(\w+)="', inside))
    return labels


def test_the_newest_batch_and_the_newest_labels_are_gauges(text: str) -> None:
    for line in (
        'spark_kfp_serving_drift_alarms{model="bank",version="one"} 2.0',
        'spark_kfp_serving_drift_largest_psi{model="bank",version="one"} 0.7',
        'spark_kfp_serving_drift_checked_timestamp_seconds{model="bank",version="one"} 1795932000.0',
        'spark_kfp_serving_judged_metric{model="bank",version="one",metric="areaUnderROC",end="high"} 0.76',
        'spark_kfp_serving_model_created_timestamp_seconds{model="bank",version="one",role="champion"} 1793491200.0',
    ):
        assert line in text.splitlines()


def test_what_cannot_be_read_is_said_once_and_changes_nothing(
    drift: DriftResults, registry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = dict(drift.found)
    for content in ('{"at": "2026', "", "[]", '{"alarms": "many"}'):
        (registry.root / "bank/monitoring/one.jsonl").write_text(content)
        caplog.clear()
        drift.refresh()
        drift.refresh()
        assert len(caplog.records) == 1
        assert drift.found == before


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def unknown(expression: str, exposed: Mapping[str, set[str]]) -> list[str]:
    """The metrics and labels of an expression that no server exposes."""
    metrics = re.findall(
        r"\b(\w+_\w+)(?:\{([^}]*)\})?(?=[\s)\[,>/]|$)", re.sub(r"label_values|histogram_quantile", "", expression)
    )
    named = [(name, inside) for name, inside in metrics if name.startswith("spark_kfp")]
    wrong = [name for name, _ in named if name not in exposed]
    allowed = {label for name, _ in named for label in exposed.get(name, set())} | ADDED_BY_PROMETHEUS
    used = {label for _, inside in named for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", inside)}
    used |= {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
    return wrong + sorted(used - allowed) + ([] if named else ["no metric"])


def test_every_metric_and_label_of_the_alarms_and_the_dashboard_is_exposed(exposed: Mapping[str, set[str]]) -> None:
    found = list(expressions())
    assert len(found) > 20
    assert {expression: wrong for expression in found if (wrong := unknown(expression, exposed))} == {}


@pytest.mark.parametrize(
    "wrong",
    ["spark_kfp_serving_nothing > 0", 'sum by (colour) (spark_kfp_serving_drift_alarms{model="a"})',
     'spark_kfp_serving_drift_alarms{colour="a"} > 0', "up == 0"],
)  # fmt: skip
def test_a_metric_or_label_that_is_not_exposed_is_found(exposed: Mapping[str, set[str]], wrong: str) -> None:
    assert unknown(wrong, exposed)


def test_every_alarm_says_what_to_do_and_has_a_test() -> None:
    tested = {
        case["alertname"]
        for test in yaml.safe_load(RULES_TEST.read_text())["tests"]
        for case in test["alert_rule_test"]
    }
    assert [rule["alert"] for rule in rules() if set(rule["annotations"]) != {"summary", "description"}] == []
    assert {rule["alert"] for rule in rules()} == tested
    for rule in rules():
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert label in rule["expr"], f"{rule['alert']}: the label {label} is not in the result"


def test_the_panels_lie_beside_each_other_and_have_names_of_their_own() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Prometheus, in PATH")
def test_the_alarms_fire_when_they_should_and_not_before(tmp_path: Path) -> None:
    document = yaml.safe_load((MONITORING / "rules.yaml").read_text())
    (tmp_path / "rules.json").write_text(json.dumps({"groups": document["spec"]["groups"]}))
    shutil.copy(RULES_TEST, tmp_path)
    for words in (["check", "rules", "rules.json"], ["test", "rules", RULES_TEST.name]):
        done = subprocess.run(["promtool", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
