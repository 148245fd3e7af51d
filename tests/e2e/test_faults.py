"""Faults on a real cluster, for real: what the user sees, after how long, what is left behind and what is lost.

Each test notes a line; SPARK_KFP_FAULT_TABLE names the file that gets them all as a table (`make e2e` writes docs/faults.md).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import BUCKET, E2E, NAMESPACE, TaskRun, kubectl, until

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.kubernetes_api import LEASES

pytestmark = pytest.mark.cluster
Note = Callable[..., None]
STORE = ("-n", "minio")
ROWS: list[dict[str, str]] = []
START_SECONDS = 240
"""How long a test waits for a pod that starts: on a machine with other work on it that takes minutes, and says nothing about the fault."""


@pytest.fixture(scope="module")
def note() -> Iterator[Note]:
    """Notes a line of the table of faults."""

    def add(fault: str, seen: str, seconds: float | None, *, lost: str = "nothing", left: str = "nothing") -> None:
        after = "" if seconds is None else f"{seconds:.0f} s"
        seen = re.sub(r"-[0-9a-f]{12}\b", "-HASH", re.sub(r"minio://\S+/", "minio://…/", seen))[:240]
        ROWS.append({"fault": fault, "what the user sees": seen, "after": after, "left behind": left, "lost": lost})

    yield add
    if os.environ.get("SPARK_KFP_FAULT_TABLE") and ROWS:
        path = Path(os.environ["SPARK_KFP_FAULT_TABLE"])
        earlier = _rows(path.read_text(encoding="utf-8")) if path.exists() else []
        new = {row["fault"]: row for row in ROWS}
        kept = [new.pop(row["fault"], row) for row in earlier]
        path.write_text(_table([*kept, *new.values()]), encoding="utf-8")


def _rows(text: str) -> list[dict[str, str]]:
    """The lines of a table that was written before; a run of some tests replaces only theirs."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def _table(rows: list[dict[str, str]]) -> str:
    """Markdown; what is seen comes from the run's own output."""
    head = (PREFACE, f"| {' | '.join(rows[0])} |", f"|{'---|' * len(rows[0])}")
    lines = [f"| {' | '.join(value.replace('|', '/') for value in row.values())} |" for row in rows]
    return "\n".join([*head, *lines]) + "\n"


PREFACE = """# Faults

Each line is a test in `tests/e2e/test_faults.py`, and was written by `make e2e` from what it saw on a real cluster (one node, two
cores). "After" counts from the fault to the moment at which the task said so, or at which all was well again. "Left behind" means
SparkApplications, pods and leases that go on; an ended application stays for a day, for its log.
"""


def error_of(log: str) -> str:
    """The error that the task ended with, shortened for a table."""
    found = [line for line in log.splitlines() if line.startswith("spark-kfp: error: ")]
    assert found, log[-2000:]
    return found[-1].removeprefix("spark-kfp: error: ")


def start(e2e: E2E, run_id: str, variables: Mapping[str, str] | None = None, **more: Any) -> TaskRun:
    """Starts load, the shortest step, with other values of its task's variables if they are given."""
    return e2e.start("load", e2e.inputs(**more), run_id, variables or {})


def is_running(e2e: E2E, run: TaskRun) -> Callable[[], bool]:
    return lambda: e2e.state(run) == "RUNNING"


def nothing_goes_on(e2e: E2E, run: TaskRun) -> None:
    """No application, driver or executor of this run is alive, and none comes to life."""

    def dead() -> bool:
        live = json.loads(
            kubectl("get", "pods", "-l", f"sparkoperator.k8s.io/app-name={run.application}", "-o", "json")
        )["items"]
        going = [pod for pod in live if pod["status"].get("phase") in ("Pending", "Running")]
        return not going and e2e.state(run) in ("", "COMPLETED", "FAILED")

    until(dead, 60, f"{run.application} goes on")


