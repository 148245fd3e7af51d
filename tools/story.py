"""Tells the life of a model as one story of commands, and stops with an error where one of them does not do what it should.

    python tools/story.py                             # on this machine
    python tools/story.py --cluster --bucket spark-kfp  # steps as SparkApplications, the registry in the object store

A model is trained and promoted, served and called; then the customers change (their balances are in another unit), drift raises the alarm,
a model is trained on new data, passes the gate, gets a share of the requests as the canary, becomes the champion, and is taken back. A
client calls the server all the while, and no request may fail.

With --cluster the commands need KUBECONFIG and the variables AWS_* of the object store, as `spark-kfp submit` does; the server is the
Deployment of spark-operator/serving, called through `kubectl port-forward` and deleted at the end, or is the one of --server.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
DATA, SPECIFICATION = PROJECT / "data" / "bank_sample.csv", PROJECT / "data" / "bank.toml"
MODEL, SHARE = "bank", 0.2
SERVER = "spark-kfp-serving"
"""Name of the server's Deployment and of its Service."""
UNIT = 100
"""The changed customers' balances are given in an UNIT-th of what they were given in."""
PATIENCE = 60
"""Seconds to wait until the server does what a command has asked for."""


def spark_kfp(*words: str, quiet: bool = False) -> str:
    """Runs a command of spark-kfp; see `shown`."""
    return shown("spark-kfp", [sys.executable, "-m", "kfp_pipeline"], words, quiet=quiet)


def shown(name: str, program: Sequence[str], words: Sequence[str], *, quiet: bool = False) -> str:
    """Runs a command, shows it and, unless `quiet`, what it prints, and returns that.

    Raises:
        SystemExit: the command failed.
    """
    print(f"\n$ {name} {shlex.join(words)}", flush=True)
    done = subprocess.run([*program, *words], capture_output=True, text=True, check=False)
    if done.returncode or not quiet:
        print(done.stdout + done.stderr, flush=True)
    if done.returncode:
        sys.exit(f"story: the command failed with exit code {done.returncode}")
    return done.stdout


def must(holds: bool, sentence: str) -> None:
    """Prints what was found, or ends the story.

    Raises:
        SystemExit: it does not hold.
    """
    if not holds:
        sys.exit(f"story: not so: {sentence}")
    print(f"  - {sentence}", flush=True)


def rows_for_the_server(path: Path) -> list[str]:
    """Returns bodies of requests, one for each row of a CSV: the columns of the features, numbers as numbers."""
    columns = tomllib.loads(SPECIFICATION.read_text(encoding="utf-8"))["columns"]
    kinds: dict[str, Callable[[str], Any]] = dict.fromkeys(columns["numeric"], float) | dict.fromkeys(
        columns["categorical"], str
    )
    with path.open(encoding="utf-8", newline="") as file:
        rows = [{name: kind(row[name]) for name, kind in kinds.items()} for row in csv.DictReader(file)]
    return [json.dumps({"instances": [row]}) for row in rows]


def change_the_customers(source: Path, target: Path) -> Path:
    """Writes the table with the column balance in another unit."""
    with source.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names, rows = list(reader.fieldnames or ()), list(reader)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "balance": str(UNIT * int(row["balance"]))} for row in rows)
    return target


class Calls(threading.Thread):
    """A client that calls the server without a pause, one row after another, and counts what it gets.

    Attributes:
        bodies: of the requests, in turns.
        requests: number of requests.
        answers: number of answers by version of the model since the last look at the shares.
        failures: what went wrong, with its count.
    """

    def __init__(self, url: str, bodies: list[str]) -> None:
        super().__init__(daemon=True)
        self._server, self._stopped = urllib.parse.urlsplit(url).netloc, threading.Event()
        self.bodies, self.answers, self.failures, self.requests = bodies, Counter[str](), Counter[str](), 0

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._server, timeout=10)
        while not self._stopped.is_set():
            self.requests += 1
            body = self.bodies[self.requests % len(self.bodies)]
            try:
                headers = {"Content-Type": "application/json"}
                connection.request("POST", f"/v1/models/{MODEL}:predict", body, headers)
                with connection.getresponse() as answer:
                    content = json.loads(answer.read())
                if answer.status == http.client.OK:
                    self.answers[content["model_version"]] += 1
                else:
                    self.failures[f"{answer.status} {content}"] += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures[repr(error)] += 1
                connection.close()

    def shares(self) -> dict[str, float]:
        """Returns the share of each version in the answers since the last call."""
        seen, self.answers = self.answers, Counter()
        return {version: count / seen.total() for version, count in seen.items()}

    def stop(self) -> None:
        self._stopped.set()
        self.join()


