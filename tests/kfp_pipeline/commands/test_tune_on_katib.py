"""`spark-kfp tune` with and without Katib: which flags belong to which, said before anything starts."""

from __future__ import annotations

import pytest

from kfp_pipeline.commands.main import main

TABLE = ["tune", "s3://b/table.csv", "--label=y"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tune", "--output=s3://b/runs"],
            "--output is for a search by Katib: give --tuner=katib too, or leave it out",
        ),
        (["tune", "--namespace=n"], "--namespace is for a search by Katib"),
        (["tune", "--spark-settings=f"], "--spark-settings is for a search by Katib"),
        (
            ["tune", "--tuner=katib", "--output=s3://b/runs"],
            "name the table there and --output, both like s3://BUCKET/NAME",
        ),
        ([*TABLE, "--tuner=katib"], "name the table there and --output, both like s3://BUCKET/NAME"),
        (["tune", "--goal=0.9"], "--goal is for --tuner=katib, and --tuner is optuna"),
        ([*TABLE, "--tuner=katib", "--output=s3://b/runs", "--folds=3"], "--folds=3 is for --tuner=optuna"),
        (
            [*TABLE, "--tuner=katib", "--output=s3://b/runs", "--algorithms=hyperband"],
            "Katib's hyperband compares 9 trials at one time",
        ),
        (["run", "--pipeline=tuning", "--tuner=katib"], "--tuner=katib needs a cluster: spark-kfp tune --tuner=katib"),
    ],
)
def test_a_flag_of_the_other_place_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err
