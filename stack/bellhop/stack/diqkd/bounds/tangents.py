"""Upper bounds on one round's value that are linear in the state: tangents of concave functions.

The value of a round is a sum of terms f(rho) = Tr[(M^1/2 rho^s M^1/2)^(1/s)], s = 1/ah in (0, 1).
Each is concave in rho (H. Epstein, Commun. Math. Phys. 31, 317 (1973)) and homogeneous of degree
one, so the gradient at any reference state rho0 > 0 bounds it for every state:

    f(rho) <= f(rho0) + Tr[(rho - rho0) K] = Tr[rho K],    K = grad f(rho0),
    K = D[Y],   Y = ah M^1/2 (M^1/2 rho0^s M^1/2)^(ah-1) M^1/2,   D = derivative of rho^s at rho0.

rho0 may differ from term to term.  Weighted sums of such K, the weights adding up to one term by
term, are bounds as well.  Y is raised by a speck (`DUST`) before its power is taken: D is positive
and x^(ah-1) operator monotone, so this errs to the safe side, by more than a small eigenvalue of
M^1/2 rho0^s M^1/2 can have been rounded.
"""

import math
from dataclasses import dataclass

import numpy as np

from bellhop.stack.diqkd.bounds.blocks import (
    Reals,
    largest_eigenvalue,
    power_derivative,
    rotated,
    spectral,
    state_with_logarithm,
    trace_of_product,
)
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI, Design

