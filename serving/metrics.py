"""What the server counts, in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/.

No label holds anything that a caller chose but the name of a route and the status of the answer.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from serving.capture import Capture
from serving.champion import Champion
from serving.drift_results import ENDS, DriftResults
from serving.model_source import ServedModel
from serving.scorer import Score

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper ends of the bins of the time of a request."""
SCORES = tuple(step / 20 for step in range(1, 21))
"""Upper ends of the bins of a score."""
KEPT_VERSIONS = 20
"""How many versions have figures; those that answered first are forgotten, so that a server may run for years."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str | float]


class Histogram:
    """Counts of numbers by bin, and their sum."""

    def __init__(self, ends: Sequence[float]) -> None:
        self.ends, self.counts, self.sum = ends, [0] * (len(ends) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.ends, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: Labels) -> Iterable[str]:
        total = 0
        ends: tuple[str | float, ...] = (*self.ends, "+Inf")
        for end, count in zip(ends, self.counts, strict=True):
            total += count
            yield _line(f"{name}_bucket", {**labels, "le": end}, total)
        yield _line(f"{name}_sum", labels, self.sum)
        yield _line(f"{name}_count", labels, total)


class Metrics:
    """The counts of one server process."""

    def __init__(self, capture: Capture | None = None, drift: DriftResults | None = None) -> None:
        self.capture, self.drift = capture, drift
        self.requests: Counter[tuple[str, int]] = Counter()
        self.rejected: Counter[str] = Counter()
        self.seconds: dict[str, Histogram] = {}
        self.answered: Counter[str] = Counter()
        self.scores: dict[str, Histogram] = {}
        self.models: dict[str, ServedModel] = {}

    def count_request(self, route: str, status: int, seconds: float) -> None:
        self.requests[route, status] += 1
        if route not in self.seconds:
            self.seconds[route] = Histogram(SECONDS)
        self.seconds[route].add(seconds)

    def count_scores(self, model: ServedModel, scores: Iterable[Score]) -> None:
        """Counts the scores of an answered request: the probability of the positive class, or of the predicted one of more than two."""
        version = model.version
        if version not in self.scores:
            self.scores[version] = Histogram(SCORES)
            self._forget_old_versions()
        self.models[version] = model
        self.answered[version] += 1
        histogram = self.scores[version]
        positive = model.scorer.labels[1] if model.scorer.threshold is not None else ""
        for score in scores:
            histogram.add(score.probabilities[positive or score.label])

    def _forget_old_versions(self) -> None:
        for version in list(self.scores)[:-KEPT_VERSIONS]:
            for counts in (self.scores, self.models, self.answered):
                counts.pop(version, None)

    def text(self, champion: Champion) -> str:
        """Returns all counts as text."""
        in_use = champion.in_use
        roles = [("champion", in_use.champion, 1 - in_use.share), ("canary", in_use.canary, in_use.share)]
        served = [(role, each, share) for role, each, share in roles if each]
        name = champion.name
        families: list[tuple[str, str, str, Iterable[str]]] = [
            ("requests_total", "counter", "Requests by route and status.", _lines(
                "requests_total", (({"route": route, "status": status}, n) for (route, status), n in self.requests.items()))),
            ("request_seconds", "histogram", "Time from the first byte of a request to its answer.", (
                line for route, found in self.seconds.items() for line in found.lines(_full("request_seconds"), {"route": route}))),
            ("rejected_total", "counter", "Requests that were refused, by what was wrong.", _lines(
                "rejected_total", (({"kind": kind}, n) for kind, n in self.rejected.items()))),
            ("answered_total", "counter", "Requests that a version answered.", _lines(
                "answered_total", (({"model": name, "version": each}, n) for each, n in self.answered.items()))),
            ("score", "histogram", "Probability of the positive class, or of the predicted one of more than two.", (
                line for each, found in self.scores.items()
                for line in found.lines(_full("score"), {"model": name, "version": each}))),
            ("missing_values_total", "counter", "Cells without a value.", self._cells("missing_values_total", name, "missing")),
            ("unseen_categories_total", "counter", "Categories that the train rows did not have.", self._cells(
                "unseen_categories_total", name, "unseen")),
            ("model_info", "gauge", "The versions in use.", _lines(
                "model_info", (({"model": name, "version": each.version, "role": role, "kind": each.title}, 1)
                               for role, each, _ in served))),
            ("model_created_timestamp_seconds", "gauge", "When a version in use was evaluated.", _lines(
                "model_created_timestamp_seconds", (({"model": name, "version": each.version, "role": role}, each.created)
                                                    for role, each, _ in served if each.created))),
            ("model_share", "gauge", "Share of the requests that a version gets.", _lines(
                "model_share", (({"model": name, "version": each.version, "role": role}, share) for role, each, share in served))),
            ("model_changes_total", "counter", "Changes of the champion or the canary.", _lines(
                "model_changes_total", [({"model": name}, champion.changes)])),
            ("model_refused", "gauge", "1 for each version that is refused at the moment; an empty one is the pointer.", _lines(
                "model_refused", (({"model": name, "version": each}, 1) for each in champion.refused))),
            ("model_refusals_total", "counter", "How often a version or the pointer was refused.", _lines(
                "model_refusals_total", [({"model": name}, champion.refusals)])),
            ("registry_unreachable_total", "counter", "How often the registry could not be read.", _lines(
                "registry_unreachable_total", [({"model": name}, champion.unreachable)])),
        ]  # fmt: skip
        if capture := self.capture:
            families += [
                ("capture_failures_total", "counter", "How often the counts for drift could not be written.", _lines(
                    "capture_failures_total", [({"model": name}, capture.failures)])),
                ("capture_dropped_rows_total", "counter", "Scored rows that are not in the counts for drift.", _lines(
                    "capture_dropped_rows_total", [({"model": name}, capture.dropped)])),
            ]  # fmt: skip
        families += self._of_drift(name)
        lines: list[str] = []
        for family, kind, about, found in families:
            lines += [f"# HELP {_full(family)} {about}", f"# TYPE {_full(family)} {kind}", *found]
        return "\n".join(lines) + "\n"

    def _of_drift(self, name: str) -> list[tuple[str, str, str, Iterable[str]]]:
        found = dict(self.drift.found) if self.drift else {}
        gauges = (
            ("drift_alarms", "Alarms of the newest batch that was compared with the train rows.", "alarms"),
            ("drift_largest_psi", "Its largest population stability index.", "largest_psi"),
            ("drift_checked_timestamp_seconds", "When it was compared.", "checked"),
        )
        families: list[tuple[str, str, str, Iterable[str]]] = [
            (gauge, "gauge", about, _lines(gauge, [
                ({"model": name, "version": version}, getattr(result, field)) for version, result in found.items()]))
            for gauge, about, field in gauges
        ]  # fmt: skip
        judged = [
            ({"model": name, "version": version, "metric": item["name"], "end": end}, item[end])
            for version, result in found.items()
            for item in result.judged
            for end in ENDS
        ]
        about = "A metric of the newest batch with labels, and the ends of its 95 % interval."
        return [*families, ("judged_metric", "gauge", about, _lines("judged_metric", judged))]

    def _cells(self, family: str, name: str, which: str) -> Iterable[str]:
        for version, model in self.models.items():
            counts: Counter[str] = getattr(model.scorer, which)
            for column, count in list(counts.items()):
                yield _line(_full(family), {"model": name, "version": version, "column": column}, count)


def _full(name: str) -> str:
    return f"spark_kfp_serving_{name}"


def _lines(name: str, found: Iterable[tuple[Labels, float]]) -> Iterable[str]:
    return (_line(_full(name), labels, value) for labels, value in found)


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
    return f"{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
