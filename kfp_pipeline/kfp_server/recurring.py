"""Creates, compares, replaces and deletes recurring runs on a KFP server. Takes and returns the server's documents.

KFP allows several recurring runs of one name and cannot change a recurring run. Here a name stands for one recurring run, and a change
creates a new one and deletes the old one. The command line calls a recurring run a schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from kfp_pipeline.kfp_server import server_runs
from kfp_pipeline.kfp_server.client import ConflictError, Document, NotFoundError, Server
from kfp_pipeline.kfp_server.cron import Cron, parse
from kfp_pipeline.runtime.errors import TemporaryError
from spark_jobs.errors import InputError
from spark_jobs.result import Failure

MAX_CONCURRENCY = 10
TERMINATION_SECONDS = 600.0
"""Longest wait for a terminated run to end: its tasks first delete their SparkApplications, then the exit task runs."""
SERVER_DEFAULTS = ("pipeline-runner", "default-editor")
"""The service accounts that a server stores if the request names none."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When the runs of a recurring run start.

    Attributes:
        cron: the cron expression.
        zone: time zone in which the server evaluates the expression.
        start: first possible time; None: now.
        end: last possible time; None: no end.
        catch_up: whether every missed time is run, or only the latest one.
        max_concurrency: largest number of runs at the same time; a further run waits until one ends.
    """

    cron: Cron
    zone: ZoneInfo
    start: datetime | None = None
    end: datetime | None = None
    catch_up: bool = False
    max_concurrency: int = 1

    def next_times(self, now: datetime, count: int = 3) -> list[datetime]:
        """Returns the next times after `now`, at most `count`."""
        after = max(now, self.start) if self.start else now
        return [time for _, time in zip(range(count), self.cron.times(after, self.zone, self.end), strict=False)]


def read_schedule(
    line: str, *, time_zone: str, start: str, end: str, catch_up: bool = False, max_concurrency: int = 1
) -> Schedule:
    """Parses the flags of a schedule.

    Raises:
        InputError: the cron expression, a time, the time zone or the concurrency is wrong, or there is no time before `end`.
    """
    zone = zone_of(time_zone)
    if not 1 <= max_concurrency <= MAX_CONCURRENCY:
        raise InputError(f"--max-concurrency is {max_concurrency}; allowed: 1 to {MAX_CONCURRENCY}")
    found = Schedule(
        cron=parse(line),
        zone=zone,
        start=_time("--start", start, zone),
        end=_time("--end", end, zone),
        catch_up=catch_up,
        max_concurrency=max_concurrency,
    )
    if found.end and not found.next_times(datetime.now(UTC), 1):
        raise InputError(f"--cron={line!r} does not come before --end={end}; give a later end")
    return found


def zone_of(name: str) -> ZoneInfo:
    """Returns the time zone of this name.

    Raises:
        InputError: there is no such time zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"--time-zone={name!r} is no zone; give one such as Europe/Berlin") from error


def request_body(
    name: str, when: Schedule, reference: Document, config: Document, *, experiment: str, service_account: str = ""
) -> Document:
    """Returns the request body that creates a recurring run."""
    schedule: Document = {"cron": when.cron.line}
    schedule |= {"start_time": _text(when.start)} if when.start else {}
    schedule |= {"end_time": _text(when.end)} if when.end else {}
    return {
        "display_name": name,
        "description": "Made by spark-kfp schedule create.",
        "experiment_id": experiment,
        "pipeline_version_reference": reference,
        "runtime_config": config,
        "trigger": {"cron_schedule": schedule},
        "mode": "ENABLE",
        "max_concurrency": str(when.max_concurrency),  # a 64-bit number is text in the server's JSON
        "no_catchup": not when.catch_up,
        **({"service_account": service_account} if service_account else {}),
    }


def find_all(server: Server, name: str) -> list[Document]:
    """Lists the recurring runs of this name. There is more than one if a replacement was interrupted, or if other programs created some."""
    return server.list_by_name("recurringruns", "recurringRuns", name)


def find_one(server: Server, name: str) -> Document:
    """Returns the one recurring run of this name.

    Raises:
        InputError: there is none or more than one.
    """
    found = find_all(server, name)
    if len(found) != 1:
        identities = f" ({', '.join(item['recurring_run_id'] for item in found)})" if found else ""
        raise InputError(
            f"{len(found) or 'no'} schedules are called {name!r}{identities}; see: spark-kfp schedule list"
            + ("; to keep one, create it again with --replace" if found else "")
        )
    return found[0]


def ensure(server: Server, wanted: Document, active: ActiveRuns, *, replace: bool) -> tuple[Document, str]:
    """Makes sure that exactly one recurring run of the name exists, with the wanted content.

    The new recurring run is created before the old one is deleted; if the call is interrupted in between, the next one deletes it.

    Args:
        server: the server.
        wanted: request body of the recurring run.
        active: what to do with active runs of the old recurring run.
        replace: whether a recurring run with other content is replaced.

    Returns:
        The recurring run, and `created`, `unchanged` or `replaced`.

    Raises:
        InputError: one with other content exists, and `replace` is False or a run of it is active and may not be terminated.
    """
    name = wanted["display_name"]
    found = find_all(server, name)
    same = next((item for item in found if not differences(item, wanted)), None)
    others = [item for item in found if item is not same]
    if others and not replace:
        changes = "; ".join(differences(others[0], wanted)) or "there are two of it"
        raise InputError(f"the schedule {name!r} is there with other content: {changes}; give --replace to replace it")
    for item in others:
        active.refuse_unless_terminating(server, item)

    def find_existing() -> Document | None:
        return next((item for item in find_all(server, name) if not differences(item, wanted)), None)

    try:
        kept = same or server.create("recurringruns", find_existing, wanted)
    except ConflictError as error:
        raise InputError(f"the schedule {name!r} is there: {error}; see: spark-kfp schedule list") from error
    for item in others:
        delete(server, item, active)
    return kept, "replaced" if others else "unchanged" if same else "created"


