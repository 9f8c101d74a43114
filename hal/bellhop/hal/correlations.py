"""Pairs as real 4x4 matrices of Pauli correlations, and one-qubit maps and effects beside them.

A pair's correlations are R[i, j] = Tr(rho sigma_i x sigma_j), rows for side A, in the order
I, X, Y, Z; R[0, 0] is the trace.  A one-qubit map L has the transfer matrix
M[i, j] = Tr(sigma_i L(sigma_j)) / 2, and R becomes M_A R M_B^T.  A measurement's effect
E = (1/2) sum_i e_i sigma_i is the 4-vector e: the identity is (2, 0, 0, 0), Born's rule is
P(a, b) = (1/4) e_a^T R e_b, and a map that acts before the measurement turns e into M^T e.

D. Greenbaum, arXiv:1509.02921 (Pauli transfer matrices); Nielsen and Chuang, Quantum Computation
and Quantum Information, sections 8.2 and 8.3.  All functions take batches of any shape (...).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bellhop.hal.operations import BellState, Side
from bellhop.hal.states import IDENTITY, PAULIS, State

Correlations = NDArray[np.float64]
Transfer = NDArray[np.float64]
Effect = NDArray[np.float64]

_OPERATORS: State = np.stack([IDENTITY, *PAULIS])
_PRODUCTS: State = np.einsum("iab,jcd->ijacbd", _OPERATORS, _OPERATORS).reshape(4, 4, 4, 4)

PAULI_SIGNS: NDArray[np.float64] = np.array(
    [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]], dtype=np.float64
)
"""Row `BellState`: what the Pauli operator Z^z X^x does to I, X, Y, Z.  The rows multiply as the
numbers of the Bell states combine by exclusive or."""

BELL_SIGNS: NDArray[np.float64] = PAULI_SIGNS * np.array([1.0, 1.0, -1.0, 1.0])
"""Row `BellState`: the diagonal of its correlations, which have nothing else."""


# Pairs


def to_correlations(state: State) -> Correlations:
    """R, shape (..., 4, 4), of density matrices (..., 4, 4), normalised or not."""
    return np.asarray(np.einsum("...ab,ijba->...ij", state, _PRODUCTS).real, dtype=np.float64)


def to_state(correlations: Correlations) -> State:
    """The density matrices (..., 4, 4) with these correlations."""
    return np.asarray(np.einsum("...ij,ijab->...ab", correlations, _PRODUCTS) / 4.0, np.complex128)


def fidelity(correlations: Correlations, bell_state: BellState | ArrayLike) -> NDArray[np.float64]:
    """<bell|rho|bell>, shape (...); `bell_state` is one or an array of them that broadcasts.

    Not divided by the trace: of a pair that may be lost, it is the probability of both.
    """
    diagonal = np.diagonal(correlations, axis1=-2, axis2=-1)
    return np.asarray(
        (diagonal * BELL_SIGNS[np.asarray(bell_state, np.intp)]).sum(axis=-1) / 4.0,
        dtype=np.float64,
    )


def in_frame(correlations: Correlations, bell_state: BellState | ArrayLike) -> Correlations:
    """Apply the Pauli operator Z^z X^x of `bell_state` (...) on side B.

    It turns that Bell state into Phi+, and the Bell state s into s ^ bell_state.
    """
    return np.asarray(correlations * PAULI_SIGNS[np.asarray(bell_state, np.intp)][..., None, :])


def mapped(
    correlations: Correlations, map_a: Transfer | None = None, map_b: Transfer | None = None
) -> Correlations:
    """M_A R M_B^T; None leaves that side as it is."""
    result = correlations
    if map_a is not None:
        result = map_a @ result
    if map_b is not None:
        result = result @ map_b.swapaxes(-1, -2)
    return np.asarray(result, dtype=np.float64)


# Maps


def transfer_of(kraus: State) -> Transfer:
    """M (..., 4, 4) of the map with the Kraus operators `kraus`, shape (..., k, 2, 2)."""
    m = np.einsum(
        "iab,...kbc,jcd,...kad->...ij", _OPERATORS, kraus, _OPERATORS, kraus.conj(), optimize=True
    )
    return np.asarray(m.real / 2.0, dtype=np.float64)


def shrinking(transverse: ArrayLike, longitudinal: ArrayLike) -> Transfer:
    """M (..., 4, 4) of dephasing and depolarising: X and Y shrink alike, Z by itself."""
    across, along = np.broadcast_arrays(
        np.asarray(transverse, np.float64), np.asarray(longitudinal, np.float64)
    )
    m = np.zeros((*across.shape, 4, 4))
    m[..., 0, 0] = 1.0
    m[..., 1, 1] = m[..., 2, 2] = across
    m[..., 3, 3] = along
    return m


def decaying(survival: ArrayLike) -> Transfer:
    """M (..., 4, 4) of the Kraus operator diag(1, sqrt(survival)): |1> leaves the qubit.

    Lowers the trace by what was lost.
    """
    s = np.asarray(survival, dtype=np.float64)
    m = np.zeros((*s.shape, 4, 4))
    m[..., 0, 0] = m[..., 3, 3] = (1.0 + s) / 2.0
    m[..., 0, 3] = m[..., 3, 0] = (1.0 - s) / 2.0
    m[..., 1, 1] = m[..., 2, 2] = np.sqrt(s)
    return m


# Measurements


def effects(angle: ArrayLike, readout_error: ArrayLike = 0.0) -> Effect:
    """The effects of a measurement at `angle` (...) rad from Z towards X: (..., 2, 4).

    Outcome 0 first; with probability `readout_error` (...) an outcome is read wrongly.
    """
    radians, error = np.broadcast_arrays(
        np.asarray(angle, np.float64), np.asarray(readout_error, np.float64)
    )
    contrast = 1.0 - 2.0 * error
    e = np.zeros((*radians.shape, 2, 4))
    e[..., 0] = 1.0
    e[..., 0, 1] = contrast * np.sin(radians)
    e[..., 0, 3] = contrast * np.cos(radians)
    e[..., 1, 1:] = -e[..., 0, 1:]
    return e


def with_loss(outcomes: Effect) -> Effect:
    """Append the effect of a loss, what the outcomes (..., n, 4) leave: (..., n + 1, 4)."""
    lost = np.array([2.0, 0.0, 0.0, 0.0]) - outcomes.sum(axis=-2)
    return np.concatenate([outcomes, lost[..., None, :]], axis=-2)


def joint_probabilities(
    correlations: Correlations, effects_a: Effect, effects_b: Effect
) -> NDArray[np.float64]:
    """Born's rule for effects (..., m, 4) and (..., n, 4): P(a, b), shape (..., m, n)."""
    table = effects_a @ correlations @ effects_b.swapaxes(-1, -2)
    return np.asarray(table / 4.0, dtype=np.float64)


def remaining(correlations: Correlations, measured: Side, effect: Effect) -> NDArray[np.float64]:
    """The other side's qubit after `effect` (..., 4): its r_j = Tr(rho sigma_j), shape (..., 4).

    Not normalised: r_0 is the outcome's probability, and an effect f there has (1/2) f . r.
    """
    subscripts = "...ij,...i->...j" if measured is Side.A else "...ij,...j->...i"
    return np.asarray(np.einsum(subscripts, correlations, effect) / 2.0, dtype=np.float64)
