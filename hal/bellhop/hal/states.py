"""Two-qubit states as exact 4x4 density matrices, in batches of any shape (..., 4, 4).

The basis is |00>, |01>, |10>, |11>, side A's qubit first.  A measurement in the XZ plane at angle
t has the observable cos(t) Z + sin(t) X; outcome 0 is its eigenvalue +1 (angles in radians).
Conventions and channels as in Nielsen and Chuang, Quantum Computation and Quantum Information,
chapters 2 and 8.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bellhop.hal.operations import BellState, Side

State = NDArray[np.complex128]
CoherenceShape = Literal["exponential", "gaussian"]

IDENTITY: State = np.eye(2, dtype=np.complex128)
PAULI_X: State = np.array([[0, 1], [1, 0]], dtype=np.complex128)
PAULI_Y: State = np.array([[0, -1j], [1j, 0]], dtype=np.complex128)
PAULI_Z: State = np.array([[1, 0], [0, -1]], dtype=np.complex128)
PAULIS = (PAULI_X, PAULI_Y, PAULI_Z)


def on_side(operator: State, side: Side) -> State:
    """The 4x4 operator that acts as the 2x2 `operator` on one side and leaves the other."""
    pair = (operator, IDENTITY) if side is Side.A else (IDENTITY, operator)
    return np.kron(*pair).astype(np.complex128)


def bell_vector(bell_state: BellState) -> State:
    """The state vector (4,): Z^z X^x on side B of Phi+, for the two bits 2 z + x."""
    phi_plus = np.array([1, 0, 0, 1], dtype=np.complex128) / np.sqrt(2.0)
    vector: State = phi_plus
    if bell_state & 1:
        vector = on_side(PAULI_X, Side.B) @ vector
    if bell_state & 2:
        vector = on_side(PAULI_Z, Side.B) @ vector
    return vector


def bell_density(bell_state: BellState) -> State:
    vector = bell_vector(bell_state)
    return np.outer(vector, vector.conj())


def from_correlations(bloch_a: ArrayLike, bloch_b: ArrayLike, correlations: ArrayLike) -> State:
    """The state with the Bloch vectors (3,), (3,) and the correlations (3, 3), rows for side A.

    Components are X, Y, Z.  Not every choice is a state: see `smallest_eigenvalue`.
    """
    operators = (IDENTITY, *PAULIS)
    coefficients = np.eye(4)
    coefficients[1:, 0] = bloch_a
    coefficients[0, 1:] = bloch_b
    coefficients[1:, 1:] = correlations
    products = [[np.kron(a, b) for b in operators] for a in operators]
    return np.asarray(np.einsum("ab,abij->ij", coefficients, products) / 4.0, np.complex128)


def smallest_eigenvalue(state: State) -> NDArray[np.float64]:
    """Below zero by more than rounding: `state` is not a density matrix.  Shape (...)."""
    return np.asarray(np.linalg.eigvalsh(state)[..., 0], dtype=np.float64)


def fidelity(state: State, bell_state: BellState) -> NDArray[np.float64]:
    """<bell|state|bell>, shape (...)."""
    vector = bell_vector(bell_state)
    return np.asarray((vector.conj() @ state @ vector).real, dtype=np.float64)


# Channels


def white_noise(state: State, fraction: ArrayLike) -> State:
    """Replace the pair by the maximally mixed one with probability `fraction`, shape (...)."""
    weight = np.asarray(fraction, dtype=np.float64)[..., None, None]
    return (1.0 - weight) * state + weight * np.eye(4) / 4.0


def werner(visibility: ArrayLike, bell_state: BellState = BellState.PHI_PLUS) -> State:
    """R. F. Werner, Phys. Rev. A 40, 4277 (1989): a Bell state in white noise."""
    return white_noise(bell_density(bell_state), 1.0 - np.asarray(visibility, dtype=np.float64))


def pauli_channel(state: State, probabilities: ArrayLike, side: Side) -> State:
    """Apply X, Y, Z on one side with `probabilities`, shape (..., 3)."""
    weights = np.asarray(probabilities, dtype=np.float64)
    result: State = (1.0 - weights.sum(axis=-1))[..., None, None] * state
    for index, pauli in enumerate(PAULIS):
        operator = on_side(pauli, side)
        result = result + weights[..., index, None, None] * (operator @ state @ operator)
    return result


def phase_flip(state: State, probability: ArrayLike, side: Side) -> State:
    """Apply Z on one side with `probability`, shape (...)."""
    weight = np.asarray(probability, dtype=np.float64)
    zero = np.zeros_like(weight)
    return pauli_channel(state, np.stack([zero, zero, weight], axis=-1), side)


def depolarise(state: State, probability: ArrayLike, side: Side) -> State:
    """Replace one side's qubit by a maximally mixed one with `probability`, shape (...)."""
    weight = np.asarray(probability, dtype=np.float64) / 4.0
    return pauli_channel(state, np.stack([weight, weight, weight], axis=-1), side)


