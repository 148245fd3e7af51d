"""A shared session as it is used: the real driver with the real Spark, asked as the tasks of a run ask it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner, read_result
from kfp_pipeline.runtime.spark_submit.shared_session import (
    SOCKET_NAME,
    SharedSession,
    ask,
    run_session,
    start_kept_session,
)
from kfp_pipeline.settings import Settings
from spark_jobs.contract import Step
from spark_jobs.result import RESULT_NAME, Result

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java"),
]
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def submit() -> SparkSubmitRunner:
    return SparkSubmitRunner("local[1]", Settings.from_environment())


@pytest.fixture(scope="module")
def session(submit: SparkSubmitRunner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedSession]:
    """A session for the tests that leave it as it is."""
    log_path = tmp_path_factory.mktemp("session") / ("a long name " * 8) / "session.log"
    with run_session(submit, log_path, short=True) as made:
        yield made


@pytest.fixture
def own_session(submit: SparkSubmitRunner, tmp_path: Path) -> Iterator[SharedSession]:
    """A session for a test that ends it."""
    with run_session(submit, tmp_path / "session.log", short=True) as made:
        yield made


@pytest.fixture
def table(tmp_path: Path) -> Callable[[int], list[str]]:
    """The arguments of load for a new table with so many rows."""

    def write(rows: int) -> list[str]:
        path = tmp_path / "data.csv"
        path.write_text("x,label\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(rows)))
        return ["load", f"--data-uri={path}", "--label=label", f"--output-uri={tmp_path}/out"]

    return write


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.parametrize("short", [True, False])
def test_only_a_session_for_short_steps_leaves_out_the_optimising_compiler(
    submit: SparkSubmitRunner, tmp_path: Path, *, short: bool
) -> None:
    with run_session(submit, tmp_path / "session.log", short=short) as made:

        def options() -> list[str]:
            commands = []
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                    commands.append(child.cmdline())
            # Spark's launcher, a short Java program of its own, and its bash script have these words too.
            drivers = [words for words in commands if "org.apache.spark.deploy.SparkSubmit" in words and "-cp" in words]
            own = [words for words in drivers if made.folder in str(words)]
            return next((words for words in own if "org.apache.spark.launcher.Main" not in words), [])

        assert until(lambda: bool(options()))
        assert ("-XX:TieredStopAtLevel=1" in options()) is short


def driver_of(session: SharedSession) -> psutil.Process:
    """The process of a session's driver."""
    (found,) = (p for p in psutil.process_iter(["cmdline"]) if session.log in (p.info["cmdline"] or []))
    return found


def test_a_step_runs_in_the_session_and_its_log_is_the_steps(
    session: SharedSession, table: Callable[[int], list[str]], tmp_path: Path
) -> None:
    for attempt in range(2):
        assert session.run_step(table(90), tmp_path / f"{attempt}.log") == 0
        result = read_result(tmp_path / "out")
        assert result is not None
        assert result.rows_out["rows"] == 90
        assert "step load: 90 rows in" in (tmp_path / f"{attempt}.log").read_text()
    assert session.state() == "idle"
    assert "step load" not in Path(session.log).read_text()


def test_wrong_input_is_told_with_exit_code_2_and_the_session_goes_on(session: SharedSession, tmp_path: Path) -> None:
    words = ["load", "--data-uri=/no/such.csv", "--label=x", f"--output-uri={tmp_path}/out"]
    assert session.run_step(words, tmp_path / "log") == 2
    assert "spark-kfp: error: /no/such.csv: no such file" in (tmp_path / "log").read_text()
    assert session.state() == "idle"


