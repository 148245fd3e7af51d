"""`spark-kfp schedule`, called as a person calls it, against a fake KFP server."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest

from kfp_pipeline.commands import schedule_commands
from kfp_pipeline.kfp_server import recurring

if TYPE_CHECKING:
    from fake_kfp_server import FakeKfp

Call = Callable[..., tuple[int, str, str]]
DATA = "s3://bank/bank.csv"
NIGHTLY = ("nightly", DATA, "--cron", "0 0 2 * * *", "--param", "label=y")


def fault(kind: str, **given: Any) -> Any:
    from fake_kfp_server import Fault

    return Fault(kind, **given)


@pytest.fixture
def create(server: FakeKfp, call: Call) -> Call:
    """Calls `schedule create`."""
    return lambda *argv: call("schedule", "create", "--kfp", server.url, *argv)


def test_create_makes_one_schedule_of_the_uploaded_version(server: FakeKfp, create: Call) -> None:
    code, out, _ = create(*NIGHTLY, "--param", "max_iter=7", "--experiment", "nights", "--pipeline-root", "s3://kfp/r")
    (job,), (version,), (experiment,) = (server.all(kind) for kind in ("recurringruns", "versions", "experiments"))
    assert code == 0
    assert job["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * *"}}
    assert job["runtime_config"] == {
        "parameters": {"data_uri": DATA, "label": "y", "max_iter": 7},
        "pipeline_root": "s3://kfp/r",
    }
    assert job["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert (job["experiment_id"], experiment["display_name"]) == (experiment["experiment_id"], "nights")
    assert (job["max_concurrency"], job["no_catchup"], job["mode"]) == ("1", True, "ENABLE")
    assert "nightly created" in out


def test_the_next_three_times_and_the_rules_are_told_before(create: Call, server: FakeKfp) -> None:
    _, out, _ = create(*NIGHTLY, "--time-zone", "Asia/Tokyo")
    lines = out.splitlines()
    now = datetime.now(ZoneInfo("Asia/Tokyo"))
    first = now.replace(hour=2, minute=0, second=0, microsecond=0) + timedelta(days=now.hour >= 2)
    days = [first + timedelta(days=number) for number in range(3)]
    assert lines[:3] == [f"next: {day:%Y-%m-%d} 02:00:00 JST ({day.astimezone(UTC):%Y-%m-%d} 17:00:00 UTC)" for day in days]  # fmt: skip
    assert "Asia/Tokyo" in lines[3]
    assert "CRON_SCHEDULE_TIMEZONE" in lines[3]
    assert "only the last is run" in lines[4]
    assert "created" in lines[5]
    server.faults.append(fault("status", status=403, times=9))
    code, out, _ = create(*NIGHTLY)
    assert (code, out.count("next: ")) == (2, 3)


@pytest.mark.parametrize("name", ["nightly", "50% + 1 & a/b?"])
def test_created_twice_it_is_one(name: str, server: FakeKfp, create: Call) -> None:
    create(name, *NIGHTLY[1:], "--end", "2099-01-01")
    code, out, _ = create(name, *NIGHTLY[1:], "--end", "2099-01-01")
    assert (code, "unchanged" in out, len(server.sent("POST", "recurringruns"))) == (0, True, 1)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("--max-concurrency", "3"), "max-concurrency: 1, now 3"),
        (("--catch-up",), "catch-up: False, now True"),
        (("--param", "seed=7"), "seed: nothing, now 7"),
        (("--start", "2099-01-01T02:00"), "start: nothing, now 2099-01-01T02:00:00Z"),
        (("--service-account", "robot"), "service-account: nothing, now robot"),
        (("--image", "task:2"), "version: "),
        (("--experiment", "other"), "experiment: "),
        (("--pipeline-root", "s3://kfp/root"), "pipeline-root: nothing, now s3://kfp/root"),
    ],
)
def test_another_content_replaces_only_if_told(
    change: tuple[str, ...], told: str, server: FakeKfp, create: Call
) -> None:
    create(*NIGHTLY)
    before = server.all("recurringruns")
    code, _, err = create(*NIGHTLY, *change)
    assert (code, told in err, "--replace" in err, server.all("recurringruns")) == (2, True, True, before)
    code, out, _ = create(*NIGHTLY, *change, "--replace")
    (after,) = server.all("recurringruns")
    assert (code, "replaced" in out) == (0, True)
    assert after["recurring_run_id"] != before[0]["recurring_run_id"]
    assert create(*NIGHTLY, *change)[0] == 0


def test_a_replacement_that_was_cut_off_is_finished_by_the_next(server: FakeKfp, create: Call) -> None:
    create(*NIGHTLY)
    server.faults.append(fault("status", status=403, method="DELETE"))
    assert create(*NIGHTLY, "--catch-up", "--replace")[0] == 2
    assert len(server.all("recurringruns")) == 2
    code, _, err = create(*NIGHTLY, "--catch-up")
    assert (code, "--replace" in err) == (2, True)
    assert create(*NIGHTLY, "--catch-up", "--replace")[0] == 0
    assert [item["no_catchup"] for item in server.all("recurringruns")] == [False]


@pytest.mark.parametrize("kind", ["cut", "cut_after", "status"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "recurringruns"), ("DELETE", "recurringruns"), ("GET", "recurr")]
)
def test_a_server_that_blinks_gives_one_schedule(
    kind: str, method: str, path: str, server: FakeKfp, create: Call
) -> None:
    create(*NIGHTLY, "--max-concurrency", "5")
    server.faults.append(fault(kind, status=503, method=method, path=path))
    assert create(*NIGHTLY, "--replace")[0] == 0
    assert [item["max_concurrency"] for item in server.all("recurringruns")] == ["1"]
    assert server.faults[0].times == 0


def test_dry_run_needs_no_server_and_prints_what_would_be_sent(server: FakeKfp, call: Call, create: Call) -> None:
    code, out, err = call(
        "schedule", "create", *NIGHTLY, "--dry-run", "--start", "2099-01-01", "--time-zone", "Asia/Tokyo"
    )
    body = json.loads(out)
    assert code == 0
    assert body["trigger"]["cron_schedule"] == {"cron": "0 0 2 * * *", "start_time": "2098-12-31T15:00:00Z"}
    assert "next: 2099-01-01 02:00:00 JST" in err
    code, out, _ = create(*NIGHTLY, "--dry-run")
    assert (code, json.loads(out)["display_name"], server.requests) == (0, "nightly", [])


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--cron", "0 2 * * *"), "--cron='0 0 2 * * *'"),
        (("--cron", "@daily"), "--cron"),
        (("--time-zone", "Mars/Olympus"), "--time-zone"),
        (("--time-zone", "../etc/passwd"), "--time-zone"),
        (("--start", "tomorrow"), "--start"),
        (("--end", "2001-01-01"), "--end"),
        (("--end", "2001-01-01T00:00Z"), "--end"),
        (("--max-concurrency", "0"), "--max-concurrency"),
        (("--max-concurrency", "11"), "--max-concurrency"),
        (("--param", "label"), "--param=label"),
        (("--param", "nonsense=1"), "nonsense"),
        (("--param", "max_iter=42.5"), "a whole number"),
        (("--param", "max_iter=true"), "a whole number"),
        (("--param", "reg_param=much"), "a number"),
        (("--param", "label=y", "--param", "reg_param=-1"), "--reg-param"),
        (("--param", "fit_intercept=yes"), "true or false"),
        (("--param", "spark_settings=[]"), "a JSON object"),
        (("--param", "label=y", "--param", 'spark_settings={"trian": {}}'), "trian"),
        (("--param", "data_uri=s3://other/x.csv"), "DATA"),
        (("--param", "specification_uri=bank.toml"), "spark-kfp data upload"),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_sent(
    argv: tuple[str, ...], named: str, server: FakeKfp, create: Call
) -> None:
    code, _, err = create("nightly", DATA, "--cron", "0 0 2 * * *", *argv)
    assert (code, named in err, server.requests) == (2, True, [])


def test_data_on_this_machine_is_refused(server: FakeKfp, create: Call) -> None:
    code, _, err = create("nightly", "bank.csv", "--cron", "0 0 2 * * *")
    assert (code, "spark-kfp data upload" in err, server.requests) == (2, True, [])


def test_the_date_is_left_to_the_run_and_no_macro_is_sent(server: FakeKfp, create: Call) -> None:
    """KFP fills in no macro of a parameter (kubeflow/pipelines#12494); the task asks its driver for the time."""
    assert create("nightly", "s3://bank/{{date}}/bank.csv", *NIGHTLY[2:])[0] == 0
    (job,) = server.all("recurringruns")
    assert job["runtime_config"]["parameters"] == {"data_uri": "s3://bank/{{date}}/bank.csv", "label": "y"}


@pytest.mark.parametrize("placeholder", ["{{day}}", "{{date:%Q}}", "{{date"])
def test_a_date_that_no_run_could_fill_in_is_refused(placeholder: str, create: Call, server: FakeKfp) -> None:
    code, _, err = create("nightly", f"s3://bank/{placeholder}/bank.csv", *NIGHTLY[2:])
    assert code == 2
    assert "{{date:%Y/%m/%d}}" in err
    assert not server.all("recurringruns")


def test_pause_resume_and_delete_one_by_its_name(server: FakeKfp, call: Call, create: Call) -> None:
    create(*NIGHTLY)
    create("other", *NIGHTLY[1:])
    for action, modes in (
        ("pause", ["DISABLE", "ENABLE"]),
        ("pause", ["DISABLE", "ENABLE"]),
        ("resume", ["ENABLE", "ENABLE"]),
        ("delete", ["ENABLE"]),
    ):
        assert call("schedule", action, "nightly", "--kfp", server.url)[0] == 0
        assert [item["mode"] for item in server.all("recurringruns")] == modes
    assert server.all("recurringruns")[0]["display_name"] == "other"


def test_a_schedule_with_a_run_in_progress_is_not_deleted(server: FakeKfp, call: Call, create: Call) -> None:
    create(*NIGHTLY)
    (schedule,) = server.all("recurringruns")
    server.run_of(schedule, state="SUCCEEDED")
    runs = [server.run_of(schedule, state=state) for state in ("RUNNING", "PENDING", "CANCELING")]
    for argv in (("delete", "nightly"), ("create", *NIGHTLY, "--catch-up", "--replace")):
        code, _, err = call("schedule", *argv, "--kfp", server.url)
        assert (code, all(run["run_id"] in err for run in runs), "--terminate" in err) == (2, True, True)
        assert server.all("recurringruns") == [schedule]
    assert schedule["mode"] == "ENABLE"


@pytest.mark.parametrize("change", [("delete", "nightly"), ("create", *NIGHTLY, "--catch-up", "--replace")])
def test_a_run_in_progress_is_ended_before_its_schedule_if_asked_for(
    change: tuple[str, ...], server: FakeKfp, call: Call, create: Call
) -> None:
    """The server deletes a run's workflow with the schedule, and then nobody writes the run's end."""
    create(*NIGHTLY)
    (schedule,) = server.all("recurringruns")
    run = server.run_of(schedule)
    server.faults.append(fault("cut_after", path=":terminate"))  # asked again, the server refuses
    code, out, _ = call("schedule", *change, "--terminate", "--kfp", server.url)
    assert (code, f"run {run['run_id']} has ended" in out) == (0, True)
    assert [item["state"] for item in run["state_history"]] == ["CANCELING", "FAILED"]
    assert schedule not in server.all("recurringruns")


def test_a_run_that_does_not_end_keeps_its_schedule(
    server: FakeKfp, call: Call, create: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(*NIGHTLY)
    (schedule,) = server.all("recurringruns")
    run = server.run_of(schedule, state="CANCELING")
    monkeypatch.setattr(schedule_commands, "ActiveRuns", functools.partial(recurring.ActiveRuns, timeout_seconds=0.1))
    code, _, err = call("schedule", "delete", "nightly", "--terminate", "--kfp", server.url)
    assert (code, run["run_id"] in err, "paused and not deleted" in err) == (1, True, True)
    assert (server.all("recurringruns"), schedule["mode"]) == ([schedule], "DISABLE")


def test_terminate_alone_is_refused_for_a_new_schedule(server: FakeKfp, create: Call) -> None:
    code, _, err = create(*NIGHTLY, "--terminate")
    assert (code, "--replace" in err, server.requests) == (2, True, [])


def test_a_paused_schedule_stays_paused_and_says_so(server: FakeKfp, call: Call, create: Call) -> None:
    create(*NIGHTLY)
    call("schedule", "pause", "nightly", "--kfp", server.url)
    code, out, _ = create(*NIGHTLY)
    assert (code, "schedule resume nightly" in out, server.all("recurringruns")[0]["mode"]) == (0, True, "DISABLE")


@pytest.mark.parametrize("action", ["pause", "resume", "delete"])
def test_a_name_that_is_none_or_two_is_an_error(action: str, server: FakeKfp, call: Call, create: Call) -> None:
    code, _, err = call("schedule", action, "nightly", "--kfp", server.url)
    assert (code, "schedule list" in err) == (2, True)
    create(*NIGHTLY)
    server.put("recurringruns", server.all("recurringruns")[0])
    code, _, err = call("schedule", action, "nightly", "--kfp", server.url)
    assert (code, "2 schedules" in err, len(server.all("recurringruns"))) == (2, True, 2)


def test_list_shows_every_page_with_the_next_time(server: FakeKfp, call: Call, create: Call) -> None:
    for name in ("one", "two", "three"):
        create(name, DATA, "--param", "label=y", "--cron", "0 30 4 1 1 *", "--start", "2090-06-01")
    call("schedule", "pause", "two", "--kfp", server.url)
    server.put("recurringruns", {"display_name": "foreign", "trigger": {"cron_schedule": {"cron": "0 2 * * *"}}})
    code, out, _ = call("schedule", "list", "--kfp", server.url)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["one", "on", "0", "30", "4", "1", "1", "*", "2091-01-01", "04:30:00", DATA] in lines
    assert ["two", "paused", "0", "30", "4", "1", "1", "*", DATA] in lines
    assert ["foreign", "on", "0", "2", "*", "*", "*", "?"] in lines
    assert len(json.loads(call("schedule", "list", "--kfp", server.url, "--json")[1])) == 4


def test_a_server_that_writes_1970_for_no_time_has_none() -> None:
    there = {"trigger": {"cron_schedule": {"cron": "0 0 2 * * *", "start_time": "1970-01-01T00:00:00Z"}}}
    here = {"trigger": {"cron_schedule": {"cron": "0 0 2 * * *"}}}
    assert recurring.differences(there, here) == []
