"""The one door to object stores, gone through as a step does and as a task does: who asks, what is refused, what is waited for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_s3 import SECRET, WEB_TOKEN

from kfp_pipeline.runtime import object_store as task_side
from kfp_pipeline.runtime.errors import TemporaryError
from spark_jobs import object_store, object_store_settings, storage
from spark_jobs.errors import InputError, UnavailableError
from spark_jobs.object_store_settings import CredentialsSource, ObjectStoreSettings

if TYPE_CHECKING:
    from fake_s3 import FakeS3

Ask = Callable[[], object]
ASKS: dict[str, Ask] = {
    "a step reads": lambda: storage.read_text("s3://kfp/a"),
    "a step reads a head": lambda: storage.read_head("s3://kfp/a"),
    "a step writes": lambda: storage.write_text("s3://kfp/b", "x"),
    "a step looks for the bucket": lambda: storage.check_reachable(["s3://kfp/a"]),
    "a step lists": lambda: storage.data_files("s3://kfp/a"),
    "a task reads": lambda: task_side.read_text("s3://kfp/a"),
    "a task writes": lambda: task_side.write_bytes("s3://kfp/b", b"x"),
    "a task looks for the bucket": lambda: task_side.bucket_exists("kfp"),
    "a task lists": lambda: task_side.list_objects("s3://kfp/a"),
    "a task uploads": lambda: task_side.upload(Path(__file__), "s3://kfp/b"),
}
BOTH = ("a step reads", "a task reads")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE")
SECRETS = (SECRET, WEB_TOKEN, "session-token")


@pytest.fixture(autouse=True)
def content(door: FakeS3) -> None:
    door.put("a")


@pytest.fixture
def no_keys(door: FakeS3, monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    """The store, but nobody has said who asks."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    return door


def told(error: BaseException | None) -> str:
    """All that a traceback of the error shows."""
    shown = ""
    while error is not None:
        shown += f"{error!r} {vars(error)!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return shown


