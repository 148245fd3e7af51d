"""The step drift: compares the rows that a model meets now with those that it was trained on, and writes a report.

    spark-submit spark_jobs/__main__.py drift --data-uri=data/bank_sample.csv --model-uri=out/train --report-uri=out/drift.html \
        --output-uri=out/drift

The current rows are a table, which needs no label, or what a server counted (`.jsonl`). Where a table has labels, the model is judged on
them. An alarm is a result and no failure: the step succeeds, and drift.json says what has changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import Observation, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.contract import MODEL_URI, DriftArgs, Step
from spark_jobs.dataset import did_you_mean
from spark_jobs.errors import InputError
from spark_jobs.monitoring.alarm import Limits, compare
from spark_jobs.monitoring.capture import SUFFIX, Counted, read_capture
from spark_jobs.monitoring.counting import count_cells, count_scores
from spark_jobs.monitoring.histograms import Reference
from spark_jobs.monitoring.labelled import Judged, judge_labelled, performance_alarms
from spark_jobs.monitoring.report import render_report
from spark_jobs.registry import pointer
from spark_jobs.registry.monitored import record
from spark_jobs.registry.places import place_of
from spark_jobs.registry.retraining import claim
from spark_jobs.result import Result
from spark_jobs.saved_model import SavedModel, find_model
from spark_jobs.table.source import check_not_nested, open_source
from spark_jobs.table.typed_cells import CellArrays, type_rows

MOST_REASONS = 5
"""A record of a started training has at most so many of its alarms."""
FEW_ROWS = 50
"""With fewer rows, only a very large change can be found."""


@dataclass(frozen=True)
class Current:
    """The current rows: their counts, the number of rejected ones, and how well the model predicts those with a label."""

    counted: Counted
    rejected: int = 0
    judged: Judged = field(default_factory=Judged)


def read_reference(model: SavedModel) -> Reference:
    """Reads the reference of a model.

    Raises:
        InputError: it has none.
    """
    text = storage.read_text_if_there(model.reference_uri)
    if text is None:
        raise InputError(
            f"{model.reference_uri} is missing: the model has no reference; train it again with this version"
        )
    return Reference.from_json(text, model.reference_uri)


def count_table(session: SparkSession, args: DriftArgs, model: SavedModel, reference: Reference) -> Current:
    """Counts the cells and the scores of a table, and judges the model where the table has labels.

    Raises:
        InputError: the table lacks a column, has no rows, or too many bad ones.
    """
    features = model.specification.features
    source = open_source(session, args, features[0])
    for name in features:
        if name not in source.columns:
            raise InputError(f"{args.data_uri}: no column {name!r}{did_you_mean(name, source.columns)}")
    check_not_nested(source, features, args.data_uri)
    specification, label = model.specification, model.specification.label
    # As a category the label may be missing: then the row is compared, and not judged.
    labels = (label,) if label in source.columns and label not in features else ()
    columns_read = replace(specification, label="", dropped=(), categorical=(*specification.categorical, *labels))
    cells = CellArrays(source, columns_read)
    observation, reason = Observation(), F.col(cells.reason)
    observed = type_rows(cells).observe(observation, F.count(F.lit(1)).alias("read"), F.count(reason).alias("rejected"))
    rows = observed.where(reason.isNull()).selectExpr(*cells.column_expressions())
    columns = tuple(count_cells(rows, reference.columns))
    read, rejected = int(observation.get["read"]), int(observation.get["rejected"])
    if not read:
        raise InputError(f"{args.data_uri} has a header but no rows")
    if rejected > read * args.max_rejected_fraction:
        raise InputError(
            f"{args.data_uri}: {rejected:,} of {read:,} rows rejected, more than {args.max_rejected_fraction:.2%}; the step predict keeps "
            f"them with their reasons; or raise {flag('max_rejected_fraction')}"
        )
    predicted = storage.read_model(model.model_uri).transform(rows)
    score = count_scores(predicted, model.columns, reference.score, model.labels)
    judged = judge_labelled(predicted, model) if labels else Judged()
    return Current(Counted(columns=columns, score=score, rows=read - rejected), rejected, judged)


def count_current(session: SparkSession, args: DriftArgs, model: SavedModel, reference: Reference) -> Current:
    """Counts the current rows: those of a table, or those that a server counted."""
    if not args.data_uri.endswith(SUFFIX):
        return count_table(session, args, model, reference)
    lines = [line for file in storage.data_files(args.data_uri) for line in storage.read_text(file).splitlines()]
    return Current(read_capture(lines, reference, model.version, args.data_uri))


def record_batch(
    args: DriftArgs, model: SavedModel, counted: Counted, judged: Judged, alarms: int, largest: float
) -> list[dict[str, Any]]:
    """Appends the batch to those that the version has met, if it is one of a registry; returns them all."""
    batch = {
        "by": args.output_uri,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": args.data_uri,
        "since": counted.since,
        "until": counted.until,
        "rows": counted.rows,
        "alarms": alarms,
        "largest_psi": largest,
        "labelled": judged.rows,
        "metrics": [{key: item[key] for key in ("name", "value", "low", "high")} for item in judged.metrics],
    }
    if not model.name:
        return [batch]
    return record(place_of(model.registry), model.name, model.version, batch)


@dataclass(frozen=True, kw_only=True)
class Started:
    """Whether a training is started.

    Attributes:
        train_on: the URI of its data; empty: none is started.
        why: the reason, as a sentence.
    """

    train_on: str
    why: str


def start_training(args: DriftArgs, alarms: Sequence[str]) -> Started:
    """Decides whether a training is started, and records it beside the pointer of the model so that no other run starts one too.

    Raises:
        InputError: the model is none of a registry.
    """
    if not args.train_data_uri:
        return Started(train_on="", why="the pipeline has no training")
    registry, _, name = args.model_uri.rstrip("/").rpartition("/")
    place = place_of(registry)
    if not pointer.read(place, name).version:
        raise InputError(
            f"{flag(MODEL_URI)}={args.model_uri} is no model of a registry with a champion, which a training needs; give REGISTRY/NAME"
        )
    if not alarms:
        return Started(train_on="", why="there is no alarm")
    cooldown = timedelta(hours=args.cooldown_hours)
    claimed, mine = claim(place, name, args.output_uri, cooldown, "; ".join(alarms[:MOST_REASONS]), datetime.now(UTC))
    if mine:
        return Started(train_on=args.train_data_uri, why=f"a training is started for {name!r}")
    until = claimed.time + cooldown
    return Started(
        train_on="",
        why=f"no training is started before {until:%Y-%m-%d %H:%M} UTC: one was at {claimed.time:%Y-%m-%d %H:%M}, by {claimed.by}",
    )


def run(session: SparkSession, args: DriftArgs) -> Result:
    """Compares the current rows with the reference; for the arguments see `DriftArgs`."""
    model = find_model(args.model_uri)
    reference = read_reference(model)
    current = count_current(session, args, model, reference)
    counted, rejected, judged = current.counted, current.rejected, current.judged
    limits = Limits(significance=args.significance, psi=args.psi_limit, share=args.share_limit)
    score = (reference.score, counted.score) if counted.score else None
    findings = compare(reference.columns, counted.columns, limits, score)
    alarms = [finding.in_words() for finding in findings if finding.alarm]
    alarms += performance_alarms(judged, args.min_area_under_roc, len(model.labels))
    largest = max((finding.change for finding in findings if finding.before is None), default=0.0)
    started = start_training(args, alarms)
    refused = [started.why] if args.train_data_uri and alarms and not started.train_on else []
    warnings = [judged.why_not] if judged.why_not else []
    if counted.rows < FEW_ROWS:
        warnings.append(f"{counted.rows} rows are few: only a very large change can be found")
    if rejected:
        warnings.append(f"{rejected:,} of {counted.rows + rejected:,} rows were rejected and are not counted")
    document: dict[str, Any] = {
        "alarm": bool(alarms),
        "alarms": alarms,
        "warnings": warnings,
        "training": asdict(started) if args.train_data_uri else None,
        "data": args.data_uri,
        "model": model.version,
        "label": model.specification.label,
        "positive": model.labels[-1] if len(model.labels) == 2 else None,
        "limits": asdict(limits),
        "rows": {"reference": reference.rows, "current": counted.rows, "rejected": rejected},
        "since": counted.since,
        "until": counted.until,
        "labelled": judged.rows,
        "metrics": list(judged.metrics),
        "batches": record_batch(args, model, counted, judged, len(alarms), largest),
        "findings": [asdict(finding) for finding in findings],
        "columns": [
            {"reference": asdict(before), "current": asdict(now), "bins": before.bins}
            for before, now in zip(reference.columns, counted.columns, strict=True)
        ],
        "score": score and {"reference": asdict(score[0]), "current": asdict(score[1]), "bins": score[0].bins},
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    storage.write_text(storage.join(args.output_uri, "drift.json"), text)
    storage.write_text(args.report_uri, render_report(document))
    return Result(
        step=Step.DRIFT,
        status="succeeded",
        rows_in=counted.rows + rejected,
        rows_out={"rows": counted.rows, "rejected": rejected},
        metrics={
            "alarms": float(len(alarms)),
            "largestPSI": largest,
            "rows": float(counted.rows),
            **{item["name"]: item["value"] for item in judged.metrics},
        },
        digest=hashlib.sha256(text.encode()).hexdigest(),
        uris={"drift": storage.join(args.output_uri, "drift.json")},
        warnings=(*alarms, *refused, *warnings),
        facts={"alarm": bool(alarms), "model": model.version, "train_on": started.train_on, "outcome": started.why},
    )
