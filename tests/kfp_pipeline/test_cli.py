"""The command line: every setting has a flag, and what is wrong is told before anything starts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_pipeline import cli, server_cli
from kfp_pipeline.cli import main, make_parser
from spark_jobs.contract import ARGUMENTS, LoadArgs, Step, flag, settings_of

SETTINGS = [(step, name) for step, kind in ARGUMENTS.items() for name in settings_of(kind)]


def parser_of(*words: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    parser = make_parser()
    for word in words:
        (found,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        parser = found.choices[word]
    return parser


def flags(*words: str) -> dict[str, argparse.Action]:
    """The flags of a command."""
    return {name: action for action in parser_of(*words)._actions for name in action.option_strings}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_java: Callable[[str], Path]) -> Path:
    """An empty folder, with a Java, and a pipeline that must not start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAVA_HOME", str(make_java("17")))
    monkeypatch.setattr(cli, "run_locally", lambda *_: pytest.fail("the pipeline was started"))
    return tmp_path


@pytest.mark.parametrize(("step", "name"), [(step, name) for step, name in SETTINGS if name != "specification_uri"])
def test_every_setting_of_the_contract_is_a_flag_of_run_with_its_default(step: Step, name: str) -> None:
    action = flags("run")[flag(name)]
    assert action.default == settings_of(ARGUMENTS[step])[name]
    assert action.help


def test_no_flag_of_run_is_unknown_to_the_contract_but_those_of_the_command() -> None:
    of_the_command = {"-h", "--help", "--spec", "--spark", "--runs", "--run-id", "--no-cache", "--json"}
    of_the_command |= {"--kfp", "--wait"} | {"--" + name.replace("_", "-") for name in server_cli.ONLY_ON_A_SERVER}
    assert set(flags("run")) - of_the_command == {flag(name) for _, name in SETTINGS if name != "specification_uri"}


def test_every_setting_of_load_is_a_flag_of_data_check() -> None:
    known = {flag(name) for name in settings_of(LoadArgs) if name != "specification_uri"}
    assert known <= set(flags("data", "check"))


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    "words",
    [
        ["run", "data.csv", "--nonsense"],
        ["run", "data.csv", "--reg-para=1"],  # no abbreviations: a typing error must not become another setting
        ["run", "data.csv", "--max-iter=many"],
        ["run", "data.csv", "--family=normal"],
        ["nonsense"],
        ["runs", "compare", "one"],
        [],
    ],
)
def test_an_unknown_flag_or_value_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: spark-kfp" in capsys.readouterr().err


@pytest.mark.usefixtures("empty")
def test_without_data_outside_the_project_the_error_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run"]) == 2
    assert capsys.readouterr().err == (
        "spark-kfp: error: data/bank_sample.csv is not here; name your data: spark-kfp run DATA --label=NAME\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reg-param=-1"], "--reg-param is -1.0; allowed: regularisation strength, 0 or more"),
        (["--train-fraction=0.9", "--validation-fraction=0.1"], "leave no test rows"),
        (["--bootstrap-samples=1"], "--bootstrap-samples is 1; allowed: "),
    ],
)
def test_a_setting_out_of_its_range_is_told_before_anything_starts(
    empty: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "data.csv", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("spark-kfp: error: ")
    assert message in error
    assert not (empty / "runs").exists()


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SPARK_KFP_DRIVER_MEMORY_MIB", "2g", "SPARK_KFP_DRIVER_MEMORY_MIB is '2g'; it must be a whole number"),
        ("SPARK_KFP_REUSE", "maybe", "SPARK_KFP_REUSE is 'maybe'; it must be true or false"),
    ],
)
def test_a_wrong_environment_variable_is_told(
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    assert main(["run", "data.csv"]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The pipeline's inputs that a command line gives."""
    monkeypatch.chdir(tmp_path)

    def inputs(*words: str) -> dict[str, Any]:
        seen = {}

        def stop(_: str, inputs: dict[str, Any], *__: object) -> None:
            seen.update(inputs)
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "run_locally", stop)
        assert main(["run", *words]) == 130
        return seen

    return inputs


def test_the_sample_and_its_specification_are_taken_when_no_data_is_named(
    given: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bank_sample.csv").write_text("")
    sample = str(tmp_path / "data" / "bank_sample.csv")
    inputs = given()
    assert inputs["data_uri"] == sample
    assert inputs["specification_uri"] == str(tmp_path / "data" / "bank.toml")
    assert given("--label=deposit")["specification_uri"] == ""
    assert given("--spec=other.toml")["specification_uri"] == str(tmp_path / "other.toml")


def test_a_path_becomes_absolute_and_a_uri_stays(given: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    assert given("a b.csv", "--spec=s.toml")["data_uri"] == str(tmp_path / "a b.csv")
    assert given("s3a://bucket/x.csv")["data_uri"] == "s3a://bucket/x.csv"
    assert given("file:///x.csv")["data_uri"] == "file:///x.csv"


def test_every_input_of_the_pipeline_is_given(given: Callable[..., dict[str, Any]]) -> None:
    from kfp_pipeline.training import parameters

    assert set(given("data.csv", "--reg-param=0.5")) == set(parameters())


def test_compile_writes_the_pipeline(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "-o", "pipeline.yaml"]) == 0
    assert capsys.readouterr().out == "pipeline.yaml\n"
    assert next(yaml.safe_load_all((empty / "pipeline.yaml").read_text()))["pipelineInfo"]["name"]


@pytest.mark.usefixtures("empty")
def test_compile_into_a_folder_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "-o", "nowhere/pipeline.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("spark-kfp: error: nowhere")
    assert len(error.splitlines()) == 1


@pytest.mark.usefixtures("empty")
def test_compile_into_a_file_of_another_kind_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "-o", "pipeline.txt"]) == 2
    assert "yaml" in capsys.readouterr().err


@pytest.mark.usefixtures("empty")
def test_without_runs_the_list_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_run_that_cannot_be_read_does_not_hide_the_others(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = {"id": "whole", "status": "succeeded", "inputs": {}, "started": 1.0}
    for name, text in (("whole", json.dumps(whole)), ("broken", "{")):
        (empty / "runs" / name).mkdir(parents=True)
        (empty / "runs" / name / "run.json").write_text(text)
    assert main(["runs", "list", "--json"]) == 0
    assert [run["id"] for run in json.loads(capsys.readouterr().out)] == ["whole"]


def test_data_check_does_not_replace_a_specification_unasked(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "data.toml").write_text("mine")
    assert main(["data", "check", "data.csv", "--label=label"]) == 2
    assert "data.toml is there already; give --force to replace it, or -o with another name" in capsys.readouterr().err
    assert (empty / "data.toml").read_text() == "mine"
