"""No two-qubit strategy, searched for without the closed forms, leaves Eve more than a bound says.

A bound on entropies is convex in S, so it is met where H - slope * S is least: that is searched
over all states and all angles.  The search has to come close as well, or it would prove nothing.
"""

from collections.abc import Callable

import numpy as np
import pytest
from tests.support.two_qubits import (
    Reals,
    any_real,
    chsh,
    conditional_entropy,
    one_round,
    search,
)

from bellhop.stack.diqkd.bounds.asymmetric import asymmetric_entropy
from bellhop.stack.diqkd.bounds.asymptotic import chsh_entropy, lowest
from bellhop.stack.diqkd.bounds.chsh import S_MAX
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI, Design
from bellhop.stack.diqkd.bounds.expected import KAPPA
from bellhop.stack.diqkd.bounds.family import order_of
from bellhop.stack.diqkd.bounds.key_basis import random_basis_entropy

NEVER_BELOW, CLOSE = 2e-8, 1e-4


def least(entropy: Callable[[float], float], slope: float, most: float) -> float:
    """Of a convex function, so golden sections find it."""

    def tilted(value: float) -> float:
        return entropy(value) - slope * value

    return min(tilted(2.0), tilted(lowest(tilted, 2.0, most)), tilted(most))


@pytest.mark.parametrize("flip", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("slope", [1.3, 2.5])
def test_chsh(flip: float, slope: float) -> None:
    def cost(states: Reals, angles: Reals) -> Reals:
        return conditional_entropy(states, angles[:, 0], flip) - slope * chsh(states, angles)

    found = search(cost, np.random.default_rng(5), samples=1500, polished=2)
    bound = least(lambda s: chsh_entropy(s, flip), slope, S_MAX)
    assert -NEVER_BELOW < found - bound < CLOSE


@pytest.mark.parametrize(("flip", "slope"), [(0.0, 1.1), (0.0, 1.3), (0.05, 1.2), (0.45, 0.02)])
def test_random_key_basis(flip: float, slope: float) -> None:
    def cost(states: Reals, angles: Reals) -> Reals:
        entropies = (conditional_entropy(states, angles[:, i], flip) for i in (0, 1))
        return np.asarray(sum(entropies) / 2.0 - slope * chsh(states, angles))

    found = search(cost, np.random.default_rng(6), samples=1500, polished=3)
    bound = least(lambda s: random_basis_entropy(s, flip), slope, S_MAX)
    assert -NEVER_BELOW < found - bound < CLOSE


@pytest.mark.parametrize(
    ("weight", "flip", "slope"), [(0.925, 0.0, 1.3), (0.937, 0.45, 0.02), (1.1, 0.1, 1.5)]
)
def test_asymmetric_chsh(weight: float, flip: float, slope: float) -> None:
    def cost(states: Reals, angles: Reals) -> Reals:
        value = chsh(states, angles, weight)
        return conditional_entropy(states, angles[:, 0], flip) - slope * value

    found = search(cost, np.random.default_rng(7), samples=1500, polished=3)
    most = 2.0 * np.hypot(1.0, weight)
    bound = least(lambda v: asymmetric_entropy(v, weight, flip), slope, float(most))
    assert -NEVER_BELOW < found - bound < CLOSE


@pytest.mark.parametrize(
    ("bound", "design", "adaptive"),
    [
        (RENYI, Design(1.0007, 0.10, 17.0, -78.0), True),
        # Its scores are badly chosen: the deterministic strategies decide.
        (RENYI, Design(1.001, 0.10, 16.0, -65.0), True),
        (RENYI, Design(1.001, 0.14, 12.0, -53.0, 0.01), False),
        (FILTERED, Design(1.001, 0.10, 16.0, -65.0), False),
        (FILTERED, Design(1.002, 0.18, 10.0, -36.0, 0.02), True),
    ],
)
def test_kappa(bound: str, design: Design, adaptive: bool) -> None:
    order = order_of(design, adaptive)

    def cost(states: Reals, angles: Reals) -> Reals:
        value = one_round(bound, design, adaptive, states, angles)
        return np.asarray(-np.log2(value) / (order - 1.0))

    found = search(cost, np.random.default_rng(8), samples=1000, polished=1)
    assert -NEVER_BELOW < found - KAPPA[bound](design, adaptive) < CLOSE


def test_single_strategies_keep_to_the_bound() -> None:
    """Point by point, where the bound is compared at the S that the strategy has."""
    generator = np.random.default_rng(9)
    near = np.eye(4)[None] * 0.05 * generator.standard_normal((4000, 4, 4))
    states = any_real((near + 0.2 * generator.standard_normal((4000, 4, 4))).reshape(-1, 16))
    singlet = any_real(np.outer([1.0, 0, 0, 1.0], [1.0, 0, 0, 0]).reshape(1, 16))
    states = 0.85 * singlet + 0.15 * states
    angles = np.array([0.0, np.pi / 2, np.pi / 4, -np.pi / 4])
    angles = angles + 0.15 * generator.standard_normal((4000, 4))
    values = chsh(states, angles)
    assert (values > 2.2).sum() > 2000
    for flip in (0.0, 0.1):
        bounds = np.array([chsh_entropy(float(s), flip) for s in values])
        assert (conditional_entropy(states, angles[:, 0], flip) >= bounds - 1e-9).all()
        both = sum(conditional_entropy(states, angles[:, i], flip) for i in (0, 1))
        bounds = np.array([random_basis_entropy(float(s), flip) for s in values[:300]])
        assert (np.asarray(both)[:300] / 2.0 >= bounds - 1e-9).all()
