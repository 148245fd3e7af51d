"""The formulas of drift: the population stability index, tests of two samples of counts, and the correction for many tests.

They take counts, no rows, and need nothing but the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LEAST_EXPECTED = 5.0
"""Smallest expected count of a bin for which the chi-square distribution is a fair approximation (Cochran 1954)."""
ACCURACY = 1e-15
MOST_TERMS = 10_000


def population_stability_index(reference: Sequence[int], current: Sequence[int]) -> float:
    """Computes the population stability index of two samples: the sum over all bins of (q - p) * ln(q / p), with p and q their shares.

    It is the symmetric divergence of Kullback & Leibler 1951 (their J). Siddiqi 2006, "Credit Risk Scorecards", calls a value below 0.1
    stable and one above 0.25 a shift. If nothing has changed, it is about (bins - 1) * (1 / m + 1 / n) for samples of m and n cells
    (Yurdakul 2018), so that a small sample alone makes it large: it says how large a shift is, and a test whether there is one.

    Half a cell is added to each bin, so that an empty one gives a finite value.

    Args:
        reference: cells in each bin.
        current: cells in the same bins.
    """
    p, q = ([(count + 0.5) / (sum(counts) + 0.5 * len(counts)) for count in counts] for counts in (reference, current))
    return sum((now - before) * math.log(now / before) for before, now in zip(p, q, strict=True))


def chi_square_test(reference: Sequence[int], current: Sequence[int]) -> tuple[float, int, float]:
    """Tests whether two samples of counts come from one population: Pearson's chi-square test of homogeneity.

    The statistic for samples of unequal size is that of Press et al., "Numerical Recipes", 3rd edition, equation 14.3.3; for a table
    with two rows it equals Pearson's. It has (bins - 1) degrees of freedom. Bins that are quantiles of the reference do not change that:
    the counts of the reference then vary less, and the shares that the bins have in the population vary by as much more.

    Args:
        reference: cells in each bin.
        current: cells in the same bins; each bin should expect `LEAST_EXPECTED` cells in both samples.

    Returns:
        The statistic, the degrees of freedom and the p value; 0, 0 and 1 if there are not two bins with cells, or a sample is empty.
    """
    m, n = sum(reference), sum(current)
    pairs = [(before, now) for before, now in zip(reference, current, strict=True) if before + now]
    if not m or not n or len(pairs) < 2:
        return 0.0, 0, 1.0
    factor = math.sqrt(n / m)
    statistic = sum((factor * before - now / factor) ** 2 / (before + now) for before, now in pairs)
    return statistic, len(pairs) - 1, chi_square_tail(statistic, len(pairs) - 1)


def shares_test(before: int, of_before: int, now: int, of_now: int) -> float:
    """Tests whether two samples have the same share of some cells; returns the p value.

    It is the chi-square test of the table of two by two, and Fisher's exact test (Fisher 1935) where a cell of that table expects fewer
    than `LEAST_EXPECTED`.

    Args:
        before: cells of the kind in the reference.
        of_before: all cells of the reference.
        now: cells of the kind in the current rows.
        of_now: all cells of the current rows.
    """
    found, total = before + now, of_before + of_now
    if not of_before or not of_now or found in (0, total):
        return 1.0
    least = min(found, total - found) * min(of_before, of_now) / total
    if least >= LEAST_EXPECTED:
        return chi_square_test((before, of_before - before), (now, of_now - now))[2]
    return fisher_exact_test(now, of_now, found, total)


def fisher_exact_test(observed: int, drawn: int, marked: int, total: int) -> float:
    """Returns the two-sided p value of Fisher's exact test: the probability of all draws that are not more likely than the observed one.

    Args:
        observed: marked cells among the drawn ones.
        drawn: number of drawn cells.
        marked: number of marked cells among all.
        total: number of all cells.
    """

    def log_choices(n: int, k: int) -> float:
        return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)

    def log_probability(k: int) -> float:
        return log_choices(marked, k) + log_choices(total - marked, drawn - k) - log_choices(total, drawn)

    limit = log_probability(observed) + 1e-7  # draws that are as likely differ by rounding only
    possible = range(max(0, drawn + marked - total), min(drawn, marked) + 1)
    return min(1.0, sum(math.exp(each) for each in map(log_probability, possible) if each <= limit))


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Returns the probability that a chi-square variable exceeds the statistic.

    It is the upper incomplete gamma function Q(degrees / 2, statistic / 2): its series below the mean and its continued fraction above, as
    in Press et al., "Numerical Recipes", 3rd edition, section 6.2.
    """
    a, x = degrees / 2.0, statistic / 2.0
    if x <= 0.0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    return 1.0 - scale * _series(a, x) if x < a + 1.0 else scale * _continued_fraction(a, x)


def _series(a: float, x: float) -> float:
    total = term = 1.0 / a
    for n in range(1, MOST_TERMS):
        term *= x / (a + n)
        total += term
        if term < total * ACCURACY:
            break
    return total


def _continued_fraction(a: float, x: float) -> float:
    """Evaluates the fraction by the method of Lentz."""
    b = x + 1.0 - a
    c, d = math.inf, 1.0 / b
    result = d
    for n in range(1, MOST_TERMS):
        step = -n * (n - a)
        b += 2.0
        d = 1.0 / (step * d + b)
        c = b + (step / c if math.isfinite(c) else 0.0)
        result *= c * d
        if abs(c * d - 1.0) < ACCURACY:
            break
    return result


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrects p values for the number of tests by Holm 1979: rejecting those below a level errs at all with at most that probability.

    This holds however the tests depend on each other, and the columns of a table do depend on each other.

    Returns:
        The adjusted p values, in the order of the given ones.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = largest
    return adjusted