def kill(pod: str) -> None:
    kubectl("delete", "pod", pod, "--grace-period=0", "--force", check=False)


@contextmanager
def changed(kind: str, name: str, patch: dict[str, Any], *where: str) -> Iterator[None]:
    """Merges a change into an object, and takes it back."""
    before = json.loads(kubectl(*where, "get", kind, name, "-o", "json"))
    kubectl(*where, "patch", kind, name, "--type=merge", "-p", json.dumps(patch))
    try:
        yield
    finally:
        back = {key: before[key] for key in ("data", "spec") if key in before}
        kubectl(*where, "patch", kind, name, "--type=merge", "-p", json.dumps(back))


@contextmanager
def platform_says(change: dict[str, Any]) -> Iterator[None]:
    """Changes the platform's steps.yaml."""
    import yaml

    data = json.loads(kubectl("get", "configmap", "spark-kfp", "-o", "json"))["data"]
    steps = yaml.safe_load(data["steps.yaml"]) or {}
    steps["load"] = change
    with changed("configmap", "spark-kfp", {"data": {"steps.yaml": yaml.safe_dump(steps)}}):
        yield


@contextmanager
def store_away() -> Iterator[None]:
    """The object store's service leads nowhere; what is in the store stays."""
    service = json.loads(kubectl(*STORE, "get", "service", "minio", "-o", "json"))["spec"]["selector"]
    nowhere = {**dict.fromkeys(service, None), "app": "nobody"}
    kubectl(*STORE, "patch", "service", "minio", "--type=merge", "-p", json.dumps({"spec": {"selector": nowhere}}))
    try:
        yield
    finally:
        back = {"app": None, **service}
        kubectl(*STORE, "patch", "service", "minio", "--type=merge", "-p", json.dumps({"spec": {"selector": back}}))


BACKOFF_SECONDS = (30, 60)
"""KFP's waits before it repeats a task with `set_retry(2, "30s", 2.0)`: processNodeRetries in Argo's workflow/controller/operator.go."""


@pytest.mark.parametrize("phase", ["SUBMITTED", "RUNNING"])
def test_a_task_that_is_killed_and_comes_back_follows_the_same_application(
    e2e: E2E, run_id: str, note: Note, phase: str
) -> None:
    """The pods come back after KFP's own waits; meanwhile nobody follows the application, which is kept from ending."""
    run = start(e2e, run_id)
    until(lambda: e2e.state(run) == phase, START_SECONDS, f"not {phase}")
    uid = (e2e.application(run) or {})["metadata"]["uid"]
    began = time.monotonic()
    for wait in BACKOFF_SECONDS:
        kill(run.pod)
        to_the_step(run, STOP)
        time.sleep(wait)
        run = start(e2e, run_id)
        until(
            lambda run=run: "found, following it" in kubectl("logs", run.pod, check=False),
            START_SECONDS,
            "not followed",
        )
    to_the_step(run, CONTINUE)
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    assert (e2e.application(run) or {})["metadata"]["uid"] == uid
    note(f"task's pod killed while its application is {phase}, and its successor too; another comes after KFP's 30 s and 60 s",
         "each follows the same application, the last one succeeds", time.monotonic() - began)  # fmt: skip


def to_the_step(run: TaskRun, program: str) -> None:
    """Sends a signal to the Python of the application's driver."""
    driver = f"{run.application}-driver"
    until(
        lambda: "sent" in kubectl("exec", driver, "--", "python", "-c", program, check=False),
        START_SECONDS,
        "no step to signal",
    )


@pytest.mark.selection
def test_a_task_that_is_killed_for_good_takes_its_application_with_it(e2e: E2E, run_id: str, note: Note) -> None:
    seconds = 90  # what a platform may set; as shipped it is ten minutes
    run = start(e2e, run_id, variables={"SPARK_KFP_LEASE_SECONDS": str(seconds)})
    until(is_running(e2e, run), START_SECONDS, "does not run")
    kill(run.pod)
    began = time.monotonic()
    to_the_step(run, STOP)  # it must not end by itself
    until(lambda: e2e.application(run) is None, seconds + 60, "the application is still there")
    note(
        f"task's pod killed for good, with a lease of {seconds} s",
        "the reaper deletes the application: its lease is not renewed",
        time.monotonic() - began,
    )
    nothing_goes_on(e2e, run)
    assert e2e.cluster.get(LEASES, run.application) is None


