"""Makes `bank_sample.csv`: invented customers of a bank's telephone campaign, with a label that a known model drew.

The columns are those of the UCI Bank Marketing data, and the shares below come near that data's published distributions; each row is
drawn from them, none is copied. The label is drawn from a logistic model whose effects are written here, so what a regression ought to
find is known. Standard library only; the same seed gives the same bytes with any Python, because every draw comes from
`random.Random.random()`, whose sequence Python promises to keep.

    python data/make_sample.py                                            # writes data/bank_sample.csv
    python data/make_sample.py --rows 1000000 --seed 1 --out million.csv
"""

from __future__ import annotations

import argparse
import math
from bisect import bisect
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate, islice
from pathlib import Path
from random import Random

SAMPLE = Path(__file__).with_name("bank_sample.csv")
ROWS = 4_000
SEED = 3
ROWS_PER_WRITE = 10_000
HEADER = "age,job,marital,education,default,balance,housing,loan,contact,day,month,duration,campaign,pdays,previous,poutcome,deposit"

SHARES: Mapping[str, Mapping[str, float]] = {
    "job": {
        "management": 0.230, "blue-collar": 0.174, "technician": 0.163, "admin.": 0.120, "services": 0.083, "retired": 0.070,
        "self-employed": 0.036, "student": 0.032, "unemployed": 0.032, "entrepreneur": 0.029, "housemaid": 0.025, "unknown": 0.006,
    },
    "marital": {"married": 0.62, "single": 0.25, "divorced": 0.13},
    "marital, below 32": {"single": 0.67, "married": 0.29, "divorced": 0.04},
    "education": {"secondary": 0.72, "tertiary": 0.17, "primary": 0.07, "unknown": 0.04},
    "education, manual": {"secondary": 0.51, "primary": 0.37, "tertiary": 0.07, "unknown": 0.05},
    "education, academic": {"tertiary": 0.76, "secondary": 0.17, "primary": 0.04, "unknown": 0.03},
    "default": {"no": 0.985, "yes": 0.015},
    "housing": {"no": 0.527, "yes": 0.473},
    "loan": {"no": 0.869, "yes": 0.131},
    "contact": {"cellular": 0.72, "unknown": 0.21, "telephone": 0.07},
    "month": {
        "may": 0.253, "aug": 0.136, "jul": 0.136, "jun": 0.109, "nov": 0.084, "apr": 0.083, "feb": 0.070, "oct": 0.035,
        "jan": 0.031, "sep": 0.029, "mar": 0.024, "dec": 0.010,
    },
    "poutcome": {"failure": 0.43, "success": 0.38, "other": 0.19},
}  # fmt: skip
"""Share of each value; a column whose shares hang on another one has a line for each case."""

AGE_BY_JOB = {"retired": (65.0, 9.0), "student": (26.0, 5.0), "housemaid": (47.0, 11.0), "entrepreneur": (43.0, 9.0)}
AGE = (40.0, 10.0)
"""Mean and standard deviation in years."""
EDUCATION_BY_JOB = {
    "management": "education, academic",
    "self-employed": "education, academic",
    "entrepreneur": "education, academic",
    "blue-collar": "education, manual",
    "housemaid": "education, manual",
    "retired": "education, manual",
}
CONTACTED_BEFORE = 0.254
"""Share of customers whom an earlier campaign reached; for all others `pdays` is -1."""

INTERCEPT = -1.75
"""Chosen so that about 47 % of the rows are positive, as in the rebalanced file in common use."""
EFFECTS: Mapping[str, Mapping[str, float]] = {
    "job": {
        "student": 1.1, "retired": 0.9, "unemployed": 0.4, "management": 0.2, "services": -0.3, "blue-collar": -0.5,
        "entrepreneur": -0.5,
    },
    "marital": {"single": 0.3, "married": -0.2},
    "education": {"tertiary": 0.5, "primary": -0.4},
    "housing": {"yes": -1.1},
    "loan": {"yes": -0.9},
    "contact": {"unknown": -0.4},
    "month": {"mar": 0.8, "sep": 0.7, "oct": 0.7, "dec": 0.7, "apr": 0.3, "may": -0.2, "jan": -0.2},
    "poutcome": {"success": 3.2, "other": 0.5},
}  # fmt: skip
"""Log-odds that a value adds to the label's; values and columns that are not named add nothing."""
DURATION, BALANCE, CAMPAIGN = 0.0065, 0.00005, -0.12
"""Log-odds for each second of the call, unit of balance and call of this campaign."""


