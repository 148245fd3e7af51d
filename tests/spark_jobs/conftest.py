"""A small S3 for the tests of what reads and writes one."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# So that tests here can `from fake_s3 import SECRET` and `from finished_run import finished_run`.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "registry")]

if TYPE_CHECKING:
    from fake_s3 import FakeS3


@pytest.fixture
def s3(time_of: Callable[..., None]) -> Iterator[FakeS3]:
    """A running server with one bucket, `kfp`; see `fake_s3`."""
    from fake_s3 import FakeS3

    from spark_jobs import object_store

    time_of(object_store, sleep=lambda seconds: time.sleep(min(seconds, 0.01)))
    with FakeS3() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def door(s3: FakeS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """The store as steps and tasks find it, by the environment."""
    from spark_jobs import object_store

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    object_store.from_environment.cache_clear()
    yield s3
    object_store.from_environment.cache_clear()
