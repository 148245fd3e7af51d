"""A fake Kubernetes cluster with its Spark operator, for the tests of what runs on one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# So that tests here and below can `from fake_operator import Stage` and share the bench of the runner for the operator.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent / "spark_operator")]

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes


@pytest.fixture
def server() -> Iterator[FakeKubernetes]:
    """A running server, a hundred times as quick as a real operator; see `fake_kubernetes`."""
    from fake_kubernetes import FakeKubernetes

    with FakeKubernetes() as running:
        yield running
