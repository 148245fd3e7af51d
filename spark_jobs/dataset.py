"""Reads, checks and writes the data specification, a TOML file that gives each column of a table its role: label, feature or neither.

It needs only the standard library, because the task pod and the command line check a specification without Spark. It does not read files;
callers pass the text.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from spark_jobs.errors import InputError

MAX_CLASSES = 50
"""Maximum number of classes. A column with more values is probably not a label."""
OWN_PREFIX = "spark_kfp_"
"""Prefix of the columns that steps add to a user's table. `own_prefix` makes it longer if a column of the table already begins with it."""
POSITIVE_WORDS = ("yes", "true", "1", "1.0", "y", "t", "positive", "pos")
"""Label values, in lower case, that are taken as positive if the user names none; the first match counts."""
_ROLES = ("categorical", "dropped", "known_afterwards", "numeric")
_SECTIONS: dict[str, set[str] | None] = {
    "label": {"name", "positive", "base_rate"},
    "columns": {*_ROLES, "rare_as_other"},
    "limits": None,
}


@dataclass(frozen=True, kw_only=True)
class Specification:
    """The role of each column of a table.

    Attributes:
        label: the column to predict.
        positive: the label value that counts as positive; empty for more than two classes.
        base_rate: share of positives, 0 to 1, in the population that the model will be applied to; None if the rows have the same share.
        numeric: columns read as double.
        categorical: columns read as text.
        dropped: columns that stay in the table but are not features.
        known_afterwards: numeric or categorical columns whose value is known only after the outcome.
        limits: lowest and highest allowed value of a numeric column; load rejects a row with a value outside.
        rare_as_other: if a column has too many categories, merge the rarest into one (True) or refuse the column (False).
    """

    label: str
    positive: str = ""
    base_rate: float | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    known_afterwards: tuple[str, ...] = ()
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rare_as_other: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        return self.numeric + self.categorical

    def check(self, columns: Sequence[str], where: str) -> Specification:
        """Checks that a table has all named columns and adds its other columns to `dropped`.

        Args:
            columns: the column names of the table.
            where: the name of the table for the error message.

        Raises:
            InputError: the table lacks a column that the specification names.
        """
        named, available = dict.fromkeys((self.label, *self.features, *self.dropped)), set(columns)
        for name in named:
            if name not in available:
                raise InputError(f"{where}: no column {name!r}{did_you_mean(name, columns)}")
        unnamed = tuple(name for name in columns if name not in named)
        return replace(self, dropped=self.dropped + unnamed)

    def to_toml(self, reasons: Mapping[str, str] | None = None) -> str:
        """Returns the specification as TOML, with a comment for each dropped column in `reasons`: why it was dropped and how to use it."""
        lines = ["[label]", f"name = {quoted(self.label)}"]
        lines += [f"positive = {quoted(self.positive)}"] if self.positive else []
        lines += [f"base_rate = {self.base_rate!r}"] if self.base_rate is not None else []
        lines += ["", "[columns]"]
        for role in ("numeric", "categorical", "dropped", "known_afterwards"):
            if role == "dropped" and reasons:
                lines.append("# To use one of these, move its name to numeric or categorical.")
                lines += [f"# {quoted(name)} {reason}" for name, reason in reasons.items()]
            lines.append(f"{role} = [{', '.join(map(quoted, getattr(self, role)))}]")
        if self.rare_as_other:
            lines += [
                "# Of a column with more values than --max-categories the rarest count as one value.",
                "rare_as_other = true",
            ]
        if self.limits:
            lines += ["", "[limits]"]
            lines += [f"{quoted(name)} = [{low!r}, {high!r}]" for name, (low, high) in self.limits.items()]
        return "\n".join(lines) + "\n"