REFUSED = {
    "ExpiredToken": "the temporary keys have expired; get new ones",
    "InvalidToken": "it does not know the session token; check AWS_SESSION_TOKEN",
    "InvalidTokenId": "it does not know the session token; check AWS_SESSION_TOKEN",
    "InvalidAccessKeyId": "it does not know the access key; check the secret behind AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check the secret behind AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "a wrong key, or one without rights",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "SomethingNew": "told SomethingNew",
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("answered_before", [False, True])
def test_what_the_store_refuses_is_bad_input_told_at_once_with_what_to_do(
    door: FakeS3, ask: str, answered_before: bool
) -> None:
    for code, advice in REFUSED.items():
        object_store.from_environment.cache_clear()
        door.always = ""
        if answered_before:
            ASKS[ask]()
        door.always = code
        door.requests.clear()
        with pytest.raises(InputError) as caught:
            ASKS[ask]()
        assert f"the object store at {door.url} refuses ({code}): {advice}" in str(caught.value)
        assert len(door.requests) == 1
        assert not [secret for secret in SECRETS if secret in told(caught.value)]


@pytest.mark.parametrize("fault", ["503", "503 XMinioServerNotInitialized", "cut", "RequestTimeout", "TooManyRequests"])
@pytest.mark.parametrize("ask", [ask for ask in ASKS if ask != "a task looks for the bucket"])
def test_what_passes_by_itself_is_waited_for(door: FakeS3, ask: str, fault: str) -> None:
    door.faults = [fault] * 2
    ASKS[ask]()
    assert not door.faults


def test_both_sides_have_the_same_patience_and_say_the_same(door: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "FIRST_CONTACT_SECONDS", 0.6)
    door.always = "503"
    said, asked = [], []
    for ask, kind in zip(BOTH, (UnavailableError, TemporaryError), strict=True):
        door.requests.clear()
        with pytest.raises(kind) as caught:
            ASKS[ask]()
        said.append(str(caught.value))
        asked.append(len(door.requests))
    assert said[0] == said[1]
    assert asked == [2, 2]


def test_whoever_looks_for_a_bucket_by_a_command_does_not_wait(door: FakeS3) -> None:
    door.always = "503"
    with pytest.raises(TemporaryError, match="SlowDown"):
        task_side.bucket_exists("kfp")
    assert len(door.requests) == 1


@pytest.mark.parametrize("answered_before", [False, True])
def test_what_is_an_extra_waits_seconds_however_long_the_rest_would(
    door: FakeS3, time_of: Callable[..., None], answered_before: bool
) -> None:
    slept: list[float] = []
    time_of(object_store, monotonic=lambda: sum(slept), sleep=slept.append)
    if answered_before:
        ASKS["a task writes"]()
    door.always = "503"
    for extra in (
        lambda: task_side.write_bytes("s3://kfp/b", b"x", brief=True),
        lambda: task_side.remove("s3://kfp/b", brief=True),
    ):
        slept.clear()
        with pytest.raises(TemporaryError, match="does not answer"):
            extra()
        assert 1 < sum(slept) <= 3
    with pytest.raises(TemporaryError, match="does not answer"):
        ASKS["a task writes"]()
    assert sum(slept) > 50


def test_a_bucket_that_is_there_is_not_made() -> None:
    assert not task_side.bucket_exists("none")
    assert not task_side.make_bucket("kfp")


@pytest.mark.parametrize("ask", BOTH)
def test_a_session_token_goes_with_its_keys(door: FakeS3, ask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ASKS[ask]()
    assert door.askers == [("user", "")]
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-token")
    object_store.from_environment.cache_clear()
    ASKS[ask]()
    assert door.askers[1:] == [("user", "session-token")]


def give(door: FakeS3, source: CredentialsSource, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the environment so that the keys come from there."""
    (folder / "token").write_text(WEB_TOKEN)
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    lines = [f"{name} = {value}" for name, value in zip(names, door.keys, strict=True)]
    (folder / "credentials").write_text("\n".join(["[other]", "aws_access_key_id = half", "[mine]", *lines]))
    variables = {
        CredentialsSource.ENVIRONMENT: {name.upper(): value for name, value in zip(names, door.keys, strict=True)},
        CredentialsSource.WEB_IDENTITY: {
            "AWS_WEB_IDENTITY_TOKEN_FILE": f"{folder}/token",
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
        },
        CredentialsSource.FILE: {"AWS_SHARED_CREDENTIALS_FILE": f"{folder}/credentials", "AWS_PROFILE": "mine"},
        CredentialsSource.POD_OR_INSTANCE: {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": door.url,
            "AWS_EC2_METADATA_DISABLED": "false",
        },
    }
    for name, value in variables[source].items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("source", CredentialsSource)
@pytest.mark.parametrize("ask", BOTH)
def test_the_keys_come_from_wherever_the_environment_has_them(
    no_keys: FakeS3, ask: str, source: CredentialsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(no_keys, source, tmp_path, monkeypatch)
    ASKS[ask]()
    assert set(no_keys.askers) == {("temporary", "session-token")}
    settings = object_store.from_environment().settings
    assert settings.credentials_source == source
    assert settings.s3a_settings()["spark.hadoop.fs.s3a.aws.credentials.provider"] == source.value
    assert not [secret for secret in SECRETS if secret in f"{settings} {settings.s3a_settings()}"]


def test_a_pod_gets_its_keys_with_its_own_token(
    no_keys: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(WEB_TOKEN)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{no_keys.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", f"{tmp_path}/token")
    ASKS["a task reads"]()
    assert no_keys.askers == [("temporary", "session-token")]
    assert object_store.from_environment().settings.credentials_source == CredentialsSource.POD_OR_INSTANCE


@pytest.mark.parametrize("source", [CredentialsSource.WEB_IDENTITY, CredentialsSource.POD_OR_INSTANCE])
def test_temporary_keys_are_changed_for_new_ones_before_they_expire(
    no_keys: FakeS3, source: CredentialsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(no_keys, source, tmp_path, monkeypatch)
    no_keys.lasts_seconds = 5
    ASKS["a task reads"]()
    no_keys.keys = ("newer", SECRET, "newer-token")
    ASKS["a task reads"]()
    assert no_keys.askers == [("temporary", "session-token"), ("newer", "newer-token")]


def test_the_order_is_that_of_the_sdk_on_which_s3a_stands(
    no_keys: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for source in reversed(CredentialsSource):
        give(no_keys, source, tmp_path, monkeypatch)
        assert ObjectStoreSettings.from_environment().credentials_source == source


def test_the_file_in_the_home_is_taken_if_it_is_there(
    no_keys: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store_settings, "CREDENTIALS_FILE", str(tmp_path / "credentials"))
    assert ObjectStoreSettings.from_environment().credentials_source == CredentialsSource.POD_OR_INSTANCE
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = u\naws_secret_access_key = s\n")
    ASKS["a task reads"]()
    assert no_keys.askers == [("u", "")]


@pytest.mark.parametrize("ask", BOTH)
def test_a_web_identity_that_is_refused_is_told_without_its_token(
    no_keys: FakeS3, ask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(no_keys, CredentialsSource.WEB_IDENTITY, tmp_path, monkeypatch)
    (tmp_path / "token").write_text(f"{WEB_TOKEN}-of-yesterday")
    with pytest.raises(
        InputError, match=r"STS at http://.* gives no keys \(HTTP 400\); check AWS_ROLE_ARN, and the token in"
    ) as caught:
        ASKS[ask]()
    assert len(no_keys.requests) == 1
    assert WEB_TOKEN not in told(caught.value)


def test_an_sts_that_is_away_is_waited_for_and_told_as_what_it_is(
    no_keys: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(no_keys, CredentialsSource.WEB_IDENTITY, tmp_path, monkeypatch)
    no_keys.faults = ["503", "cut"]
    ASKS["a task reads"]()
    object_store.from_environment.cache_clear()
    monkeypatch.setattr(object_store, "FIRST_CONTACT_SECONDS", 0.1)
    no_keys.always = "503"
    with pytest.raises(TemporaryError, match=r"STS at http://.* does not answer \(HTTP 503\)") as caught:
        ASKS["a task reads"]()
    assert WEB_TOKEN not in told(caught.value)


NO_KEYS = (
    "",
    "[default]\naws_access_key_id = u\naws_secret_access_key = s\n",
    "[mine]\naws_access_key_id = u\n",
    f"[mine]\naws_secret_access_key = {SECRET}%\naws_access_key_id = u\n",
)


@pytest.mark.parametrize("text", NO_KEYS)
def test_a_profile_that_gives_no_keys_is_named(
    no_keys: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    give(no_keys, CredentialsSource.FILE, tmp_path, monkeypatch)
    (tmp_path / "credentials").write_text(text)
    with pytest.raises(InputError, match=r"profile 'mine' of .*credentials gives no keys; check AWS_PROFILE") as caught:
        ASKS["a task reads"]()
    assert SECRET not in told(caught.value)


@pytest.mark.parametrize("disabled", ["true", "false"])
@pytest.mark.parametrize("ask", BOTH)
def test_without_any_keys_one_message_names_all_ways(
    no_keys: FakeS3, ask: str, disabled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", disabled)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(
        InputError, match=f"there are no keys for the object store at {no_keys.url}: set AWS_ACCESS_KEY_ID"
    ):
        ASKS[ask]()
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    object_store.from_environment.cache_clear()
    with pytest.raises(
        InputError, match="AWS_ENDPOINT_URL is not set, and there are no keys for Amazon S3: set AWS_ACCESS"
    ):
        ASKS[ask]()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "u"}, "AWS_SECRET_ACCESS_KEY is not set, and AWS_ACCESS_KEY_ID needs it"),
        ({"AWS_SECRET_ACCESS_KEY": SECRET}, "AWS_ACCESS_KEY_ID is not set, and AWS_SECRET_ACCESS_KEY needs it"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "f"}, "AWS_ROLE_ARN is not set, and AWS_WEB_IDENTITY_TOKEN_FILE needs it"),
        (
            {"AWS_ENDPOINT_URL": "http://user:top-secret-value@minio"},
            "AWS_ENDPOINT_URL is not a URL, or one with a user in it",
        ),
    ],
)
def test_a_variable_that_is_missing_or_wrong_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        ObjectStoreSettings.from_environment(given)
    assert said in str(caught.value)
    assert SECRET not in told(caught.value)


def test_without_an_address_it_is_amazon_s3() -> None:
    settings = ObjectStoreSettings.from_environment(
        {"AWS_ACCESS_KEY_ID": "u", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-west-1"}
    )
    store = object_store.ObjectStore(settings)
    assert store._client.presigned_get_object("my-bucket", "a").startswith(
        "https://my-bucket.s3.eu-west-1.amazonaws.com/a?"
    )
    told_spark = settings.s3a_settings()
    assert told_spark["spark.hadoop.fs.s3a.endpoint.region"] == "eu-west-1"
    assert not {"spark.hadoop.fs.s3a.endpoint", "spark.hadoop.fs.s3a.path.style.access"} & set(told_spark)
    assert json.dumps(told_spark).count(SECRET) == 0


def test_a_name_that_no_bucket_can_have_is_bad_input() -> None:
    with pytest.raises(InputError, match="s3://K/a: "):
        storage.read_text("s3://K/a")