def test_one_step_at_a_time_and_a_step_whose_client_goes_away_is_cancelled(
    session: SharedSession, table: Callable[[int], list[str]], tmp_path: Path
) -> None:
    words = table(1_500_000)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{session.folder}/{SOCKET_NAME}")
        ask(client, ask="step", argv=words, log=str(tmp_path / "log"))
        assert json.loads(client.makefile("rb").readline()) == {"started": True}
        assert session.state() == "busy"
        assert session.run_step(words, tmp_path / "other.log") is None
        time.sleep(1)  # some way into the Spark jobs
    assert until(lambda: session.state() == "idle")
    result = read_result(tmp_path / "out")
    assert result is not None
    assert result.status == "failed"
    assert "cancelled" in (tmp_path / "log").read_text()


def test_nonsense_is_not_answered_and_harms_nothing(session: SharedSession) -> None:
    for text in (b"GET / HTTP/1.1\r\n", b"{}\n", b"[]\n", b'{"ask": "step"}\n', b""):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{session.folder}/{SOCKET_NAME}")
            client.sendall(text)
    assert session.state() == "idle"


def test_only_this_user_can_reach_the_session(session: SharedSession, tmp_path: Path) -> None:
    assert Path(session.folder).stat().st_mode & 0o077 == 0
    session.save(tmp_path / "session.json")
    assert (tmp_path / "session.json").stat().st_mode & 0o077 == 0
    assert SharedSession.read(tmp_path / "session.json") == session


@pytest.mark.slow
def test_after_a_fault_the_session_ends_because_its_jvm_may_be_broken(
    own_session: SharedSession, tmp_path: Path
) -> None:
    folder = tmp_path / "preprocess"
    folder.mkdir()
    (folder / RESULT_NAME).write_text(Result(step=Step.PREPROCESS, status="succeeded").to_json())
    (folder / "features.json").write_text("no JSON")
    words = ["train", f"--preprocess-uri={folder}", f"--output-uri={tmp_path}/out"]
    assert own_session.run_step(words, tmp_path / "log") == 1
    assert until(lambda: own_session.state() == "ended")
    assert Path(own_session.log).read_text().splitlines()[-1].endswith("ends: step train had a fault")
    assert own_session.run_step(words, tmp_path / "log") is None


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "java"])
def test_a_step_whose_session_is_killed_is_told_as_killed(
    own_session: SharedSession, table: Callable[[int], list[str]], tmp_path: Path, victim: str
) -> None:
    words = table(1_500_000)
    codes: list[int | None] = []
    client = threading.Thread(target=lambda: codes.append(own_session.run_step(words, tmp_path / "log")))
    client.start()
    assert until(lambda: own_session.state() == "busy")
    time.sleep(1)
    driver = driver_of(own_session)
    family = [driver, *driver.children(recursive=True)]
    (driver if victim == "driver" else next(p for p in family if "java" in p.name())).kill()
    client.join(PATIENCE_SECONDS)
    assert codes == [-signal.SIGKILL]
    assert own_session.state() == "ended"
    assert until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    assert own_session.run_step(words, tmp_path / "log") is None


@pytest.mark.slow
@pytest.mark.parametrize("idle_minutes", [10, 0.02])
def test_a_kept_session_ends_when_it_is_idle_or_stopped_and_leaves_no_process(
    submit: SparkSubmitRunner, tmp_path: Path, idle_minutes: float
) -> None:
    session = start_kept_session(submit, tmp_path / "session.log", "identity", idle_minutes)
    driver = driver_of(session)
    assert session.state() in ("starting", "idle")
    if idle_minutes == 10:
        session.stop()
        assert not Path(session.folder).exists()
    family = [driver, *driver.children(recursive=True)]
    assert until(lambda: session.state() == "ended")
    assert until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))
    assert (tmp_path / "session.log").read_text().count("ends: no step came for") == int(idle_minutes < 10)


def test_a_session_that_is_not_there_takes_no_step(tmp_path: Path) -> None:
    session = SharedSession(str(tmp_path / "gone"), str(tmp_path / "log"))
    assert session.state() == "ended"
    assert session.run_step(["load"], tmp_path / "log") is None
    session.stop()
    assert SharedSession.read(tmp_path / "session.json") is None
