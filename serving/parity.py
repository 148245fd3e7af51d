"""Compares a scorecard with the probabilities that Spark gave for some rows; a program, so that nothing of it needs to be imported.

    python -m serving.parity SCORECARD EXAMPLES

It prints one JSON document: the number of rows, the largest difference of a probability, and the row at which it is.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serving.scorer import Scorer


def largest_difference(scorer: Scorer, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Scores rows and returns how far the probabilities are from Spark's, at most.

    Args:
        scorer: the scorer.
        examples: rows, each `{"row": {column: value}, "probabilities": {label: Spark's probability}}`.
    """
    found: dict[str, Any] = {"rows": len(examples), "largest": 0.0, "at": None}
    for number, example in enumerate(examples):
        scored = scorer.score(example["row"]).probabilities
        for label, probability in example["probabilities"].items():
            difference = abs(scored[label] - probability)
            if not difference <= found["largest"]:
                found |= {"largest": difference if math.isfinite(difference) else math.inf, "at": number}
    return found


if __name__ == "__main__":
    scorecard, rows = (json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:3])
    sys.stdout.write(json.dumps(largest_difference(Scorer(scorecard), rows)) + "\n")
