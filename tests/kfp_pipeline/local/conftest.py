"""A machine for each test that runs `spark-kfp`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests here can `from machine import STEPS`

if TYPE_CHECKING:
    from machine import Machine


@pytest.fixture
def machine(fake_spark: Any, make_java: Callable[[str], Path], tmp_path: Path) -> Iterator[Machine]:
    from machine import make_machine

    made = make_machine(tmp_path, fake_spark, make_java("17.0.15"))
    yield made
    made.kill()