def eventually(calls: Calls, versions: Mapping[str, float]) -> None:
    """Waits until the answers come from these versions, each with about its share."""
    deadline, shares = time.monotonic() + PATIENCE, {}
    while time.monotonic() < deadline:
        calls.shares()
        time.sleep(2)
        shares = calls.shares()
        if shares.keys() == versions.keys() and all(abs(shares[one] - versions[one]) < 0.1 for one in versions):
            break
    else:
        sys.exit(f"story: the server answers with {shares}, not with {dict(versions)}")
    print(
        f"  - the server answers with {', '.join(f'{one} ({share:.0%})' for one, share in shares.items())}", flush=True
    )


def free_port() -> int:
    """Returns a port of this machine on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(registry: str, counts: Path) -> Iterator[str]:
    """Serves the champion of the registry on a free port; gives its address when it is ready."""
    port = free_port()
    words = ["serve", "--registry", registry, "--model", MODEL, "--port", str(port), "--capture", str(counts)]
    print(f"\n$ spark-kfp {shlex.join(words)} &", flush=True)
    with (counts.parent / "server.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "kfp_pipeline", *words], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        must(process.wait(timeout=PATIENCE) == 0, "the server stopped when it was asked to")


@contextmanager
def deployed_server(registry: str, kustomization: str, namespace: str) -> Iterator[str]:
    """Serves the champion of the registry by a Deployment, which must not be there yet; gives the address of a tunnel to its Service."""
    program = shutil.which("kubectl") or sys.exit("story: kubectl is not on PATH; install it")

    def kubectl(*words: str) -> str:
        return shown("kubectl", [program], ["-n", namespace, *words])

    if kubectl("get", "deployment", SERVER, "--ignore-not-found", "-o", "name"):
        sys.exit(
            f"story: {namespace} has a Deployment {SERVER} already; delete it, or give an address of it by --server"
        )
    try:
        kubectl("apply", "-k", kustomization)
        given = {"REGISTRY": registry, "MODEL": MODEL}
        kubectl(
            "set", "env", f"deployment/{SERVER}", *(f"SPARK_KFP_SERVE_{name}={text}" for name, text in given.items())
        )
        kubectl("rollout", "status", f"deployment/{SERVER}", f"--timeout={2 * PATIENCE}s")
        port = free_port()
        words = ["-n", namespace, "port-forward", f"service/{SERVER}", f"{port}:80"]
        print(f"\n$ kubectl {shlex.join(words)} &", flush=True)
        tunnel = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            tunnel.terminate()
            tunnel.wait()
    finally:
        kubectl("delete", "-k", kustomization, "--wait=false")


def wait_until_ready(url: str) -> None:
    """Waits until the server has a model.

    Raises:
        SystemExit: it does not get one.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            pass  # it starts
        finally:
            connection.close()
        time.sleep(0.2)
    sys.exit(f"story: {url} has no model after {PATIENCE} seconds")


