"""The report of a search: what it tells of the trials, and that it can be rendered for few, failed, stopped and strangely named ones."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.arguments import SearchRange
from spark_jobs.contract import TuneArgs
from spark_jobs.trials import Trial, document_of
from spark_jobs.tuning.charts import drawn_range, place_in
from spark_jobs.tuning.importances import importances_of
from spark_jobs.tuning.report import render_report, trial_value

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SPACE = TuneArgs(preprocess_uri="", output_uri="", report_uri="").space()


def trial(area: float, reg_param: float, **more: Any) -> Trial:
    metrics = {"areaUnderROC": area, "logLoss": 1 - area}
    settings = {"reg_param": reg_param, "elastic_net_param": random.Random(f"{area} {reg_param}").random()}
    given = {"estimator": "logistic_regression", "settings": settings, "metrics": metrics, "algorithm": "random"}
    return Trial(**{**given, **more})


def document(trials: list[Trial], untuned: Trial, second: str = "") -> dict[str, Any]:
    space = {name: {key: asdict(wanted) for key, (_, wanted) in found.items()} for name, found in SPACE.items()}
    importances = importances_of(trials, SPACE, "areaUnderROC")
    found: dict[str, Any] = document_of(trials, "areaUnderROC", untuned, second)
    return found | {"space": space, "importances": importances, "seconds": 18.6}


def rendered(trials: list[Trial], untuned: float = 0.85, second: str = "") -> str:
    return render_report(document(trials, trial(untuned, 0.0, settings={}, algorithm=""), second))


def test_the_best_trial_the_defaults_and_every_trial_are_told() -> None:
    page = rendered([trial(0.8 + 0.01 * place, 10.0 ** (place - 6)) for place in range(8)])
    assert "is better than the defaults of logistic_regression by 0.0200" in page
    rows = re.findall(r"<tr><td>.*?</tr>", page[page.index('id="trials"') :], flags=re.S)
    assert len(rows) == 1 + 8
    assert "<b>0.8700</b>" in rows[1]
    assert page.count("<svg") == 3  # convergence, settings, importance


def test_a_search_that_gains_nothing_says_so() -> None:
    page = rendered([trial(0.8502, 0.1), trial(0.84, 1.0)])
    assert "Tuning gains nothing here" in page
    assert "the best trial is better by 0.0002" in page
    assert "<span>reg_param 0.1, elastic_net_param" in page


def test_a_search_that_the_defaults_win_says_so() -> None:
    page = rendered([trial(0.84, 0.1), trial(0.83, 1.0)])
    assert "the best trial is worse by 0.0100; so the model is trained with the defaults" in page
    assert "<span>the defaults</span>" in page


def test_a_single_trial_and_failed_and_stopped_ones_are_told() -> None:
    page = rendered(
        [
            trial(0.9, 0.1),
            trial(0.5, 0.1, metrics={}, error="no <memory>"),
            trial(0.6, 1.0, stopped="fold 1 of 3"),
        ]
    )
    assert "Fewer than two finished trials" in page
    assert "failed: no &lt;memory&gt;" in page
    assert "1 of 3 trials failed, the first: logistic_regression: no &lt;memory&gt;" in page
    assert "stopped after fold 1 of 3: 0.6000" in page


def test_times_are_told_as_what_they_are() -> None:
    taken = trial(0.9, 0.1, algorithm="tpe", seconds=0.0, taken_over=True)
    page = rendered([trial(0.9, 0.1, seconds=30.4), trial(0.8, 1.0, seconds=12.2), taken])
    assert "<span>time of the search</span><b>19 s</b>" in page
    assert "its trials added up, though some ran side by side: 43 s" in page
    assert "<td>1 (1 taken over)</td>" in page
    assert "<td>taken over</td>" in page


WIDTHS = """<script>onload = () => parent.postMessage([...document.querySelectorAll(".wide, #trials + .scroll")].map(
    part => part.scrollWidth - part.clientWidth).join(" "), "*")</script>"""
FRAME = """<title>none</title><script>onmessage = event => document.title = event.data</script>
<iframe src="page.html" width="{}"></iframe>"""  # a window of Chromium is not narrower than 500 pixels


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
@pytest.mark.parametrize("width", [1280, 390])
def test_charts_and_trials_fit_a_desk_and_a_phone(tmp_path: Path, width: int) -> None:
    long = {"error": f"org.apache.spark.SparkException: {'no such luck, ' * 20}", "metrics": {}}
    values = {"areaUnderROC": 0.8, "areaUnderPR": 0.8, "logLoss": 0.8, "accuracy": 0.8, "f1": 0.8}
    by = {"algorithm": "bayesianoptimization", "metrics": values}
    trials = [trial(0.9 - 0.01 * place, 10.0 ** (place - 6), **by) for place in range(8)]
    trials += [trial(0.5, 0.1, **long), trial(0.6, 1.0, **by | {"stopped": "3/9 of the train rows"})]
    page = render_report(document(trials, trials[1]))
    (tmp_path / "page.html").write_text(page.replace("</head>", f"{WIDTHS}</head>"))
    (tmp_path / "frame.html").write_text(FRAME.format(width))
    command = [
        CHROMIUM or "",
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'chromium'}",
    ]
    made = subprocess.run(
        [*command, "--virtual-time-budget=4000", "--window-size=1400,900", "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    beyond = re.findall("<title>(.*?)</title>", made.stdout)[0].split()
    assert beyond == ["0"] * 3, "convergence, settings, trials"


def test_two_objectives_have_a_front() -> None:
    assert "Pareto front" in rendered([trial(0.9, 0.1), trial(0.8, 1.0)], second="logLoss")
    assert "Pareto front" not in rendered([trial(0.9, 0.1), trial(0.8, 1.0)])


def test_the_setting_that_decides_is_the_important_one() -> None:
    trials = [trial(0.9 - 0.05 * abs(place % 20 - 4), 10.0 ** (place % 20 / 3 - 5.5)) for place in range(40)]
    found = importances_of(trials, SPACE, "areaUnderROC")["logistic_regression"]
    assert next(iter(found)) == "reg_param"
    assert sum(found.values()) == pytest.approx(1.0)


def test_nothing_is_said_of_few_or_equal_trials() -> None:
    assert importances_of([trial(0.9, 0.1)] * 7, SPACE, "areaUnderROC") == {}
    assert importances_of([trial(0.9, 0.1)] * 20, SPACE, "areaUnderROC") == {}


def test_places_and_values() -> None:
    assert place_in(1e-3, SearchRange(1e-6, 1.0, log=True)) == pytest.approx(0.5)
    assert place_in(3, SearchRange(2, 6)) == pytest.approx(0.25)
    assert (trial_value(-0.9, "areaUnderROC"), trial_value(0.3, "logLoss")) == (0.9, 0.3)


def test_an_outlier_does_not_hide_the_others() -> None:
    assert drawn_range([0.5, 0.88, 0.885, 0.89]) == (0.88, 0.89)
    assert drawn_range([0.7, 0.7]) == (0.7, 0.7)


@pytest.mark.parametrize("values", [[0.84, 0.861], [0.84, 0.861, 0.861], [0.84, 0.861, 0.861, 0.861]])
def test_the_worse_of_two_values_is_drawn_apart_from_the_better_one(values: list[float]) -> None:
    assert drawn_range(values) == (0.84, 0.861)
