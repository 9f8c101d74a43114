"""Why log2 of the announced range pays for announcing counts, checked on states one can count.

Alice holds a string of four bits, Eve a qubit; an announcement j splits the state.  All is
computed: every string, every seed of the hash, every trace norm.
"""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

Reals = NDArray[np.float64]

STRING_BITS = 4
STRINGS = 1 << STRING_BITS


def power_trace(operator: Reals, reference: Reals, alpha: float) -> float:
    """Q = Tr[(s^((1-alpha)/2alpha) X s^((1-alpha)/2alpha))^alpha]."""
    values, vectors = np.linalg.eigh(reference)
    root = (vectors * values ** ((1.0 - alpha) / (2.0 * alpha))) @ vectors.T
    return float((np.clip(np.linalg.eigvalsh(root @ operator @ root), 0.0, None) ** alpha).sum())


def states(generator: np.random.Generator, announced: int) -> Reals:
    """rho[j, x]: Eve's operator when Alice has x and j comes out; traces add up to 1."""
    factors = generator.standard_normal((announced, STRINGS, 2, 2))
    operators = factors @ factors.swapaxes(-1, -2)
    weights = generator.dirichlet(np.full(announced * STRINGS, 0.5)).reshape(announced, STRINGS)
    traces = np.trace(operators, axis1=-2, axis2=-1)
    return np.asarray(operators * (weights / traces)[..., None, None])


def toeplitz_hashes(length: int) -> list[NDArray[np.int64]]:
    """hash[x] for every seed of a Toeplitz matrix of length x 4 bits."""
    bits = (np.arange(STRINGS)[:, None] >> np.arange(STRING_BITS)) & 1
    hashes = []
    for seed in itertools.product((0, 1), repeat=length + STRING_BITS - 1):
        matrix = np.array([[seed[i - k + STRING_BITS - 1] for k in range(STRING_BITS)]
                           for i in range(length)])  # fmt: skip
        hashes.append((bits @ matrix.T % 2) @ (1 << np.arange(length)))
    return hashes


def distance(of_x: Reals, length: int) -> float:
    """Half the trace norm between hashed and ideal, in the mean over the seeds."""
    ideal = of_x.sum(axis=0) / (1 << length)
    norms = []
    for hashed in toeplitz_hashes(length):
        real = np.zeros((1 << length, 2, 2))
        np.add.at(real, hashed, of_x)
        norms.append(np.abs(np.linalg.eigvalsh(real - ideal)).sum() / 2.0)
    return float(np.mean(norms))


@pytest.mark.parametrize("alpha", [1.05, 1.3, 2.0])
@pytest.mark.parametrize("lengths", [(2,), (1, 2), (3, 2, 1, 1)])
def test_the_distances_of_all_announcements_add_up_to_less_than_epsilon(
    alpha: float, lengths: tuple[int, ...]
) -> None:
    """Scores F_j = l_j, kappa from the sum over j, epsilon from the formula for the length."""
    generator = np.random.default_rng(len(lengths))
    for _ in range(4):
        rho = states(generator, len(lengths))
        eve = rho.sum(axis=(0, 1))
        terms = [
            2.0 ** ((alpha - 1.0) * length) * sum(power_trace(x, eve, alpha) for x in rho[j])
            for j, length in enumerate(lengths)
        ]
        n_kappa = -np.log2(sum(terms)) / (alpha - 1.0)
        # l_j = F_j + n kappa - log2 J + 2 - alpha/(alpha-1) log2(1/epsilon) with F_j = l_j.
        unlikely = (alpha - 1.0) / alpha * (n_kappa - np.log2(len(lengths)) + 2.0)
        epsilon = 2.0**-unlikely
        total = sum(distance(rho[j], length) for j, length in enumerate(lengths))
        assert 0.0 < total <= epsilon


def test_hoelder_is_met_when_all_announcements_weigh_the_same() -> None:
    """So log2 J cannot be made smaller in step 3, and nothing beside it is needed."""
    alpha = 1.2
    for count in (1, 7, 1024):
        even = np.full(count, 0.3)
        paid = count ** (1.0 - 1.0 / alpha)
        assert (even ** (1 / alpha)).sum() == pytest.approx(paid * even.sum() ** (1 / alpha))
        uneven = np.random.default_rng(count).exponential(size=count)
        assert (uneven ** (1 / alpha)).sum() <= paid * uneven.sum() ** (1 / alpha) * (1 + 1e-12)


def test_finer_announcements_lower_the_sum_and_coarser_pay_for_what_they_join() -> None:
    generator = np.random.default_rng(3)
    for alpha in (1.01, 1.4, 2.0):
        parts = list(states(generator, 1)[0][:5])
        eve = np.sum(parts, axis=0)
        apart = sum(power_trace(part, eve, alpha) for part in parts)
        together = power_trace(np.sum(parts, axis=0), eve, alpha)
        assert apart <= together <= len(parts) ** (alpha - 1.0) * apart


@pytest.mark.parametrize("alpha", [1.05, 1.3, 2.0])
@pytest.mark.parametrize("leak", [0, 1, 2])
def test_a_key_beside_its_syndrome_is_as_far_from_ideal_as_its_leak_allows(
    alpha: float, leak: int
) -> None:
    """A string's lowest bits are public, its key is hashed from all of it.  At alpha = 2 the bound
    is close enough that a leak which is not paid would show."""
    generator = np.random.default_rng(4)
    for _ in range(4):
        rho = states(generator, 1)[0]
        eve = rho.sum(axis=0)
        n_kappa = -np.log2(sum(power_trace(x, eve, alpha) for x in rho)) / (alpha - 1.0)
        syndrome = np.arange(STRINGS) % (1 << leak)
        for length in (1, 2):
            # length = n kappa - leak + 2 - alpha/(alpha-1) log2(1/epsilon)
            epsilon = 2.0 ** (-(alpha - 1.0) / alpha * (n_kappa - leak + 2.0 - length))
            parts = [np.where((syndrome == z)[:, None, None], rho, 0.0) for z in range(1 << leak)]
            assert 0.0 < sum(distance(part, length) for part in parts) <= epsilon
