"""The pointer is followed: new champions and canaries are taken over, broken ones are refused and the old ones kept."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.champion import Champion
from serving.metrics import Metrics
from serving.model_source import UnreachableError, place_of
from serving.scorer import Scorer
from serving.settings import SettingsError
from spark_jobs.registry.version_document import digest


@pytest.fixture
def champion(registry: Any, scorecard: dict[str, Any]) -> Champion:
    registry.add("one", scorecard)
    registry.point("one")
    found = Champion("bank", place_of(str(registry.root)))
    found.refresh()
    return found


def versions(champion: Champion) -> tuple[str, str]:
    return tuple(each.version if each else "" for each in (champion.in_use.champion, champion.in_use.canary))  # type: ignore[return-value]


def test_a_new_champion_is_taken_over(champion: Champion, registry: Any, scorecard: dict[str, Any]) -> None:
    before = champion.choose()
    registry.add("two", {**scorecard, "intercepts": [3.0]})
    registry.point("two")
    champion.refresh()
    assert (versions(champion), champion.changes) == (("two", ""), 2)
    assert before is not None
    assert before.version == "one"  # a request that holds it can still be answered


def truncated(folder: Path) -> None:
    path = folder / "scorecard.json"
    path.write_bytes(path.read_bytes()[:-1])


def flipped(folder: Path) -> None:
    path = folder / "scorecard.json"
    path.write_text(path.read_text().replace("-1.5", "-1.6"))


def emptied(folder: Path) -> None:
    (folder / "version.json").write_bytes(b"")


def of_another_release(folder: Path) -> None:
    (folder / "version.json").write_text(json.dumps({"registry_version": 2}))


def of_another_version(folder: Path) -> None:
    document = json.loads((folder / "version.json").read_text())
    (folder / "version.json").write_text(json.dumps({**document, "version": "three"}))


def redated(folder: Path) -> None:
    document = json.loads((folder / "version.json").read_text())
    changed = {**document, "sha256": digest(document), "created": "2099-01-01T00:00:00+00:00"}
    (folder / "version.json").write_text(json.dumps(changed))


BREAKS: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "version.json").unlink(), "it is not whole"),
    (lambda folder: (folder / "scorecard.json").unlink(), "it is not whole"),
    (truncated, "scorecard.json has another size or SHA-256"),
    (flipped, "scorecard.json has another size or SHA-256"),
    (emptied, "version.json is damaged"),
    (of_another_release, "version.json is of another release"),
    (of_another_version, "version.json is that of 'bank' 'three'"),
    (redated, "version.json was changed"),
]


def test_a_version_with_the_digest_that_the_registry_writes_is_taken(
    champion: Champion, registry: Any, scorecard: dict[str, Any]
) -> None:
    path = registry.add("two", scorecard) / "version.json"
    document = json.loads(path.read_text()) | {"created": "2026-11-28T12:00:00+00:00", "run": "ä", "value": 0.1}
    path.write_text(json.dumps({**document, "sha256": digest(document)}, ensure_ascii=False), encoding="utf-8")
    registry.point("two")
    champion.refresh()
    assert versions(champion) == ("two", "")


@pytest.mark.parametrize(("damage", "why"), BREAKS)
def test_a_broken_version_is_refused_and_the_old_one_kept(
    champion: Champion,
    registry: Any,
    scorecard: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], object],
    why: str,
) -> None:
    damage(registry.add("two", scorecard))
    registry.point("two")
    caplog.set_level(logging.INFO)
    champion.refresh()
    champion.refresh()
    assert versions(champion) == ("one", "")
    assert why in champion.refused["two"]
    assert [record.message for record in caplog.records] == ["version refused"]
    text = Metrics().text(champion)
    assert 'spark_kfp_serving_model_refused{model="bank",version="two"} 1' in text
    assert 'spark_kfp_serving_model_refusals_total{model="bank"} 1' in text


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"scorecard_version": 4}, "scorecard_version is 4, not 3"),
        ({"form": "cubic"}, "the form is 'cubic'"),
        ({"coefficients": [[1.0]]}, "damaged"),
        ({"specification": "[label"}, "its specification or profile cannot be read"),
        ({"labels": ["no"]}, "damaged"),
    ],
)
def test_a_scorecard_that_cannot_be_used_is_refused(
    champion: Champion, registry: Any, scorecard: dict[str, Any], change: dict[str, Any], why: str
) -> None:
    registry.add("two", {**scorecard, **change})
    registry.point("two")
    champion.refresh()
    assert (versions(champion), why in champion.refused["two"]) == (("one", ""), True), champion.refused


def test_the_example_rows_must_get_sparks_probabilities(
    champion: Champion, registry: Any, scorecard: dict[str, Any], row: Any
) -> None:
    right = {"row": row, "probabilities": dict(Scorer(scorecard).score(row).probabilities)}
    wrong = {"row": row, "probabilities": {"yes": right["probabilities"]["yes"] + 1e-6}}
    registry.add("two", scorecard, examples=[right, wrong])
    registry.add("three", scorecard, examples=[right])
    registry.add("four", scorecard, examples={"rows": []})
    for version, served in (("two", "one"), ("three", "three"), ("four", "three")):
        registry.point(version)
        champion.refresh()
        assert versions(champion)[0] == served
    assert "its documents are damaged" in champion.refused["four"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": "../one"}',
        b'{"version": null}',
        b'{"version": "one", "canary": 3}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_pointer_changes_nothing(champion: Champion, registry: Any, content: bytes) -> None:
    (registry.root / "bank" / "champion.json").write_bytes(content)
    champion.refresh()
    assert versions(champion) == ("one", "")
    assert champion.refused.keys() == {""}
    registry.point("one")
    champion.refresh()
    assert champion.refused == {}


def test_a_version_that_becomes_whole_is_taken_over_then(
    champion: Champion, registry: Any, scorecard: dict[str, Any]
) -> None:
    folder = registry.add("two", scorecard)
    document = (folder / "version.json").read_bytes()
    (folder / "version.json").unlink()
    registry.point("two")
    champion.refresh()
    (folder / "version.json").write_bytes(document)
    champion.refresh()
    assert (versions(champion), champion.refused) == (("two", ""), {})


def test_a_canary_gets_its_share(champion: Champion, registry: Any, scorecard: dict[str, Any]) -> None:
    registry.add("two", scorecard)
    registry.point("one", {"version": "two", "share": 0.25})
    champion.refresh()
    chosen = [champion.choose(lambda draw=draw: draw / 100) for draw in range(100)]  # type: ignore[misc]
    assert [each.version for each in chosen if each].count("two") == 25
    assert 'spark_kfp_serving_model_share{model="bank",version="two",role="canary"} 0.25' in Metrics().text(champion)
    registry.point("two")
    champion.refresh()
    assert versions(champion) == ("two", "")


def test_a_broken_canary_gets_nothing(champion: Champion, registry: Any, scorecard: dict[str, Any]) -> None:
    truncated(registry.add("two", scorecard))
    registry.point("one", {"version": "two", "share": 0.5})
    champion.refresh()
    assert (versions(champion), champion.in_use.share) == (("one", ""), 0.0)
    assert "two" in champion.refused


def test_a_registry_that_does_not_answer_changes_nothing(champion: Champion, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: object, name: str) -> bytes:
        raise UnreachableError(name)

    monkeypatch.setattr("serving.model_source.Directory.read", read)
    champion.refresh()
    assert (versions(champion), champion.unreachable) == (("one", ""), 1)


def test_a_place_that_is_none_is_told(tmp_path: Path) -> None:
    for uri, text in (
        (str(tmp_path / "x"), "no such directory"),
        ("http://a/b", "http:// is not supported"),
        ("s3://", "names no bucket"),
    ):
        with pytest.raises(SettingsError, match=text):
            place_of(uri)
