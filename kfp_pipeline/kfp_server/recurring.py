"""Recurring runs on a KFP server: one by its name, made, compared, replaced. Takes and returns the server's documents.

KFP keeps no names apart, and cannot change a recurring run: here a name means one, and another content replaces it.
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
"""How long the end of a terminated run is waited for: its tasks end their applications, and then comes the pipeline's last task."""
SERVER_DEFAULTS = ("pipeline-runner", "default-editor")
"""Service accounts that a server writes down when none was given."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When runs come.

    Attributes:
        cron: the line.
        zone: in which the server counts.
        start: before it nothing comes; None: from now on.
        end: after it nothing comes.
        catch_up: whether each time that was missed is run, or only the last one.
        max_concurrency: most runs at once; a time that comes while so many go on waits.
    """

    cron: Cron
    zone: ZoneInfo
    start: datetime | None = None
    end: datetime | None = None
    catch_up: bool = False
    max_concurrency: int = 1

    def next_times(self, now: datetime, count: int = 3) -> list[datetime]:
        """The next times."""
        after = max(now, self.start) if self.start else now
        return [time for _, time in zip(range(count), self.cron.times(after, self.zone, self.end), strict=False)]


def read_schedule(
    line: str, *, time_zone: str, start: str, end: str, catch_up: bool = False, max_concurrency: int = 1
) -> Schedule:
    """Reads when runs come.

    Raises:
        InputError: a line, a time or a zone is wrong, or no time would ever come.
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
    """A time zone.

    Raises:
        InputError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"--time-zone={name!r} is no zone; give one such as Europe/Berlin") from error


def request_body(
    name: str, when: Schedule, reference: Document, config: Document, *, experiment: str, service_account: str = ""
) -> Document:
    """What makes a recurring run."""
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
    """The recurring runs of a name; more than one only if a replacement was cut off, or others made them."""
    return server.list_by_name("recurringruns", "recurringRuns", name)


def find_one(server: Server, name: str) -> Document:
    """The recurring run of a name.

    Raises:
        InputError: there is none, or more than one.
    """
    found = find_all(server, name)
    if len(found) != 1:
        identities = f" ({', '.join(item['recurring_run_id'] for item in found)})" if found else ""
        raise InputError(
            f"{len(found) or 'no'} schedules are called {name!r}{identities}; see: spark-kfp schedule list"
            + ("; to keep one, create it again with --replace" if found else "")
        )
    return found[0]


def ensure(server: Server, wanted: Document, ending: ActiveRuns, *, replace: bool) -> tuple[Document, str]:
    """Makes sure that there is one recurring run of the name, with this content.

    The new one is made before the old one is deleted: cut off in between, the next call deletes the old one.

    Args:
        server: where.
        wanted: the recurring run.
        ending: what becomes of runs of the old one that are in progress.
        replace: whether one with other content makes room.

    Returns:
        The recurring run, and `created`, `unchanged` or `replaced`.

    Raises:
        InputError: there is one with other content, and `replace` is not given; or a run of it is in progress, and it may not be ended.
    """
    name = wanted["display_name"]
    found = find_all(server, name)
    same = next((item for item in found if not differences(item, wanted)), None)
    others = [item for item in found if item is not same]
    if others and not replace:
        told = "; ".join(differences(others[0], wanted)) or "there are two of it"
        raise InputError(f"the schedule {name!r} is there with other content: {told}; give --replace to replace it")
    for item in others:
        ending.refuse_unless_terminating(server, item)

    def look() -> Document | None:
        return next((item for item in find_all(server, name) if not differences(item, wanted)), None)

    try:
        kept = same or server.create("recurringruns", look, wanted)
    except ConflictError as error:
        raise InputError(f"the schedule {name!r} is there: {error}; see: spark-kfp schedule list") from error
    for item in others:
        delete(server, item, ending)
    return kept, "replaced" if others else "unchanged" if same else "created"


@dataclass(frozen=True, kw_only=True)
class ActiveRuns:
    """What becomes of a run in progress when its recurring run is deleted, and with that the run's workflow.

    Attributes:
        terminate: end it first; else nothing is deleted while one is in progress.
        timeout_seconds: longest wait for its end.
        say: takes a line for the person who waits.
    """

    terminate: bool = False
    timeout_seconds: float = TERMINATION_SECONDS
    say: Callable[[str], None] = print

    def refuse_unless_terminating(self, server: Server, item: Document) -> None:
        """Refuses to go on while a run is in progress, unless it may be ended.

        Raises:
            InputError: one is.
        """
        running = active_runs(server, item)
        if running and not self.terminate:
            named = ", ".join(run["run_id"] for run in running)
            raise InputError(
                f"the schedule {item['display_name']!r} has a run in progress: {named}. KFP would delete its workflow with the "
                "schedule and show the run as running for ever. Wait for its end, or end it first with --terminate"
            )

    def terminate_all(self, server: Server, item: Document) -> None:
        """Ends the runs in progress and waits until they have ended.

        Raises:
            InputError: one is in progress, and it may not be ended.
            TemporaryError: one has not ended in time.
        """
        self.refuse_unless_terminating(server, item)
        for run in active_runs(server, item):
            self.say(f"run {run['run_id']} is being terminated")
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
            self.say(f"run {run['run_id']} has ended")


def active_runs(server: Server, item: Document) -> list[Document]:
    """The runs of a recurring run that have not ended."""
    identity = item["recurring_run_id"]
    found = server.list_matching("runs", "runs", "recurring_run_id", identity)
    return [run for run in found if run.get("state") not in server_runs.FINAL_STATES]


def delete(server: Server, item: Document, ending: ActiveRuns) -> None:
    """Deletes a recurring run. It is paused first, so that it makes no run between the look and the deletion.

    KFP lets it own the workflows of its runs: deleted with one in progress, that one's pods are gone and its state is never written again.

    Raises:
        InputError: a run of it is in progress, and it may not be ended; then it goes on as before.
        TemporaryError: a run has not ended in time; then it stays paused.
    """
    identity = item["recurring_run_id"]
    ending.refuse_unless_terminating(server, item)
    try:
        server.call(f"recurringruns/{identity}:disable")
        try:
            ending.terminate_all(server, item)
        except InputError:  # a run began between the two looks
            if item.get("mode") == "ENABLE":
                server.call(f"recurringruns/{identity}:enable")
            raise
        server.call(f"recurringruns/{identity}", "DELETE")
    except NotFoundError:  # an answer was lost, or somebody was faster
        return


def differences(found: Document, wanted: Document) -> list[str]:
    """What is not the same, as `name: there, now here`."""
    there, here = _content(found), _content(wanted)
    return [
        f"{name}: {there.get(name, 'nothing')}, now {here.get(name, 'nothing')}"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]


def _content(item: Document) -> dict[str, Any]:
    """What a person decided, flat, as the server and this side both write it."""
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
    """A time of the server's; it writes the year 1970 for none."""
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
