"""KFP's cron lines: what is refused, and when the others come. The expected times are written by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from kfp_pipeline.kfp_server.cron import parse
from spark_jobs.errors import InputError

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)  # a Monday


def times(line: str, count: int = 3, *, zone: str = "UTC", after: datetime = NOW) -> list[str]:
    found = parse(line).times(after, ZoneInfo(zone))
    return [f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}" for _, time in zip(range(count), found, strict=False)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0 2 * * *", ["2026-11-24 02:00:00", "2026-11-25 02:00:00", "2026-11-26 02:00:00"]),
        ("0 0 12 * * *", ["2026-11-24 12:00:00", "2026-11-25 12:00:00", "2026-11-26 12:00:00"]),
        ("30 */20 * * * ?", ["2026-11-23 12:00:30", "2026-11-23 12:20:30", "2026-11-23 12:40:30"]),
        ("0 50/5 23 * * *", ["2026-11-23 23:50:00", "2026-11-23 23:55:00", "2026-11-24 23:50:00"]),
        ("0 0 1-5/2 * * *", ["2026-11-24 01:00:00", "2026-11-24 03:00:00", "2026-11-24 05:00:00"]),
        ("0 0 0 1 JAN,jul *", ["2027-01-01 00:00:00", "2027-07-01 00:00:00", "2028-01-01 00:00:00"]),
        ("0 0 0 * * 0", ["2026-11-29 00:00:00", "2026-12-06 00:00:00", "2026-12-13 00:00:00"]),
        ("0 0 0 * * FRI-SAT", ["2026-11-27 00:00:00", "2026-11-28 00:00:00", "2026-12-04 00:00:00"]),
        ("0 0 0 29 2 ?", ["2028-02-29 00:00:00"]),
        # Two restricted day fields: either is enough, as in other crons.
        ("0 0 0 25 * WED", ["2026-11-25 00:00:00", "2026-12-02 00:00:00", "2026-12-09 00:00:00"]),
        ("0 0 0 24 * THU", ["2026-11-24 00:00:00", "2026-11-26 00:00:00", "2026-12-03 00:00:00"]),
        # A step from * counts as *, so both must match: Thursdays on odd days. Other crons take either.
        ("0 0 0 */2 * THU", ["2026-12-03 00:00:00", "2026-12-17 00:00:00", "2026-12-31 00:00:00"]),
    ],
)
def test_the_next_times(line: str, expected: list[str]) -> None:
    assert times(line, len(expected)) == expected


def test_times_are_those_of_the_servers_zone() -> None:
    assert times("0 0 2 * * *", 1, zone="Europe/Berlin") == ["2026-11-24 01:00:00"]
    assert times("0 0 2 * * *", 1, zone="Asia/Tokyo") == ["2026-11-23 17:00:00"]


def test_an_hour_that_a_clock_leaves_out_has_no_time() -> None:
    """2027-03-28 goes from 02:00 to 03:00 in Berlin."""
    after = datetime(2027, 3, 26, 12, tzinfo=UTC)
    found = times("0 30 2 * * *", 3, zone="Europe/Berlin", after=after)
    assert found == ["2027-03-27 01:30:00", "2027-03-29 00:30:00", "2027-03-30 00:30:00"]


def test_nothing_comes_after_the_end() -> None:
    end = datetime(2026, 11, 25, 2, tzinfo=UTC)
    assert len(list(parse("0 0 2 * * *").times(NOW, ZoneInfo("UTC"), end))) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 2 * * *", "--cron='0 0 2 * * *'"),
        ("*/5 * * * *", "--cron='0 */5 * * * *'"),
        ("0 0 2 * * * 2026", "7 fields"),
        ("", "0 fields"),
        ("@daily", "six fields"),
        (" @every 1h", "six fields"),
        ("0 0 2 * * 7", "Sunday is 0"),
        ("0 0 2 * * SUNDAY", "day of week"),
        ("60 0 2 * * *", "the second is '60'; allowed: 0 to 59"),
        ("0 60 2 * * *", "the minute"),
        ("0 0 24 * * *", "the hour"),
        ("0 0 0 0 * *", "the day of month"),
        ("0 0 0 32 * *", "the day of month"),
        ("0 0 0 * 13 *", "1 to 12 or JAN to DEC"),
        ("0 0 0 * 0 *", "the month"),
        ("0 0 0 * MON *", "the month"),
        ("0 0 0 L * *", "the day of month"),
        ("0 0 0 * * MON#1", "the day of week"),
        ("0 0 0 15W * *", "the day of month"),
        ("0 0 5-1 * * *", "upwards"),
        ("0 0 * * * FRI-MON", "upwards"),
        ("0 0 */0 * * *", "1 or more"),
        ("0 */-5 * * * *", "the minute"),
        ("0 0 *-5 * * *", "the hour"),
        ("0 0 1,,2 * * *", "the hour"),
        ("0 0 1,* * * *", "stands alone"),
        ("0 0 1/2/3 * * *", "the hour"),
        ("0 0 ² * * *", "the hour"),
        ("0 0 0 30 2 *", "never comes"),
        ("0 0 0 31 APR,JUN *", "never comes"),
    ],
)
def test_a_wrong_line_is_refused_with_its_field(line: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        parse(line)
    assert said in str(error.value)
    assert "--cron" in str(error.value)
