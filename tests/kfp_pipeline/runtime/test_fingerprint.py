"""What is taken over from an earlier run, and what is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from kfp_pipeline.runtime import fingerprint
from kfp_pipeline.runtime.fingerprint import (
    record_finished_step,
    reuse_finished_step,
    take_over_unfinished,
    write_atomically,
)
from kfp_pipeline.runtime.spark_submit.runner import read_result, step_program
from spark_jobs.contract import EvaluateArgs, LoadArgs, PreprocessArgs, Step, TuneArgs
from spark_jobs.result import Result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data.csv").write_text("x,label\n1,yes\n")
    return tmp_path / "data.csv"


def key_of_load(data: Path, **settings: Any) -> str:
    return fingerprint.fingerprint(Step.LOAD, LoadArgs(data_uri=str(data), output_uri="/of/this/run", **settings))


def test_the_same_data_and_settings_have_the_same_fingerprint(data: Path) -> None:
    first = key_of_load(data, label="label")
    os.utime(data, (1, 1))
    args = LoadArgs(data_uri=str(data), label="label", output_uri="/of/another/run")
    assert fingerprint.fingerprint(Step.LOAD, args) == first != ""


def test_a_copied_specification_in_the_same_place_has_the_same_fingerprint(data: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.toml").write_text("a = 1")
    first = key_of_load(data, specification_uri=str(tmp_path / "spec.toml"))
    (tmp_path / "spec.toml").write_text("a = 1")
    assert key_of_load(data, specification_uri=str(tmp_path / "spec.toml")) == first
    (tmp_path / "spec.toml").write_text("a = 2")
    assert key_of_load(data, specification_uri=str(tmp_path / "spec.toml")) != first


def test_changed_contents_of_the_same_size_and_time_have_another_fingerprint(data: Path) -> None:
    os.utime(data, (1, 1))
    first = key_of_load(data)
    data.write_text("x,label\n2,yes\n")
    os.utime(data, (1, 1))
    assert key_of_load(data) != first


def test_a_changed_setting_has_another_fingerprint(data: Path) -> None:
    keys = [key_of_load(data), key_of_load(data, label="label"), key_of_load(data, max_rejected_fraction=0.02)]
    assert len(set(keys)) == 3


def test_data_of_another_name_have_another_fingerprint(data: Path) -> None:
    first = key_of_load(data)
    assert key_of_load(data.rename(data.with_name("renamed.csv"))) != first


@pytest.mark.parametrize("pattern", ["table", "table/*", "table/**/*.csv"])
def test_of_a_directory_or_a_pattern_every_file_counts(tmp_path: Path, pattern: str) -> None:
    for name in ("day=1/part.csv", "day=2/part.csv"):
        (tmp_path / "table" / name).parent.mkdir(parents=True)
        (tmp_path / "table" / name).write_text(name)
    keys = [key_of_load(tmp_path / pattern)]
    (tmp_path / "table" / "day=2" / "part.csv").write_text("changed")
    keys.append(key_of_load(tmp_path / pattern))
    (tmp_path / "table" / "day=2").rename(tmp_path / "table" / "day=3")  # the folder's name is a column's value
    keys.append(key_of_load(tmp_path / pattern))
    (tmp_path / "table" / "day=3" / "more.csv").write_text("more")
    keys.append(key_of_load(tmp_path / pattern))
    assert "" not in keys
    assert len(set(keys)) == 4


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the steps' code with a subfolder, whose code counts from now on."""
    copy = tmp_path / "code" / "spark_jobs"
    shutil.copytree(step_program().parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "estimators" / "deep").mkdir(parents=True)
    (copy / "estimators" / "deep" / "trees.py").write_text("DEPTH = 5\n")
    monkeypatch.setattr(fingerprint, "step_program", lambda: copy / "__main__.py")
    return copy