def make_rows(seed: int) -> Iterator[str]:
    """Endless CSV lines without the line end; the first rows are the same however many are taken."""
    uniform = Random(seed).random  # noqa: S311  (a data set, not a secret)
    pick = {name: picker(shares, uniform) for name, shares in SHARES.items()}
    while True:
        job, month, contact = pick["job"](), pick["month"](), pick["contact"]()
        age = whole(normal(uniform, *AGE_BY_JOB.get(job, AGE)), 18, 95)
        marital = pick["marital, below 32" if age < 32 else "marital"]()
        education = pick[EDUCATION_BY_JOB.get(job, "education")]()
        default, housing, loan = pick["default"](), pick["housing"](), pick["loan"]()
        balance, day = draw_balance(uniform), 1 + int(31 * uniform())
        duration = whole(math.exp(normal(uniform, 5.5, 0.95)), 2, 3900)
        campaign = geometric(uniform, 0.43, 60)
        pdays, previous, poutcome = -1, 0, "unknown"
        if uniform() < CONTACTED_BEFORE:
            pdays, previous, poutcome = (
                whole(normal(uniform, 205, 115), 1, 850),
                geometric(uniform, 0.32, 50),
                pick["poutcome"](),
            )
        log_odds = INTERCEPT + DURATION * duration + BALANCE * balance + CAMPAIGN * campaign
        values = (("job", job), ("marital", marital), ("education", education), ("housing", housing), ("loan", loan))
        for name, value in (*values, ("contact", contact), ("month", month), ("poutcome", poutcome)):
            log_odds += EFFECTS[name].get(value, 0.0)
        deposit = "yes" if uniform() < 1 / (1 + math.exp(-log_odds)) else "no"
        yield (
            f"{age},{job},{marital},{education},{default},{balance},{housing},{loan},{contact},{day},{month},"
            f"{duration},{campaign},{pdays},{previous},{poutcome},{deposit}"
        )


def picker(shares: Mapping[str, float], uniform: Callable[[], float]) -> Callable[[], str]:
    """A function that draws one of the names, each as often as its share says."""
    names, bounds = tuple(shares), tuple(accumulate(shares.values()))
    last = len(names) - 1
    return lambda: names[min(bisect(bounds, uniform()), last)]  # the shares may add up to a hair less than 1


def normal(uniform: Callable[[], float], mean: float, deviation: float) -> float:
    """A normal draw (Box and Muller 1958, https://doi.org/10.1214/aoms/1177706645)."""
    return mean + deviation * math.sqrt(-2 * math.log(1 - uniform())) * math.cos(2 * math.pi * uniform())


def geometric(uniform: Callable[[], float], chance: float, most: int) -> int:
    """The number of tries up to the first hit, at least 1, at most `most`."""
    return min(most, 1 + int(math.log(1 - uniform()) / math.log(1 - chance)))


def draw_balance(uniform: Callable[[], float]) -> int:
    """A yearly balance: some accounts are empty, some overdrawn, the rest is lognormal."""
    kind = uniform()
    if kind < 0.09:
        return 0
    if kind < 0.16:
        return -whole(math.exp(normal(uniform, 5.5, 0.8)), 1, 6_000)
    return whole(math.exp(normal(uniform, 6.6, 1.45)), 1, 80_000)


def whole(value: float, lowest: int, highest: int) -> int:
    """The nearest whole number within the bounds."""
    return min(highest, max(lowest, round(value)))


def write_sample(path: Path, rows: int = ROWS, seed: int = SEED) -> None:
    """Writes a header and `rows` rows, a block at a time, so that memory stays small however many they are."""
    lines = islice(make_rows(seed), rows)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(HEADER + "\n")
        while block := list(islice(lines, ROWS_PER_WRITE)):
            file.write("\n".join(block) + "\n")


def main() -> None:
    """Reads the command line and writes the file."""
    parser = argparse.ArgumentParser(description="Makes an invented table of bank customers.")
    parser.add_argument("--rows", type=int, default=ROWS, help="number of rows (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the draws (default %(default)s)")
    parser.add_argument("--out", type=Path, default=SAMPLE, help="file to write (default: beside this script)")
    given = parser.parse_args()
    if given.rows < 1:
        parser.error(f"--rows is {given.rows}; give at least 1")
    write_sample(given.out, given.rows, given.seed)


if __name__ == "__main__":
    main()