DUST = 1e-14
SETTINGS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(x, y) of a test, in the order of arrays."""


@dataclass(frozen=True, slots=True)
class Game:
    """One round's value as a function of state and measurements.

    `order`: ah.  `win`, `lose`: weights of a test's results, 2^((ah-1) f) for the default bound,
    2^(f' (ah-1)/ah) for the filtered one, where `summed` says that Bob's result is summed over
    before the power is taken.
    """

    order: float
    test: float
    flip: float
    win: float
    lose: float
    summed: bool

    @property
    def largest_weight(self) -> float:
        return max(1.0, self.win, self.lose)


def game_of(design: Design, bound: str, adaptive: bool) -> Game:
    """Raises ValueError for a bound whose designs have no kappa."""
    if bound not in {RENYI, FILTERED}:
        raise ValueError(f"designs of {bound} have no kappa")
    order = 1.0 / (2.0 - design.alpha) if adaptive else design.alpha
    exponent, lost = order - 1.0, design.score_lose
    if bound == FILTERED:
        exponent /= order
        if adaptive:
            lost = design.score_win - (design.score_win - design.score_lose) / design.alpha
    return Game(
        order=order,
        test=design.test_probability,
        flip=design.flip_probability,
        win=2.0 ** (exponent * design.score_win),
        lose=2.0 ** (exponent * lost),
        summed=bound == FILTERED,
    )


def kappa_of(theta: float, order: float) -> float:
    """-log2(theta)/(order - 1)."""
    return -math.log2(theta) / (order - 1.0)


@dataclass(frozen=True, slots=True)
class Tangents:
    """At N pairs of angles: `bound` (N,) on the value of every state, `value` (N,) of a state found
    there, its `logarithm` (N, 2, 3), and `vectors` (N, 4, 2, 2): the (z, x) of each test's K."""

    bound: Reals
    value: Reals
    logarithm: Reals
    vectors: Reals


def tangents_at(game: Game, angles: Reals, iterations: int) -> Tangents:
    """Tangents for A0 = B0 = Z, A1 and B1 at `angles` (N, 2) from it, in radians.

    The reference is found by mirror descent from the mixed state: the logarithm of the state moves
    by K/(ah-1), as in the algorithm of Blahut and Arimoto, whose steps are such.  Of all iterates
    the one with the least bound is taken; any is sound.
    """
    turns = _turns(angles)
    found = np.zeros((len(angles), 2, 3))
    least = np.full(len(angles), np.inf)
    logarithm = state_with_logarithm(found)
    for _ in range(iterations):
        gradient = _gradient(game, logarithm, turns)
        bound = largest_eigenvalue(gradient)
        better = bound < least
        least = np.where(better, bound, least)
        found = np.where(better[:, None, None], logarithm, found)
        gradient[..., 0] -= 2.0 * bound[:, None]
        logarithm = state_with_logarithm(logarithm + gradient / (game.order - 1.0))
    tests = power_derivative(found[:, None], 1.0 / game.order, _tests(game, found, turns))
    return Tangents(least, value_of(game, found, angles), found, tests[..., 1:])


def value_of(game: Game, logarithm: Reals, angles: Reals) -> Reals:
    """The value of states (N, 2, 3) at angles (N, 2), a lower bound on Theta (but for rounding):
    Tr[rho grad f(rho)] = f(rho) for a function of degree one, over Tr rho."""
    state = spectral(logarithm, np.exp)
    value = trace_of_product(state, _gradient(game, logarithm, _turns(angles), dust=0.0))
    return np.asarray(value / state[..., 0].sum(axis=-1))


def _turns(angles: Reals) -> Reals:
    """cos and sin of phi = beta -+ alpha: (N, 4 settings, 2 blocks, 2)."""
    columns = []
    for x, y in SETTINGS:
        alice, bob = x * angles[:, 0], y * angles[:, 1]
        columns.append(np.stack([bob - alice, bob + alice], axis=-1))
    phi = np.stack(columns, axis=1)
    return np.stack([np.cos(phi), np.sin(phi)], axis=-1)


def _gradient(game: Game, logarithm: Reals, turns: Reals, dust: float = DUST) -> Reals:
    """The K of the whole round (N, 2, 3)."""
    powers = spectral(logarithm / game.order, np.exp)
    outer = (1.0 - game.test) * _generation(game, powers, dust)
    outer += _tests(game, logarithm, turns, dust).sum(axis=1)
    return power_derivative(logarithm, 1.0 / game.order, outer)


def _raised(game: Game, dust: float, values: Reals) -> Reals:
    """ah x^(ah-1)."""
    return np.asarray(game.order * (np.maximum(values, 0.0) + dust) ** (game.order - 1.0))


def _generation(game: Game, powers: Reals, dust: float) -> Reals:
    """Y of generation rounds.

    Between Alice's |0> and |0>, rho^s is half the sum of the blocks as a matrix on Bob's qubit, and
    between |0> and |1> half their difference, after a turn of Bob's basis in Alice's |1>.
    """
    sums, differences = (powers[:, 0] + powers[:, 1]) / 2.0, (powers[:, 0] - powers[:, 1]) / 2.0
    if game.flip == 0.0:
        both = spectral(sums, lambda values: _raised(game, dust, values))
        return np.stack([both, both], axis=1)
    kept, flipped = 1.0 - game.flip, game.flip
    matrix = np.empty((len(powers), 4, 4))
    matrix[:, :2, :2] = kept * _matrix(sums)
    matrix[:, 2:, 2:] = flipped * _matrix(sums)
    matrix[:, :2, 2:] = matrix[:, 2:, :2] = math.sqrt(kept * flipped) * _matrix(differences)
    values, vectors = np.linalg.eigh(matrix)
    raised = (vectors * _raised(game, dust, values)[:, None, :]) @ vectors.transpose(0, 2, 1)
    root = np.sqrt([kept, kept, flipped, flipped])
    raised = raised * root[:, None] * root
    # The other value of Alice's bit gives the same with |0> and |1> exchanged.
    same = raised[:, :2, :2] + raised[:, 2:, 2:]
    cross = raised[:, :2, 2:] + raised[:, 2:, :2]
    return np.stack([_vector(same + cross), _vector(same - cross)], axis=1)


def _tests(game: Game, logarithm: Reals, turns: Reals, dust: float = DUST) -> Reals:
    """Y of each test (N, 4, 2, 3), with its probability."""
    powers = spectral(logarithm / game.order, np.exp)[:, None]
    equal = np.array([game.lose if x and y else game.win for x, y in SETTINGS])
    unequal = np.array([game.win if x and y else game.lose for x, y in SETTINGS])
    form = _summed if game.summed else _separate
    return form(game, powers, turns, equal, unequal, dust) * (game.test / 4.0)


def _separate(
    game: Game, powers: Reals, turns: Reals, equal: Reals, unequal: Reals, dust: float
) -> Reals:
    """Y = sum over a and b of ah w <ab|rho^s|ab>^(ah-1) |ab><ab|."""
    weight = powers[..., 0].sum(axis=-1)
    bias = (powers[..., 1:] * turns).sum(axis=(-1, -2))
    same = equal * _raised(game, dust, (weight + bias) / 4.0)
    other = unequal * _raised(game, dust, (weight - bias) / 4.0)
    scalar = np.broadcast_to((same + other)[..., None, None], (*turns.shape[:-1], 1))
    return np.concatenate([scalar, (same - other)[..., None, None] * turns], axis=-1)


def _summed(
    game: Game, powers: Reals, turns: Reals, equal: Reals, unequal: Reals, dust: float
) -> Reals:
    """Y with M = |a><a| x (w_equal |b=a><b=a| + w_unequal |b!=a><b!=a|), summed over a.

    In the frame where both measure Z, Alice's |0> leaves half the sum of the blocks on Bob's qubit.
    """
    back = turns * np.array([1.0, -1.0])
    bob = rotated(powers, back).sum(axis=-2) / 2.0
    upper, lower = equal * (bob[..., 0] + bob[..., 1]), unequal * (bob[..., 0] - bob[..., 1])
    root = np.sqrt(equal * unequal)
    within = np.stack([(upper + lower) / 2.0, (upper - lower) / 2.0, root * bob[..., 2]], axis=-1)
    raised = spectral(within, lambda values: _raised(game, dust * game.largest_weight, values))
    upper, lower = (
        equal * (raised[..., 0] + raised[..., 1]),
        unequal * (raised[..., 0] - raised[..., 1]),
    )
    inner = np.stack([(upper + lower) / 2.0, (upper - lower) / 2.0, root * raised[..., 2]], axis=-1)
    return rotated(np.stack([inner, inner], axis=-2), turns)


def _matrix(vector: Reals) -> Reals:
    """(..., 3) as 2 x 2 matrices."""
    k, z, x = vector[..., 0], vector[..., 1], vector[..., 2]
    rows = np.stack([np.stack([k + z, x], axis=-1), np.stack([x, k - z], axis=-1)], axis=-2)
    return np.asarray(rows / 2.0)


def _vector(matrix: Reals) -> Reals:
    """The inverse of `_matrix` for symmetric matrices."""
    k = matrix[..., 0, 0] + matrix[..., 1, 1]
    z = matrix[..., 0, 0] - matrix[..., 1, 1]
    return np.stack([k, z, matrix[..., 0, 1] + matrix[..., 1, 0]], axis=-1)