def test_the_same_code_elsewhere_has_the_same_fingerprint(data: Path, code: Path, tmp_path: Path) -> None:
    first = key_of_load(data)
    for name in (".train.py.swp", "__pycache__/train.cpython-311.pyc", "estimators/__pycache__/x.cpython-311.pyc"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text("made by a tool")
    assert key_of_load(data) == first
    shutil.move(code, tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", code)
    assert key_of_load(data) == first


@pytest.mark.parametrize("name", ["train.py", "report.html.j2", "estimators/deep/trees.py"])
def test_changed_code_has_another_fingerprint(data: Path, code: Path, name: str) -> None:
    first = key_of_load(data)
    with (code / name).open("a") as file:
        file.write("\n")
    assert key_of_load(data) != first


def test_code_in_another_folder_has_another_fingerprint(data: Path, code: Path) -> None:
    first = key_of_load(data)
    (code / "estimators" / "deep").rename(code / "estimators" / "shallow")
    assert key_of_load(data) != first


def test_another_pyspark_has_another_fingerprint(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = key_of_load(data)
    monkeypatch.setattr(fingerprint, "version", lambda _: "4.3.1")
    assert key_of_load(data) != first


def test_a_repeated_step_takes_over_what_an_attempt_that_did_not_end_has_kept(tmp_path: Path) -> None:
    first, second, other = (
        TuneArgs(preprocess_uri="p", output_uri=str(tmp_path / name), report_uri="r")
        for name in ("first", "second", "other")
    )
    take_over_unfinished(tmp_path / "runs", "key", first)
    assert not (tmp_path / "first").exists()
    write_atomically(tmp_path / "first" / "journal.json", "trials")
    take_over_unfinished(tmp_path / "runs", "key", second)
    take_over_unfinished(tmp_path / "runs", "another key", other)
    assert (tmp_path / "second" / "journal.json").read_text() == "trials"
    assert not (tmp_path / "other").exists()
    shutil.rmtree(tmp_path / "second")  # the user has removed the run
    take_over_unfinished(tmp_path / "runs", "key", first)
    assert (tmp_path / "first" / "journal.json").read_text() == "trials"


def test_a_step_that_keeps_nothing_unfinished_takes_nothing_over(tmp_path: Path) -> None:
    take_over_unfinished(tmp_path / "runs", "key", LoadArgs(data_uri="d", label="x", output_uri=str(tmp_path / "out")))
    assert list(tmp_path.iterdir()) == []


def leave(directory: Path, key: str, status: str = "succeeded") -> str:
    """Leaves a result document as an earlier step with a fingerprint does, and returns the step's URI."""
    arguments = {"output_uri": str(directory)}
    result = Result(step="load", status=status, digest="digest of the rows", arguments=arguments)
    record_finished_step(directory.parent / "runs", key, result)
    return str(directory)


def key_of_preprocess(load_uri: str) -> str:
    return fingerprint.fingerprint(Step.PREPROCESS, PreprocessArgs(load_uri=load_uri, output_uri="/out"))


def test_what_came_before_counts_by_its_fingerprint_and_not_by_its_place(tmp_path: Path) -> None:
    def key(name: str, earlier: str, status: str = "succeeded") -> str:
        return key_of_preprocess(leave(tmp_path / name, earlier, status))

    first = key("one", "abc")
    assert first != ""
    assert key("two", "abc") == first
    assert key("one", "abd") != first
    assert key("one", "abc", "failed") == ""


def test_equal_rows_under_another_specification_have_another_fingerprint(data: Path, tmp_path: Path) -> None:
    keys = []
    for base_rate in ("0.1", "0.2"):
        (tmp_path / "spec.toml").write_text(f"base_rate = {base_rate}")
        earlier = key_of_load(data, specification_uri=str(tmp_path / "spec.toml"))
        keys.append(key_of_preprocess(leave(tmp_path / f"load-{base_rate}", earlier)))
    assert "" not in keys
    assert keys[0] != keys[1]


def test_after_a_step_that_was_made_outside_a_run_nothing_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(Result(step="load", status="succeeded", digest="abc").to_json())
    assert key_of_preprocess(str(tmp_path)) == ""


def test_swapped_inputs_have_another_fingerprint(tmp_path: Path) -> None:
    one, two = leave(tmp_path / "one", "1"), leave(tmp_path / "two", "2")
    common = {"report_uri": "/report", "output_uri": "/out"}
    first = fingerprint.fingerprint(Step.EVALUATE, EvaluateArgs(preprocess_uri=one, train_uri=two, **common))
    assert fingerprint.fingerprint(Step.EVALUATE, EvaluateArgs(preprocess_uri=two, train_uri=one, **common)) != first


def test_missing_data_has_no_fingerprint(tmp_path: Path) -> None:
    assert key_of_load(tmp_path / "nothing.csv") == ""
    (tmp_path / "empty").mkdir()
    assert key_of_load(tmp_path / "empty") == ""


@pytest.fixture
def finished(tmp_path: Path) -> Callable[[str], EvaluateArgs]:
    """Makes a finished evaluation of a run and remembers it under the key `key`."""

    def make(name: str) -> EvaluateArgs:
        run = tmp_path / name
        args = EvaluateArgs(
            preprocess_uri="/p", train_uri="/t", report_uri=str(run / "report"), output_uri=str(run / "evaluation")
        )
        (run / "evaluation" / "deep" / "deeper").mkdir(parents=True)
        (run / "evaluation" / "evaluation.json").write_text("{}")
        (run / "evaluation" / "deep" / "deeper" / "part").write_text("rows")
        (run / "evaluation" / "deep" / "_SUCCESS").write_text("")
        (run / "report").write_text("<html>")
        uris = {"output": args.output_uri, "deep": f"{args.output_uri}/deep", "report": args.report_uri, "data": "/d"}
        result = Result(
            step="evaluate", status="succeeded", arguments=asdict(args), digest="abc", uris=uris, seconds={"total": 9.0}
        )
        (run / "evaluation" / "result.json").write_text(result.to_json())
        record_finished_step(tmp_path / "runs", "key", result)
        return args

    return make


def moved(args: EvaluateArgs, tmp_path: Path, name: str = "later") -> EvaluateArgs:
    return replace(args, output_uri=str(tmp_path / name / "evaluation"), report_uri=str(tmp_path / name / "report"))


def contents(directory: Path) -> dict[str, str]:
    """Every file below a directory but the result document."""
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in directory.rglob("*")
        if path.is_file() and path.name != "result.json"
    }


def test_a_whole_directory_is_taken_over_by_links(finished: Callable[[str], EvaluateArgs], tmp_path: Path) -> None:
    earlier = finished("earlier")
    later = moved(earlier, tmp_path)
    result = reuse_finished_step(tmp_path / "runs", "key", later)
    assert result is not None
    assert len(contents(tmp_path / "later")) == 4
    assert contents(tmp_path / "later") == contents(tmp_path / "earlier")
    for name in contents(tmp_path / "later"):
        assert (tmp_path / "later" / name).samefile(tmp_path / "earlier" / name)
    assert result == read_result(Path(later.output_uri))


def test_what_is_taken_over_speaks_of_its_own_place_and_says_where_it_is_from(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path
) -> None:
    earlier = finished("earlier")
    later = moved(earlier, tmp_path)
    result = reuse_finished_step(tmp_path / "runs", "key", later)
    assert result is not None
    assert result.uris == {
        "output": later.output_uri,
        "deep": f"{later.output_uri}/deep",
        "report": later.report_uri,
        "data": "/d",
    }
    assert result.arguments == asdict(later)
    assert result.reused_from == earlier.output_uri
    assert result.digest == "abc"
    original = read_result(Path(earlier.output_uri))
    assert original is not None
    assert original.reused_from == ""
    assert original.uris["output"] == earlier.output_uri


def test_a_uri_that_only_begins_like_the_earlier_output_is_left_as_it_is(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path
) -> None:
    earlier = finished("earlier")
    document = Path(earlier.output_uri) / "result.json"
    result = json.loads(document.read_text())
    result["uris"]["other"] = earlier.output_uri + "-of-another/x"
    document.write_text(json.dumps(result))
    taken = reuse_finished_step(tmp_path / "runs", "key", moved(earlier, tmp_path))
    assert taken is not None
    assert taken.uris["other"] == earlier.output_uri + "-of-another/x"


def test_nothing_is_taken_over_that_is_not_there(finished: Callable[[str], EvaluateArgs], tmp_path: Path) -> None:
    earlier = finished("earlier")
    later = moved(earlier, tmp_path)
    runs = tmp_path / "runs"
    assert reuse_finished_step(runs, "another key", later) is None
    (tmp_path / "earlier" / "report").unlink()
    assert reuse_finished_step(runs, "key", later) is None
    (tmp_path / "earlier" / "report").write_text("<html>")
    shutil.rmtree(earlier.output_uri)
    assert reuse_finished_step(runs, "key", later) is None
    assert not (tmp_path / "later").exists()


@pytest.mark.parametrize("note", ["", "{", "[]", "{}"])
def test_a_note_that_cannot_be_read_is_passed_over(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path, note: str
) -> None:
    later = moved(finished("earlier"), tmp_path)
    (tmp_path / "runs" / ".finished" / "key.json").write_text(note)
    assert reuse_finished_step(tmp_path / "runs", "key", later) is None


def test_a_failed_step_is_not_taken_over(finished: Callable[[str], EvaluateArgs], tmp_path: Path) -> None:
    earlier = finished("earlier")
    leave(Path(earlier.output_uri), "abc", "failed")
    assert reuse_finished_step(tmp_path / "runs", "key", moved(earlier, tmp_path)) is None


def test_files_are_copied_where_they_cannot_be_linked(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    earlier = finished("earlier")
    assert reuse_finished_step(tmp_path / "runs", "key", moved(earlier, tmp_path)) is not None
    assert contents(tmp_path / "later") == contents(tmp_path / "earlier")
    assert not (tmp_path / "later" / "report").samefile(tmp_path / "earlier" / "report")


def test_removing_the_earlier_run_leaves_the_later_whole(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path
) -> None:
    earlier = finished("earlier")
    whole = contents(tmp_path / "earlier")
    later = moved(earlier, tmp_path)
    result = reuse_finished_step(tmp_path / "runs", "key", later)
    shutil.rmtree(tmp_path / "earlier")
    assert contents(tmp_path / "later") == whole
    assert read_result(Path(later.output_uri)) == result


def test_what_was_taken_over_can_be_taken_over_when_the_first_is_gone(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path
) -> None:
    earlier = finished("earlier")
    result = reuse_finished_step(tmp_path / "runs", "key", moved(earlier, tmp_path))
    assert result is not None
    record_finished_step(tmp_path / "runs", "key", result)
    shutil.rmtree(tmp_path / "earlier")
    assert reuse_finished_step(tmp_path / "runs", "key", moved(earlier, tmp_path, "third")) is not None


def test_what_an_earlier_attempt_left_in_the_output_is_gone_after_reuse(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path
) -> None:
    later = moved(finished("earlier"), tmp_path)
    (Path(later.output_uri) / "deep").mkdir(parents=True)
    (Path(later.output_uri) / "deep" / "half-written").write_text("of a killed attempt")
    assert reuse_finished_step(tmp_path / "runs", "key", later) is not None
    assert contents(tmp_path / "later") == contents(tmp_path / "earlier")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_atomically(tmp_path / "sub" / "file", "first")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(tmp_path / "sub" / "file", "second \ud800")
    assert contents(tmp_path) == {"sub/file": "first"}


def test_a_reuse_that_is_killed_leaves_nothing_that_looks_finished(
    finished: Callable[[str], EvaluateArgs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = moved(finished("earlier"), tmp_path)

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fingerprint, "write_atomically", kill)
    with pytest.raises(KeyboardInterrupt):
        reuse_finished_step(tmp_path / "runs", "key", later)
    assert contents(tmp_path / "later") == contents(tmp_path / "earlier")
    assert read_result(Path(later.output_uri)) is None
