"""The command line: every setting has a flag, and what is wrong is told before anything starts."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from kfp_pipeline.commands import bundled, data_commands, local_runs, server_parser
from kfp_pipeline.commands import main as cli
from kfp_pipeline.commands import parser as command_parser
from kfp_pipeline.commands.main import main, make_parser
from kfp_pipeline.component_settings import PLATFORM_INPUTS
from spark_jobs.arguments import Role, flag
from spark_jobs.contract import ARGUMENTS, TRAINING, LoadArgs, Pipeline, Step

SETTINGS = [(step, name) for step in TRAINING.steps for name in ARGUMENTS[step].settings()]


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
    monkeypatch.setattr(local_runs, "run_locally", lambda *_: pytest.fail("the pipeline was started"))
    return tmp_path


@pytest.mark.parametrize(("step", "name"), [(step, name) for step, name in SETTINGS if name != "specification_uri"])
def test_every_setting_of_the_contract_is_a_flag_of_run_with_its_default(step: Step, name: str) -> None:
    action = flags("run")[flag(name)]
    assert action.default == ARGUMENTS[step].settings()[name]
    assert action.help


def test_no_flag_of_run_is_unknown_to_the_contract_but_those_of_the_command() -> None:
    of_the_command = {"-h", "--help", "--pipeline", "--spec", "--spark", "--runs", "--run-id", "--no-cache", "--json"}
    of_the_command |= {"--kfp", "--wait"} | {"--" + name.replace("_", "-") for name in server_parser.SERVER_ONLY_FLAGS}
    known = {flag(name) for _, name in SETTINGS if name != "specification_uri"} | {"--tune-first"}
    assert set(flags("run")) - of_the_command == known


def test_every_setting_of_a_training_that_tunes_first_is_a_flag_of_tune() -> None:
    tuned = TRAINING.for_run({"tune_first": True})
    expected = {flag(name) for name in tuned.inputs(Role.SETTING)}
    assert expected | {"--spec", "--spark", "--runs"} <= set(flags("tune"))
    assert "--reg-param" not in flags("tune")  # the search chooses it


@pytest.mark.usefixtures("empty")
def test_tune_runs_a_training_that_tunes_first_with_all_algorithms(given: Callable[..., dict[str, Any]]) -> None:
    Path("data.csv").write_text("x,label\n1,yes\n")
    inputs = given("data.csv", "--label=label", "--algorithms=random,tpe", "--trials=3", command="tune")
    words = ("data.csv", "--label=label", "--tune-first", "--algorithms=random,tpe", "--trials=3")
    assert inputs == given(*words)
    assert (inputs["tune_first"], inputs["algorithms"], inputs["trials"]) == (True, "random,tpe", 3)


def test_every_setting_of_load_is_a_flag_of_data_check() -> None:
    known = {flag(name) for name in LoadArgs.settings()}
    assert known <= set(flags("data", "check"))


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    "words",
    [
        ["run", "data.csv", "--nonsense"],
        ["run", "data.csv", "--reg-para=1"],  # no abbreviations: a typing error must not become another setting
        ["run", "data.csv", "--max-iter=many"],
        ["run", "data.csv", "--family=normal"],
        ["run", "--tune-first", "data.csv"],  # alone it means true, but not before DATA
        ["nonsense"],
        ["runs", "compare", "one"],
        [],
    ],
)
def test_an_unknown_flag_or_value_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("spark-kfp")
    assert len(error.splitlines()) == 1
    assert error.endswith("--help lists all\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "data.csv", "--seed", "1.5"], "spark-kfp run: error: --seed is '1.5'; it must be a whole number;"),
        (["run", "data.csv", "--lable=x"], "spark-kfp run: error: there is no --lable; did you mean --label?;"),
        (
            ["data", "check", "x.csv", "--lable", "x"],
            "spark-kfp data check: error: there is no --lable; did you mean --label?",
        ),
        (["submit", "pipeline", "--ouput", "s3://b"], "there is no --ouput; did you mean --output?"),
        (
            ["run", "--data", "x.csv"],
            "spark-kfp run: error: there is no --data; give DATA without a flag: spark-kfp run DATA;",
        ),
        (["run", "--data-uri=x.csv"], "there is no --data-uri; give DATA without a flag: spark-kfp run DATA;"),
        (
            ["schedule", "create", "--name=x"],
            "there is no --name; give NAME without a flag: spark-kfp schedule create NAME",
        ),
        (["rnu"], "spark-kfp: error: there is no command 'rnu'; did you mean 'run'?; spark-kfp --help lists all"),
        (["schedule", "lst"], "spark-kfp schedule: error: there is no command 'lst'; did you mean 'list'?;"),
        (["run", "data.csv", "--family=normal"], "--family is 'normal'; did you mean '"),
    ],
)
def test_a_typing_error_gets_one_sentence_with_the_nearest_name(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("error", [KeyError("x"), ValueError("bad luck"), ZeroDivisionError("x")])
def test_a_fault_of_ours_shows_its_stack_trace_and_where_to_report_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli.runs, "list_runs", fail)
    assert main(["runs", "list"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert f"{type(error).__name__}: {error}" in shown
    assert "this is a fault of spark-kfp and not of your input; please report it" in shown.splitlines()[-1]


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("value", ["1", "true"])
def test_a_setting_shows_the_stack_trace_of_every_error(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", "show", "none"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("SPARK_KFP_DEBUG", value)
    assert main(["runs", "show", "none"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.splitlines()[-1].startswith("spark-kfp: error: there are no runs in runs; start one")


@pytest.fixture
def table(empty: Path) -> Path:
    """A folder with a small table and a specification of another."""
    (empty / "data.csv").write_text("age,label\n1,yes\n2,no\n")
    (empty / "other.toml").write_text('[label]\nname = "label"\n[columns]\nnumeric = ["aeg"]\n')
    (empty / "broken.toml").write_text("[label\n")
    os.mkfifo(empty / "pipe.csv")
    return empty


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("command", [["run"], ["tune"], ["data", "check"]])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.csv"],
            "which column is the label? Give --label NAME, with one of the columns: age, label, or --spec FILE",
        ),
        (["data.csv", "--label=lable"], "data.csv: no label column 'lable'; did you mean 'label'?"),
        (["data.csv", "--spec=othr.toml"], "othr.toml: no such file; did you mean 'other.toml'"),
        (["data.csv", "--spec=broken.toml"], "broken.toml: not TOML"),
        (["data.csv", "--spec=other.toml"], "data.csv: no column 'aeg'; did you mean 'age'?"),
        (["dta.csv", "--label=label"], "dta.csv: no such file; did you mean 'data.csv'?"),
        (
            ["s3://bucket/data.csv", "--label=label"],
            "s3://bucket/data.csv: this command reads files of this machine only; copy it here, or run on a cluster: spark-kfp run --kfp",
        ),
        (
            ["hdfs://host/data.csv", "--label=label"],
            "hdfs://host/data.csv: hdfs:// is not supported; give a path, or a URI",
        ),
        (
            ["data.csv", "--spec=s3://bucket/spec.toml"],
            "s3://bucket/spec.toml: this command reads files of this",
        ),
        (
            ["data.csv", "--spec=gs://bucket/spec.toml"],
            "gs://bucket/spec.toml: gs:// is not supported; give a path",
        ),
        (["pipe.csv", "--label=label"], "pipe.csv is no file but a pipe or a device, which can be read only once"),
    ],
)
def test_what_can_be_known_before_spark_starts_is_said_before(
    command: list[str],
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(data_commands, "runner_for", lambda *_: pytest.fail("Spark was started"))
    assert main([*command, *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("rule.toml", "--rules-uri {here}/rule.toml: no such file; did you mean 'rules.toml'"),
        (".", "--rules-uri {here} is a directory; name a file"),
        ("broken.toml", "broken.toml is not TOML"),
        ("data.csv", "data.csv is not TOML"),
        ("rules.toml", "rules.toml: there is no metric 'areaUnderRoc'; did you mean 'areaUnderROC'"),
    ],
)
def test_rules_that_cannot_be_used_are_told_before_spark_starts(
    rules: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rules.toml").write_text("[minimum]\nareaUnderRoc = 0.8\n")
    assert main(["run", "data.csv", "--label=label", "--model-name=bank", f"--rules-uri={rules}"]) == 2
    assert message.format(here=Path.cwd()) in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("table")
def test_rules_in_an_object_store_are_read_before_spark_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kfp_pipeline.runtime import object_store

    monkeypatch.setattr(object_store, "read_text", {"s3://b/gate.toml": "[minimum]\nauc = 0.8\n"}.get)
    run = ["run", "data.csv", "--label=label", "--model-name=bank"]
    for rules, message in (("s3://b/gate.toml", "no metric 'auc'"), ("s3://b/none.toml", "s3://b/none.toml: no such")):
        assert main([*run, f"--rules-uri={rules}"]) == 2
        assert message in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("words", [["--label=label"], ["--spec=good.toml"]])
def test_a_column_to_order_by_that_is_not_in_the_header_is_told_before_spark_starts(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("good.toml").write_text('[label]\nname = "label"\n[columns]\nnumeric = ["age"]\n')
    assert main(["run", "data.csv", *words, "--split=ordered", "--order-by=agee"]) == 2
    assert "--order-by names no column 'agee'; did you mean 'age'?" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("table")
def test_submit_says_what_is_missing_before_it_asks_the_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kfp_pipeline.commands import cluster_commands
    from kfp_pipeline.runtime import object_store

    monkeypatch.setattr(cluster_commands, "connect", lambda *_: pytest.fail("the cluster was asked"))
    pipeline = ["submit", "pipeline", "s3://bucket/data.csv", "--output=s3://bucket/runs"]
    assert main(pipeline) == 2
    assert "Give --label NAME, with one of the columns, or --spec FILE" in capsys.readouterr().err
    assert main([*pipeline, "--spec=othr.toml"]) == 2
    assert "othr.toml: no such file; did you mean 'other.toml'" in capsys.readouterr().err
    assert main(["submit", "load", "--data-uri=s3://bucket/data.csv", "--output-uri=s3://bucket/load"]) == 2
    assert "or --specification-uri FILE" in capsys.readouterr().err
    assert main(["submit", "pipeline", "hdfs://host/data.csv", "--output=s3://bucket/runs", "--label=label"]) == 2
    assert "hdfs://host/data.csv: hdfs:// is not supported; give a path, or a URI" in capsys.readouterr().err
    promoted = [*pipeline, "--label=label", "--model-name=bank"]
    assert main([*promoted, "--registry-uri=models"]) == 2
    assert "--registry-uri=models: the cluster cannot reach this machine" in capsys.readouterr().err
    assert main([*promoted, "--registry-uri=s3://bucket/models", "--rules-uri=gate.toml"]) == 2
    assert "--rules-uri=gate.toml: the cluster cannot reach this machine" in capsys.readouterr().err
    monkeypatch.setattr(object_store, "read_text", lambda _: None)
    assert main([*promoted, "--registry-uri=s3://bucket/models", "--rules-uri=s3://bucket/gate.toml"]) == 2
    assert "--rules-uri s3://bucket/gate.toml: no such object" in capsys.readouterr().err
    uris = [f"--{name}-uri=s3://bucket/x" for name in ("load", "preprocess", "train", "evaluate", "output")]
    assert main(["submit", "promote", *uris]) == 2
    assert "the step promote needs --model-name" in capsys.readouterr().err
    assert main(["submit", "promote", *uris, "--model-name=bank", "--registry-uri=models"]) == 2
    assert "--registry-uri=models: the cluster cannot reach this machine" in capsys.readouterr().err


def test_the_message_comes_within_two_seconds(table: Path) -> None:
    began = time.monotonic()
    command = [sys.executable, "-m", "kfp_pipeline", "run", "data.csv"]
    done = subprocess.run(command, cwd=table, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    assert done.returncode == 2, done.stderr
    assert "which column is the label?" in done.stderr
    processor = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert min(seconds, processor.ru_utime + processor.ru_stime) < 2.0  # a loaded machine takes longer than it works


@pytest.mark.usefixtures("empty")
def test_an_installation_without_the_sample_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bundled, "PACKAGE", tmp_path / "kfp_pipeline")
    assert main(["run"]) == 2
    assert capsys.readouterr().err.startswith(
        "spark-kfp: error: data/bank_sample.csv is not part of this installation;"
    )


def test_the_manifests_are_written_into_an_empty_folder_only(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["manifests", "here"]) == 0
    assert "kubectl apply -k here/overlays/minikube" in capsys.readouterr().out
    (empty / "here" / "README.md").write_text("mine")
    assert main(["manifests", "here"]) == 2
    assert "here is not empty; name another folder, or give --force" in capsys.readouterr().err
    assert (empty / "here" / "README.md").read_text() == "mine"
    assert main(["manifests", "here", "--force"]) == 0
    assert (empty / "here" / "README.md").read_text() != "mine"
    assert main(["manifests", "here/README.md"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reg-param=-1"], "--reg-param is -1.0; allowed: 0 or more"),
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

    def inputs(*words: str, command: str = "run") -> dict[str, Any]:
        seen = {}

        def stop(_: object, __: str, inputs: dict[str, Any], *___: object) -> None:
            seen.update(inputs)
            raise KeyboardInterrupt

        monkeypatch.setattr(local_runs, "run_locally", stop)
        assert main([command, *words]) == 130
        return seen

    return inputs


def test_the_sample_and_its_specification_are_taken_when_no_data_is_named(
    given: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bank_sample.csv").write_text("age,deposit\n1,yes\n")
    for name in ("data/bank.toml", "other.toml"):
        (tmp_path / name).write_text('[label]\nname = "deposit"\n[columns]\nnumeric = ["age"]\n')
    sample = str(tmp_path / "data" / "bank_sample.csv")
    inputs = given()
    assert inputs["data_uri"] == sample
    assert inputs["specification_uri"] == str(tmp_path / "data" / "bank.toml")
    assert given("--label=deposit")["specification_uri"] == ""
    assert given("--spec=other.toml")["specification_uri"] == str(tmp_path / "other.toml")


def test_a_path_becomes_absolute_and_a_uri_stays(given: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    for name in ("a b.csv", "x.csv"):
        (tmp_path / name).write_text("x,label\n1,yes\n")
    assert given("a b.csv", "--label=label")["data_uri"] == str(tmp_path / "a b.csv")
    assert data_commands.absolute("s3a://bucket/x.csv") == "s3a://bucket/x.csv"
    assert given(f"file://{tmp_path}/x.csv", "--label=label")["data_uri"] == f"file://{tmp_path}/x.csv"


def test_a_run_takes_the_rules_that_the_gate_finds_and_says_so(
    given: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, rules = ("tables/data.csv", "--label=label", "--model-name=bank"), "[minimum]\nf1 = 0.5\n"
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "data.csv").write_text("x,label\n1,yes\n")
    assert given(*words)["rules_uri"] == ""
    for place in (".", "tables"):
        path = tmp_path / place / "gate.toml"
        path.write_text(rules)
        assert given(*words)["rules_uri"] == str(path)
        assert f"rules of the gate: {path}" in capsys.readouterr().out
    (tmp_path / "mine.toml").write_text(rules)
    assert given(*words, "--rules-uri=mine.toml")["rules_uri"] == str(tmp_path / "mine.toml")
    assert given(*words[:2])["rules_uri"] == "", "without a name of a model there is no gate"
    retrain = (*words, "--pipeline=retraining", "--model-uri=./m", "--train-data-uri=other/data.csv")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.csv").write_text("x,label\n1,yes\n")
    (tmp_path / "other" / "gate.toml").write_text(rules)
    assert given(*retrain)["rules_uri"] == str(tmp_path / "other" / "gate.toml")


def test_a_registry_that_cannot_be_used_is_told_before_spark_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("x,label\n1,yes\n")
    (tmp_path / "broken" / "bank").mkdir(parents=True)
    (tmp_path / "broken" / "bank" / "champion.json").write_text("{")
    for registry in ("data.csv", "broken"):
        words = ("data.csv", "--label=label", "--model-name=bank", f"--registry-uri={registry}")
        assert main(["run", *words]) == 2
        assert registry in capsys.readouterr().err
    assert not Path("runs").exists()


def test_every_input_of_the_pipeline_is_given(given: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x,label\n1,yes\n")
    assert set(given("data.csv", "--label=label", "--reg-param=0.5")) == {*TRAINING.inputs(), *PLATFORM_INPUTS}


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Another pipeline than training, which only loads a table."""
    pipeline = Pipeline(name="loading", title="Load", about="Loads a table.", group="Loading", steps=(Step.LOAD,))
    monkeypatch.setattr(command_parser, "PIPELINES", {"training": TRAINING, "loading": pipeline})
    return pipeline


