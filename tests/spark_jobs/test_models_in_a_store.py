"""Models in an object store, to which Spark of this machine needs no S3A: how many requests they take, and what a killed step leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler

from spark_jobs import storage
from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from fake_s3 import FakeS3

pytestmark = pytest.mark.spark
URI = "s3://kfp/run/model"


@pytest.fixture(scope="module")
def model(spark: Any) -> PipelineModel:
    """Of three stages, of which two have data beside their metadata: with the metadata of the model six parts."""
    rows = spark.createDataFrame([("a", 1.0), ("b", 2.0), ("a", 3.0)], "kind string, x double")
    stages = [
        StringIndexer(inputCol="kind", outputCol="index"),
        OneHotEncoder(inputCol="index", outputCol="vector"),
        VectorAssembler(inputCols=["vector", "x"], outputCol="features"),
    ]
    return Pipeline(stages=stages).fit(rows)


def features(model: Any, spark: Any) -> list[Any]:
    rows = spark.createDataFrame([("b", 5.0), ("a", 6.0)], "kind string, x double")
    return [row["features"] for row in model.transform(rows).collect()]


def test_a_model_takes_one_request_a_part_and_comes_back_the_same(door: FakeS3, model: Any, spark: Any) -> None:
    storage.write_model(model, URI)
    assert len(door.objects) == 6
    assert sorted(request.split()[0] for request in door.requests if "list-type" not in request) == ["PUT"] * 6
    door.requests.clear()
    assert features(storage.read_model(URI), spark) == features(model, spark)
    assert [request.split()[0] for request in door.requests if "list-type" not in request] == ["GET"] * 6


def test_the_names_are_those_that_spark_itself_gives(door: FakeS3, model: Any, tmp_path: Path, spark: Any) -> None:
    storage.write_model(model, URI)
    for name, content in door.objects.items():
        path = tmp_path / name.removeprefix("run/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert features(PipelineModel.load(f"file:{tmp_path}/model"), spark) == features(model, spark)


def test_an_earlier_model_is_replaced_whole(door: FakeS3, model: Any) -> None:
    door.put("run/model/stages/9_old/metadata/part-00000", "run/model_of_another/metadata/part-00000")
    storage.write_model(model, URI)
    assert "run/model/stages/9_old/metadata/part-00000" not in door.objects
    assert "run/model_of_another/metadata/part-00000" in door.objects


@pytest.mark.parametrize("master", ["k8s://https://10.0.0.1:443", "spark://host:7077", "yarn"])
def test_executors_elsewhere_write_to_the_store_themselves(
    door: FakeS3, monkeypatch: pytest.MonkeyPatch, master: str
) -> None:
    session, saver = MagicMock(), MagicMock()
    session.builder.getOrCreate().conf.get = {"spark.master": master}.get
    monkeypatch.setattr(storage, "SparkSession", session)
    storage.write_model(saver, URI)
    saver.write().overwrite().save.assert_called_once_with("s3a://kfp/run/model")
    storage.read_classifier(saver, URI)
    saver.load.assert_called_once_with("s3a://kfp/run/model")
    assert not door.requests


def test_an_upload_that_breaks_off_leaves_no_model_that_spark_loads(
    door: FakeS3, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = storage.object_store.from_environment()
    write, written = store.write, []

    def break_off(uri: str, content: bytes) -> None:
        if len(written) == 4:
            raise InputError("killed")
        written.append(uri)
        write(uri, content)

    monkeypatch.setattr(store, "write", break_off)
    with pytest.raises(InputError, match="killed"):
        storage.write_model(model, URI)
    assert door.objects
    assert not [name for name in door.objects if name.startswith("run/model/metadata/")]


def test_a_model_that_is_not_there_is_told_by_its_uri(door: FakeS3) -> None:  # noqa: ARG001 - the store is empty
    with pytest.raises(FileNotFoundError, match=r"s3://kfp/run/model: no such"):
        storage.read_model(URI)
