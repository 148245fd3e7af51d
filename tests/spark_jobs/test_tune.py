"""The search: what is searched, that it never reads test rows, that it goes on where it was killed, and failed trials."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spark_jobs import storage
from spark_jobs.arguments import SearchRange
from spark_jobs.contract import TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.search import parse_search
from spark_jobs.steps import tune
from spark_jobs.trials import Trial
from spark_jobs.tuning import fitting

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("reg_param=1e-4:1:log", {"reg_param": SearchRange(1e-4, 1.0, log=True)}),
        ("layers, reg_param=1:2", {"layers": None, "reg_param": SearchRange(1, 2)}),
        (" max_depth=3:8 , x=-1:0.5,", {"max_depth": SearchRange(3, 8), "x": SearchRange(-1, 0.5)}),
    ],
)
def test_ranges_are_read_as_written(text: str, found: dict[str, SearchRange | None]) -> None:
    assert parse_search(text) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("reg-param", "is no range"),
        ("reg_param=1", "is no range"),
        ("reg_param=1:0", "is no range"),
        ("reg_param=a:b", "is no range"),
        ("reg_param=0:inf", "is no range"),
        ("reg_param=nan:1", "is no range"),
        ("reg_param=0:1:log", "must begin above 0"),
        ("reg_param=0:1,reg_param=0:2", "named twice"),
        ("reg_param,reg_param=0:2", "named twice"),
        ("reg_param,reg_param", "named twice"),
    ],
)
def test_what_is_no_range_is_told(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse_search(text)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"algorithms": "tpe,magic"}, "there is no algorithm 'magic'; choose among random, grid"),
        ({"algorithms": ""}, "there is no algorithm ''"),
        ({"algorithms": "tpe, tpe"}, "--algorithms: tpe is named twice"),
        ({"algorithms": "cmaes", "estimators": "gbt,mlp"}, "cmaes searches two or more numbers of a single estimator"),
        ({"algorithms": "cmaes", "search": "reg_param"}, "cmaes searches two or more numbers"),
        (
            {"algorithms": "hyperband", "folds": 3},
            "hyperband judges trials on growing samples, not by folds; leave --folds",
        ),
        (
            {"second_objective": "logLoss", "objective": "logLoss"},
            "--second-objective=logLoss is the first one, too",
        ),
        (
            {"second_objective": "areaUnderROC"},
            "--second-objective=areaUnderROC is the first one of two classes and none of more; name another metric, or the first",
        ),
        (
            {"second_objective": "logLoss", "algorithms": "tpe,cmaes"},
            "cmaes searches by one objective; use random, grid",
        ),
        ({"second_objective": "logLoss", "patience": 3}, "--patience=3 compares by one objective"),
        ({"search": "max_iter"}, "max_iter has no range of its own; write max_iter=LOW:HIGH"),
        ({"estimators": "forest"}, "there is no estimator 'forest'; choose among logistic_regression"),
        ({"search": "max_depth=2:4"}, "max_depth is no number among the settings of logistic_regression"),
        ({"search": "elastic_net_param=0:2"}, "--elastic-net-param is 2.0; allowed: 0 to 1"),
        ({"estimators": "gbt", "search": "max_depth=2:4.5"}, "max_depth is a whole number, and 4.5 is none"),
    ],
)
def test_what_cannot_be_searched_is_told_before_spark_starts(settings: dict[str, str], told: str) -> None:
    with pytest.raises(InputError) as caught:
        TuneArgs(preprocess_uri="p", output_uri="o", report_uri="r", **settings)  # type: ignore[arg-type]
    assert told in str(caught.value)


def test_a_range_replaces_that_of_a_setting_and_the_others_stay() -> None:
    args = TuneArgs(
        preprocess_uri="p",
        output_uri="o",
        report_uri="r",
        estimators="logistic_regression, gbt",
        search="max_depth=3:4",
    )
    space = args.space()
    assert space["logistic_regression"]["reg_param"] == ("float", SearchRange(1e-6, 10.0, log=True))
    assert space["gbt"]["max_depth"] == ("int", SearchRange(3, 4))
    assert "max_depth" not in space["logistic_regression"]


def test_a_name_alone_keeps_its_range_and_no_other_setting_is_searched() -> None:
    args = TuneArgs(preprocess_uri="p", output_uri="o", report_uri="r", estimators="mlp", search="layers,units=2:4")
    assert args.space() == {"mlp": {"layers": ("int", SearchRange(1, 3)), "units": ("int", SearchRange(2, 4))}}


@pytest.fixture(scope="module")
def preprocessed(run_steps: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tune")
    rows = "".join(f"{i % 17},{i * 7 % 11},{'yes' if i % 17 + i * 7 % 11 > 12 else 'no'}\n" for i in range(400))
    (directory / "data.csv").write_text("x,y,label\n" + rows)
    run_steps(directory, last="preprocess", data_uri=directory / "data.csv", label="label")
    return directory / "preprocess"


def table(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "trials.json").read_text())
    return found


def test_the_best_trial_is_the_best_and_is_told_beside_the_defaults(
    preprocessed: Path, run_step: Run, tmp_path: Path
) -> None:
    result = run_step(
        "tune",
        preprocess_uri=preprocessed,
        output_uri=tmp_path,
        trials=4,
        estimators="logistic_regression,decision_tree",
    )
    found, best = table(tmp_path), json.loads((tmp_path / "best.json").read_text())
    values = [trial["metrics"]["areaUnderROC"] for trial in found["trials"]]
    assert (len(values), result.metrics["trials"]) == (4, 4.0)
    assert (found["untuned"]["estimator"], found["untuned"]["settings"]) == ("logistic_regression", {})
    competing = [*values, found["untuned"]["metrics"]["areaUnderROC"]]
    assert best["metrics"]["areaUnderROC"] == max(competing) == result.metrics["areaUnderROC"]
    gain = max(values) - found["untuned"]["metrics"]["areaUnderROC"]
    assert result.metrics["gain"] == pytest.approx(gain)
    assert any("tuning gains nothing" in warning for warning in result.warnings) is (gain < 0.001)
    assert not (tmp_path / "journal.json").exists()


@pytest.mark.slow
def test_no_test_row_is_read(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, reads = storage.read_table, []

    def noted(session: Any, uri: str, *more: Any) -> Any:
        reads.append(uri.rpartition("=")[2])
        return read(session, uri, *more)

    monkeypatch.setattr(storage, "read_table", noted)
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=1)
    assert sorted(reads) == ["train", "validation"]


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_after_its_last_trial(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, fits, algorithms = tune.run_trial, [0], "random,grid"

    def killed(*args: Any) -> Any:
        fits[0] += 1
        if fits[0] == 4:
            raise KeyboardInterrupt
        return fit(*args)

    monkeypatch.setattr(tune, "SIDE_BY_SIDE", 1)  # Python interrupts the main thread, so one that does the work here
    monkeypatch.setattr(tune, "run_trial", killed)
    with pytest.raises(KeyboardInterrupt):
        run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=2, algorithms=algorithms)
    kept = json.loads((tmp_path / "journal.json").read_text())["trials"]
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=2, algorithms=algorithms)
    assert len(kept) == 3
    assert table(tmp_path)["trials"][:3] == kept
    assert fits[0] == 4 + 1 + 1  # one more trial, and the defaults
    own = [trial["settings"] for trial in table(tmp_path)["trials"][2:]]
    assert own[0] != own[1]


@pytest.mark.slow
def test_a_trial_whose_spark_jobs_are_cancelled_is_run_again_by_the_next_attempt(
    preprocessed: Path, run_step: Run, spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, calls = fitting.judge_fit, [0]

    def cancelled(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            threading.Timer(1.0, spark.sparkContext.cancelAllJobs).start()
            spark.range(10**13).where("id % 7 = 8").count()
        return judge(*args)

    monkeypatch.setattr(tune, "SIDE_BY_SIDE", 1)
    monkeypatch.setattr(fitting, "judge_fit", cancelled)
    settings = {"preprocess_uri": preprocessed, "output_uri": tmp_path, "trials": 4, "algorithms": "random"}
    with pytest.raises(Exception, match="cancelled"):
        run_step("tune", **settings)
    kept = json.loads((tmp_path / "journal.json").read_text())["trials"]
    run_step("tune", **settings)
    trials = table(tmp_path)["trials"]
    assert (len(kept), trials[:2]) == (2, kept)
    assert [trial["error"] for trial in trials] == [""] * 4


@pytest.mark.slow
def test_the_journal_of_another_search_is_not_taken_over(preprocessed: Path, run_step: Run, tmp_path: Path) -> None:
    other = tune.Journal(str(tmp_path / "journal.json"), "another", "areaUnderROC", "", 1, [])
    other.add(Trial(estimator="gbt", settings={}))
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=1)
    assert [trial["estimator"] for trial in table(tmp_path)["trials"]] == ["logistic_regression"]


@pytest.mark.slow
def test_a_trial_that_fails_is_noted_and_the_search_goes_on(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, calls = fitting.estimates, [0]

    def fails_once(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise ArithmeticError("no such luck")
        return measure(*args)

    monkeypatch.setattr(fitting, "estimates", fails_once)
    result = run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=3)
    assert sorted(trial["error"] for trial in table(tmp_path)["trials"]) == ["", "", "no such luck"]
    assert result.warnings[0] == "1 of 3 trials failed, the first: logistic_regression: no such luck"


@pytest.mark.slow
def test_several_algorithms_get_as_many_trials_each_and_the_best_of_all_wins(
    preprocessed: Path, run_step: Run, tmp_path: Path
) -> None:
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=2, algorithms="random, tpe")
    found, best = table(tmp_path), json.loads((tmp_path / "best.json").read_text())
    assert [trial["algorithm"] for trial in found["trials"]] == ["random", "random", "tpe", "tpe"]
    assert [item["algorithm"] for item in found["algorithms"]] == ["random", "tpe"]
    competing = [trial["metrics"]["areaUnderROC"] for trial in [*found["trials"], found["untuned"]]]
    assert best["metrics"]["areaUnderROC"] == max(competing)


@pytest.mark.slow
def test_trials_side_by_side_are_those_of_a_search_one_after_another(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, running, most = tune.run_trial, [0], [0]

    def noted(*args: Any) -> Any:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.3 if running[0] == 1 else 0.0)  # the first one ends last
        trial = fit(*args)
        running[0] -= 1
        return trial

    monkeypatch.setattr(tune, "run_trial", noted)
    settings = {"preprocess_uri": preprocessed, "trials": 7, "algorithms": "tpe"}
    run_step("tune", output_uri=tmp_path / "side", **settings)
    assert most[0] > 1
    monkeypatch.setattr(tune, "SIDE_BY_SIDE", 1)
    run_step("tune", output_uri=tmp_path / "one", **settings)
    one, side = ([{**trial, "seconds": 0} for trial in table(tmp_path / name)["trials"]] for name in ("one", "side"))
    assert one == side


@pytest.mark.slow
def test_several_failures_in_a_row_end_the_search(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Any:
        raise ArithmeticError("no such luck")

    monkeypatch.setattr(fitting, "estimates", fails)
    with pytest.raises(RuntimeError, match=r"3 trials in a row failed, the last one: .* no such luck"):
        run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=9)


@pytest.mark.slow
def test_two_objectives_give_a_front_and_the_first_one_chooses(
    preprocessed: Path, run_step: Run, tmp_path: Path
) -> None:
    run_step(
        "tune", preprocess_uri=preprocessed, output_uri=tmp_path, report_uri=tmp_path / "tuning.html", trials=4,
        second_objective="logLoss",
    )  # fmt: skip
    found, best = table(tmp_path), json.loads((tmp_path / "best.json").read_text())
    values = [trial["metrics"]["areaUnderROC"] for trial in found["trials"]]
    defaults = found["untuned"]["metrics"]["areaUnderROC"]
    assert values[found["front"][0]] <= max(values)
    assert best["metrics"]["areaUnderROC"] == max(*values, defaults)
    assert max(values) in [values[place] for place in found["front"]]
    assert "Pareto front" in (tmp_path / "tuning.html").read_text()


@pytest.mark.slow
def test_more_than_two_classes(run_steps: Run, run_step: Run, tmp_path: Path) -> None:
    rows = "".join(f"{i % 17},{i * 7 % 11},{'abc'[(i % 17) // 6]}\n" for i in range(300))
    (tmp_path / "data.csv").write_text("x,y,label\n" + rows)
    run_steps(tmp_path, last="preprocess", data_uri=tmp_path / "data.csv", label="label")
    made = {"preprocess_uri": tmp_path / "preprocess", "output_uri": tmp_path / "tune", "trials": 2}
    with pytest.raises(InputError, match="areaUnderROC is for two classes, the label has 3; use logLoss, accuracy, f1"):
        run_step("tune", objective="areaUnderROC", **made)
    with pytest.raises(InputError, match="two classes"):
        run_step("tune", estimators="gbt", **made)
    result = run_step("tune", **made)
    found = table(tmp_path / "tune")
    losses = [trial["metrics"]["logLoss"] for trial in [*found["trials"], found["untuned"]]]
    assert result.metrics["logLoss"] == min(losses)


@pytest.mark.slow
def test_folds_judge_every_row_once_by_a_fit_on_the_others(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, seen = fitting.judge_fit, []

    def noted(portion: fitting.Portion, *more: Any) -> Any:
        seen.append([{row["row_hash"] for row in rows.collect()} for rows in (portion.train, portion.judged)])
        return judge(portion, *more)

    monkeypatch.setattr(fitting, "judge_fit", noted)
    result = run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=1, folds=3)
    trial = table(tmp_path)["trials"][0]
    assert [budget for budget, _ in trial["reports"]] == [1, 2, 3]
    judged = [rows for _, rows in seen[:3]]
    every = set().union(*judged)
    assert sum(map(len, judged)) == len(every)
    assert all(train == every - rows for train, rows in seen[:3])
    counts = json.loads((preprocessed / "features.json").read_text())["split"]["counts"]
    rows = sum(sum(counts[name].values()) for name in ("train", "validation"))
    assert len(every) <= rows == sum(result.rows_out.values())


@pytest.mark.slow
def test_a_trial_that_is_stopped_costs_fewer_fits_and_does_not_win(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, calls = fitting.estimates, [0]

    def falls(*args: Any) -> Any:
        calls[0] += 1  # four trials of three fits with 0.9 to 0.6, then one of 0.1, and the defaults
        return {**measure(*args), "areaUnderROC": 0.1 if calls[0] > 12 else 0.9 - 0.1 * ((calls[0] - 1) // 3)}

    monkeypatch.setattr(fitting, "estimates", falls)
    settings = {"trials": 5, "folds": 3, "early_stopping": "medianstop", "algorithms": "random"}
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, **settings)
    last = table(tmp_path)["trials"][-1]
    assert (last["stopped"], last["metrics"]["areaUnderROC"]) == ("fold 1 of 3", 0.1)
    assert calls[0] == 12 + 1 + 3
    assert json.loads((tmp_path / "best.json").read_text())["metrics"]["areaUnderROC"] == pytest.approx(0.9)
    assert table(tmp_path)["algorithms"][0]["stopped"] == 1


@pytest.mark.slow
def test_hyperband_begins_with_a_sample_of_the_train_rows(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, counts = fitting.judge_fit, []

    def noted(portion: fitting.Portion, *more: Any) -> Any:
        counts.append((portion.budget, portion.train.count()))
        return judge(portion, *more)

    monkeypatch.setattr(fitting, "judge_fit", noted)
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=1, algorithms="hyperband")
    (_, ninth), (_, third), (_, whole) = counts[:3]
    assert ninth < third < whole
    assert 0.04 * whole < ninth < 0.25 * whole
    assert [budget for budget, _ in counts] == [1, 3, 9, 1]


@pytest.mark.slow
def test_folds_of_rows_in_an_order_are_refused(run_steps: Run, run_step: Run, tmp_path: Path) -> None:
    rows = "".join(f"{i},{'yes' if i * 7 % 11 > 5 else 'no'}\n" for i in range(300))
    (tmp_path / "data.csv").write_text("x,label\n" + rows)
    run_steps(tmp_path, last="preprocess", data_uri=tmp_path / "data.csv", label="label", split="ordered")
    with pytest.raises(InputError, match="folds would judge rows by later ones"):
        run_step("tune", preprocess_uri=tmp_path / "preprocess", output_uri=tmp_path / "tune", folds=2)


@pytest.mark.slow
def test_a_choice_that_was_tried_is_not_fitted_again(
    preprocessed: Path, run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, fits = fitting.judge_fit, []

    def noted(*args: Any) -> Any:
        fits.append(args)
        return judge(*args)

    monkeypatch.setattr(fitting, "judge_fit", noted)
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, trials=3, algorithms="random,tpe")
    assert [trial["settings"] for trial in table(tmp_path)["trials"][:3]] == [
        trial["settings"] for trial in table(tmp_path)["trials"][3:]
    ]
    assert len(fits) == 3 + 1
    random, tpe = table(tmp_path)["algorithms"]
    assert (random["taken_over"], tpe["taken_over"], tpe["seconds"]) == (0, 3, 0.0)
    assert 0 < random["seconds"] < 4 * table(tmp_path)["seconds"]


@pytest.mark.slow
def test_patience_ends_a_search_that_finds_nothing_better(preprocessed: Path, run_step: Run, tmp_path: Path) -> None:
    settings = {"trials": 9, "patience": 2, "search": "reg_param=0:1e-12", "algorithms": "random"}
    run_step("tune", preprocess_uri=preprocessed, output_uri=tmp_path, **settings)
    assert len(table(tmp_path)["trials"]) == 3
