"""The settings of the task side: defaults, environment, wrong values."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from kfp_pipeline.settings import KfpSettings, Settings


def test_the_defaults_are_what_the_documentation_says() -> None:
    assert {item.name: item.default for item in fields(Settings)} == {
        "runs": Path("runs"),
        "run": "",
        "share_session": True,
        "run_id": "",
        "registry": "models",
        "mlflow_uri": "",
        "kubeflow_registry_uri": "",
        "kubeflow_registry_token_path": "",
        "cache": Path("~/.cache/spark-kfp"),
        "reuse": True,
        "driver_memory_mib": 2048,
        "namespace": "",
        "config_map": "spark-kfp",
        "patience_seconds": 300,
        "lease_seconds": 600,
        "compile_tiers_bytes": 50_000_000,
        "debug": False,
    }
    assert Settings.from_environment({}) == Settings()


def test_settings_survive_the_way_through_an_environment() -> None:
    settings = Settings(
        runs=Path("/a b/runs"),
        run="/a b/runs/one",
        cache=Path("/cache"),
        reuse=False,
        driver_memory_mib=512,
        compile_tiers_bytes=7,
    )
    environment = settings.to_environment()
    assert environment["SPARK_KFP_REUSE"] == "False"
    assert Settings.from_environment(environment) == settings


def test_every_field_is_read_from_a_variable_of_its_name() -> None:
    environment = Settings().to_environment()
    assert set(environment) == {f"SPARK_KFP_{item.name.upper()}" for item in fields(Settings)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("SPARK_KFP_DRIVER_MEMORY_MIB", "2g"),
        ("SPARK_KFP_DRIVER_MEMORY_MIB", ""),
        ("SPARK_KFP_DRIVER_MEMORY_MIB", "-1"),
        ("SPARK_KFP_DRIVER_MEMORY_MIB", "²"),
        ("SPARK_KFP_COMPILE_TIERS_BYTES", "1.5"),
        ("SPARK_KFP_REUSE", "yes"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} is '.*'; it must be ") as error:
        Settings.from_environment({name: text})
    assert repr(text) in str(error.value)


def test_variables_of_others_are_not_read() -> None:
    assert Settings.from_environment({"REUSE": "false", "RUNS": "/elsewhere", "SPARK_KFP_OTHER": "x"}) == Settings()


def test_a_kfp_server_is_read_from_its_variables_and_no_other() -> None:
    environment = {"SPARK_KFP_KFP": "http://localhost:8080/", "KFP_TOKEN": " one\n", "KFP_COOKIES": "a=b; c=d"}
    found = KfpSettings.from_environment({**environment, "SPARK_KFP_NAMESPACE": "of SparkApplications"})
    assert found == KfpSettings(url="http://localhost:8080", token="one", cookies="a=b; c=d")
    assert KfpSettings.from_environment({}) == KfpSettings()
