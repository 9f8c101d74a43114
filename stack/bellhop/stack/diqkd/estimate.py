"""The error rates of a block from the syndrome of its errors, before anything is decoded.

Rules
  Nothing of an estimate is announced but the number of steps that Bob asks for.

Theory
  A check over bits that are in error independently with probabilities q is odd with probability
  (1 - prod (1 - 2 q)) / 2 (Gallager 1962, lemma 4.1). Bits fall into two classes, of low and of
  high prior; each class's log(1 - 2 q) is scaled by a factor of its own, and the two factors
  maximise the likelihood of the observed parities (taken as independent) times a normal prior for
  their logarithms, whose width is what calibration and chance leave open. Fisher scoring.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.code import Code
from bellhop.stack.diqkd.decode_kernels import add_counts

CALIBRATION = (0.10, 0.06)
"""Relative uncertainty of the two classes' error rates before the block; chance comes on top."""

HIGH = 0.1
"""Prior from which on a bit belongs to the class of high error rate."""

SCORINGS = 12
FACTOR_RANGE = (0.05, 4.0)


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What the parities say: error probabilities by bit, and (count, probability) by class.

    `entropy_deviation` is the standard deviation, in bits, of the block's entropy at these rates.
    """

    error_probability: NDArray[np.float32] = field(repr=False)
    classes: tuple[tuple[float, float], ...]
    entropy_deviation: float


def estimate(code: Code, parities: NDArray[np.uint8], prior: NDArray[np.float32]) -> Estimate:
    """Error rates from base parities (rows, lifting) and priors (columns, lifting)."""
    high = (prior >= HIGH).astype(np.uint8)
    counts = np.zeros(parities.shape, dtype=np.int16)
    add_counts(code.row_start, code.edge_column, code.edge_shift, high, counts)
    degree = np.diff(code.row_start)
    width = int(degree.max()) + 1
    cell = degree[:, None] * width + counts
    checks = np.bincount(cell.reshape(-1))
    odd = np.bincount(cell.reshape(-1), weights=parities.reshape(-1)).astype(np.float64)
    seen = np.flatnonzero(checks)
    members = np.stack([seen // width - seen % width, seen % width]).astype(np.float64)
    exponent = -np.log1p(-2 * np.minimum(prior.astype(np.float64), 0.499999))
    masks = (high == 0) & (prior > 0), high == 1
    sums = [(float(exponent[mask].sum()), int(np.count_nonzero(mask))) for mask in masks]
    # Bits of prior zero stand among the low ones and share their mean.
    low_places = int(np.count_nonzero(high == 0))
    means = np.array([sums[0][0] / max(low_places, 1), sums[1][0] / max(sums[1][1], 1)])
    widths = [
        math.hypot(known, 1 / math.sqrt(max(total / 2, 1.0)))
        for known, (total, _) in zip(CALIBRATION, sums, strict=True)
    ]
    factors, covariance = _factors(
        members * means[:, None], checks[seen], odd[seen], np.array(widths)
    )
    scaled = -np.expm1(-exponent * np.where(high == 1, factors[1], factors[0])) / 2
    classes = tuple(
        (count, float(scaled[mask].mean()))
        for mask, (_, count) in zip(masks, sums, strict=True)
        if count
    )
    slopes = np.array(
        [
            total * factor * _entropy_by_exponent(total * factor / max(count, 1))
            for (total, count), factor in zip(sums, factors, strict=True)
        ]
    )
    deviation = math.sqrt(float(slopes @ covariance @ slopes))
    return Estimate(scaled.astype(np.float32), classes, deviation)


def _entropy_by_exponent(exponent: float) -> float:
    """Derivative of h(q) in bits by the exponent -log(1 - 2 q)."""
    even = math.exp(-exponent)
    if not 0 < even < 1:
        return 0.0
    return even / 2 * math.log2((1 + even) / (1 - even))


def _factors(
    exponents: NDArray[np.float64],
    checks: NDArray[np.int64],
    odd: NDArray[np.float64],
    widths: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two factors by which the classes' exponents (2, cells) fit the counts best.

    Beside them the covariance of their logarithms, from the Fisher information.
    """
    log_factor, fisher = np.zeros(2), np.eye(2)
    low, high = (math.log(bound) for bound in FACTOR_RANGE)
    for _ in range(SCORINGS):
        parts = exponents * np.exp(log_factor)[:, None]
        even = np.exp(-parts.sum(axis=0))
        p = np.clip((1 - even) / 2, 1e-12, 0.5)
        slope = parts * even / 2
        weight = 1 / (p * (1 - p))
        score = (slope * weight * (odd - checks * p)).sum(axis=1) - log_factor / widths**2
        fisher = (slope * (checks * weight)) @ slope.T + np.diag(1 / widths**2)
        log_factor = np.clip(log_factor + np.linalg.solve(fisher, score), low, high)
    covariance = np.linalg.inv(fisher).astype(np.float64)
    return np.exp(log_factor), covariance
