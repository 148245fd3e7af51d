"""Measures the seconds and the S3 requests of each step on a cluster: `python -m benchmarks.cluster DATA_URI --spec FILE --output URI`.

It runs the training pipeline through the Spark operator: with an application for each step, with the same without executors, and with one
application whose session the steps share. The seconds come from the timestamps of Kubernetes and the operator (whole
seconds), from the step's result document, and from this program's clock. The requests come from MinIO's counters, if the store is MinIO.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import hmac
import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kfp_pipeline.local import runs
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, Cluster, connect
from kfp_pipeline.runtime.spark_operator.manifest import application_name
from kfp_pipeline.runtime.spark_operator.runner import SparkOperatorRunner
from kfp_pipeline.runtime.spark_operator.session_runner import SharedSessionRunner, end_session
from kfp_pipeline.runtime.spark_operator.tracking import driver_pod_of
from kfp_pipeline.settings import Settings
from spark_jobs.contract import TRAINING
from spark_jobs.object_store_settings import ObjectStoreSettings
from spark_jobs.result import Result

COUNTING_SECONDS = 11
"""MinIO counts requests every ten seconds."""
COLUMNS = (
    "submission", "operator", "driver's pod", "JVM and Python", "session", "work", "end", "detection", "all",
    "driver alone: work", "driver alone: all", "shared: work", "shared: all",
)  # fmt: skip
WAYS: tuple[tuple[str, Callable[..., Any], Mapping[str, Any]], ...] = (
    ("operator", SparkOperatorRunner, {}),
    ("driver alone", SparkOperatorRunner, {"all": {"executor": {"instances": 0}}}),
    ("shared", SharedSessionRunner, {}),
)
"""Each way's name, runner and Spark settings."""


def main() -> None:
    """Runs the pipeline and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_uri")
    parser.add_argument("--spec", required=True, help="URI of the specification, in the object store")
    parser.add_argument("--output", required=True, help="URI below which the outputs lie")
    parser.add_argument("--namespace", default="")
    given = parser.parse_args()
    settings, run = Settings.from_environment(), runs.new_id()
    cluster = connect(given.namespace, settings.patience_seconds)
    inputs = {"data_uri": given.data_uri, "specification_uri": given.spec}
    seconds, requests, totals = {}, {}, dict.fromkeys((way for way, _, _ in WAYS), 0.0)
    for spark, kind, overrides in WAYS:
        place = f"{given.output}/{run}-{spark.replace(' ', '-')}"
        for step in TRAINING.steps_of(inputs):
            args = TRAINING.arguments_below(place, step, inputs)
            before, began = request_counts(), time.time()
            runner = kind(cluster, run=place.rpartition("/")[2], overrides=overrides, log_line=lambda _: None)
            result = runner.run(step, args, Path(settings.runs / run / f"{step}-{spark}.log"))
            ended = time.time()
            time.sleep(COUNTING_SECONDS)
            after = request_counts()
            totals[spark] += ended - began
            if spark == "operator":
                name = application_name(step, vars(args)["output_uri"])
                seconds[str(step)] = stages(cluster, name, result, began, ended)
            else:
                seconds[str(step)] |= {f"{spark}: work": result.seconds["work"], f"{spark}: all": ended - began}
            counts = {api: after[api] - before.get(api, 0) for api in after if after[api] > before.get(api, 0)}
            requests[f"{step}, {spark}"] = counts
        if spark == "shared":
            end_session(cluster, object_store, place)
    print("| step | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 1) + "|")
    for name, parts in seconds.items():
        print(f"| {name} | " + " | ".join(f"{parts[column]:.1f}" for column in COLUMNS) + " |")
    for spark, total in totals.items():
        print(f"\nall steps, {spark}: {total:.1f} s, {total / totals['operator']:.2f} times as long")
    print("\n| step | S3 requests | by kind |\n|---|---|---|")
    for name, kinds in requests.items():
        listed = ", ".join(f"{api} {count}" for api, count in sorted(kinds.items(), key=lambda item: -item[1]))
        print(f"| {name} | {sum(kinds.values())} | {listed} |")


def stages(cluster: Cluster, name: str, result: Result, began: float, ended: float) -> dict[str, float]:
    """Returns the seconds of each stage of one step, by column.

    The stages: submission, until the SparkApplication exists; operator, until the driver pod exists; driver's pod, until its container
    starts; JVM and Python, session and work inside the driver; end, until the operator reports the end; detection, until the runner
    returns the result.

    Args:
        cluster: the cluster.
        name: name of the SparkApplication.
        result: the step's result document.
        began: time of the call of the runner, in seconds since 1970.
        ended: time of its return.
    """
    application = cluster.get(APPLICATIONS, name)
    assert application is not None
    driver = driver_pod_of(cluster, application)
    assert driver is not None
    container = driver["status"]["containerStatuses"][0]["state"]["terminated"]
    created, pod = (
        unix_seconds(application["metadata"]["creationTimestamp"]),
        unix_seconds(driver["metadata"]["creationTimestamp"]),
    )
    started, finished = unix_seconds(container["startedAt"]), unix_seconds(container["finishedAt"])
    reported = unix_seconds(application["status"]["terminationTime"])
    own = result.seconds
    return {
        "submission": max(0.0, created - began),
        "operator": pod - created,
        "driver's pod": started - pod,
        "JVM and Python": max(0.0, finished - started - own["total"]),
        "session": own["startup"],
        "work": own["work"],
        "end": max(0.0, reported - finished),
        "detection": max(0.0, ended - max(reported, finished)),
        "all": ended - began,
    }


def unix_seconds(text: str) -> float:
    """Parses a timestamp of Kubernetes into seconds since 1970."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def request_counts() -> dict[str, int]:
    """Reads MinIO's number of requests by kind since it started; empty if the store has no such metrics."""
    settings = ObjectStoreSettings.from_environment()
    request = urllib.request.Request(f"{settings.endpoint_url}/minio/v2/metrics/cluster")
    request.add_header("Authorization", f"Bearer {token(settings)}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return {}
    found: dict[str, int] = {}
    for line in lines:
        if line.startswith("minio_s3_requests_total{"):
            api = line.partition('api="')[2].partition('"')[0]
            found[api] = found.get(api, 0) + round(float(line.rsplit(" ", 1)[1]))
    return found


def token(settings: ObjectStoreSettings) -> str:
    """Makes the token for MinIO's metrics: a JSON web token with the access key, signed with the secret key."""
    claims = {"exp": int(time.time()) + 3600, "sub": settings.access_key_id, "iss": "prometheus"}
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "HS512", "typ": "JWT"}, claims)]
    signature = hmac.new(settings.secret_access_key.encode(), ".".join(parts).encode(), hashlib.sha512).digest()
    return ".".join([*parts, _encoded(signature)])


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


if __name__ == "__main__":
    main()
