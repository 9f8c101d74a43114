"""The laws of attempts against loops over attempts, Markov chains and closed forms.

Chi-square tests refuse at 1e-8: there are some sixty of them, so were the seeds not fixed, the
exact laws would fail one in less than a run in a million.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tests.support import attempts_twin

from bellhop.hal.sampling import Draw, Law, Multiplexed, RepeaterNode, failures

Value = TypeVar("Value", bound=Hashable)

SIGNIFICANCE = 1e-8
SEEDS = 20
ROUNDS = 2_000

MULTIPLEXED = [(0.3, 1), (0.02, 1), (0.7, 1), (0.05, 4), (0.2, 11), (0.01, 44), (0.6, 3)]
REPEATERS = [
    (0.1, 0.1, 6),
    (0.2, 0.05, 4),
    (0.05, 0.3, 9),
    (0.3, 0.3, 1),
    (0.3, 0.2, 0),
    (0.5, 0.5, 30),
    (0.06, 0.06, 25),
]


def likely(found: Mapping[Value, int], expected: Mapping[Value, float]) -> None:
    """Counts against the probabilities of the law; what is too rare goes into one bin."""
    total = sum(found.values())
    bins = [key for key, probability in expected.items() if probability * total >= 20]
    observed = np.array([found.get(key, 0) for key in bins], dtype=float)
    means = np.array([expected[key] for key in bins]) * total
    rest_observed, rest_mean = total - observed.sum(), total - means.sum()
    if rest_mean >= 20:
        observed, means = np.append(observed, rest_observed), np.append(means, rest_mean)
    else:
        assert stats.poisson.sf(rest_observed - 1, max(rest_mean, 1e-9)) > SIGNIFICANCE
        means *= observed.sum() / means.sum()
    assert len(bins) >= 2
    assert stats.chisquare(observed, means).pvalue > SIGNIFICANCE


def alike(first: Iterable[Value], second: Iterable[Value]) -> None:
    """Two samples of one law: a chi-square test of homogeneity, rare values in one bin."""
    a, b = Counter(first), Counter(second)
    common = [key for key in a.keys() | b.keys() if a[key] + b[key] >= 20]
    table = np.array([[a[key] for key in common], [b[key] for key in common]])
    rest = np.array([[a.total()], [b.total()]]) - table.sum(axis=1, keepdims=True)
    if rest.sum() >= 20:
        table = np.hstack((table, rest))
    assert table.shape[1] >= 2
    assert stats.chi2_contingency(table).pvalue > SIGNIFICANCE


def drawn(law: Law, seeds: int = SEEDS, rounds: int = ROUNDS) -> list[tuple[int, int, int, int]]:
    """(attempts since the herald before, mode, wait, first) of all rounds."""
    rows: list[tuple[int, int, int, int]] = []
    for seed in range(seeds):
        draw = law.draw(np.random.default_rng(seed), rounds)
        steps = np.diff(draw.attempts, prepend=-1)
        zeros = np.zeros(rounds, dtype=np.int64)
        columns = (
            steps,
            *(zeros if c is None else c for c in (draw.modes, draw.waits, draw.first)),
        )
        rows += list(zip(*(column.tolist() for column in columns), strict=True))
    return rows


def rising(draw: Draw) -> bool:
    return draw.attempts[0] >= 0 and bool((np.diff(draw.attempts) > 0).all())


# Multiplexed attempts


@pytest.mark.parametrize(("p", "modes"), MULTIPLEXED)
def test_attempts_and_modes_have_their_exact_joint_law(p: float, modes: int) -> None:
    found = Counter((step, mode) for step, mode, _, _ in drawn(Multiplexed(p, modes)))
    attempts = range(1, int(25 / (p * modes)) + 2)
    expected = {
        (k, m): (1 - p) ** (modes * (k - 1) + m) * p for k in attempts for m in range(modes)
    }
    likely(found, expected)


@pytest.mark.parametrize(("p", "modes"), MULTIPLEXED)
def test_attempts_and_modes_are_those_of_a_loop_over_attempts(p: float, modes: int) -> None:
    twin = attempts_twin.sample(
        lambda chance: attempts_twin.multiplexed(chance, p, modes), SEEDS, ROUNDS // 4
    )
    found = drawn(Multiplexed(p, modes))
    alike([one.attempt for one in twin], [step for step, *_ in found])
    if modes > 1:
        alike([one.mode for one in twin], [mode for _, mode, *_ in found])


def test_heralds_in_a_window_of_attempts_are_binomial() -> None:
    p, modes, window = 0.03, 5, 20
    law = Multiplexed(p, modes)
    counts: Counter[int] = Counter()
    for seed in range(SEEDS):
        draw = law.draw(np.random.default_rng(seed), ROUNDS)
        windows = np.bincount(draw.attempts // window)[:-1]
        counts.update(windows.tolist())
    binomial = stats.binom(window, 1 - (1 - p) ** modes)
    likely(counts, {k: float(binomial.pmf(k)) for k in range(window + 1)})


@pytest.mark.parametrize("p", [0.5, 1e-2, 1e-5])
def test_one_mode_is_numpys_geometric_law(p: float) -> None:
    bins = np.unique(np.round(stats.geom.ppf(np.linspace(0.02, 0.98, 40), p)))
    ours = failures(np.random.default_rng(5), p, 400_000) + 1
    numpys = np.random.default_rng(6).geometric(p, 400_000)
    alike(np.digitize(ours, bins).tolist(), np.digitize(numpys, bins).tolist())


@pytest.mark.parametrize(("p", "modes"), [(1e-9, 1), (1e-9, 44), (3e-11, 65_536)])
def test_rare_successes_overflow_nothing(p: float, modes: int) -> None:
    law = Multiplexed(p, modes)
    rounds = 500_000
    draw = law.draw(np.random.default_rng(1), rounds)
    mean = (int(draw.attempts[-1]) + 1) / rounds
    assert rising(draw)
    assert mean * law.success_probability == pytest.approx(1.0, abs=6 / np.sqrt(rounds))
    if modes > 1:
        assert draw.modes is not None and int(draw.modes.max()) < modes
        spread = modes / np.sqrt(12 * rounds)
        assert draw.modes.mean() == pytest.approx((modes - 1) / 2, abs=6 * spread)


def test_what_always_succeeds_does_so_at_once() -> None:
    draw = Multiplexed(1.0, 3).draw(np.random.default_rng(1), 5)
    assert draw.attempts.tolist() == [0, 1, 2, 3, 4]
    assert draw.modes is not None and not draw.modes.any()
    assert Multiplexed(1.0, 3).success_probability == 1.0


def test_an_attempt_succeeds_if_any_mode_does() -> None:
    assert Multiplexed(0.1, 2).success_probability == pytest.approx(0.19, rel=1e-14)
    # To first order in small p, N modes succeed N times as often: no digit is lost.
    assert Multiplexed(1e-15, 44).success_probability == pytest.approx(44e-15, rel=1e-12)


@pytest.mark.parametrize("law", [Multiplexed(1e-300, 1), RepeaterNode(0.5, 1e-300, 3)])
def test_what_never_comes_is_not_drawn(law: Law) -> None:
    """Attempts that int64 cannot count came out negative, or as a herald in each attempt."""
    with pytest.raises(AssertionError, match="too rare"):
        law.draw(np.random.default_rng(1), 10)
    with pytest.raises(AssertionError, match="too many"):
        Multiplexed(1e-16, 1).draw(np.random.default_rng(1), 1_000)
    with pytest.raises(AssertionError, match="nothing"):
        Multiplexed(0.0, 2).draw(np.random.default_rng(1), 1)
    assert Multiplexed(0.0, 2).success_probability == 0.0
    with pytest.raises(AssertionError, match="never"):
        RepeaterNode(0.0, 0.5, 3)


# Repeater node


@pytest.mark.parametrize("p", [1.0 - 1e-16, 1.0 - 1e-13, 0.9953, 0.99, 1.0])
def test_a_node_that_nearly_always_succeeds_is_drawn(p: float) -> None:
    """Where rounding carried a cycle's success beyond 1."""
    for other in np.linspace(0.9, 1.0, 300):
        law = RepeaterNode(p, float(other), 110)
        assert 0.0 < law.success_probability <= 1.0
        assert rising(law.draw(np.random.default_rng(1), 10))