def coherence(
    delay: ArrayLike, coherence_time: float, shape: CoherenceShape
) -> NDArray[np.float64]:
    """What is left of a qubit's coherence after `delay` (...), in the unit of `coherence_time`."""
    ratio = np.asarray(delay, dtype=np.float64) / coherence_time
    return np.asarray(np.exp(-ratio if shape == "exponential" else -(ratio * ratio)))


def dephase(
    state: State, delay: ArrayLike, coherence_time: float, shape: CoherenceShape, side: Side
) -> State:
    """Let one side's memory wait for `delay` (...): its coherences shrink by `coherence`."""
    return phase_flip(state, (1.0 - coherence(delay, coherence_time, shape)) / 2.0, side)


def announced_as(state: State, bell_state: BellState) -> State:
    """The image of a state near Phi+ that a herald of `bell_state` announces.

    Side B's Y turns Phi+ into Psi- and reverses its outcomes in the XZ plane; Z on side A reverses
    those of X there and leaves those of Z.  So if side A measures at 0 and 90 degrees, the flips
    b ^ 1 (Psi-), and b ^ 1 with a ^ x (Psi+), give back exactly the statistics of `state`.
    """
    operators = {
        BellState.PHI_PLUS: (IDENTITY, IDENTITY),
        BellState.PSI_PLUS: (PAULI_Z, PAULI_Y),
        BellState.PHI_MINUS: (PAULI_Z, IDENTITY),
        BellState.PSI_MINUS: (IDENTITY, PAULI_Y),
    }
    operator = np.kron(*operators[bell_state])
    return np.asarray(operator @ state @ operator.conj().T, dtype=np.complex128)


# Measurement


def effects(angle: ArrayLike, readout_error: float = 0.0) -> State:
    """The two effects of a measurement at `angle` (...), shape (..., 2, 2, 2), outcome first.

    With probability `readout_error` the outcome is read wrongly, whichever it is.
    """
    radians = np.asarray(angle, dtype=np.float64)[..., None, None]
    observable = (1.0 - 2.0 * readout_error) * (
        np.cos(radians) * PAULI_Z + np.sin(radians) * PAULI_X
    )
    return np.stack([(IDENTITY + observable) / 2.0, (IDENTITY - observable) / 2.0], axis=-3)


def as_qubits(state: State) -> State:
    """A view (..., a, b, a', b') of (..., 4, 4)."""
    return state.reshape(*state.shape[:-2], 2, 2, 2, 2)


def joint_probabilities(
    state: State,
    angle_a: ArrayLike,
    angle_b: ArrayLike,
    readout_error_a: float = 0.0,
    readout_error_b: float = 0.0,
) -> NDArray[np.float64]:
    """Born's rule: P(a, b), shape (..., 2, 2), states and angles broadcast together."""
    effects_a = effects(angle_a, readout_error_a)
    effects_b = effects(angle_b, readout_error_b)
    table = np.einsum(
        "...ijkl,...aki,...blj->...ab", as_qubits(state), effects_a, effects_b, optimize=False
    )
    return np.asarray(table.real, dtype=np.float64)


def remaining(state: State, measured: Side, effect: State) -> State:
    """The other side's qubit after `effect` (..., 2, 2) on side `measured`: (..., 2, 2).

    Not normalised: its trace is the outcome's probability.
    """
    subscripts = "...ijkl,...ki->...jl" if measured is Side.A else "...ijkl,...lj->...ik"
    return np.asarray(np.einsum(subscripts, as_qubits(state), effect), dtype=np.complex128)


def correlator(
    state: State,
    angle_a: ArrayLike,
    angle_b: ArrayLike,
    readout_error_a: float = 0.0,
    readout_error_b: float = 0.0,
) -> NDArray[np.float64]:
    """P(equal) - P(different), shape (...)."""
    table = joint_probabilities(state, angle_a, angle_b, readout_error_a, readout_error_b)
    return np.asarray(
        table[..., 0, 0] + table[..., 1, 1] - table[..., 0, 1] - table[..., 1, 0], dtype=np.float64
    )


def chsh(
    state: State,
    angles_a: ArrayLike,
    angles_b: ArrayLike,
    readout_error_a: float = 0.0,
    readout_error_b: float = 0.0,
) -> NDArray[np.float64]:
    """S = E00 + E01 + E10 - E11 for the first two angles of either side.

    Clauser, Horne, Shimony, Holt, Phys. Rev. Lett. 23, 880 (1969).
    """
    a = np.asarray(angles_a, dtype=np.float64)
    b = np.asarray(angles_b, dtype=np.float64)
    e = [
        [correlator(state, a[x], b[y], readout_error_a, readout_error_b) for y in (0, 1)]
        for x in (0, 1)
    ]
    return np.asarray(e[0][0] + e[0][1] + e[1][0] - e[1][1], dtype=np.float64)


def error_rate(
    state: State,
    angle_a: ArrayLike = 0.0,
    angle_b: ArrayLike = 0.0,
    readout_error_a: float = 0.0,
    readout_error_b: float = 0.0,
) -> NDArray[np.float64]:
    """P(different) at these angles: the QBER when they are the key setting's, shape (...)."""
    return np.asarray(
        (1.0 - correlator(state, angle_a, angle_b, readout_error_a, readout_error_b)) / 2.0,
        dtype=np.float64,
    )
