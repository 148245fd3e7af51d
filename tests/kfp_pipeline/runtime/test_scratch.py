"""Temporary folders whose process was killed outright, by a real SIGKILL."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kfp_pipeline.runtime.errors import PermanentError
from kfp_pipeline.runtime.scratch import LOCK_NAME, scratch_folder
from kfp_pipeline.runtime.spark_submit.class_archive import make_archive
from kfp_pipeline.settings import Settings

HOLDER = """
import sys, time
from pathlib import Path
from kfp_pipeline.runtime.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "block").write_text("x")
    print(folder, flush=True)
    time.sleep(120)
"""


@contextmanager
def holder(parent: Path) -> Iterator[Path]:
    """The folder of another process, which lives inside the block; then it is killed and its folder is left."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Path(process.stdout.readline().strip())
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()


def test_a_folder_is_gone_after_its_block_however_it_ends(tmp_path: Path) -> None:
    def interrupted() -> None:
        with scratch_folder(tmp_path) as folder:
            (folder / "block").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path: Path) -> None:
    with holder(tmp_path) as left:
        pass
    assert (left / "block").exists()
    with holder(tmp_path) as living:
        assert not left.exists()
        with scratch_folder(tmp_path) as own, scratch_folder(tmp_path) as inner:
            assert sorted(tmp_path.iterdir()) == sorted([living, own, inner])
        assert (living / "block").read_text() == "x"
    assert list(tmp_path.iterdir()) == [living]


def test_nothing_is_removed_but_what_was_made_here(tmp_path: Path) -> None:
    for name in ("spark-kfp-data", "spark-kfp-clone/.git", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / LOCK_NAME).touch()
    (tmp_path / "spark-kfp-link").symlink_to(tmp_path / "other")
    with scratch_folder(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {
        "spark-kfp-data",
        "spark-kfp-clone",
        "other",
        "spark-kfp-link",
    }
    assert (tmp_path / "other" / LOCK_NAME).exists()


@pytest.mark.usefixtures("submit_here")
def test_the_archive_removes_what_a_killed_attempt_left(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with holder(cache):
        pass
    with pytest.raises(PermanentError):  # the fake Spark knows no rehearsal
        make_archive(Settings(cache=cache))
    assert list(cache.iterdir()) == []


def test_data_check_removes_what_a_killed_one_left(
    fake_spark: Any, make_java: Callable[[str], Path], tmp_path: Path
) -> None:
    """And what the step's runner made below it, which waits for a step that never ends."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    (tmp_path / "data.csv").write_text("x,label\n1,yes\n2,no\n")
    own = {"JAVA_HOME": str(make_java("17.0.15")), "TMPDIR": str(temporary)}

    def check(**variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "kfp_pipeline", "data", "check", "data.csv", "--label=label"],
            cwd=tmp_path,
            env={**fake_spark.environment(), **own, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    killed = check(FAKE_SPARK="sleep")
    while not fake_spark.calls():
        assert killed.poll() is None, killed.communicate()
    killed.kill()
    killed.communicate()
    left = list(temporary.iterdir())
    assert len(left) == 2, left
    check(FAKE_SPARK="input_told").communicate(timeout=60)
    assert list(temporary.iterdir()) == []
