"""Boosting with many trees: without checkpoints Java's stack overflows after some hundred iterations, and the JVM ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.mark.parametrize("share", ["true", "false"])
def test_two_hundred_trees_are_fitted_and_no_checkpoint_is_left(tmp_path: Path, share: str) -> None:
    rows = "".join(f"{i},{i * 7 % 13},{'yes' if i * i % 5 > 1 else 'no'}\n" for i in range(300))
    (tmp_path / "data.csv").write_text("x,y,label\n" + rows)
    command = [sys.executable, "-m", "kfp_pipeline", "run", "data.csv", "--label=label", "--estimator=gbt"]
    done = subprocess.run(
        [*command, "--num-trees=200", "--max-depth=1"],
        cwd=tmp_path,
        env={**os.environ, "SPARK_KFP_SHARE_SESSION": share},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "runs").rglob("scorecard.json"))
    assert not list((tmp_path / "runs").rglob("checkpoints"))
