"""Error rates from a syndrome alone: unbiased, and each class's own."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bellhop.stack.diqkd.code import Code, build_code, design_code
from bellhop.stack.diqkd.degrees import entropy
from bellhop.stack.diqkd.estimate import Estimate, estimate
from bellhop.stack.diqkd.reconcile import syndrome

ROUNDS = 200_000
MIXED = ((0.9, 0.02), (0.1, 0.16))


def estimated(code: Code, seed: int, prior: NDArray[np.float64], factor: float) -> Estimate:
    """What is estimated of errors that are drawn at `factor` times the prior."""
    rng = np.random.default_rng(seed)
    errors = (rng.random(prior.size) < factor * prior).astype(np.uint8)
    design = code.design
    lanes = np.zeros(design.columns * design.lifting, dtype=np.float32)
    lanes[: prior.size] = prior
    columns = np.ascontiguousarray(lanes.reshape(design.lifting, design.columns).T)
    return estimate(code, syndrome(code, errors).reshape(design.rows, -1), columns)


@pytest.fixture(scope="module")
def plain() -> Code:
    return build_code(design_code(ROUNDS, ((1.0, 0.02),), 1))


@pytest.fixture(scope="module")
def mixed() -> Code:
    return build_code(design_code(ROUNDS, MIXED, 1))


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_estimates_follow_the_errors(plain: Code, factor: float) -> None:
    """Standard deviation 3 % a block; a prior of 10 % draws them towards the design by a tenth."""
    prior = np.full(ROUNDS, 0.02)
    found = [estimated(plain, seed, prior, factor).classes[0][1] for seed in range(20)]
    assert np.mean(found) / (0.02 * factor) == pytest.approx(1.0, abs=0.025)
    assert np.std(found) / 0.02 < 0.05


def test_classes_are_told_apart(mixed: Code) -> None:
    tests = np.random.default_rng(1 << 20).random(ROUNDS) < MIXED[1][0]
    prior = np.where(tests, MIXED[1][1], MIXED[0][1])
    found = [estimated(mixed, seed, prior, 1.0) for seed in range(20)]
    for place, (_, error) in enumerate(MIXED):
        assert np.mean([e.classes[place][1] for e in found]) == pytest.approx(error, rel=0.03)
    assert {e.classes[1][0] for e in found} == {int(tests.sum())}
    low, high = found[0].classes
    assert low[0] + high[0] == ROUNDS


def test_known_bits_stay_known(plain: Code) -> None:
    prior = np.full(ROUNDS, 0.02)
    prior[::4] = 0.0
    found = estimated(plain, 3, prior, 1.0)
    design = plain.design
    flat = np.ascontiguousarray(found.error_probability.T).reshape(-1)[:ROUNDS]
    assert design.rounds == ROUNDS
    assert np.all(flat[::4] == 0)
    assert found.classes[0][0] == ROUNDS - flat[::4].size
    assert found.classes[0][1] == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("fill", [0, 1])
def test_parities_all_alike_give_a_number(plain: Code, fill: int) -> None:
    design = plain.design
    parities = np.full((design.rows, design.lifting), fill, dtype=np.uint8)
    prior = np.full((design.columns, design.lifting), 0.02, dtype=np.float32)
    (_, error), *rest = estimate(plain, parities, prior).classes
    assert not rest
    assert (0 < error < 0.02) if fill == 0 else (0.02 < error <= 0.5)


def test_the_deviation_is_that_of_the_entropy(mixed: Code) -> None:
    """Priors count as knowledge, so that blocks at the prior's own rates scatter no more."""
    tests = np.random.default_rng(1 << 20).random(ROUNDS) < MIXED[1][0]
    prior = np.where(tests, MIXED[1][1], MIXED[0][1])
    found = [estimated(mixed, seed, prior, 1.0) for seed in range(40)]
    bits = [sum(count * entropy(q) for count, q in e.classes) for e in found]
    assert 0.4 < np.std(bits) / np.mean([e.entropy_deviation for e in found]) < 1.2
