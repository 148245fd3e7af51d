"""`spark-kfp session` as a person uses it, with the real Spark."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kfp_pipeline.runtime.spark_submit.shared_session import SESSION_NAME, SharedSession

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache, with the class archive of the tests if there is one."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for archive in Path(os.environ.get("SPARK_KFP_CACHE", "/none")).glob("*.jsa"):
        (folder / archive.name).symlink_to(archive)
    return folder


@pytest.fixture
def call(tmp_path: Path, cache: Path) -> Iterator[Call]:
    (tmp_path / "data.csv").write_text("x,label\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(90)))

    def run(*words: str, **environment: str) -> tuple[int, str, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "kfp_pipeline", *words],
            cwd=tmp_path,
            env={**os.environ, "SPARK_KFP_CACHE": str(cache), **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return ended.returncode, ended.stdout, ended.stderr

    yield run
    run("session", "stop")


def test_without_a_session_the_commands_say_so(call: Call) -> None:
    assert call("session", "status")[:2] == (1, "there is no session; start one with `spark-kfp session start`\n")
    assert call("session", "stop")[:2] == (0, "there was no session\n")


@pytest.mark.parametrize(
    ("flag", "reason"), [("--spark=operator", "on this machine only"), ("--idle-minutes=0", "give 1 or more")]
)
def test_a_session_that_cannot_be_is_refused(call: Call, flag: str, reason: str) -> None:
    code, _, err = call("session", "start", flag)
    assert code == 2
    assert reason in err


@pytest.mark.parametrize(
    ("environment", "told"),
    [({}, True), ({"SPARK_KFP_SHARE_SESSION": "false"}, False), ({"SPARK_KFP_COMPILE_TIERS_BYTES": "10"}, False)],
)
def test_a_run_that_shares_no_session_leaves_the_kept_one_alone(
    call: Call, cache: Path, tmp_path: Path, environment: dict[str, str], *, told: bool
) -> None:
    """The run ends early, as there is no Java, but after it has looked for the session."""
    SharedSession(str(tmp_path / "gone"), str(tmp_path / "no.log")).save(cache / SESSION_NAME)
    code, out, err = call("run", "data.csv", "--label=label", JAVA_HOME="/none", **environment)
    assert (code, "JAVA_HOME" in err) == (2, True)
    assert ("the kept session has ended" in out) is told
    assert (cache / SESSION_NAME).exists() is not told


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java")
def test_runs_use_the_kept_session_replace_one_with_other_settings_and_say_that_one_was_killed(
    call: Call, cache: Path, tmp_path: Path
) -> None:
    def run(**environment: str) -> str:
        code, out, err = call("run", "data.csv", "--label=label", "--no-cache", **environment)
        assert code == 0, err
        return out.splitlines()[0]

    assert call("session", "start")[0] == 0
    first = SharedSession.read(cache / SESSION_NAME)
    code, _, err = call("session", "start")
    assert (code, "a session is there already" in err) == (2, True)
    assert run() == "in the kept session"
    assert not list((tmp_path / "runs").rglob("session.log"))
    assert "had other settings" in run(SPARK_KFP_DRIVER_MEMORY_MIB="1500")
    second = SharedSession.read(cache / SESSION_NAME)
    assert first is not None
    assert second is not None
    assert (first.state(), second.state()) == ("ended", "idle")
    assert call("session", "status")[1].startswith("idle")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if second.log in path.read_text(errors="replace") and "session_driver" in path.read_text(errors="replace"):
            os.kill(int(path.parent.name), signal.SIGKILL)
    assert run().startswith("the kept session has ended (")
    assert call("session", "status")[0] == 1
