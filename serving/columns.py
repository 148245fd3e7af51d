"""The columns that a model wants of a row: name, kind, range and categories; for checks, for OpenAPI and for the form.

What is known of a column comes from the scorecard, from the data specification inside it, and if there is one from the profile of the
table that the model was trained on.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.scorer import RowError, ScorecardError, damage

NUMERIC, CATEGORICAL = "numeric", "categorical"


@dataclass(frozen=True)
class Column:
    """A column of a row.

    Attributes:
        kind: `numeric` or `categorical`.
        usual: the train rows' mean, or their most frequent category.
        categories: the categories of the train rows, the most frequent first.
        limits: lowest and highest number that the specification allows; None: it has none.
        seen: a range that holds the numbers of the table, rounded out, as the lowest and the highest may be those of one customer;
            None: unknown.
        whole: whether the numbers of the table are whole.
    """

    name: str
    kind: str
    usual: float | str
    categories: Sequence[str] = ()
    limits: tuple[float, float] | None = None
    seen: tuple[float, float] | None = None
    whole: bool = False

    @property
    def example(self) -> float | str:
        """A value for an example row."""
        if isinstance(self.usual, str):
            return self.usual
        return float(round(self.usual)) if self.whole else float(f"{self.usual:.4g}")

    def schema(self) -> dict[str, Any]:
        """Returns the column's JSON schema, as OpenAPI shows it."""
        if self.kind == CATEGORICAL:
            about = "A category of the train rows; another text counts as unseen, null as missing."
            types = ["string", "number", "boolean", "null"]
            return {"type": types, "description": about, "examples": list(self.categories[:5])}
        schema: dict[str, Any] = {"type": ["number", "null"], "examples": [self.example]}
        if self.limits:
            schema |= {"minimum": self.limits[0], "maximum": self.limits[1]}
        seen = f" The table has about {self.seen[0]:g} to {self.seen[1]:g}." if self.seen else ""
        return schema | {"description": f"A number, or its text; null where it is missing.{seen}"}


class Columns:
    """The columns of a model, and the check of a row against them."""

    def __init__(self, columns: Sequence[Column], *, label: str, ignored: Sequence[str]) -> None:
        self.columns, self.label = columns, label
        self._names = frozenset(column.name for column in columns)
        self._ignored = frozenset(ignored)
        self._limits = [(each.name, *each.limits) for each in columns if each.limits]

    @classmethod
    def of(cls, scorecard: Mapping[str, Any], profile: Mapping[str, Any] | None = None) -> Columns:
        """Describes the columns of a scorecard.

        Args:
            scorecard: a scorecard that a `Scorer` has accepted.
            profile: the document profile.json; None: there is none.

        Raises:
            ScorecardError: the specification in the scorecard cannot be read.
        """
        try:
            specification = tomllib.loads(scorecard.get("specification", ""))
            limits = {name: (float(low), float(high)) for name, (low, high) in specification.get("limits", {}).items()}
            seen = {item["name"]: item for item in (profile or {}).get("columns", ())}
            columns = [_numeric(item, limits, seen.get(item["name"], {})) for item in scorecard["numeric"]]
            columns += [
                Column(item["name"], CATEGORICAL, item["values"][0] if item["values"] else "", tuple(item["values"]))
                for item in scorecard["categorical"]
            ]
            ignored = specification.get("columns", {}).get("dropped", ())
            return cls(columns, label=str(specification.get("label", {}).get("name", "")), ignored=ignored)
        except tomllib.TOMLDecodeError as error:
            raise ScorecardError(f"its specification or profile cannot be read ({error})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ScorecardError(f"its specification or profile cannot be read ({damage(error)})") from error

    def check(self, row: Mapping[str, Any]) -> None:
        """Checks that a row that was scored has no unknown column and no number beyond the limits.

        Raises:
            RowError: it has; the message names the column.
        """
        if len(row) > len(self._names):
            for name in row:
                if name not in self._names and name not in self._ignored:
                    raise RowError(str(name), self._unknown(str(name)))
        for name, low, high in self._limits:
            value = row[name]
            number = value if type(value) is int or type(value) is float else _as_number(value)
            if number is not None and not low <= number <= high:
                raise RowError(name, f"is {number:g}; the specification allows {low:g} to {high:g}")

    def _unknown(self, name: str) -> str:
        if name == self.label:
            return "is the label, which the model predicts; leave it out"
        near = difflib.get_close_matches(name[:100], self._names, 1)
        return f"is unknown to the model{f'; did you mean {near[0]!r}?' if near else ''}"

    def example(self) -> dict[str, float | str]:
        """Returns an example row: the usual value of each column."""
        return {column.name: column.example for column in self.columns}

    def schema(self) -> dict[str, Any]:
        """Returns the JSON schema of a row."""
        return {
            "type": "object",
            "required": [column.name for column in self.columns],
            "properties": {column.name: column.schema() for column in self.columns},
            "additionalProperties": False,
            "examples": [self.example()],
        }


def _numeric(item: Mapping[str, Any], limits: Mapping[str, tuple[float, float]], seen: Mapping[str, Any]) -> Column:
    name, low, high = item["name"], seen.get("min"), seen.get("max")
    known = isinstance(low, int | float) and isinstance(high, int | float)
    whole = known and float(low).is_integer() and float(high).is_integer()  # type: ignore[arg-type]
    return Column(
        name,
        NUMERIC,
        float(item["mean"]),
        limits=limits.get(name),
        seen=_rounded_out(float(low), float(high)) if known else None,  # type: ignore[arg-type]
        whole=whole,
    )


def _rounded_out(low: float, high: float) -> tuple[float, float]:
    """Widens a range to multiples of the power of ten next below its length."""
    if not 0 < high - low < math.inf:
        return low, high
    step = 10.0 ** math.floor(math.log10(high - low))
    ends = math.floor(low / step) * step, math.ceil(high / step) * step
    return float(f"{ends[0]:.12g}"), float(f"{ends[1]:.12g}")


def _as_number(value: Any) -> float | None:
    """Returns the number of a cell that the scorer has read already; None: it is missing."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number else None
