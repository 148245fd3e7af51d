"""The registry in a directory: versions that never change, one pointer, and what is left after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from finished_run import finished_run

from spark_jobs.errors import InputError
from spark_jobs.object_store import ObjectStore
from spark_jobs.object_store_settings import ObjectStoreSettings
from spark_jobs.registry import archive, pointer, pruning, versions
from spark_jobs.registry.places import DirectoryPlace, Place, StorePlace
from spark_jobs.registry.pointer import Canary, Champion, ConflictError

if TYPE_CHECKING:
    from fake_s3 import FakeS3

HERE = Path(__file__).parent


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    return DirectoryPlace(tmp_path / "models")


def register(registry: Place, tmp_path: Path, seed: int = 0, name: str = "bank", day: int = 1) -> str:
    outputs = finished_run(tmp_path / f"run{seed}", seed=seed, finished_at=f"2026-11-{day:02}T12:00:00+00:00")
    return str(versions.write(registry, versions.collect(name, outputs, run_id=f"run{seed}"))["version"])


def test_a_version_holds_what_the_run_made_and_says_so(registry: Place, tmp_path: Path) -> None:
    version = register(registry, tmp_path)
    document = versions.verify(registry, "bank", version)
    assert version.startswith("20261101-120000-")
    paths = [item["path"] for item in document["files"]]
    assert {
        "scorecard.json",
        "specification.toml",
        "profile.json",
        "features.json",
        "evaluation.json",
        "report.html",
    } < set(paths)
    assert "model/metadata/part-00000" in paths
    assert not any("_SUCCESS" in path for path in paths)
    assert document["run"] == "run0"
    assert document["parameters"]["train"]["reg_param"] == 0.01
    assert document["metrics"][0]["low"] == 0.86
    assert document["digests"]["load"] == "load-digest"
    assert document["made_by"]["code_sha256"] == "c0de"


def test_registering_a_run_twice_gives_the_same_version_and_changes_nothing(registry: Place, tmp_path: Path) -> None:
    first = register(registry, tmp_path)
    path = tmp_path / "models" / "bank" / "versions" / first / "version.json"
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    assert register(registry, tmp_path) == first
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert versions.versions_of(registry, "bank") == [first]
    assert register(registry, tmp_path, seed=1) != first


def test_a_folder_without_version_json_is_no_version(registry: Place, tmp_path: Path) -> None:
    version = register(registry, tmp_path)
    (tmp_path / "models" / "bank" / "versions" / version / "version.json").unlink()
    assert versions.versions_of(registry, "bank") == []
    assert versions.names(registry) == []
    with pytest.raises(InputError, match="no version"):
        pointer.promote(registry, "bank", version)


def test_outputs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    outputs = finished_run(tmp_path / "run")
    result = tmp_path / "run" / "train" / "result.json"
    result.write_text(result.read_text().replace("train-digest", "another"))
    with pytest.raises(InputError, match="another run has replaced"):
        versions.collect("bank", outputs)


@pytest.mark.parametrize("name", ["", "..", "a/b", "_hidden", ".x", "a" * 64, "ä", "a b"])
def test_names_that_would_lead_elsewhere_are_refused(registry: Place, name: str) -> None:
    with pytest.raises(InputError, match="no name of a model"):
        pointer.read(registry, name)


def test_the_pointer_moves_and_keeps_its_history(registry: Place, tmp_path: Path) -> None:
    a, b, c = (register(registry, tmp_path, seed, day=seed + 1) for seed in range(3))
    for version in (a, b, c):
        pointer.promote(registry, "bank", version, why="better")
    champion = pointer.read(registry, "bank")
    assert (champion.version, champion.move) == (c, 3)
    assert [(move.version, move.previous) for move in champion.history] == [(a, ""), (b, a), (c, b)]
    assert pointer.rollback(registry, "bank", why="wrong").version == b
    assert pointer.rollback(registry, "bank").version == a
    with pytest.raises(InputError, match="no champion before"):
        pointer.rollback(registry, "bank")
    assert pointer.promote(registry, "bank", c).version == c
    assert pointer.rollback(registry, "bank").version == a
    assert pointer.promote(registry, "bank", a).move == 7, "promoting the champion again is no move"


def test_the_document_is_as_the_server_reads_it(registry: Place, tmp_path: Path) -> None:
    version = register(registry, tmp_path)
    pointer.promote(registry, "bank", version, why="first")
    document = json.loads((tmp_path / "models" / "bank" / "champion.json").read_text())
    assert set(document) == {"registry_version", "name", "version", "move", "canary", "history"}
    assert document["canary"] is None
    assert {"move", "version", "previous", "at", "by", "why"} <= set(document["history"][0])


def test_of_two_moves_from_the_same_state_one_wins_and_the_other_is_told(registry: Place, tmp_path: Path) -> None:
    a, b = register(registry, tmp_path, 0), register(registry, tmp_path, 1)
    seen = pointer.read(registry, "bank")
    pointer.promote(registry, "bank", a, seen=seen)
    with pytest.raises(ConflictError, match=f"moved it to {a}"):
        pointer.promote(registry, "bank", b, seen=seen)
    assert pointer.read(registry, "bank").version == a


def test_of_many_threads_exactly_one_wins_each_move(registry: Place, tmp_path: Path) -> None:
    a, b = register(registry, tmp_path, 0), register(registry, tmp_path, 1)
    for _ in range(20):
        seen, barrier = pointer.read(registry, "bank"), threading.Barrier(4)
        target = b if seen.version == a else a

        def move(seen: Champion, target: str, barrier: threading.Barrier) -> int:
            barrier.wait()
            with suppress(ConflictError):
                return pointer.promote(registry, "bank", target, seen=seen).move
            return 0

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(move, [seen] * 4, [target] * 4, [barrier] * 4))
        assert sorted(found) == [0, 0, 0, seen.move + 1]


def test_a_changed_file_is_not_promoted(registry: Place, tmp_path: Path) -> None:
    version = register(registry, tmp_path)
    (tmp_path / "models" / "bank" / "versions" / version / "scorecard.json").write_text("{}")
    with pytest.raises(InputError, match=r"scorecard\.json was changed"):
        pointer.promote(registry, "bank", version)
    assert pointer.read(registry, "bank").version == ""


def test_a_canary_shares_until_it_ends_or_is_promoted(registry: Place, tmp_path: Path) -> None:
    a, b = register(registry, tmp_path, 0), register(registry, tmp_path, 1)
    with pytest.raises(InputError, match="no champion"):
        pointer.set_canary(registry, "bank", Canary(version=b, share=0.1))
    pointer.promote(registry, "bank", a)
    with pytest.raises(InputError, match="is the champion"):
        pointer.set_canary(registry, "bank", Canary(version=a, share=0.1))
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="share"):
            pointer.set_canary(registry, "bank", Canary(version=b, share=share))
    assert pointer.served(pointer.set_canary(registry, "bank", Canary(version=b, share=0.1))) == {a: 0.9, b: 0.1}
    assert pointer.set_canary(registry, "bank", None).canary is None
    pointer.set_canary(registry, "bank", Canary(version=b, share=0.1))
    promoted = pointer.promote(registry, "bank", b)
    assert (promoted.version, promoted.canary) == (b, None)
    assert pointer.rollback(registry, "bank").version == a


def test_pruning_keeps_what_serves_or_may_serve_again(registry: Place, tmp_path: Path) -> None:
    made = [register(registry, tmp_path, seed, day=seed + 1) for seed in range(6)]
    for version in made[:3]:
        pointer.promote(registry, "bank", version)
    pointer.set_canary(registry, "bank", Canary(version=made[3], share=0.5))
    assert pruning.prunable(registry, "bank", 1) == [made[0], made[4]]
    assert pruning.prune(registry, "bank", 1) == [made[0], made[4]]
    assert versions.versions_of(registry, "bank") == [made[1], made[2], made[3], made[5]]
    assert not (tmp_path / "models" / "bank" / "versions" / made[0]).exists()
    assert pruning.prune(registry, "bank", 1) == []
    assert pointer.rollback(registry, "bank").version == made[1]


def test_after_a_rollback_to_a_version_that_never_was_champion_the_champion_before_stays(
    registry: Place, tmp_path: Path
) -> None:
    made = [register(registry, tmp_path, seed, day=seed + 1) for seed in range(3)]
    for version in made[:2]:
        pointer.promote(registry, "bank", version)
    pointer.rollback(registry, "bank", to=made[2])
    assert pruning.prune(registry, "bank", 0) == [made[0]]
    assert pointer.rollback(registry, "bank").version == made[1]


def test_after_a_rollback_pruning_keeps_the_champion_that_was_taken_back(registry: Place, tmp_path: Path) -> None:
    made = [register(registry, tmp_path, seed, day=seed + 1) for seed in range(3)]
    for version in made:
        pointer.promote(registry, "bank", version)
    pointer.rollback(registry, "bank")
    pointer.set_canary(registry, "bank", Canary(version=made[0], share=0.5))
    pointer.set_canary(registry, "bank", None)
    assert pruning.prune(registry, "bank", 0) == [], "of the moves only those that change the champion count"
    assert pointer.promote(registry, "bank", made[2]).version == made[2]


def make_leftover(registry: Place, version: str) -> None:
    registry.write(f"bank/versions/{version}/scorecard.json", b"{}")
    registry.write(f"bank/versions/{version}/.scorecard.json.abc", b"{}")


def test_pruning_removes_what_a_killed_import_has_left_a_day_ago(
    registry: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion, lost = (register(registry, tmp_path, seed, day=seed + 1) for seed in range(2))
    pointer.promote(registry, "bank", lost)
    pointer.promote(registry, "bank", champion)
    registry.remove(f"bank/versions/{lost}/version.json")
    folder = tmp_path / "models" / "bank" / "versions"
    make_leftover(registry, "20261103-120000-0123abcd")
    (folder / "20261104-120000-0123abcd").mkdir()
    (folder / "notes").mkdir()
    left = ["20261103-120000-0123abcd", "20261104-120000-0123abcd"]
    assert pruning.leftovers(registry, "bank") == [], "it may be an import that is going on"
    assert pruning.prune(registry, "bank", 0) == []
    assert all((folder / version).exists() for version in left)
    monkeypatch.setattr(pruning, "LEFTOVER_SECONDS", -1.0)
    assert pruning.leftovers(registry, "bank") == left
    assert pruning.prune(registry, "bank", 0) == []
    assert {path.name for path in folder.iterdir()} == {champion, lost, "notes"}, "the champion before can be mended"


def test_in_an_object_store_the_stores_time_says_what_is_left_over(s3: FakeS3) -> None:
    registry = StorePlace("s3://kfp/models", ObjectStore(ObjectStoreSettings.from_environment(s3.environment)))
    for day, version in enumerate(("20261103-120000-0123abcd", "20261104-120000-0123abcd")):
        make_leftover(registry, version)
        written_at = datetime.now(UTC) - timedelta(days=day + 0.5)
        s3.written_at |= {name: written_at for name in s3.objects if version in name}
    assert pruning.leftovers(registry, "bank") == ["20261104-120000-0123abcd"]
    assert pruning.prune(registry, "bank", 0) == []
    assert [name for name in s3.objects if "20261104" in name] == []
    assert len(s3.objects) == 2


def test_a_promotion_that_was_decided_before_a_pruning_is_refused(registry: Place, tmp_path: Path) -> None:
    made = [register(registry, tmp_path, seed, day=seed + 1) for seed in range(3)]
    pointer.promote(registry, "bank", made[1])
    seen = pointer.read(registry, "bank")
    pruning.prune(registry, "bank", 1)
    with pytest.raises(InputError):
        pointer.promote(registry, "bank", made[0], seen=seen)
    assert pointer.read(registry, "bank").version == made[1]


@pytest.mark.parametrize("target", ["backup.tar.gz", "backup.tar", "backup"])
def test_a_version_goes_out_and_comes_back_the_same(registry: Place, tmp_path: Path, target: str) -> None:
    version = register(registry, tmp_path)
    archive.export(registry, "bank", [version], str(tmp_path / target))
    other = DirectoryPlace(tmp_path / "other")
    (document,) = archive.import_versions(str(tmp_path / target), other)
    assert document == versions.verify(registry, "bank", version) == versions.verify(other, "bank", version)
    (renamed,) = archive.import_versions(str(tmp_path / target), other, new_name="copy")
    assert (renamed["name"], renamed["version"]) == ("copy", version)


def test_a_damaged_archive_is_refused_whole(registry: Place, tmp_path: Path) -> None:
    version = register(registry, tmp_path)
    folder = tmp_path / "models" / "bank" / "versions" / version
    changed = json.loads((folder / "version.json").read_text())
    changed["files"][0]["sha256"] = "0" * 64
    archive.export(registry, "bank", [version], str(tmp_path / "backup"))
    backup = tmp_path / "backup" / "bank" / "versions" / version
    other = DirectoryPlace(tmp_path / "other")
    (backup / "scorecard.json").write_text("changed")
    with pytest.raises(InputError, match="was changed"):
        archive.import_versions(str(tmp_path / "backup"), other)
    (backup / "version.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="do not fit its ID"):
        archive.import_versions(str(tmp_path / "backup"), other)
    assert not other.root.exists()


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "evil.tar", "w") as made:
        made.add(tmp_path / "evil", "../../evil")
    for name, text in (("evil.tar", "holds no version"), ("none.tar", "no such file")):
        with pytest.raises(InputError, match=text):
            archive.import_versions(str(tmp_path / name), DirectoryPlace(tmp_path / "other"))
    (tmp_path / "text.tar").write_text("hello")
    with pytest.raises(InputError, match="no archive"):
        archive.import_versions(str(tmp_path / "text.tar"), DirectoryPlace(tmp_path / "other"))


def test_a_move_whose_answer_was_lost_is_known_as_our_own(s3: FakeS3, tmp_path: Path) -> None:
    store = ObjectStore(ObjectStoreSettings.from_environment(s3.environment))
    registry = StorePlace("s3://kfp/models", store)
    a, b = register(registry, tmp_path, 0), register(registry, tmp_path, 1)
    pointer.promote(registry, "bank", a)
    seen = pointer.read(registry, "bank")
    s3.faults = ["lost"]
    won = pointer.move_pointer(registry, seen, pointer.PROMOTE, "", version=b)
    assert (won.version, won.move) == (b, 2)
    assert [move.version for move in pointer.read(registry, "bank").history] == [a, b]


def test_a_store_that_heeds_no_condition_is_refused(s3: FakeS3, tmp_path: Path) -> None:
    s3.compares = False
    registry = StorePlace("s3://kfp/models", ObjectStore(ObjectStoreSettings.from_environment(s3.environment)))
    with pytest.raises(InputError, match="ignores the condition"):
        register(registry, tmp_path)
    assert versions.versions_of(registry, "bank") == []


def killed(folder: Path, times: int, seed: int, promoters: int) -> str:
    paths = os.pathsep.join([str(HERE), str(HERE.parents[2])])
    command = [sys.executable, str(HERE / "killed.py"), str(folder), str(times), str(seed), str(promoters)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("promoters", [1, 2])
def test_a_kill_at_a_random_moment_leaves_the_old_champion_or_the_new_one(tmp_path: Path, promoters: int) -> None:
    assert f"100 times, {promoters} at once" in killed(tmp_path, 100, 1, promoters)


@pytest.mark.slow
@pytest.mark.parametrize("promoters", [1, 2])
def test_a_thousand_kills(tmp_path: Path, promoters: int) -> None:
    assert f"1000 times, {promoters} at once" in killed(tmp_path, 1000, 2, promoters)
