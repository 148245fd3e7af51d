"""The sample: the same bytes from the same seed, plausible shares, and a label that depends on the columns as the script says."""

from __future__ import annotations

import csv
import importlib.util
import math
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

DATA = Path(__file__).parents[2] / "data"
SPECIFICATION = tomllib.loads((DATA / "bank.toml").read_text(encoding="utf-8"))
Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", DATA / "make_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def many(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    path = tmp_path_factory.mktemp("sample") / "many.csv"
    maker.write_sample(path, rows=30_000, seed=5)
    return read(path)


def read(path: Path) -> Rows:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def share(rows: Rows, column: str, value: str) -> float:
    return sum(row[column] == value for row in rows) / len(rows)


def encode(rows: Rows, numeric: list[str], categorical: list[str]) -> np.ndarray:
    """Numbers divided by their deviation, and one indicator for each value but a column's first."""
    numbers = np.array([[float(row[name]) for name in numeric] for row in rows])
    values = [(name, value) for name in categorical for value in sorted({row[name] for row in rows})[1:]]
    indicators = np.array([[float(row[name] == value) for name, value in values] for row in rows])
    return np.hstack([numbers / numbers.std(axis=0), indicators])


def area_under_roc(rows: Rows, without: tuple[str, ...] = ()) -> float:
    """Of a logistic regression fitted on the first two thirds of the rows and judged on the rest."""
    columns = SPECIFICATION["columns"]
    features = encode(rows, [name for name in columns["numeric"] if name not in without], columns["categorical"])
    label = np.array([row["deposit"] == "yes" for row in rows])
    cut = 2 * len(rows) // 3
    model = LogisticRegression(max_iter=2_000).fit(features[:cut], label[:cut])
    return float(roc_auc_score(label[cut:], model.decision_function(features[cut:])))


def test_the_script_makes_the_bundled_file_again_byte_for_byte(tmp_path: Path) -> None:
    again = tmp_path / "again.csv"
    subprocess.run([sys.executable, DATA / "make_sample.py", "--out", again], check=True)
    assert again.read_bytes() == (DATA / "bank_sample.csv").read_bytes()


def test_another_seed_makes_other_rows(maker: ModuleType, tmp_path: Path) -> None:
    maker.write_sample(tmp_path / "other.csv", rows=50, seed=maker.SEED + 1)
    assert read(tmp_path / "other.csv") != read(DATA / "bank_sample.csv")[:50]


def test_fewer_rows_are_the_first_rows_of_more(maker: ModuleType, tmp_path: Path) -> None:
    maker.write_sample(tmp_path / "few.csv", rows=50, seed=maker.SEED)
    assert read(tmp_path / "few.csv") == read(DATA / "bank_sample.csv")[:50]


def test_no_rows_at_all_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, DATA / "make_sample.py", "--rows", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--rows is 0; give at least 1" in done.stderr


def test_the_specification_names_every_column_once(maker: ModuleType) -> None:
    columns = SPECIFICATION["columns"]
    named = [SPECIFICATION["label"]["name"], *columns["numeric"], *columns["categorical"], *columns["dropped"]]
    assert sorted(named) == sorted(maker.HEADER.split(","))
    assert set(columns["known_afterwards"]) <= {*columns["numeric"], *columns["categorical"]}


def test_the_bundled_file_is_a_small_balanced_table_within_the_limits(maker: ModuleType) -> None:
    rows = read(DATA / "bank_sample.csv")
    lowest, highest = SPECIFICATION["limits"]["age"]
    assert len(rows) == maker.ROWS
    assert (DATA / "bank_sample.csv").stat().st_size < 400_000
    assert share(rows, "deposit", "yes") == pytest.approx(0.47, abs=0.03)
    assert all(lowest <= int(row["age"]) <= highest for row in rows)


@pytest.mark.parametrize("column", ["job", "default", "housing", "loan", "contact", "month"])
def test_the_values_have_the_shares_that_the_script_states(maker: ModuleType, many: Rows, column: str) -> None:
    wanted = maker.SHARES[column]
    assert {row[column] for row in many} == set(wanted)
    for value, expected in wanted.items():
        four_deviations = 4 * math.sqrt(expected * (1 - expected) / len(many))
        assert share(many, column, value) == pytest.approx(expected, abs=four_deviations), value


def numbers(rows: Rows) -> Iterator[tuple[str, np.ndarray]]:
    for name in SPECIFICATION["columns"]["numeric"]:
        yield name, np.array([int(row[name]) for row in rows])


def test_the_medians_are_near_the_published_ones(many: Rows) -> None:
    published = {
        "age": (39, 3),
        "balance": (550, 100),
        "duration": (255, 30),
        "campaign": (2, 0),
        "pdays": (-1, 0),
        "previous": (0, 0),
    }
    for name, values in numbers(many):
        median, tolerance = published[name]
        assert abs(float(np.median(values)) - median) <= tolerance, name


def test_customers_never_reached_before_have_no_earlier_outcome(many: Rows) -> None:
    for row in many:
        assert (row["pdays"] == "-1") == (row["previous"] == "0") == (row["poutcome"] == "unknown")


def test_a_regression_finds_the_label_and_needs_the_call_for_the_best_of_it(many: Rows) -> None:
    assert 0.85 <= area_under_roc(many) <= 0.90
    assert 0.68 <= area_under_roc(many, without=("duration",)) <= 0.75


def test_a_regression_finds_the_effects_that_the_script_states(maker: ModuleType, many: Rows) -> None:
    duration = np.array([float(row["duration"]) for row in many])
    names = [name for name in maker.EFFECTS if name != "month"]
    numeric = ["duration", "balance", "campaign"]
    model = LogisticRegression(C=1e4, max_iter=2_000).fit(
        encode(many, numeric, [*names, "month"]), [row["deposit"] == "yes" for row in many]
    )
    assert model.coef_[0][0] / duration.std() == pytest.approx(maker.DURATION, rel=0.05)
    housing = len(numeric) + sum(len({row[name] for row in many}) - 1 for name in names[: names.index("housing")])
    assert model.coef_[0][housing] == pytest.approx(maker.EFFECTS["housing"]["yes"], abs=0.15)
