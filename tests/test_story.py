"""The life of a model from the first training to the rollback, with a client that calls the server all the while."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STORY = Path(__file__).parents[1] / "tools" / "story.py"


@pytest.mark.slow
@pytest.mark.spark
def test_no_request_fails_from_the_first_model_to_the_rollback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(STORY)], cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "no request failed" in done.stdout