class Story:
    """The commands that differ between this machine and a cluster.

    Args:
        folder: for files of the story.
        bucket: in the object store, for a story on a cluster; empty: on this machine.
        namespace: of the SparkApplications.
    """

    def __init__(self, folder: Path, bucket: str, namespace: str) -> None:
        self.root = f"s3://{bucket}/story/{folder.name}" if bucket else str(folder)
        self.registry = f"{self.root}/models"
        self._cluster = (
            ["--namespace", namespace, "--spark", "shared", "--output", f"{self.root}/runs"] if bucket else []
        )
        self._local = [] if bucket else ["--runs", f"{folder}/runs"]

    def place(self, path: Path) -> str:
        """Returns where the steps find a file, and puts it there."""
        if self._cluster:
            spark_kfp("data", "upload", str(path), f"{self.root}/data/", quiet=True)
            return f"{self.root}/data/{path.name}"
        return str(path)

    def run(self, data: str, *words: str) -> str:
        """Runs a pipeline that ends with a model in the registry."""
        start = ["submit", "pipeline"] if self._cluster else ["run"]
        model = ["--spec", self.place(SPECIFICATION), "--model-name", MODEL, "--registry-uri", self.registry]
        return spark_kfp(*start, data, *self._cluster, *self._local, *model, *words)

    def pointer(self) -> dict[str, Any]:
        """Reads the pointer to the champion and the canary."""
        shown = spark_kfp("models", "show", MODEL, "--registry", self.registry, "--json", quiet=True)
        found: dict[str, Any] = json.loads(shown)["pointer"]
        return found

    def models(self, verb: str, *words: str) -> None:
        spark_kfp("models", verb, MODEL, *words, "--registry", self.registry)


def tell(story: Story, folder: Path, serving: AbstractContextManager[str]) -> None:
    """Tells the story; ends the program where it goes wrong.

    Args:
        story: its commands.
        folder: for its files.
        serving: gives the address of a server that follows the registry, and ends the server.
    """
    changed = change_the_customers(DATA, folder / "changed.csv")
    story.run(story.place(DATA))
    first = story.pointer()["version"]
    must(bool(first), f"{first} is the champion")
    with serving as address:
        wait_until_ready(address)
        calls = Calls(address, rows_for_the_server(DATA))
        calls.start()
        try:
            tell_of_the_second_model(story, changed, calls, first)
        finally:
            calls.stop()
    print(f"\n{calls.requests:,} requests, {calls.failures.total():,} failed {dict(calls.failures) or ''}", flush=True)
    must(not calls.failures, "no request failed")


def tell_of_the_second_model(story: Story, changed: Path, calls: Calls, first: str) -> None:
    """Tells what happens while the client calls: the alarm, the retraining, the canary, the new champion, and the way back.

    Args:
        story: its commands.
        changed: the table of the changed customers.
        calls: the client.
        first: the champion.
    """
    eventually(calls, {first: 1.0})
    calls.bodies = rows_for_the_server(changed)
    print("\nThe customers change: their balances come in another unit.", flush=True)
    data = story.place(changed)
    told = story.run(
        data, "--pipeline", "retraining", "--model-uri", f"{story.registry}/{MODEL}", "--train-data-uri", data,
        "--canary-share", str(SHARE),
    )  # fmt: skip
    must("balance" in told, "the alarm names the column")
    pointer = story.pointer()
    second = (pointer["canary"] or {}).get("version", "")
    must(pointer["version"] == first and bool(second), f"{second} passed the gate and is the canary")
    eventually(calls, {first: 1 - SHARE, second: SHARE})
    story.models("promote", second)
    eventually(calls, {second: 1.0})
    story.models("rollback", "--why", "the end of the story")
    eventually(calls, {first: 1.0})
    must(story.pointer()["version"] == first, f"{first} is the champion again")


def main() -> None:
    """Reads the arguments and tells the story."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cluster", action="store_true", help="run the steps as SparkApplications and the server as a Deployment"
    )
    parser.add_argument("--bucket", default="spark-kfp", help="bucket of the story on a cluster (default %(default)s)")
    parser.add_argument("--namespace", default="spark-kfp", help="namespace of the applications (default %(default)s)")
    parser.add_argument(
        "--serving", default=str(PROJECT / "spark-operator" / "serving"), metavar="FOLDER",
        help="kustomization of the server on a cluster (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--server", default="", help="address of a server that follows the registry (default: starts one)"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spark-kfp-story-") as name:
        folder = Path(name)
        story = Story(folder, given.bucket if given.cluster else "", given.namespace)
        if given.server:
            tell(story, folder, nullcontext(given.server))
        elif given.cluster:
            tell(story, folder, deployed_server(story.registry, given.serving, given.namespace))
        else:
            tell(story, folder, server(story.registry, folder / "counts"))
    print("\nThe end.")


if __name__ == "__main__":
    main()
