"""Degree distributions for error correction near the Shannon limit, and how they are chosen.

Theory
  The shares of column degrees were optimised by density evolution on the binary symmetric channel
  with check degrees that differ by at most one (Richardson, Shokrollahi, Urbanke, IEEE Trans. Inf.
  Theory 47, 619 (2001)), the stability factor held at 0.82 of its bound.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

STABILITY = 0.82
"""Stability factor aimed at: nearer to 1 words of low weight go undetected, further off the
threshold is worse."""

Shares = tuple[tuple[int, int], ...]  # (degree, share of the columns), degrees increasing


@dataclass(frozen=True, slots=True)
class DegreeTable:
    """Shares of columns by degree, in thousandths, for a channel of one error probability."""

    name: str
    error_probability: float
    efficiency: float  # of long blocks: syndrome over entropy at which decoding succeeds
    shares: Shares  # thousandths of the columns


DEGREE_TABLES = (
    DegreeTable(
        "bsc-1",
        0.01,
        1.034,
        ((2, 175), (3, 411), (7, 187), (8, 18), (11, 102), (12, 23), (40, 84)),
    ),
    DegreeTable("bsc-2", 0.02, 1.033, ((2, 219), (3, 427), (8, 213), (11, 40), (12, 27), (40, 75))),
    DegreeTable("bsc-3", 0.03, 1.031, ((2, 248), (3, 430), (8, 148), (9, 59), (12, 49), (40, 66))),
    DegreeTable(
        "bsc-5",
        0.05,
        1.033,
        (
            (2, 294),
            (3, 420),
            (6, 19),
            (7, 43),
            (8, 75),
            (9, 52),
            (10, 21),
            (11, 2),
            (30, 74),
        ),
    ),
    DegreeTable("bsc-8", 0.08, 1.028, ((2, 338), (3, 429), (9, 180), (10, 3), (35, 50))),
)


def entropy(error_probability: float) -> float:
    """Binary entropy in bits."""
    q = error_probability
    if q <= 0.0 or q >= 1.0:
        return 0.0
    return -q * math.log2(q) - (1 - q) * math.log2(1 - q)


def dispersion(error_probability: float) -> float:
    """Variance of the information density of a bit, in bits squared."""
    q = error_probability
    if q <= 0.0 or q >= 1.0:
        return 0.0
    return q * (1 - q) * math.log2((1 - q) / q) ** 2


def effective_error_probability(bits: float) -> float:
    """The error probability in [0, 1/2] whose binary entropy is `bits` (bisection)."""
    low, high = 0.0, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(middle) < bits else (low, middle)
    return (low + high) / 2


def efficiency(error_probability: float) -> float:
    """Asymptotic efficiency at an error probability; interpolated, clamped at the ends."""
    known = [table.error_probability for table in DEGREE_TABLES]
    return float(np.interp(error_probability, known, [t.efficiency for t in DEGREE_TABLES]))


def stability(shares: Shares, rate: float, classes: Sequence[tuple[float, float]]) -> float:
    """Degree-2 edges times check degree less one times Bhattacharyya parameter; below 1 is stable.

    Richardson, Shokrollahi, Urbanke (2001), theorem 5, for syndrome bits a bit `rate` and
    concentrated checks.
    """
    columns = sum(share for _, share in shares)
    edges = sum(degree * share for degree, share in shares)
    degree_two = sum(degree * share for degree, share in shares if degree == 2)
    return degree_two / edges * (edges / columns / rate - 1) * bhattacharyya(classes)


def blend(lower: DegreeTable, upper: DegreeTable, thousandths: int) -> Shares:
    """Shares of columns `thousandths` of the way from one table to the next, in integers."""
    shares: dict[int, int] = {}
    weights = (
        (lower, (1000 - thousandths) * sum(share for _, share in upper.shares)),
        (upper, thousandths * sum(share for _, share in lower.shares)),
    )
    for table, weight in weights:
        for degree, share in table.shares:
            shares[degree] = shares.get(degree, 0) + share * weight
    return tuple((degree, share) for degree, share in sorted(shares.items()) if share)


def choose_shares(rate: float, classes: Sequence[tuple[float, float]]) -> tuple[str, Shares]:
    """The blend of neighbouring tables whose stability factor is nearest below `STABILITY`.

    On a symmetric channel of one error probability this finds its own table. A mixture of error
    probabilities has a smaller Bhattacharyya parameter than that channel of the same entropy and
    bears more columns of degree 2: the table of the same entropy then needs 1 to 2 % more syndrome.
    """
    steps = [(lower, upper, t) for lower, upper in pairwise(DEGREE_TABLES) for t in range(1001)]
    # the factor grows along the steps, because the share of degree-2 edges does
    first_above = bisect_right(
        steps, STABILITY, key=lambda step: stability(blend(*step), rate, classes)
    )
    lower, upper, thousandths = steps[max(first_above - 1, 0)]
    return f"{lower.name}+{thousandths}/1000 {upper.name}", blend(lower, upper, thousandths)


def bhattacharyya(classes: Sequence[tuple[float, float]]) -> float:
    """Mean of 2 sqrt(q (1 - q)) over classes of (count or weight, error probability)."""
    total = sum(weight for weight, _ in classes)
    return sum(weight * 2 * math.sqrt(q * (1 - q)) for weight, q in classes) / total
