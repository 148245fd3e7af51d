"""`spark-kfp models`: a finished run becomes a version, the gate is asked, the pointer moves, versions go out and come back."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kfp_pipeline.commands.main import main
from kfp_pipeline.local import runs
from spark_jobs.registry import pointer, pruning, versions
from spark_jobs.registry.places import place_of
from spark_jobs.registry.version_document import to_json

sys.path.insert(0, str(Path(__file__).parents[2] / "spark_jobs" / "registry"))

from finished_run import finished_run


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_run(tmp_path: Path, seed: int, value: float = 0.88, *, rows: int = 800) -> str:
    """Writes a finished run whose candidate has this areaUnderROC; returns its name."""
    run_id = f"run{seed}"
    outputs = finished_run(tmp_path / "runs" / run_id, seed=seed, finished_at=f"2026-11-{seed + 1:02}T12:00:00+00:00")
    path = Path(outputs.evaluate_uri) / "evaluation.json"
    evaluation = json.loads(path.read_text())
    evaluation |= {
        "metrics": [{"name": "areaUnderROC", "value": value, "low": value - 0.02, "high": value + 0.02}],
        "left_out": {"areaUnderROC": [value + 0.001 * (n % 5) for n in range(20)]},
        "digests": {"data": "d"},
        "split": {
            "rows": {"train": 3000, "test": rows},
            "class_fractions": {name: {"no": 0.5, "yes": 0.5} for name in ("train", "test")},
        },
    }
    path.write_text(json.dumps(evaluation))
    steps = {
        step: {"step": step, "state": "done", "uri": vars(outputs)[f"{step}_uri"]}
        for step in ("load", "preprocess", "train", "evaluate")
    }
    run = runs.Run(id=run_id, status="succeeded", inputs={}, started=time.time(), ended=time.time(), steps=steps)
    runs.save(tmp_path / "runs" / run_id, run)
    return run_id


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    assert main(["models", *words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_the_last_run_becomes_the_champion_and_a_worse_one_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, 0)
    first = printed(capsys, "promote", "bank", "last")
    assert first["promoted"]
    assert first["pointer"]["version"] == first["version"]
    assert (tmp_path / "models" / "bank" / "champion.json").exists()
    make_run(tmp_path, 1, 0.80)
    worse = printed(capsys, "promote", "bank", "last", code=1)
    assert not worse["promoted"]
    assert [each["rule"] for each in worse["verdicts"] if not each["passed"]] == ["not worse than the champion"]
    assert worse["pointer"]["version"] == first["version"]
    listed = printed(capsys, "list", "bank")
    assert [each["version"] for each in listed["versions"]] == [first["version"], worse["version"]], (
        "it is registered all the same"
    )
    forced = printed(capsys, "promote", "bank", worse["version"], "--force")
    assert forced["promoted"]
    assert forced["pointer"]["history"][-1]["why"] == "forced"
    assert printed(capsys, "rollback", "bank", "--why", "it was worse")["version"] == first["version"]


def test_the_floors_of_a_rules_file_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0)
    (tmp_path / "gate.toml").write_text("[minimum]\nareaUnderROC = 0.9\n")
    assert main(["models", "promote", "bank", "run0"]) == 1
    out = capsys.readouterr().out
    assert "floors" in out
    assert "there is still no champion" in out
    assert printed(capsys, "list")[0]["version"] == ""


def test_too_few_test_rows_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0, rows=20)
    (refused,) = [each for each in printed(capsys, "promote", "bank", "last", code=1)["verdicts"] if not each["passed"]]
    assert refused["rule"] == "enough rows"
    assert refused["numbers"] == {"no": 10, "yes": 10, "limit": 30}


def test_a_metric_or_rules_that_cannot_be_used_are_wrong_input_and_register_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, 0)
    (tmp_path / "other.toml").write_text("[minimum]\nauc = 0.9\n")
    for words, said in (
        (["--metric", "foo"], "--metric: the evaluation has no metric 'foo'; it has areaUnderROC"),
        (["--rules", "none.toml"], "none.toml: No such file"),
        (["--rules", "other.toml"], "other.toml: the evaluation has no metric 'auc'"),
    ):
        assert main(["models", "promote", "bank", "last", *words]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_version_can_be_registered_alone_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0)
    make_run(tmp_path, 1, 0.89)
    one, other = (printed(capsys, "promote", "bank", f"run{n}", "--no-promote")["version"] for n in range(2))
    assert printed(capsys, "list")[0]["version"] == ""
    compared = printed(capsys, "compare", "bank", one, "latest")
    assert compared["versions"] == [one, other]
    assert compared["comparison"]["differences"][0]["value"] == pytest.approx(0.01)
    for words in (["show", "bank"], ["list"], ["list", "bank"], ["compare", "bank", one, other]):
        assert main(["models", *words]) == 0
        assert other in capsys.readouterr().out or words == ["list"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document.pop("metrics"), "it has no metrics"),
        (lambda document: document.pop("model"), "it has no model.kind"),
        (lambda document: document["metrics"][0].update(value="high"), "value of areaUnderROC is 'high'"),
        (lambda document: document["metrics"][0].update(value=0.9999), "it was changed"),
    ],
)
def test_of_a_damaged_version_one_line_says_so_and_the_others_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], object], said: str
) -> None:
    for seed in range(2):
        make_run(tmp_path, seed)
    whole, damaged = (printed(capsys, "promote", "bank", f"run{n}", "--no-promote")["version"] for n in range(2))
    path = tmp_path / "models" / "bank" / "versions" / damaged / "version.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    assert main(["models", "list", "bank"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert whole in lines[1]
    assert damaged in lines[2]
    assert said in lines[2]
    listed = printed(capsys, "list", "bank")
    assert ([each["version"] for each in listed["versions"]], listed["damaged"][0]["version"]) == ([whole], damaged)
    assert main(["models", "show", "bank", whole]) == 0
    assert damaged not in capsys.readouterr().out
    for words in (["show", "bank", damaged], ["promote", "bank", damaged, "--force"], ["promote", "bank", "latest"]):
        assert main(["models", *words]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert printed(capsys, "list")[0]["version"] == ""


def test_a_canary_gets_a_share_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        make_run(tmp_path, seed)
    printed(capsys, "promote", "bank", "run0")
    version = printed(capsys, "promote", "bank", "run1", "--no-promote")["version"]
    canary = {"version": version, "share": 0.2, "passed_beside": ""}
    assert printed(capsys, "canary", "bank", "latest", "--share", "0.2")["canary"] == canary
    document = json.loads((tmp_path / "models" / "bank" / "champion.json").read_text())
    assert document["canary"] == canary
    assert printed(capsys, "canary", "bank", "--end")["canary"] is None


@pytest.mark.parametrize(
    ("share", "shown"), [("0.9999", ("0.01%", "99.99%")), ("0.1", ("90%", "10%")), ("0.001", ("99.9%", "0.1%"))]
)
def test_a_share_is_not_rounded_to_none_or_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], share: str, shown: tuple[str, str]
) -> None:
    for seed in range(2):
        make_run(tmp_path, seed)
    champion = printed(capsys, "promote", "bank", "run0")["version"]
    version = printed(capsys, "promote", "bank", "run1", "--no-promote")["version"]
    assert main(["models", "canary", "bank", version, "--share", share]) == 0
    assert f"{champion} {shown[0]}, {version} {shown[1]} of the requests" in capsys.readouterr().out
    assert main(["models", "list", "bank"]) == 0
    out = capsys.readouterr().out
    assert f"champion {shown[0]} " in out
    assert f"canary {shown[1]} " in out
    assert main(["models", "show", "bank"]) == 0
    assert f"{version} gets {shown[1]}" in capsys.readouterr().out


def test_a_canary_that_has_passed_the_gate_beside_this_champion_is_not_compared_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, 0)
    make_run(tmp_path, 1, 0.7)
    first = printed(capsys, "promote", "bank", "run0")["version"]
    version = printed(capsys, "promote", "bank", "run1", "--no-promote")["version"]
    registry = place_of("models")
    for beside, code in (("another", 1), (first, 0)):
        pointer.set_canary(registry, "bank", pointer.Canary(version=version, share=0.2, passed_beside=beside))
        assert printed(capsys, "promote", "bank", version, code=code)["promoted"] == (code == 0)
    assert pointer.read(registry, "bank").canary is None


def test_versions_go_out_and_come_back_and_old_ones_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(4):
        make_run(tmp_path, seed)
        printed(capsys, "promote", "bank", f"run{seed}")
    assert len(printed(capsys, "export", "bank", "all", "backup.tar.gz")) == 4
    assert len(printed(capsys, "prune", "bank", "--keep", "1", "--dry-run")["prunable"]) == 2
    assert len(printed(capsys, "prune", "bank", "--keep", "1")["removed"]) == 2
    assert len(printed(capsys, "list", "bank")["versions"]) == 2
    assert len(printed(capsys, "import", "backup.tar.gz")) == 4
    assert len(printed(capsys, "list", "bank")["versions"]) == 4
    assert len(printed(capsys, "import", "backup.tar.gz", "--registry", "other", "--name", "copy")) == 4


def test_what_a_killed_import_has_left_goes_though_there_is_no_version(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = "20261103-120000-0123abcd"
    place_of("models").write(f"bank/versions/{version}/scorecard.json", b"{}")
    assert main(["models", "prune", "bank"]) == 2
    assert "has no model" in capsys.readouterr().err
    monkeypatch.setattr(pruning, "LEFTOVER_SECONDS", -1.0)
    assert printed(capsys, "prune", "bank", "--dry-run") == {"removed": [], "prunable": [], "unfinished": [version]}
    assert main(["models", "prune", "bank"]) == 0
    assert f"removed nothing\nand what was left of {version}" in capsys.readouterr().out
    assert list((tmp_path / "models" / "bank" / "versions").iterdir()) == []


def test_text_from_outside_cannot_steer_the_terminal_or_fake_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, 0)
    version = printed(capsys, "promote", "bank", "last")["version"]
    registry, evil = place_of("models"), "\x1b[2J\u009b2J\u202e\u2028\nfake"
    document = versions.read(registry, "bank", version)
    registry.write(f"bank/versions/{version}/version.json", to_json({**document, "run": evil, "label": "f\xfcr"}))
    pointer.move_pointer(registry, pointer.read(registry, "bank"), pointer.PROMOTE, evil, version=version)
    assert main(["models", "show", "bank"]) == 0
    out = capsys.readouterr().out
    assert out.count("\\u001b[2J\\u009b2J\\u202e\\u2028\\nfake") == 2
    assert "f\xfcr" in out
    assert main(["models", "show", "bank", "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["version"]["run"] == evil
    assert main(["models", "show", "bank", evil]) == 2
    for text in (out, shown, capsys.readouterr().err):
        assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("why", ["a\nb", "\x1b[2J", "a\u2028b", "\udce4"])
def test_a_reason_is_one_line_of_text(capsys: pytest.CaptureFixture[str], why: str) -> None:
    for words in (["promote", "bank", "last"], ["rollback", "bank"], ["canary", "bank", "--end"]):
        with pytest.raises(SystemExit, match="2"):
            main(["models", *words, "--why", why])
        assert "argument --why: it holds a line break or another control character" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["o.zip", "o.tar.bz2", "O.ZIP", "o.gz", "s3://bucket/o.tar.xz"])
def test_another_kind_of_archive_is_refused_and_no_folder_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    make_run(tmp_path, 0)
    printed(capsys, "promote", "bank", "last")
    assert main(["models", "export", "bank", "champion", target]) == 2
    assert f"{target}: an archive is .tar, .tar.gz, .tgz" in capsys.readouterr().err
    assert not (tmp_path / target).exists()
    printed(capsys, "export", "bank", "champion", "O.TAR.GZ")
    assert (tmp_path / "O.TAR.GZ").read_bytes()[:2] == b"\x1f\x8b"
    printed(capsys, "import", "O.TAR.GZ", "--registry", "models.v2")


def make_scorecard(tmp_path: Path, run_id: str) -> None:
    """Gives a run a scorecard: one number, of which the margin is half."""
    column = {"name": "x", "mean": 0.0, "indicator": False, "center": 0.0, "scale": 1.0, "splits": []}
    document = {
        "form": "linear",
        "labels": ["no", "yes"],
        "threshold": 0.5,
        "intercepts": [0.0],
        "coefficients": [[0.5]],
    }
    document |= {
        "numeric": [column],
        "categorical": [],
        "features": [{"column": "x", "kind": "numeric", "category": ""}],
    }
    (tmp_path / "runs" / run_id / "train" / "scorecard.json").write_text(json.dumps(document))


def test_a_version_goes_out_as_onnx(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    make_scorecard(tmp_path, make_run(tmp_path, 0))
    version = printed(capsys, "promote", "bank", "last")["version"]
    assert printed(capsys, "export", "bank", "champion", "out/model.onnx") == [{"name": "bank", "version": version}]
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert {each.key: each.value for each in model.metadata_props}["version"] == version
    assert [each.name for each in model.graph.input] == ["x"]


def test_what_cannot_go_out_as_onnx_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, 0)
    printed(capsys, "promote", "bank", "last")
    for words, said in (
        (["all", "s3://bucket/model.onnx"], "lies on this machine"),
        (["champion", "model.onnx"], "form 'None'"),
    ):
        assert main(["models", "export", "bank", *words]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["models", "export", "bank", "champion", "model.onnx"]) == 2
    assert "pip install 'spark-kfp[onnx]'" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["promote", "bank", "last"], "there are no runs"),
        (["promote", "../bank", "last"], "no name of a model"),
        (["promote", "bank", "last", "--no-promote", "--force"], "--force is for a promotion"),
        (["promote", "bank", "last", "--no-promote", "--why", "x"], "--why is for a promotion"),
        (["list"], "models: there is no such directory"),
        (["list", "--registry", "/nosuch/typo"], "/nosuch/typo: there is no such directory"),
        (["list", "--registry", "/dev/null"], "/dev/null: there is no such directory"),
        (["show", "bank"], "models: there is no such directory"),
        (["show", "bank", "--registry", "."], "has no model 'bank'"),
        (["list", "bank", "--registry", "."], "has no model 'bank'"),
        (["rollback", "bank"], "has had no champion before"),
        (["canary", "bank"], "either a VERSION"),
        (["canary", "bank", "x", "--end"], "either a VERSION"),
        (["prune", "bank", "--keep", "-1"], "--keep is -1"),
        (["import", "none.tar"], "no such file"),
        (["import", "none"], "none: there is no such directory"),
        (["import", "."], "holds no version"),
        (["import", "m.zip"], "m.zip: an archive is .tar, .tar.gz, .tgz"),
        (["list", "--registry", "ftp://x/y"], "ftp:// is not supported"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_registry_without_a_model_is_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--registry", "."]) == 0
    assert "there is no model in" in capsys.readouterr().out


@pytest.mark.parametrize("closed", ["models", "models/bank/versions"])
def test_a_registry_that_may_not_be_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    make_run(tmp_path, 0)
    printed(capsys, "promote", "bank", "last")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if str(path) == str(tmp_path / closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests may run as root, who may read all
    for words in (["list"], ["list", "bank"] if "bank" in closed else ["list"]):
        assert main(["models", *words]) == 2
        assert f"{tmp_path / closed}: Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space or name another place"),
        (errno.EACCES, "let its owner give you the right, or name another place"),
    ],
)
@pytest.mark.parametrize("target", ["other", "backup.tar.gz", "models"])
def test_a_place_that_cannot_be_written_is_named_with_what_helps(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    advice: str,
    target: str,
) -> None:
    for seed in range(2):
        make_run(tmp_path, seed)
    printed(capsys, "promote", "bank", "run0")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))  # like that of a full disk it has no name of a file

    monkeypatch.setattr(os, "fsync", fail)
    words = ["promote", "bank", "run1"] if target == "models" else ["export", "bank", "champion", target]
    assert main(["models", *words]) == 2
    error = capsys.readouterr().err
    assert f"error: {tmp_path / target}" in error or f"error: {target}" in error
    assert f": {os.strerror(number)}; {advice}\n" in error


def test_the_registry_is_a_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, 0)
    monkeypatch.setenv("SPARK_KFP_REGISTRY", str(tmp_path / "elsewhere"))
    printed(capsys, "promote", "bank", "last")
    assert (tmp_path / "elsewhere" / "bank" / "champion.json").exists()
