"""Two-qubit strategies by matrices: what the closed forms of the bounds are compared with.

Slow and plain.  A strategy is a state of Alice and Bob, purified by Eve, and four angles: of
Alice's and of Bob's observables cos(v) Z + sin(v) X.  Everything takes batches: states (m, 4, 4),
angles (m, 4).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.bounds.design import FILTERED, Design
from bellhop.stack.diqkd.bounds.family import order_of
from bellhop.stack.diqkd.bounds.filtered import filter_weights

Reals = NDArray[np.float64]

Z, X, ONE = np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(2)
BELL = np.array([[1, 0, 0, 1], [1, 0, 0, -1], [0, 1, 1, 0], [0, 1, -1, 0]]) / np.sqrt(2.0)


def bell_diagonal(weights: Reals) -> Reals:
    """States with these weights (m, 4) of the Bell states."""
    return np.asarray(np.einsum("mk,ki,kj->mij", weights, BELL, BELL))


def any_real(entries: Reals) -> Reals:
    """States from any (m, 16) numbers: G G^T, normalised.  Complex ones give Eve no more: mixing
    a state with its conjugate changes nothing that XZ-plane measurements show."""
    factor = entries.reshape(-1, 4, 4)
    product = factor @ factor.swapaxes(1, 2)
    return np.asarray(product / np.trace(product, axis1=1, axis2=2)[:, None, None])


def observable(angle: Reals) -> Reals:
    return np.asarray(np.cos(angle)[:, None, None] * Z + np.sin(angle)[:, None, None] * X)


def both(on_a: Reals, on_b: Reals) -> Reals:
    """The tensor product of batches of (m, 2, 2)."""
    return np.asarray(np.einsum("mij,mkl->mikjl", on_a, on_b).reshape(-1, 4, 4))


def entropy(states: Reals) -> Reals:
    """Of operators that need not be normalised: - Tr s log2 s."""
    values = np.clip(np.linalg.eigvalsh(states), 1e-300, None)
    return np.asarray(-(values * np.log2(values)).sum(axis=-1))


def power(states: Reals, exponent: float) -> Reals:
    values, vectors = np.linalg.eigh(states)
    values = np.clip(values, 0.0, None) ** exponent
    return np.asarray((vectors * values[:, None, :]) @ vectors.swapaxes(1, 2))


def chsh(states: Reals, angles: Reals, weight: float = 1.0) -> Reals:
    """weight <A0 B0> + weight <A0 B1> + <A1 B0> - <A1 B1>."""
    a0, a1, b0, b1 = (observable(angles[:, i]) for i in range(4))
    operator = weight * both(a0, b0 + b1) + both(a1, b0 - b1)
    return np.asarray(np.einsum("mij,mji->m", states, operator))


def conditional_entropy(states: Reals, angle: Reals, flip: float) -> Reals:
    """H(A'|E): with Eve's purification, the spectra of Eve's parts are those of G^1/2 rho G^1/2."""
    total = -entropy(states)
    for sign in (1.0, -1.0):
        projector = (ONE + sign * observable(angle)) / 2.0
        kept, lost = np.sqrt(1.0 - flip), np.sqrt(flip)
        root = both(kept * projector + lost * (ONE - projector), np.broadcast_to(ONE, (1, 2, 2)))
        total = total + entropy(root @ states @ root)
    return np.asarray(total)


def one_round(bound: str, design: Design, adaptive: bool, states: Reals, angles: Reals) -> Reals:
    """The expression whose largest value is Theta, by the bound's name."""
    order = order_of(design, adaptive)
    root_state = power(states, 1.0 / order)
    one = np.broadcast_to(ONE, (1, 2, 2))
    kept, lost = (np.sqrt(p) for p in (1.0 - design.flip_probability, design.flip_probability))
    value = np.zeros(len(states))
    for sign in (1.0, -1.0):
        on_a = (ONE + sign * observable(angles[:, 0])) / 2.0
        root = both(kept * on_a + lost * (ONE - on_a), one)
        value += (1.0 - design.test_probability) * _power_trace(root @ root_state @ root, order)
    test = np.zeros(len(states))
    for x in (0, 1):
        for y in (0, 1):
            for a in (0, 1):
                on_a = (ONE + (-1.0) ** a * observable(angles[:, x])) / 2.0
                on_b = [(ONE + (-1.0) ** b * observable(angles[:, 2 + y])) / 2.0 for b in (0, 1)]
                won = [(a ^ b) == (x & y) for b in (0, 1)]
                if bound == FILTERED:
                    lose_win = filter_weights(design, adaptive)[::-1]
                    mixed = sum(
                        np.sqrt(lose_win[w]) * part for w, part in zip(won, on_b, strict=True)
                    )
                    root = both(on_a, np.asarray(mixed))
                    test += _power_trace(root @ root_state @ root, order)
                    continue
                scores = (design.score_lose, design.score_win)
                for w, part in zip(won, on_b, strict=True):
                    overlap = np.einsum("mij,mji->m", root_state, both(on_a, part))
                    weight = 2.0 ** ((order - 1.0) * scores[w])
                    test += weight * np.clip(overlap, 0.0, None) ** order
    return np.asarray(value + design.test_probability * test / 4.0)


def _power_trace(operators: Reals, exponent: float) -> Reals:
    return np.asarray((np.clip(np.linalg.eigvalsh(operators), 0.0, None) ** exponent).sum(axis=-1))


def search(
    cost: Callable[[Reals, Reals], Reals],
    generator: np.random.Generator,
    samples: int = 3000,
    polished: int = 3,
) -> float:
    """The least of `cost(states, angles)`: random strategies, the best of each kind polished."""
    from scipy.optimize import minimize

    angles = generator.uniform(0.0, np.pi, (samples, 4))
    four, sixteen = (generator.standard_normal((samples, count)) for count in (4, 16))
    spread = generator.choice([0.02, 0.2, 1.0], (samples, 4))  # Some parts of a state are small.
    kinds: list[tuple[Callable[[Reals], Reals], Reals]] = [
        (lambda v: bell_diagonal(v**2 / (v**2).sum(axis=1)[:, None]), four * spread),
        (any_real, sixteen * np.repeat(spread, 4, axis=1)),
    ]
    least = np.inf
    for state_of, entries in kinds:
        count = entries.shape[1]
        values = cost(state_of(entries), angles)

        def at(v: Reals, state_of: Callable[[Reals], Reals] = state_of, n: int = count) -> float:
            return float(cost(state_of(v[None, :n]), v[None, n:])[0])

        for i in np.argsort(values)[:polished]:
            found = minimize(at, np.concatenate([entries[i], angles[i]]), method="L-BFGS-B")
            least = min(least, float(found.fun), float(values[i]))
    return least
