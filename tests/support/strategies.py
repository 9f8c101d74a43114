"""One round's value by plain matrices: the slow twin of the tangents that certificates use.

No symmetry is used: any state of two qubits, complex ones too, four measurement angles, every
outcome by itself, matrix powers by eigenvalues.
"""

from typing import cast

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.bounds.design import FILTERED, Design

Reals = NDArray[np.float64]
Matrices = NDArray[np.complex128]
PARAMETERS = 36
"""16 real and 16 imaginary parts of a matrix T, the state being T T^* over its trace; 4 angles."""


def power(matrices: Matrices, exponent: float) -> Matrices:
    values, vectors = np.linalg.eigh(matrices)
    raised = np.maximum(values, 0.0) ** exponent
    return cast(Matrices, (vectors * raised[..., None, :]) @ np.conj(np.swapaxes(vectors, -1, -2)))


def projectors(angles: Reals, outcome: int) -> Matrices:
    half = angles / 2.0 + outcome * np.pi / 2.0
    vectors = np.stack([np.cos(half), np.sin(half)], axis=-1)
    return np.asarray(vectors[..., :, None] * vectors[..., None, :], dtype=np.complex128)


def both(on_alice: Matrices, on_bob: Matrices) -> Matrices:
    return cast(Matrices, np.einsum("...ij,...kl->...ikjl", on_alice, on_bob).reshape(-1, 4, 4))


def values(design: Design, bound: str, adaptive: bool, parameters: Reals) -> Reals:
    """The values of strategies (N, `PARAMETERS`)."""
    root = parameters[:, :16] + 1j * parameters[:, 16:32]
    root = root.reshape(-1, 4, 4)
    states = root @ np.conj(np.swapaxes(root, -1, -2))
    traces = np.trace(states, axis1=-2, axis2=-1)
    alice, bob = parameters[:, 32:34], parameters[:, 34:36]
    order = 1.0 / (2.0 - design.alpha) if adaptive else design.alpha
    raised = power(states / traces[:, None, None], 1.0 / order)

    def term(effects: Matrices) -> Reals:
        half = power(effects, 0.5)
        found = np.maximum(np.linalg.eigvalsh(half @ raised @ half), 0.0)
        return cast(Reals, (found**order).sum(axis=-1))

    identity = np.broadcast_to(np.eye(2, dtype=np.complex128), (len(parameters), 2, 2))
    flip = design.flip_probability
    generation, test = np.zeros(len(parameters)), np.zeros(len(parameters))
    for a in (0, 1):
        key = (1 - flip) * projectors(alice[:, 0], a) + flip * projectors(alice[:, 0], 1 - a)
        generation += term(both(key, identity))
    for x in (0, 1):
        for y in (0, 1):
            for a in (0, 1):
                effects = [
                    weight(design, bound, adaptive, (a ^ b) == x * y)
                    * both(projectors(alice[:, x], a), projectors(bob[:, y], b))
                    for b in (0, 1)
                ]
                if bound == FILTERED:
                    test += term(effects[0] + effects[1]) / 4.0
                else:
                    test += (term(effects[0]) + term(effects[1])) / 4.0
    g = design.test_probability
    return (1.0 - g) * generation + g * test


def weight(design: Design, bound: str, adaptive: bool, won: bool) -> float:
    """w(c) = 2^(f (ah-1)/ah), with the scores of the filtered bound's adaptive form."""
    order = 1.0 / (2.0 - design.alpha) if adaptive else design.alpha
    score = design.score_win if won else design.score_lose
    if bound == FILTERED and adaptive:
        score = design.score_win - (design.score_win - score) / design.alpha
    result: float = 2.0 ** (score * (order - 1.0) / order)
    return result


def least_kappa_found(
    design: Design, bound: str, adaptive: bool, generator: np.random.Generator, starts: int
) -> float:
    """The least kappa of local searches from the best of many random strategies."""
    from scipy.optimize import minimize

    order = 1.0 / (2.0 - design.alpha) if adaptive else design.alpha
    many = generator.normal(size=(100 * starts, PARAMETERS))
    many[:, 32:] *= np.pi
    # Pure, mixed and real states alike.
    many[::2, 4:16] *= 0.1
    many[::3, 16:32] *= 0.1
    step = 1e-6 * np.eye(PARAMETERS)

    def kappas(parameters: Reals) -> Reals:
        theta = values(design, bound, adaptive, parameters)
        return -np.log2(theta) / (order - 1.0)

    def with_slope(parameters: Reals) -> tuple[float, Reals]:
        around = kappas(np.vstack([parameters + step, parameters - step, parameters]))
        slope = (around[:PARAMETERS] - around[PARAMETERS:-1]) / 2e-6
        return float(around[-1]), slope

    first = kappas(many)
    best = float(first.min())
    for start in many[np.argsort(first)[:starts]]:
        found = minimize(with_slope, start, jac=True, method="L-BFGS-B", options={"maxiter": 120})
        best = min(best, float(found.fun))
    return best