@dataclass(frozen=True, kw_only=True)
class ActiveRuns:
    """What to do with the active runs of a recurring run before it is deleted.

    KFP makes the recurring run the owner of its runs' Argo workflows. If it is deleted while a run is active, Kubernetes deletes the
    workflow and its pods, and KFP shows the run as running for ever.

    Attributes:
        terminate: whether to terminate the active runs first; if not, the recurring run is not deleted while one is active.
        timeout_seconds: longest wait for one run to end.
        log_line: prints a line for the user who waits.
    """

    terminate: bool = False
    timeout_seconds: float = TERMINATION_SECONDS
    log_line: Callable[[str], None] = print

    def refuse_unless_terminating(self, server: Server, item: Document) -> None:
        """Raises an error if a run is active and may not be terminated.

        Raises:
            InputError: a run is active, and `terminate` is False.
        """
        running = active_runs(server, item)
        if running and not self.terminate:
            named = ", ".join(run["run_id"] for run in running)
            raise InputError(
                f"the schedule {item['display_name']!r} has a run in progress: {named}. KFP would delete its workflow with the "
                "schedule and show the run as running for ever. Wait for its end, or end it first with --terminate"
            )

    def terminate_all(self, server: Server, item: Document) -> None:
        """Terminates the active runs and waits until they have ended.

        Raises:
            InputError: a run is active and may not be terminated.
            TemporaryError: a run did not end in time.
        """
        self.refuse_unless_terminating(server, item)
        for run in active_runs(server, item):
            self.log_line(f"run {run['run_id']} is being terminated")
            server_runs.terminate(server, run["run_id"])
            try:
                server_runs.follow(server, run["run_id"], self.timeout_seconds)
            except server_runs.StillRunningError as error:
                message = (
                    f"run {run['run_id']} has not ended within {self.timeout_seconds:.0f} s, so its schedule is paused and not deleted; "
                    f"look at {server_runs.link(server, run['run_id'])} and give the same command again. A run whose workflow somebody has "
                    "deleted never ends: archive and delete it in KFP's UI first"
                )
                raise TemporaryError(Failure(kind="fault", type="RunNotEnded", message=message)) from error
            self.log_line(f"run {run['run_id']} has ended")


def active_runs(server: Server, item: Document) -> list[Document]:
    """Lists the runs of a recurring run that have not ended."""
    identity = item["recurring_run_id"]
    found = server.list_matching("runs", "runs", "recurring_run_id", identity)
    return [run for run in found if run.get("state") not in server_runs.FINAL_STATES]


def delete(server: Server, item: Document, active: ActiveRuns) -> None:
    """Deletes a recurring run. It is disabled first, so that it starts no run between the check for active runs and the deletion.

    Raises:
        InputError: a run is active and may not be terminated; the recurring run is enabled again.
        TemporaryError: a run did not end in time; the recurring run stays disabled.
    """
    identity = item["recurring_run_id"]
    active.refuse_unless_terminating(server, item)
    try:
        server.call(f"recurringruns/{identity}:disable")
        try:
            active.terminate_all(server, item)
        except InputError:  # a run started after the check above and before the recurring run was disabled
            if item.get("mode") == "ENABLE":
                server.call(f"recurringruns/{identity}:enable")
            raise
        server.call(f"recurringruns/{identity}", "DELETE")
    except NotFoundError:  # the answer to an earlier DELETE was lost, or somebody else deleted it
        return


def differences(found: Document, wanted: Document) -> list[str]:
    """Lists the differences between two recurring runs, as `name: found, now wanted`."""
    there, here = _content(found), _content(wanted)
    return [
        f"{name}: {there.get(name, 'nothing')}, now {here.get(name, 'nothing')}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]


def _content(item: Document) -> dict[str, Any]:
    """Returns what a user decides about a recurring run as a flat dict, with the server's defaults and spellings removed."""
    schedule = (item.get("trigger") or {}).get("cron_schedule") or {}
    config = item.get("runtime_config") or {}
    reference = item.get("pipeline_version_reference") or {}
    account = item.get("service_account")
    found = {
        "cron": schedule.get("cron"),
        "start": _text(parse_time(schedule.get("start_time"))),
        "end": _text(parse_time(schedule.get("end_time"))),
        "catch-up": not item.get("no_catchup"),
        "max-concurrency": int(item.get("max_concurrency") or 1),
        "experiment": item.get("experiment_id"),
        "version": reference.get("pipeline_version_id"),
        "pipeline-root": config.get("pipeline_root"),
        "service-account": None if account in SERVER_DEFAULTS else account,
    }
    found |= config.get("parameters") or {}
    return {name: value for name, value in found.items() if value not in (None, "")}


def parse_time(text: str | None) -> datetime | None:
    """Parses a time of the server; returns None for the year 1970, which the server writes for no time."""
    time = datetime.fromisoformat(text) if text else None
    return time if time and time.timestamp() else None


def _text(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(flag: str, text: str, zone: ZoneInfo) -> datetime | None:
    try:
        time = datetime.fromisoformat(text) if text else None
    except ValueError as error:
        raise InputError(f"{flag}={text!r} is no time; give one such as 2026-01-31T02:00, or with +01:00") from error
    return time.replace(tzinfo=zone) if time and not time.tzinfo else time
