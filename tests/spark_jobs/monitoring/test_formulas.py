"""The formulas agree with textbooks and with SciPy."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from spark_jobs.monitoring.formulas import (
    chi_square_tail,
    chi_square_test,
    fisher_exact_test,
    holm,
    population_stability_index,
    shares_test,
)

counts = st.integers(0, 10**6)


def test_the_stability_index_of_a_case_worked_by_hand() -> None:
    # Shares 0.5 and 0.5 against 0.25 and 0.75: (0.25 - 0.5) ln 0.5 + (0.75 - 0.5) ln 1.5.
    by_hand = 0.25 * math.log(2) + 0.25 * math.log(1.5)
    assert population_stability_index([500_000, 500_000], [250_000, 750_000]) == pytest.approx(by_hand, rel=1e-5)
    assert population_stability_index([7, 3], [700, 300]) == pytest.approx(0, abs=0.01)
    assert math.isfinite(population_stability_index([10, 0], [0, 10]))


@given(st.lists(st.tuples(counts, counts), min_size=2, max_size=30))
def test_the_stability_index_is_symmetric_and_never_negative(pairs: list[tuple[int, int]]) -> None:
    before, now = zip(*pairs, strict=True)
    index = population_stability_index(before, now)
    assert index >= -1e-12
    assert population_stability_index(now, before) == pytest.approx(index, abs=1e-9)


@given(st.floats(0, 3000), st.integers(1, 300))
def test_the_tail_of_chi_square_is_scipys(statistic: float, degrees: int) -> None:
    assert chi_square_tail(statistic, degrees) == pytest.approx(stats.chi2.sf(statistic, degrees), rel=1e-8, abs=1e-13)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=2, max_size=12))
def test_the_chi_square_test_is_pearsons_of_a_table_with_two_rows(pairs: list[tuple[int, int]]) -> None:
    before, now = zip(*pairs, strict=True)
    kept = [pair for pair in pairs if sum(pair)]
    if not sum(before) or not sum(now) or len(kept) < 2:
        assert chi_square_test(before, now) == (0.0, 0, 1.0)
        return
    expected = stats.chi2_contingency(list(zip(*kept, strict=True)), correction=False)
    found = chi_square_test(before, now)
    assert found[0] == pytest.approx(expected.statistic, rel=1e-7, abs=1e-9)
    assert found[1] == expected.dof
    assert found[2] == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)


@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 60), st.integers(1, 60))
def test_fishers_exact_test_is_scipys(before: int, more_before: int, now: int, more_now: int) -> None:
    table = [[now, more_now], [before, more_before]]
    found = fisher_exact_test(now, now + more_now, before + now, before + now + more_before + more_now)
    assert found == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6)


def test_the_lady_tasting_tea() -> None:
    """Fisher's own example: all four cups right, of eight; one-sided 1 / 70, two-sided twice that."""
    assert fisher_exact_test(4, 4, 4, 8) == pytest.approx(2 / 70)


def test_a_share_that_was_never_seen_is_tested_exactly() -> None:
    assert shares_test(0, 2000, 10, 100) == pytest.approx(stats.fisher_exact([[10, 90], [0, 2000]]).pvalue, rel=1e-6)
    assert shares_test(0, 2000, 0, 100) == 1.0
    assert shares_test(5, 5, 7, 7) == 1.0
    assert shares_test(0, 0, 7, 7) == 1.0
    assert shares_test(0, 10_000_000, 3, 10_000_000) == pytest.approx(
        0.25, rel=1e-4
    )  # of three, all on one side: 2 / 8


def test_holms_correction_of_his_own_kind_of_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
