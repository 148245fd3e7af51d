"""The text by which a user narrows or widens a search: `reg_param=1e-4:1:log, max_depth=3:8`."""

from __future__ import annotations

import re

from spark_jobs.arguments import SearchRange
from spark_jobs.errors import InputError

NAME = re.compile(r"[A-Za-z_]\w*")
RANGE = re.compile(r"(?P<name>\w+)=(?P<low>[^:=]+):(?P<high>[^:=]+?)(?P<log>:log)?")


def parse_search(text: str) -> dict[str, SearchRange | None]:
    """Parses ranges, separated by commas, each NAME=LOW:HIGH, NAME=LOW:HIGH:log, or NAME alone.

    Returns:
        The range of each named setting; None for a name alone.

    Raises:
        InputError: a range is not written like this, is empty, is named twice, or is logarithmic and begins at 0 or below.
    """
    found: dict[str, SearchRange | None] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        if NAME.fullmatch(part) and part not in found:
            found[part] = None
            continue
        match = RANGE.fullmatch(part)
        try:
            low, high = (float(match[side]) for side in ("low", "high")) if match else (0.0, -1.0)
        except ValueError:
            low, high = 0.0, -1.0
        name = part.partition("=")[0]
        if name in found:
            raise InputError(f"--search: {name} is named twice")
        if not match or not low < high < float("inf"):
            raise InputError(
                f"--search: {part!r} is no range; write NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME, such as reg_param=1e-6:10:log"
            )
        if match["log"] and low <= 0:
            raise InputError(f"--search: {part!r} is logarithmic, so it must begin above 0")
        found[match["name"]] = SearchRange(low, high, log=bool(match["log"]))
    return found
