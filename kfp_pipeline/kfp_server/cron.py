"""Parses the cron expressions of KFP's recurring runs, which have six fields, and computes their next times.

It follows the parser that KFP's controller uses, Go's robfig/cron 1.2.0 (https://github.com/robfig/cron/tree/v1.2.0). The fields and the
rule for days differ from other crons. Expressions that robfig/cron accepts but that are most likely a mistake are refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from spark_jobs.errors import InputError

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
LONGEST_WAIT_DAYS = 5 * 366
"""The controller stops searching if there is no time within five years."""


@dataclass(frozen=True)
class Field:
    """One of the six fields: its name, its smallest and largest value, and the names of its values, in order."""

    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()


FIELDS = (
    Field("second", 0, 59),
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of week", 0, 6, WEEKDAYS),
)


@dataclass(frozen=True, kw_only=True)
class Cron:
    """A parsed cron expression.

    Attributes:
        line: the expression as it is sent to the server.
        values: for each of FIELDS the matching values, ascending.
        any_day: whether one of the two day fields starts with `*` or `?`. If so, a day must match both fields, else one of them.
    """

    line: str
    values: tuple[tuple[int, ...], ...]
    any_day: bool

    def matches(self, day: date) -> bool:
        """Whether the expression has times on this day."""
        _, _, _, days, months, weekdays = self.values
        by_month, by_week = day.day in days, day.isoweekday() % 7 in weekdays
        return day.month in months and (by_month and by_week if self.any_day else by_month or by_week)

    def times(self, after: datetime, zone: ZoneInfo, end: datetime | None = None) -> Iterator[datetime]:
        """Yields the times after `after`, up to and including `end`, in the server's time zone."""
        seconds, minutes, hours, *_ = self.values
        first = after.astimezone(zone).date()
        for number in range(LONGEST_WAIT_DAYS):
            day = first + timedelta(days=number)
            for hour, minute, second in itertools.product(hours, minutes, seconds) if self.matches(day) else ():
                time = datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=zone)
                if end and time > end:
                    return
                # A time in the hour that daylight saving time skips does not exist: converted to UTC and back it becomes another hour.
                if time > after and time.astimezone(UTC).astimezone(zone).hour == hour:
                    yield time


def parse(line: str) -> Cron:
    """Parses a cron expression.

    Raises:
        InputError: the expression has not six fields, a field is wrong, or no day matches; the message says what to give instead.
    """
    parts = line.split()
    if line.strip().startswith("@"):
        raise InputError(f"--cron={line!r}: write it with six fields, seconds first, such as '0 0 2 * * *' for 02:00")
    if len(parts) == 5:
        raise InputError(
            f"--cron={line!r} has five fields; KFP's have six, seconds first, and it would take the first for the second. "
            f"Give --cron='0 {' '.join(parts)}'"
        )
    if len(parts) != len(FIELDS):
        names = ", ".join(item.name for item in FIELDS)
        raise InputError(f"--cron={line!r} has {len(parts)} fields; KFP's have six: {names}")
    values = tuple(tuple(sorted(_values(part, item))) for part, item in zip(parts, FIELDS, strict=True))
    cron = Cron(line=" ".join(parts), values=values, any_day=any(parts[index][0] in "*?" for index in (3, 5)))
    if not any(cron.matches(date(2028, 1, 1) + timedelta(days=number)) for number in range(LONGEST_WAIT_DAYS)):
        raise InputError(f"--cron={line!r} never comes: no such day in five years")
    return cron


def _values(text: str, item: Field) -> set[int]:
    """Returns the values of a field, which is a list of ranges."""
    parts = text.split(",")
    if len(parts) > 1 and any(part[:1] in ("*", "?") for part in parts):
        raise _wrong(text, item, "* stands alone, not in a list")
    return set().union(*(_range(part, item) for part in parts))


def _range(text: str, item: Field) -> range:
    """Returns the values of `*`, `?`, one value or a range, each with an optional step; a value with a step runs up to the largest."""
    found = re.fullmatch(r"(?P<low>[*?]|\w+)(-(?P<high>\w+))?(/(?P<step>[0-9]+))?", text, re.ASCII)
    if not found or (found["low"] in "*?" and found["high"]):
        raise _wrong(text, item, "not a value, a range such as 1-5, a step such as */2, or a list of them")
    if found["low"] in "*?":
        low, high = item.low, item.high
    else:
        low = _value(found["low"], item)
        high = _value(found["high"], item) if found["high"] else item.high if found["step"] else low
    step = int(found["step"] or 1)
    if low > high or not step:
        raise _wrong(text, item, "a range goes upwards" if step else "a step is 1 or more")
    return range(low, high + 1, step)


def _value(text: str, item: Field) -> int:
    if text.upper() in item.words:
        return item.words.index(text.upper()) + item.low
    if not text.isdecimal() or not item.low <= int(text) <= item.high:
        raise _wrong(text, item, "7 is no day here, Sunday is 0" if item.words == WEEKDAYS and text == "7" else "")
    return int(text)


def _wrong(text: str, item: Field, why: str) -> InputError:
    words = f" or {item.words[0]} to {item.words[-1]}" if item.words else ""
    allowed = f"{item.low} to {item.high}{words}"
    return InputError(f"--cron: the {item.name} is {text!r}; {f'{why}; ' if why else ''}allowed: {allowed}")