def test_a_run_of_another_pipeline_is_given_the_inputs_of_that_pipeline(
    loading: Pipeline, given: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text("x,label\n1,yes\n")
    words = ("data.csv", "--label=label", "--pipeline=loading")
    assert set(given(*words)) == {*loading.inputs(), *PLATFORM_INPUTS} < {*TRAINING.inputs(), *PLATFORM_INPUTS}
    with pytest.raises(SystemExit):
        main(["run", *words, "--reg-param=0.5"])
    assert "there is no --reg-param" in capsys.readouterr().err


@pytest.mark.usefixtures("loading", "empty")
@pytest.mark.parametrize("command", [["run"], ["compile"], ["upload"], ["submit", "pipeline"], ["schedule", "create"]])
def test_a_pipeline_that_does_not_exist_is_told_before_anything_else(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--nonsense", "--pipeline", "loadin"]) == 2
    error = capsys.readouterr().err
    assert error == "spark-kfp: error: there is no pipeline 'loadin'; did you mean 'loading'?\n"


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


def test_a_profile_through_a_pipe_has_whole_names(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a column whose name is longer than what a terminal of eighty columns shows " * 3
    column = {"name": name, "role": "numeric", "type": "double", "missing": 0, "distinct": 2}
    nested = {"name": "inner", "role": "dropped", "type": "array<double>", "missing": None, "distinct": None}
    profile = {
        "rows": 2,
        "rejected": 0,
        "encoding": "",
        "columns": [column, nested],
        "class_counts": {name: 2},
        "suspicious": [],
    }
    data_commands.show_profile(profile, [f"warning of {name}"])
    shown = capsys.readouterr().out
    assert shown.count(name.strip()) == 3
    assert ["inner", "dropped", "array<double>", "-", "-"] in [line.split() for line in shown.splitlines()]
    assert max(map(len, shown.splitlines())) < 2 * len(name)


@pytest.mark.usefixtures("empty")
def test_without_runs_the_list_is_empty_and_says_how_to_start_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    told = "there are no runs in runs; start one with `spark-kfp run`\n"
    assert main(["runs", "list"]) == 0
    assert capsys.readouterr().out == told
    for words in (["runs", "show", "last"], ["gate", "last"]):
        assert main(words) == 2
        assert capsys.readouterr().err == f"spark-kfp: error: {told}"


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["show", "last"]])
def test_a_directory_of_runs_that_is_not_there_is_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", *words, "--runs", "nope"]) == 2
    assert capsys.readouterr().err == "spark-kfp: error: --runs nope: there is no such directory\n"


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"spark-kfp {version('spark-kfp')}\n")


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (("submit", "train"), "Run train as a SparkApplication."),
        (("status",), "The SparkApplications of this namespace."),
        (("upload",), "KFP server"),
    ],
)
def test_a_help_text_keeps_the_capitals_of_names(words: tuple[str, ...], about: str) -> None:
    assert about in str(parser_of(*words).description)


def test_a_step_that_has_no_rows_is_shown_by_its_state_alone(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "runs" / "one").mkdir(parents=True)
    events = {"load": {"step": "load", "state": "failed"}}
    document = {"id": "one", "status": "failed", "inputs": {}, "started": 1.0, "steps": events}
    (empty / "runs/one/run.json").write_text(json.dumps(document))
    assert main(["runs", "show", "one"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step load")]
    assert line.split() == ["step", "load", "failed"]


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


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_who_has_gone_is_no_error(form: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kfp_pipeline", "runs", "list", "--runs", str(tmp_path), *form]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout
    running.stdout.close()
    _, err = running.communicate(timeout=60)
    assert (running.returncode in (1, 141), err) == (True, "")
