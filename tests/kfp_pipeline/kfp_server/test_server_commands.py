"""`spark-kfp upload`, `run --kfp` and `runs --kfp`, called as a person calls them, against a fake KFP server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kfp_pipeline.commands import server_commands
from kfp_pipeline.kfp_server import client as kfp_server
from kfp_pipeline.kfp_server import server_runs
from kfp_pipeline.kfp_server import uploads as uploading
from kfp_pipeline.settings import KfpSettings

if TYPE_CHECKING:
    from fake_kfp_server import FakeKfp

Call = Callable[..., tuple[int, str, str]]
DATA = "s3://bank/bank.csv"
TOKEN, COOKIES = "t0ken-nobody-may-see", "session=c00kie-nobody-may-see"


def fault(kind: str, **given: Any) -> Any:
    from fake_kfp_server import Fault

    return Fault(kind, **given)


def tale(state: str, **states: str) -> dict[str, Any]:
    """A run as the server tells it; `states` are those of its tasks."""
    from fake_kfp_nodes import node_list

    spec = next(yaml.safe_load_all(server_commands.compile_package().text))
    return {"state": state, "run_details": {"task_details": node_list(spec, states)}}


def test_upload_makes_the_pipeline_and_a_version_once(server: FakeKfp, call: Call) -> None:
    code, out, _ = call("upload", "--kfp", server.url)
    (pipeline,), (version,) = server.all("pipelines"), server.all("versions")
    assert (code, pipeline["name"], version["pipeline_id"]) == (0, "spark-kfp-training", pipeline["pipeline_id"])
    made = server_commands.compile_package()
    assert version["name"] == f"0.1.0-{made.digest[:12]}" in out
    assert f"sha256:{made.digest}" in version["description"]
    assert server.specs[version["pipeline_version_id"]][0]["pipelineInfo"]["name"] == "spark-kfp-training"
    assert "uploaded" in out
    code, out, _ = call("upload", "--kfp", server.url, "--version", "another-name")
    assert (code, len(server.sent("POST"))) == (0, 2)
    assert "was there" in out


def test_other_content_becomes_another_version_found_on_any_page(server: FakeKfp, call: Call) -> None:
    images = [f"task:{number}" for number in range(5)]
    for image in [*images, images[0], images[4]]:
        assert call("upload", "--kfp", server.url, "--image", image)[0] == 0
    assert len(server.all("versions")) == len(server.sent("POST", "upload_version")) == 5 > server.page_limit
    assert len(server.all("pipelines")) == 1


def test_a_version_name_taken_by_other_content_is_an_error(server: FakeKfp, call: Call) -> None:
    assert call("upload", "--kfp", server.url, "--version", "v1")[0] == 0
    code, _, err = call("upload", "--kfp", server.url, "--version", "v1", "--image", "other:1")
    assert code == 2
    assert "'v1' with other content" in err
    assert "--version" in err


def test_a_pipeline_name_taken_by_what_cannot_be_seen_is_an_error(server: FakeKfp, call: Call) -> None:
    server.put("pipelines", {"name": "mine", "display_name": "Something else"})
    code, _, err = call("upload", "--kfp", server.url, "--name", "mine")
    assert (code, "--name" in err) == (2, True)


@pytest.mark.parametrize("path", ["pipelines", "upload_version"])
def test_a_race_is_lost_without_harm(path: str, server: FakeKfp, call: Call) -> None:
    """Another process makes it between the look and the upload: the server says 409, and it is taken over."""
    call("upload", "--kfp", server.url)
    known = {kind: dict(server.things[kind]) for kind in ("pipelines", "versions")}
    list_of = type(server).list
    hidden = "pipelines" if path == "pipelines" else "versions"
    seen = []

    def list_late(self: FakeKfp, request: Any, kind: str, parent: str = "") -> Any:
        seen.append(kind)
        return {} if kind == hidden and seen.count(hidden) == 1 else list_of(self, request, kind, parent)

    routes = sys.modules["fake_kfp_server"].ROUTES
    changed = tuple((p, m, list_late if act is list_of else act) for p, m, act in routes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["fake_kfp_server"], "ROUTES", changed)
        patch.setattr(type(server), "list", list_late)
        assert call("upload", "--kfp", server.url)[0] == 0
    assert {kind: server.things[kind] for kind in known} == known
    assert server.requests[-1].path.endswith("versions")


@pytest.mark.parametrize("path", ["pipelines?", "pipelines", "upload_version", "healthz"])
@pytest.mark.parametrize("kind", ["cut", "cut_after", "status", "slow"])
def test_upload_survives_a_server_that_blinks(
    kind: str, path: str, server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kfp_server, "READ_SECONDS", 0.3)
    monkeypatch.setattr(kfp_server, "FIRST_CONTACT_SECONDS", 3.0)
    server.faults.append(fault(kind, status=503, path=path, times=1 if kind in ("slow", "cut_after") else 2))
    assert call("upload", "--kfp", server.url)[0] == 0
    assert [len(server.all(each)) for each in ("pipelines", "versions")] == [1, 1]
    assert not any(item.times for item in server.faults)


def test_upload_dry_run_needs_no_server(call: Call) -> None:
    code, out, _ = call("upload", "--dry-run", "--name", "mine")
    assert code == 0
    assert json.loads(out)["pipeline"]["name"] == "mine"
    assert server_commands.compile_package().digest in json.loads(out)["version"]["description"]


def test_without_a_server_the_setting_is_named(call: Call) -> None:
    code, _, err = call("upload")
    assert (code, "--kfp" in err, "SPARK_KFP_KFP" in err) == (2, True, True)


def test_the_server_is_taken_from_the_environment(server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_KFP_KFP", server.url + "/")
    assert call("upload")[0] == 0


@pytest.mark.parametrize("url", ["localhost:8080", "http://me:pa55@host", "http://", "ftp://host"])
def test_a_url_that_is_none_is_refused_and_its_password_not_shown(url: str, call: Call) -> None:
    code, _, err = call("upload", "--kfp", url)
    assert (code, "--kfp" in err, "pa55" in err) == (2, True, False)


def test_a_server_that_is_away_is_told_soon(call: Call) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    code, _, err = call("upload", "--kfp", url)
    assert (code, url in err, "port-forward" in err) == (1, True, True)


@pytest.mark.parametrize(
    ("status", "named"), [(401, "KFP_TOKEN"), (403, "--namespace"), (302, "KFP_COOKIES"), (400, "asked for")]
)
def test_a_refusal_is_told_at_once_with_what_to_set(status: int, named: str, server: FakeKfp, call: Call) -> None:
    server.faults.append(fault("status", status=status, times=99))
    code, _, err = call("upload", "--kfp", server.url)
    assert (code, named in err, len(server.requests)) == (2, True, 1)


def test_a_page_for_people_is_not_taken_for_an_answer(server: FakeKfp, call: Call) -> None:
    server.faults.append(fault("page"))
    code, _, err = call("upload", "--kfp", server.url)
    assert (code, "not as a KFP server" in err) == (2, True)


def test_token_and_cookies_are_sent_and_never_shown(
    server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.token, server.cookies = TOKEN, COOKIES
    assert call("upload", "--kfp", server.url)[0] == 2
    monkeypatch.setenv("KFP_COOKIES", COOKIES)
    (tmp_path / "token").write_text(TOKEN + "\n")
    assert call("upload", "--kfp", server.url, "--token-file", str(tmp_path / "token"))[0] == 0
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    assert call("run", DATA, "--label=y", "--kfp", server.url)[0] == 0
    server.faults.append(fault("status", status=403, path="runs", times=9))
    code, _, err = call("runs", "list", "--kfp", server.url)  # the answer repeats what was sent
    assert (code, "asked for by Bearer ***" in err) == (2, True)
    assert TOKEN not in repr(KfpSettings(token=TOKEN, cookies=COOKIES))
    assert COOKIES not in repr(KfpSettings(token=TOKEN, cookies=COOKIES))


@pytest.mark.parametrize("token", [f"{TOKEN}\nx", f"{TOKEN}→"])
def test_a_token_that_is_no_header_is_refused_and_not_shown(
    token: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFP_TOKEN", token)
    code, _, err = call("upload", "--kfp", "http://127.0.0.1:9")
    assert (code, "KFP_TOKEN must be one line" in err) == (2, True)


def test_a_server_without_a_certificate_that_is_trusted_is_told(server: FakeKfp, call: Call) -> None:
    code, _, err = call("upload", "--kfp", server.url.replace("http:", "https:"))
    assert (code, "--ca-file" in err, "http://" in err) == (2, True, True)


@pytest.mark.parametrize("flag", ["--token-file", "--ca-file"])
def test_a_file_that_is_not_there_is_named(flag: str, call: Call) -> None:
    code, _, err = call("upload", "--kfp", "https://127.0.0.1:9", flag, "/no/such")
    assert (code, "/no/such" in err) == (2, True)


def test_a_server_of_many_users_needs_a_namespace(server: FakeKfp, call: Call) -> None:
    server.multi_user = True
    code, _, err = call("upload", "--kfp", server.url)
    assert (code, "--namespace" in err) == (2, True)
    assert call("run", DATA, "--label=y", "--kfp", server.url, "--namespace", "anna")[0] == 0
    assert server.all("pipelines")[0]["namespace"] == server.all("experiments")[0]["namespace"] == "anna"
    listed = [item for item in server.sent("GET") if item.path.rpartition("/")[2] in ("pipelines", "experiments")]
    assert {item.query.get("namespace") for item in listed} == {"anna"}


def test_run_makes_one_run_of_the_uploaded_version(server: FakeKfp, call: Call) -> None:
    flags = ("--experiment", "tests", "--service-account", "robot", "--pipeline-root", "minio://kfp/root")
    settings = ("--label", "y", "--reg-param", "0.1", "--max-iter", "7", "--fit-intercept", "false")
    code, out, _ = call("run", "--kfp", server.url, DATA, *settings, *flags)
    (run,), (version,), (experiment,) = (server.all(kind) for kind in ("runs", "versions", "experiments"))
    assert code == 0
    assert run["runtime_config"] == {
        "parameters": {"data_uri": DATA, "label": "y", "reg_param": 0.1, "max_iter": 7, "fit_intercept": False},
        "pipeline_root": "minio://kfp/root",
    }
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert (experiment["display_name"], run["experiment_id"]) == ("tests", experiment["experiment_id"])
    assert run["service_account"] == "robot"
    assert out.splitlines() == [f"run {run['run_id']}", f"{server.url}/#/runs/details/{run['run_id']}"]
    assert call("run", "--kfp", server.url, DATA, "--label=y", "--experiment", "tests")[0] == 0
    assert [len(server.all(kind)) for kind in ("runs", "versions", "experiments")] == [2, 1, 1]


@pytest.mark.parametrize("kind", ["cut", "cut_after", "status"])
@pytest.mark.parametrize("path", ["runs", "experiments"])
def test_a_lost_answer_makes_no_second_run(kind: str, path: str, server: FakeKfp, call: Call) -> None:
    server.faults.append(fault(kind, status=502, method="POST", path=path))
    assert call("run", "--kfp", server.url, DATA, "--label=y")[0] == 0
    assert (len(server.all("runs")), len(server.all("experiments"))) == (1, 1)


def test_run_dry_run_sends_nothing(server: FakeKfp, call: Call) -> None:
    code, out, _ = call("run", "--kfp", server.url, DATA, "--label=y", "--dry-run")
    assert (code, server.requests) == (0, [])
    assert json.loads(out)["runtime_config"] == {"parameters": {"data_uri": DATA, "label": "y"}}


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ((), "data upload"),
        (("data/bank_sample.csv",), "spark-kfp data upload"),
        ((DATA, "--spec", "bank.toml"), "spark-kfp data upload"),
        ((DATA, "--label", "y", "--reg-param", "-1"), "--reg-param"),
        ((DATA,), "which column is the label"),
        ((DATA, "--label", "y", "--model-name", "bank", "--registry-uri", "models"), "--registry-uri=models"),
        (
            (DATA, "--label", "y", "--model-name", "b", "--registry-uri", "s3://b/m", "--rules-uri", "x.toml"),
            "spark-kfp data upload",
        ),
        ((DATA, "--label", "y", "--rules-uri", "s3://b/x.toml"), "--rules-uri is for the step promote"),
        ((DATA, "--run-id", "x"), "--run-id"),
        ((DATA, "--no-cache"), "--no-cache"),
        ((DATA, "--spark", "local[2]"), "--spark"),
        ((DATA, "--timeout", "5"), "--wait"),
    ],
)
def test_a_wrong_run_is_refused_before_anything_is_sent(
    argv: tuple[str, ...], named: str, server: FakeKfp, call: Call
) -> None:
    code, _, err = call("run", "--kfp", server.url, *argv)
    assert (code, named in err, server.requests) == (2, True, [])


def test_a_run_takes_its_spark_settings_from_a_file(server: FakeKfp, call: Call, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("train: {driver: {memory: 4g}}")
    given = ("run", "--kfp", server.url, DATA, "--label=y", "--spark-settings", str(path))
    assert call(*given)[0] == 0
    assert server.all("runs")[0]["runtime_config"]["parameters"]["spark_settings"] == {
        "train": {"driver": {"memory": "4g"}}
    }
    path.write_text("train: {driver: {serviceAccount: default}}")
    code, _, err = call(*given)
    assert (code, "may not set driver.serviceAccount" in err, len(server.all("runs"))) == (2, True, 1)


@pytest.mark.parametrize(
    "flag", ["--wait", "--spark-settings=x", "--experiment=x", "--dry-run", "--pipeline-root=s3://x"]
)
def test_a_flag_of_a_server_is_refused_for_a_run_on_this_machine(flag: str, call: Call) -> None:
    code, _, err = call("run", DATA, "--label=y", flag)
    assert (code, flag.partition("=")[0] in err, "--kfp" in err) == (2, True, True)


def test_the_server_refuses_a_parameter_and_it_is_told(
    server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_commands, "pipeline_parameters", lambda *_: {"nonsense": 1})
    code, _, err = call("run", "--kfp", server.url, DATA, "--label=y")
    assert (code, "parameter data_uri is required" in err) == (2, True)


@pytest.mark.parametrize("kind", ["cut", "cut_after", "status", "slow"])
def test_wait_survives_a_server_that_blinks(
    kind: str, server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kfp_server, "READ_SECONDS", 0.3)
    server.story = [tale("RUNNING", load="RUNNING")] * 2 + [tale("SUCCEEDED", load="SUCCEEDED")]
    server.faults.append(fault(kind, status=503, method="GET", path="runs/", times=1 if kind == "slow" else 4))
    assert call("run", "--kfp", server.url, DATA, "--label=y", "--wait")[0] == 0
    assert not server.faults[0].times


def test_wait_gives_up_when_the_server_stays_away_and_the_run_goes_on(
    server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_KFP_PATIENCE_SECONDS", "0")
    server.faults.append(fault("status", status=503, method="GET", path="runs/", times=99))
    code, _, err = call("run", "--kfp", server.url, DATA, "--label=y", "--wait")
    assert (code, "the run goes on" in err, "runs show" in err) == (1, True, True)


def test_a_token_that_runs_out_while_waiting_is_named_and_the_run_goes_on(server: FakeKfp, call: Call) -> None:
    server.faults.append(fault("status", status=401, method="GET", path="runs/"))
    code, _, err = call("run", "--kfp", server.url, DATA, "--label=y", "--wait")
    assert (code, "KFP_TOKEN" in err, "the run goes on" in err) == (2, True, True)


def test_wait_ends_after_its_time_and_the_run_goes_on(server: FakeKfp, call: Call) -> None:
    server.story = [tale("RUNNING")]
    code, _, err = call("run", "--kfp", server.url, DATA, "--label=y", "--wait", "--timeout", "0.1")
    assert (code, "the run goes on" in err, server.sent("POST", ":terminate")) == (1, True, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_wait_leaves_the_run(
    number: signal.Signals, server: FakeKfp, call: Call, time_of: Callable[..., None]
) -> None:
    server.story = [tale("RUNNING")]
    time_of(server_runs, sleep=lambda _: signal.raise_signal(number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        code, _, err = call("run", "--kfp", server.url, DATA, "--label=y", "--wait")
    finally:
        signal.signal(signal.SIGINT, before)
    identity = server.all("runs")[0]["run_id"]
    assert (code, server.sent("POST", ":terminate")) == (130, [])
    assert f"runs show --kfp {server.url} {identity}" in err
    assert f"runs terminate --kfp {server.url} {identity}" in err


def test_json_is_one_document(server: FakeKfp, call: Call) -> None:
    server.story = [tale("SUCCEEDED", load="SUCCEEDED")]
    code, out, _ = call("run", "--kfp", server.url, DATA, "--label=y", "--wait", "--json")
    assert (code, json.loads(out)["state"], json.loads(out)["summary"]) == (0, "SUCCEEDED", None)


def test_runs_list_shows_all_pages_newest_first(server: FakeKfp, call: Call) -> None:
    for _ in range(3):
        call("run", "--kfp", server.url, DATA, "--label=y")
    code, out, _ = call("runs", "list", "--kfp", server.url)
    shown = [line.split()[0] for line in out.splitlines()[1:]]
    assert (code, shown) == (0, [item["run_id"] for item in reversed(server.all("runs"))])
    assert len(json.loads(call("runs", "list", "--kfp", server.url, "--json")[1])) == 3


@pytest.mark.parametrize("action", ["show", "terminate"])
@pytest.mark.parametrize("identity", ["00000000-0000", "../pipelines/1"])
def test_a_run_that_is_not_there_is_an_error(action: str, identity: str, server: FakeKfp, call: Call) -> None:
    code, _, err = call("runs", action, "--kfp", server.url, identity)
    assert (code, bool(err)) == (2, True)
    assert not [item for item in server.requests if "pipelines" in item.path]


def test_terminate_ends_a_run_that_goes_on_and_no_other(server: FakeKfp, call: Call) -> None:
    call("run", "--kfp", server.url, DATA, "--label=y")
    identity = server.all("runs")[0]["run_id"]
    assert call("runs", "terminate", "--kfp", server.url, identity)[0] == 0
    assert server.all("runs")[0]["state"] == "CANCELING"
    while server.all("runs")[0]["state"] == "CANCELING":
        assert call("runs", "terminate", "--kfp", server.url, identity)[0] == 0
    code, out, _ = call("runs", "terminate", "--kfp", server.url, identity)
    assert (code, "has ended already" in out, len(server.sent("POST", ":terminate"))) == (0, True, 1)


def test_runs_compare_is_for_this_machine(server: FakeKfp, call: Call) -> None:
    code, _, err = call("runs", "compare", "--kfp", server.url, "a", "b")
    assert (code, "--kfp" in err) == (2, True)


def test_runs_list_without_kfp_stays_on_this_machine(
    server: FakeKfp, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_KFP_KFP", server.url)
    assert call("runs", "list", "--runs", str(tmp_path))[0] == 0
    assert server.requests == []


def test_two_uploads_at_once_give_one_version(server: FakeKfp) -> None:
    settings = KfpSettings(url=server.url)
    done: list[uploading.UploadedVersion] = []

    def work() -> None:
        done.append(uploading.upload(kfp_server.connect(settings, 5), server_commands.compile_package()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(done), len({item.version_id for item in done}), len(server.all("versions"))) == (4, 1, 1)
    assert sum(item.new for item in done) >= 1


def test_the_parser_brings_no_client_along() -> None:
    script = (
        "import sys; from kfp_pipeline.commands.main import make_parser; make_parser();"
        "print({'kfp', 'kfp_server_api', 'kubernetes'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