def read_specification(text: str, where: str) -> Specification:
    """Parses and checks a data specification.

    Args:
        text: the TOML text.
        where: the file name for error messages.

    Raises:
        InputError: the text is not TOML, or a key is unknown, missing or of the wrong type.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: not TOML: {error}") from error
    for section, content in document.items():
        if section not in _SECTIONS or not isinstance(content, dict):
            raise InputError(f"{where}: unknown section {section!r}{did_you_mean(section, list(_SECTIONS))}")
        known = _SECTIONS[section]
        for key in content:
            if known and key not in known:
                raise InputError(f"{where}: unknown key {section}.{key}{did_you_mean(key, sorted(known))}")
    return _checked(document.get("label", {}), document.get("columns", {}), document.get("limits", {}), where)


def _checked(label: dict[str, Any], columns: dict[str, Any], limits: dict[str, Any], where: str) -> Specification:
    if not isinstance(label.get("name"), str) or not label["name"]:
        raise InputError(f"{where}: label.name is missing; name the column to predict")
    base_rate = label.get("base_rate")
    if base_rate is not None and not (isinstance(base_rate, int | float) and 0 < base_rate < 1):
        raise InputError(f"{where}: label.base_rate is {base_rate!r}; it must be above 0 and below 1")
    roles = {role: _names(columns.get(role, []), f"{where}: columns.{role}") for role in _ROLES}
    rare_as_other = columns.get("rare_as_other", False)
    if not isinstance(rare_as_other, bool):
        raise InputError(f"{where}: columns.rare_as_other is {rare_as_other!r}; it must be true or false")
    seen = Counter((label["name"], *roles["numeric"], *roles["categorical"], *roles["dropped"]))
    twice = [name for name, count in seen.items() if count > 1]
    if twice:
        raise InputError(
            f"{where}: column {twice[0]!r} has two roles; leave it in one of label, numeric, categorical, dropped"
        )
    if not roles["numeric"] + roles["categorical"]:
        raise InputError(f"{where}: no feature; list at least one column under columns.numeric or columns.categorical")
    for name in roles["known_afterwards"]:
        if name not in roles["numeric"] + roles["categorical"]:
            raise InputError(f"{where}: known_afterwards names {name!r}, which is neither numeric nor categorical")
    return Specification(
        label=label["name"],
        positive=str(label.get("positive", "")),
        base_rate=base_rate,
        limits={name: _limit(name, bounds, roles["numeric"], where) for name, bounds in limits.items()},
        rare_as_other=rare_as_other,
        **roles,
    )


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise InputError(f"{where} must be a list of column names")
    return tuple(value)


def _limit(name: str, bounds: Any, numeric: Sequence[str], where: str) -> tuple[float, float]:
    numbers = isinstance(bounds, list) and len(bounds) == 2 and all(isinstance(x, int | float) for x in bounds)
    if name not in numeric or not numbers or not bounds[0] <= bounds[1]:
        raise InputError(f"{where}: limits.{name} must be [lowest, highest] of a numeric column")
    return float(bounds[0]), float(bounds[1])


def similar_names(name: str, candidates: Iterable[str]) -> list[str]:
    """Returns at most two candidates whose spelling is close to the name, ignoring case."""
    folded = {candidate.lower(): candidate for candidate in candidates}
    return [folded[match] for match in difflib.get_close_matches(name.lower(), folded, n=2, cutoff=0.6)]


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns the end of an error message about an unknown name: the similar candidates, or the first 20 if none is similar."""
    candidates = list(candidates)
    return meant(name, candidates) or f"; there are {', '.join(map(repr, candidates[:20]))}"


def meant(name: str, candidates: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the similar candidates; empty if none is similar."""
    close = similar_names(name, candidates)
    return f"; did you mean {', '.join(map(repr, close))}?" if close else ""


def did_you_mean_file(path: Path) -> str:
    """Returns the end of an error message about a missing file: files of its folder with a similar name; empty if there are none."""
    close = similar_names(path.name, sorted(entry.name for entry in path.parent.glob("*")))
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def own_prefix(columns: Iterable[str]) -> str:
    """Returns a prefix that no column of a table begins with, so that a column added under it cannot have the name of one in the table.

    The comparison ignores case, as Spark's own comparison of names does by default.
    """
    folded, prefix = [name.casefold() for name in columns], OWN_PREFIX
    while any(name.startswith(prefix) for name in folded):
        prefix += "_"
    return prefix


def names_equal_ignoring_case(columns: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the pairs of names that differ only in case. Spark confuses them unless `spark.sql.caseSensitive` is true."""
    first: dict[str, str] = {}
    return [(first[name.lower()], name) for name in columns if first.setdefault(name.lower(), name) != name]


def guess_positive_value(class_counts: Mapping[str, int]) -> str:
    """Returns the label value to take as positive if the user named none: one of `POSITIVE_WORDS`, else the rarer value."""
    by_word = {value.strip().lower(): value for value in class_counts}
    for word in POSITIVE_WORDS:
        if word in by_word:
            return by_word[word]
    return min(class_counts, key=lambda value: (class_counts[value], value))


def quoted(text: str) -> str:
    """Returns a text as a TOML string."""
    # A JSON string is also a TOML basic string, except that TOML wants the character DEL escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