def chain(p_a: float, p_b: float, cutoff: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The node as a Markov chain, from its rules: the transition matrix between unsuccessful
    states, and the probability of success out of each.

    State 0: both memories empty.  1 + j and 1 + cutoff + j: A's or B's half is stored, and j
    further attempts were made already, j below the cutoff.
    """
    states = 1 + 2 * cutoff
    move = np.zeros((states, states))
    success = np.zeros(states)
    success[0] = p_a * p_b
    move[0, 0] = (1 - p_a) * (1 - p_b)
    # Stored for no further attempt at all is given up at once.
    move[0, 1 if cutoff else 0] += p_a * (1 - p_b)
    move[0, 1 + cutoff if cutoff else 0] += p_b * (1 - p_a)
    for begin, p in ((1, p_b), (1 + cutoff, p_a)):
        for age in range(cutoff):
            success[begin + age] = p
            move[begin + age, begin + age + 1 if age + 1 < cutoff else 0] += 1 - p
    assert np.allclose(move.sum(axis=1) + success, 1.0)
    return move, success


@pytest.mark.parametrize(("p_a", "p_b", "cutoff"), [*REPEATERS, (2.7e-3, 2.7e-3, 110)])
def test_success_probability_is_that_of_the_markov_chain(
    p_a: float, p_b: float, cutoff: int
) -> None:
    move, _ = chain(p_a, p_b, cutoff)
    mean_attempts = np.linalg.solve(np.eye(len(move)) - move, np.ones(len(move)))[0]
    law = RepeaterNode(p_a, p_b, cutoff)
    assert law.success_probability == pytest.approx(1.0 / mean_attempts, rel=1e-10)


@pytest.mark.parametrize(("p_a", "p_b", "cutoff"), REPEATERS)
def test_attempts_waits_and_sides_have_the_markov_chains_joint_law(
    p_a: float, p_b: float, cutoff: int
) -> None:
    law = RepeaterNode(p_a, p_b, cutoff)
    move, success = chain(p_a, p_b, cutoff)
    labels = [(0, 0)] + [(age + 1, side) for side in (0, 1) for age in range(cutoff)]
    occupied = np.eye(len(move))[0]
    expected: dict[tuple[int, int, int], float] = {}
    for step in range(1, int(12 / law.success_probability)):
        for state, label in enumerate(labels):
            expected[(step, *label)] = occupied[state] * success[state]
        occupied = occupied @ move
    found = Counter((step, wait, first) for step, _, wait, first in drawn(law))
    likely(found, expected)


@pytest.mark.parametrize(("p_a", "p_b", "cutoff"), REPEATERS)
def test_a_repeater_node_is_the_loop_over_its_attempts(p_a: float, p_b: float, cutoff: int) -> None:
    law = RepeaterNode(p_a, p_b, cutoff)
    twin = attempts_twin.sample(
        lambda chance: attempts_twin.repeater_node(chance, p_a, p_b, cutoff), SEEDS, ROUNDS // 4
    )
    found = drawn(law)
    width = max(1, round(0.1 / law.success_probability))
    alike([one.attempt // width for one in twin], [step // width for step, *_ in found])
    if cutoff:
        alike([(one.wait, one.first) for one in twin], [(w, f) for _, _, w, f in found])


def test_the_mean_wait_of_a_stored_half() -> None:
    p, cutoff = 2.7e-3, 110
    draw = RepeaterNode(p, p, cutoff).draw(np.random.default_rng(3), 200_000)
    assert draw.waits is not None
    within = (1 - p) ** np.arange(cutoff) * p  # the other half comes after j = 1 to cutoff more
    both = p / (2 - p)
    weights = np.concatenate([[both], (1 - both) * within])
    weights /= weights.sum()
    waits = np.arange(cutoff + 1)
    mean = weights @ waits
    spread = np.sqrt(weights @ waits**2 - mean**2) / np.sqrt(len(draw.waits))
    assert draw.waits.mean() == pytest.approx(mean, abs=6 * spread)
    assert draw.waits.max() == cutoff and draw.waits.min() == 0


def test_the_innsbruck_node_is_in_its_bracket() -> None:
    """2,053 successes in 2,229,883 attempts, 128 times what p^2 without memory gives
    (Krutyanskiy et al., Phys. Rev. Lett. 130, 213601 (2023)), with p inferred from them."""
    p = 2.7e-3
    law = RepeaterNode(p, p, 110)
    within = 1 - (1 - p) ** 110
    one_at_a_time = within / (1 / (2 * p - p * p) + within / p)  # 9.17e-4
    both_at_once = p * p / (2 * p - p * p)  # and then no need to wait
    assert one_at_a_time == pytest.approx(9.17e-4, rel=1e-3)
    assert law.success_probability == pytest.approx(
        one_at_a_time * (1 + both_at_once / within), rel=1e-3
    )
    assert law.success_probability == pytest.approx(2_053 / 2_229_883, rel=0.02)
    assert law.success_probability / p**2 == pytest.approx(128, abs=3)


def test_without_cutoff_both_halves_are_kept() -> None:
    """E[max of two geometric times] = 2/p - 1/(2p - p^2)."""
    p = 0.04
    law = RepeaterNode(p, p, 100_000)
    assert 1 / law.success_probability == pytest.approx(2 / p - 1 / (2 * p - p * p), rel=1e-12)


@pytest.mark.parametrize(("p_a", "p_b", "cutoff"), [(3e-5, 3e-5, 0), (2e-6, 2e-6, 100)])
def test_a_rarely_successful_node_overflows_nothing(p_a: float, p_b: float, cutoff: int) -> None:
    law = RepeaterNode(p_a, p_b, cutoff)
    rounds = 200_000
    draw = law.draw(np.random.default_rng(1), rounds)
    assert law.success_probability < 1e-9
    assert rising(draw)
    mean = (int(draw.attempts[-1]) + 1) / rounds
    assert mean * law.success_probability == pytest.approx(1.0, abs=6 / np.sqrt(rounds))


def test_certain_halves_come_at_once() -> None:
    draw = RepeaterNode(1.0, 1.0, 0).draw(np.random.default_rng(1), 3)
    assert draw.attempts.tolist() == [0, 1, 2]
    draw = RepeaterNode(1.0, 0.5, 40).draw(np.random.default_rng(1), 1000)
    assert draw.first is not None and not draw.first.any()
    assert draw.waits is not None
    assert draw.waits.tolist() == (np.diff(draw.attempts, prepend=-1) - 1).tolist()
