"""Markdown for KFP's UI: a summary of the evaluation and a summary of the run, made from plain documents."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any


def evaluation_summary(evaluation: Mapping[str, Any]) -> str:
    """Formats the metrics on the test rows: value, confidence interval, and the majority class for comparison.

    If the data have columns that are known only after the outcome, one more column shows the model without them.

    Args:
        evaluation: `evaluation.json`, as the step evaluate writes it.
    """
    without = evaluation["without_known_afterwards"]
    others = {item["name"]: item["value"] for item in without["metrics"]} if without else {}
    baseline = evaluation["baseline"]["metrics"]
    head = ["metric", "value", "95 % interval", "majority class"]
    head += [f"without {', '.join(without['columns'])}"] if without else []
    rows = []
    for item in evaluation["metrics"]:
        row = [
            item["name"],
            _number(item["value"]),
            f"{_number(item['low'])} to {_number(item['high'])}",
            _number(baseline.get(item["name"])),
        ]
        rows.append([*row, _number(others.get(item["name"]))] if without else row)
    lines = [f"# {plain(evaluation['title'])}", "", *_table(head, rows)]
    lines += ["", plain(evaluation["tuning"]["verdict"])] if evaluation.get("tuning") else []
    lines += ["", *(f"- warning: {plain(text)}" for text in evaluation["warnings"])] if evaluation["warnings"] else []
    return "\n".join(lines) + "\n"


def promotion_summary(facts: Mapping[str, Any]) -> str:
    """Formats whether a model became the champion, and what each rule of the gate said.

    Args:
        facts: of the result of the step promote: `name`, `version`, `outcome`, and `verdicts` with `rule`, `passed` and `sentence`.
    """
    rows = [[item["rule"], "yes" if item["passed"] else "no", item["sentence"]] for item in facts["verdicts"]]
    return "\n".join([f"# {plain(facts['outcome'])}", "", *_table(["rule", "passes", "numbers"], rows)]) + "\n"


def run_summary(document: Mapping[str, Any]) -> str:
    """Formats how a run ended: its status, the reason, its applications and its metrics.

    Args:
        document: as `run_end.end_run` makes it; each of its `applications` has `step`, `name`, `state` and `error`.
    """
    lines = [f"# {document['status']}", ""]
    lines += [plain(document["message"]), ""] if document["message"] else []
    shown = [[item[key] for key in ("step", "name", "state", "error")] for item in document["applications"]]
    lines += [*_table(["step", "SparkApplication", "state", "error"], shown), ""] if shown else []
    metrics = [[name, _number(value)] for name, value in document["metrics"].items()]
    lines += [*_table(["metric", "value"], metrics), ""] if metrics else []
    lines += [f"report: `{document['report']}`"] if document["report"] else []
    return "\n".join(lines).rstrip() + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell if cell == '---' else plain(cell) for cell in cells)} |"


def plain(text: str) -> str:
    r"""Escapes a text for Markdown and puts it on one line.

    A backslash goes before each character that Markdown could interpret; `<` becomes `&lt;`, because it could begin HTML.
    """
    return re.sub(r"([\\`*_{}\[\]()#+!|>~])", r"\\\1", " ".join(str(text).split())).replace("<", "&lt;")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