def test_a_cancelled_run_leaves_nothing(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    began = time.monotonic()
    command = [sys.executable, "-m", "kfp_pipeline", "cancel", run.application, "--namespace", NAMESPACE]
    subprocess.run(command, check=True, capture_output=True)
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    note("`spark-kfp cancel`", error_of(log), time.monotonic() - began)
    nothing_goes_on(e2e, run)


def test_a_task_that_is_asked_to_stop_deletes_its_application(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    began = time.monotonic()
    kubectl("exec", run.pod, "--", "python", "-c", TERMINATE)
    until(lambda: e2e.application(run) is None, 30, "the application is still there")
    note("SIGTERM to the task", "interrupted: deleting SparkApplication", time.monotonic() - began)
    nothing_goes_on(e2e, run)


def signal_to(name: str, part: str, *, only_the_youngest: bool = False) -> str:
    """A program that sends a signal to the Python processes whose command line has a part; the youngest is the child of the others."""
    return f"""
import os, pathlib, signal
found = [
    int(entry.name) for entry in pathlib.Path("/proc").iterdir()
    if entry.name.isdecimal() and int(entry.name) != os.getpid()
    and (entry / "comm").read_text().startswith("python") and b"{part}" in (entry / "cmdline").read_bytes()
]
for number in found if not {only_the_youngest} else [max(found)]:
    os.kill(number, signal.{name})
print("sent" if found else "nobody")
"""


TERMINATE = signal_to("SIGTERM", "kfp.dsl.executor_main")
KILL_ALL = signal_to("SIGKILL", "kfp.dsl.executor_main")
KILL_FOLLOWER = signal_to("SIGKILL", "kfp.dsl.executor_main", only_the_youngest=True)
STOP = signal_to("SIGSTOP", "main.py")
CONTINUE = signal_to("SIGCONT", "main.py")


@pytest.mark.selection
def test_a_driver_that_is_killed_is_told_and_the_step_repeated(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    began = time.monotonic()
    kill(f"{run.application}-driver")
    told = until(lambda: re.search(r".*; trying again in 30 s", kubectl("logs", run.pod)), 60, "not told")
    note("driver's pod killed", f"{told[0]}; then the step succeeds", time.monotonic() - began)
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    assert "an earlier attempt failed, replacing it" in log


@pytest.mark.selection
def test_a_follower_that_is_killed_outright_is_replaced_in_the_same_pod(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    uid = (e2e.application(run) or {})["metadata"]["uid"]
    began = time.monotonic()
    assert "sent" in kubectl("exec", run.pod, "--", "python", "-c", KILL_FOLLOWER)
    told = until(
        lambda: re.search(r"the process that follows the step was .*", kubectl("logs", run.pod)), 30, "not told"
    )
    note(
        "the task's Python that follows the application killed by SIGKILL",
        f"{told[0]}; the run ends well",
        time.monotonic() - began,
    )
    ended, log, output = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    assert (e2e.application(run) or {})["metadata"]["uid"] == uid, "the same application went on"
    assert output["parameterValues"]["uri"] == run.output_uri


def test_a_task_whose_python_is_killed_altogether_leaves_its_application_to_the_next_one(
    e2e: E2E, run_id: str, note: Note
) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    uid = (e2e.application(run) or {})["metadata"]["uid"]
    began = time.monotonic()
    to_the_step(run, STOP)
    kubectl("exec", run.pod, "--", "python", "-c", KILL_ALL, check=False)
    assert e2e.wait(run, 60)[0] == "Failed"
    again = start(e2e, run_id)
    until(lambda: "found, following it" in kubectl("logs", again.pod, check=False), START_SECONDS, "not followed")
    to_the_step(run, CONTINUE)
    ended, log, _ = e2e.wait(again)
    assert ended == "Succeeded", log[-2000:]
    assert (e2e.application(run) or {})["metadata"]["uid"] == uid
    note(
        "all of the task's Python killed by SIGKILL, another pod comes",
        "it follows the same application and succeeds",
        time.monotonic() - began,
    )


def test_an_executor_that_is_killed_is_replaced(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    label = f"spark-role=executor,sparkoperator.k8s.io/app-name={run.application}"
    found = until(lambda: kubectl("get", "pods", "-l", label, "-o", "name"), START_SECONDS, "no executor")
    began = time.monotonic()
    kill(found.split()[0].removeprefix("pod/"))
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", log[-2000:]
    note("executor killed", "Spark makes another, the step succeeds", time.monotonic() - began)


def test_an_operator_that_restarts_in_the_middle_of_a_submission_loses_nothing(
    e2e: E2E, run_id: str, note: Note
) -> None:
    run = start(e2e, run_id)
    until(lambda: e2e.application(run), START_SECONDS, "no application")
    began = time.monotonic()
    pods = kubectl("-n", "spark-operator", "get", "pods", "-o", "name").split()
    controller = next(pod for pod in pods if "controller" in pod)
    kubectl("-n", "spark-operator", "delete", controller, "--grace-period=0", "--force")
    ended, log, _ = e2e.wait(run, 400)
    assert ended == "Succeeded", log[-2000:]
    note(
        "operator killed during the submission", "the step succeeds once the operator is back", time.monotonic() - began
    )


def test_an_object_store_that_is_away_for_half_a_minute_fails_nothing(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    until(lambda: "SparkContext: Running Spark" in kubectl("logs", run.pod), START_SECONDS, "no session")
    began = time.monotonic()
    with store_away():
        time.sleep(30)
    ended, log, _ = e2e.wait(run, 500)
    assert ended == "Succeeded", log[-3000:]
    note("object store away for 30 s", "the step waits and succeeds", time.monotonic() - began)


def test_an_object_store_that_is_away_for_good_is_told_soon(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(is_running(e2e, run), START_SECONDS, "does not run")
    with store_away():
        began = time.monotonic()
        ended, log, _ = e2e.wait(run, 900)
        seconds = time.monotonic() - began
        assert ended == "Failed"
        # The driver gives up after a minute; what the task keeps besides, its log and the reason, must not wait as long again.
        assert seconds < 180
        note("object store away for good", error_of(log), seconds)
    nothing_goes_on(e2e, run)


@pytest.mark.selection
def test_a_wrong_key_is_told_within_seconds(e2e: E2E, run_id: str, note: Note) -> None:
    with changed("secret", "spark-kfp-object-store", {"stringData": {"secretkey": "not-the-key"}}):
        began = time.monotonic()
        run = start(e2e, run_id)
        ended, log, _ = e2e.wait(run)
        seconds = time.monotonic() - began
    assert ended == "Failed"
    assert "refuses (SignatureDoesNotMatch)" in error_of(log)
    assert e2e.application(run) is None, "nothing is submitted"
    assert seconds < 40
    note("wrong key in the secret", error_of(log), seconds)


def test_a_key_that_becomes_wrong_after_the_task_has_begun_is_told_by_the_step(
    e2e: E2E, run_id: str, note: Note
) -> None:
    run = start(e2e, run_id)
    until(lambda: e2e.application(run), START_SECONDS, "no application")
    with changed("secret", "spark-kfp-object-store", {"stringData": {"secretkey": "not-the-key"}}):
        until(is_running(e2e, run), START_SECONDS, "does not run")
        began = time.monotonic()
        ended, log, _ = e2e.wait(run)
        seconds = time.monotonic() - began
    assert ended == "Failed"
    assert "refuses (SignatureDoesNotMatch)" in error_of(log)
    assert seconds < 120
    note("wrong key in the secret since the task began", error_of(log), seconds)


def test_a_key_that_the_secret_lacks_is_told_by_its_name(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    until(lambda: e2e.application(run), START_SECONDS, "no application")
    with changed("secret", "spark-kfp-object-store", {"data": {"secretkey": None}}):
        began = time.monotonic()
        ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "couldn't find key secretkey in Secret spark-kfp/spark-kfp-object-store" in error_of(log)
    note("key missing in the secret", error_of(log), time.monotonic() - began)
    nothing_goes_on(e2e, run)


@pytest.mark.selection
def test_a_missing_bucket_is_told_by_its_name(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id, data_uri="s3://no-such-bucket/bank.csv")
    began = time.monotonic()
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "s3://no-such-bucket/bank.csv: there is no such bucket" in error_of(log)
    assert e2e.application(run) is None, "nothing is submitted"
    note("bucket missing", error_of(log), time.monotonic() - began)


@pytest.mark.selection
def test_an_image_that_does_not_exist_is_told_by_its_name(e2e: E2E, run_id: str, note: Note) -> None:
    with platform_says({"image": "localhost/no-such-image:1"}):
        run = start(e2e, run_id)
        began = time.monotonic()
        ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "image 'localhost/no-such-image:1' cannot be had" in error_of(log)
    note("image missing", error_of(log), time.monotonic() - began)
    nothing_goes_on(e2e, run)


def test_a_driver_that_needs_more_memory_than_it_has(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id, spark_settings={"load": {"driver": {"memory": "480m", "memoryOverhead": "1m"}}})
    began = time.monotonic()
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "more memory than its" in error_of(log)
    note("driver out of memory", error_of(log), time.monotonic() - began)


def test_a_step_whose_python_raises_is_told_with_its_error(e2e: E2E, run_id: str, note: Note) -> None:
    object_store.write_bytes(f"s3://{BUCKET}/e2e/broken.parquet", b"PAR1 is not enough")
    run = start(e2e, run_id, data_uri=f"s3://{BUCKET}/e2e/broken.parquet")
    began = time.monotonic()
    ended, log, _ = e2e.wait(run)
    assert ended == "Failed"
    assert "broken.parquet" in error_of(log)
    note("the step's Python raises (a damaged Parquet file)", error_of(log)[:160], time.monotonic() - began)


@pytest.mark.selection
def test_the_same_task_started_twice_at_once_is_one_application(e2e: E2E, run_id: str, note: Note) -> None:
    began = time.monotonic()
    runs = [start(e2e, run_id) for _ in range(2)]
    ended = [e2e.wait(run) for run in runs]
    assert [phase for phase, _, _ in ended] == ["Succeeded"] * 2, ended[0][1][-2000:]
    assert sorted("found, following it" in log for _, log, _ in ended) == [False, True]
    note("the same task started twice at once", "both follow one application and succeed", time.monotonic() - began)


def test_a_quota_that_is_used_up_is_told(e2e: E2E, run_id: str, note: Note) -> None:
    run = start(e2e, run_id)
    name = kubectl("get", "resourcequota", "-o", "name").split()[0].partition("/")[2]
    used = json.loads(kubectl("get", "resourcequota", name, "-o", "json"))["status"]["used"]["pods"]
    with changed("resourcequota", name, {"spec": {"hard": {"pods": used}}}):
        began = time.monotonic()
        told = until(
            lambda: re.search(r".*exceeded quota.*; trying again in 30 s", kubectl("logs", run.pod)),
            START_SECONDS,
            "not told",
        )
        note("quota used up", told[0][:200], time.monotonic() - began)
    ended, log, _ = e2e.wait(run)
    assert ended == "Succeeded", f"once there is room, the step succeeds: {log[-2000:]}"
