"""The commands that talk to a KFP server, called as a person calls them, against a fake one over real HTTP."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kfp_pipeline.commands import schedule_commands, server_commands
from kfp_pipeline.commands.main import main
from kfp_pipeline.kfp_server import client as kfp_server
from kfp_pipeline.kfp_server import server_runs
from kfp_pipeline.kfp_server import uploads as uploading
from kfp_pipeline.runtime import object_store

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "runtime")]

if TYPE_CHECKING:
    from fake_kfp_server import FakeKfp

Call = Callable[..., tuple[int, str, str]]
package = functools.cache(uploading.compile_package)
SECRET = "nobody-may-see"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting, no settings, store or cluster of the person who runs the tests, and one compilation for all."""
    monkeypatch.setattr(kfp_server, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(kfp_server, "FIRST_CONTACT_SECONDS", 0.2)
    monkeypatch.setattr(server_runs, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(server_commands, "compile_package", package)
    monkeypatch.setattr(schedule_commands, "compile_package", package)
    for name in ("SPARK_KFP_KFP", "KFP_TOKEN", "KFP_COOKIES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPARK_KFP_PATIENCE_SECONDS", "5")
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    object_store.from_environment.cache_clear()
    # The client reads KUBECONFIG only once, when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", "/no/such/file")


@pytest.fixture
def server() -> Iterator[FakeKfp]:
    from fake_kfp_server import FakeKfp

    with FakeKfp() as running:
        yield running


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls the command; its exit code, output and errors, neither of which may hold a secret."""

    def run(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        said = capsys.readouterr()
        assert SECRET not in said.out + said.err
        return code, said.out, said.err

    return run
