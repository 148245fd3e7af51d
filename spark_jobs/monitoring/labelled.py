"""Judges a model on current rows whose labels have arrived."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark_jobs.arguments import flag
from spark_jobs.errors import InputError
from spark_jobs.evaluation.intervals import of_proportion
from spark_jobs.evaluation.judging import count_predictions
from spark_jobs.evaluation.metrics import binary_metrics
from spark_jobs.saved_model import SavedModel
from spark_jobs.split import LABEL
from spark_jobs.table.source import quoted

FEWEST_LABELS = 10
"""With fewer labelled rows of a class the model is not judged."""
BOOTSTRAP_SAMPLES = 200
AREA = "areaUnderROC"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How well the model predicts the current rows that have a label.

    Attributes:
        rows: their number.
        metrics: each with `name`, `value`, `low` and `high`, the ends of its 95 % interval.
        why_not: why there are labels and no metrics.
    """

    rows: int = 0
    metrics: tuple[dict[str, Any], ...] = ()
    why_not: str = ""


def judge_labelled(predicted: DataFrame, model: SavedModel) -> Judged:
    """Computes the metrics of the rows with a label of the model: for two classes all of evaluate, for more the accuracy."""
    known = F.array_position(F.array(*map(F.lit, model.labels)), quoted(model.specification.label))
    labelled = predicted.where(known > 0).select(
        F.col(model.columns["probability"]).alias("probability"),
        F.col(model.columns["prediction"]).alias("prediction"),
        (known - 1).cast("double").alias(LABEL),
    )
    counted = {
        (row[LABEL], row["hit"]): row["count"]
        for row in labelled.groupBy(LABEL, (F.col(LABEL) == F.col("prediction")).alias("hit")).count().collect()
    }
    rows, hits = sum(counted.values()), sum(count for (_, hit), count in counted.items() if hit)
    of_classes = Counter(dict.fromkeys(range(len(model.labels)), 0))
    for (label, _), count in counted.items():
        of_classes[int(label)] += count
    if min(of_classes.values()) < FEWEST_LABELS:
        return Judged(rows=rows, why_not=f"{rows} rows have a label, and of a class fewer than {FEWEST_LABELS}")
    if len(model.labels) == 2:
        return Judged(rows=rows, metrics=tuple(binary_metrics(count_predictions(labelled)[0], BOOTSTRAP_SAMPLES)))
    low, high, _ = of_proportion(hits, rows)
    return Judged(rows=rows, metrics=({"name": "accuracy", "value": hits / rows, "low": low, "high": high},))


def performance_alarms(judged: Judged, floor: float, classes: int) -> list[str]:
    """Returns the alarm if the model is surely worse than the floor.

    Args:
        judged: how well it predicts.
        floor: the smallest areaUnderROC; 0: there is none.
        classes: number of its classes.

    Raises:
        InputError: a floor is given, and the model has more than two classes.
    """
    if floor and classes != 2:
        raise InputError(f"{flag('min_area_under_roc')} is for two classes, and the model has {classes}; leave it out")
    found = next((item for item in judged.metrics if item["name"] == AREA), None)
    if not found or found["high"] >= floor:
        return []
    interval = f"95 % interval {found['low']:.4f} to {found['high']:.4f}"
    return [f"{AREA} {found['value']:.4f} ({interval}) of {judged.rows:,} labelled rows, floor {floor:g}"]
