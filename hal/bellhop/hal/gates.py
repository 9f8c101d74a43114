"""Noisy gates and readouts on halves of pairs at one node: transfer, swapping, purification.

A gate is its unitary, then depolarising of the qubits it acted on, with the gate's average
infidelity; preparing a measurement basis belongs to the readout, which flips an outcome either
way.  Swapping and purification act on four qubits; what they do to two pairs is written in Pauli
correlations (see `correlations`), where a Clifford gate only permutes Paulis up to a sign.  All
states have trace 1 and shape (..., 4, 4), and broadcast.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bellhop.hal.correlations import (
    BELL_SIGNS,
    Correlations,
    in_frame,
    to_correlations,
    to_state,
)
from bellhop.hal.operations import BellState, Side
from bellhop.hal.sections import Device
from bellhop.hal.states import State, depolarise, on_side, werner, white_noise
from bellhop.hal.states import fidelity as state_fidelity
from bellhop.hal.storage import single_qubit_shrink


@dataclass(frozen=True, slots=True)
class GateErrors:
    """A node's average infidelities of gates, and the probability to read an outcome wrongly."""

    single_qubit: float = 0.0
    two_qubit: float = 0.0
    readout: float = 0.0

    @classmethod
    def of(cls, device: Device) -> Self:
        return cls(
            device.single_qubit_error.value,
            device.two_qubit_error.value,
            device.readout_error.value,
        )


PERFECT = GateErrors()


def two_qubit_shrink(average_infidelity: float) -> float:
    """What depolarising of this average infidelity leaves of all correlations: 1 - (4/3) eps.

    rho -> (1 - p) rho + p 1/4 has the average fidelity 1 - 3 p / 4: M. A. Nielsen, Phys. Lett. A
    303, 249 (2002), for a dimension of 4.
    """
    return 1.0 - 4.0 * average_infidelity / 3.0


# One gate


def transfer(pair: State, average_infidelity: ArrayLike, side: Side) -> State:
    """Move one side's state to another qubit of its node; `average_infidelity` has shape (...)."""
    return depolarise(pair, 2.0 * np.asarray(average_infidelity, np.float64), side)


def single_qubit_gate(pair: State, unitary: State, side: Side, errors: GateErrors) -> State:
    """The 2x2 `unitary` on one side of a pair."""
    gate = on_side(unitary, side)
    return transfer(gate @ pair @ gate.conj().T, errors.single_qubit, side)


def two_qubit_gate(qubits: State, unitary: State, errors: GateErrors) -> State:
    """The 4x4 `unitary` on two qubits of one node."""
    turned = unitary @ qubits @ unitary.conj().T
    return white_noise(turned, 1.0 - two_qubit_shrink(errors.two_qubit))


def corrected(pair: State, announced: BellState | ArrayLike) -> State:
    """Turn the Bell state `announced` (...) into Phi+ by a Pauli on side B, kept in software.

    A frame costs no gate: nothing here is noisy.
    """
    return to_state(in_frame(to_correlations(pair), announced))


# Swapping


@dataclass(frozen=True, slots=True, eq=False)
class Swapped:
    """What each outcome of a Bell-state measurement leaves; the last index before the state's
    is the outcome, a `BellState`.

    `probabilities`: (..., 4).  `states`: (..., 4, 4, 4), the far ends' pairs, of trace 1; an
    outcome that never comes has the maximally mixed one.
    """

    probabilities: NDArray[np.float64]
    states: State


def swap(left: State, right: State, errors: GateErrors) -> Swapped:
    """Measure side B of `left` and side A of `right`, at one node, in the Bell basis.

    CNOT from the left to the right qubit, Hadamard on the left one, two readouts: the left bit is
    the outcome's z, the right one its x (Nielsen and Chuang, sections 1.3.6 and 1.3.7; entangled
    by it are the far ends: Zukowski, Zeilinger, Horne, Ekert, Phys. Rev. Lett. 71, 4287 (1993)).
    Bell states left and right become the Bell state left ^ right ^ outcome.  One outcome always
    comes: the measurement is deterministic.
    """
    measured = _bell_effects(errors)
    r_left, r_right = to_correlations(left), to_correlations(right)
    # R_o = R_left C_o R_right / 4 with E_o = (1/4) sum_k C_o[k] sigma_k x sigma_k.
    through = r_left[..., None, :, :] * measured[:, None, :]
    return Swapped(*_conditioned(through @ r_right[..., None, :, :] / 4.0))


def _bell_effects(errors: GateErrors) -> NDArray[np.float64]:
    """C_o, row the outcome: the diagonal of the measurement's effects as of correlations.

    Backwards through the circuit a readout leaves 1 +- c Z; the Hadamard and its noise turn the
    left one into 1 +- c h X; the CNOT takes X x 1, 1 x Z and X x Z to X x X, Z x Z and -Y x Y.
    """
    contrast = single_qubit_shrink(errors.readout)
    x = contrast * single_qubit_shrink(errors.single_qubit)
    shrunk = two_qubit_shrink(errors.two_qubit) * np.array([x, contrast * x, contrast])
    return np.asarray(BELL_SIGNS * np.concatenate([[1.0], shrunk]), dtype=np.float64)


# Purification


@dataclass(frozen=True, slots=True, eq=False)
class Purified:
    """`success_probability` (...); `kept` (..., 4, 4), the pair that is kept then, of trace 1."""

    success_probability: NDArray[np.float64]
    kept: State


def bbpssw(first: State, second: State, a: GateErrors, b: GateErrors) -> Purified:
    """The recurrence of Bennett et al., Phys. Rev. Lett. 76, 722 (1996), for pairs near Phi+.

    Both pairs are twirled to Werner states, by a random rotation of each qubit (a single-qubit
    gate); then `_keep_if_equal`.  `a` and `b` are the errors of the two sides.
    """
    pairs = [_rotated(to_correlations(twirled(pair)), a, b) for pair in (first, second)]
    return _keep_if_equal(pairs[0], pairs[1], a, b)


def dejmps(first: State, second: State, a: GateErrors, b: GateErrors) -> Purified:
    """The recurrence of Deutsch et al., Phys. Rev. Lett. 77, 2818 (1996), for pairs near Phi+.

    Side A turns its qubits by 90 degrees about X, side B by -90 degrees (a single-qubit gate
    each); then `_keep_if_equal`.
    """
    turned = [_turned_about_x(to_correlations(pair)) for pair in (first, second)]
    return _keep_if_equal(_rotated(turned[0], a, b), _rotated(turned[1], a, b), a, b)


def twirled(pair: State) -> State:
    """The Werner state of the same fidelity to Phi+: bilateral random rotations, exactly.

    Bennett, DiVincenzo, Smolin, Wootters, Phys. Rev. A 54, 3824 (1996).
    """
    overlap = state_fidelity(pair, BellState.PHI_PLUS)
    return werner((4.0 * overlap - 1.0) / 3.0)


def _rotated(correlations: Correlations, a: GateErrors, b: GateErrors) -> Correlations:
    """The noise of one single-qubit gate on either side."""
    rows, columns = (np.array([1.0, *[single_qubit_shrink(e.single_qubit)] * 3]) for e in (a, b))
    return np.asarray(correlations * np.outer(rows, columns), dtype=np.float64)


def _turned_about_x(correlations: Correlations) -> Correlations:
    """Y -> Z, Z -> -Y on side A and Y -> -Z, Z -> Y on side B."""
    signs = np.outer([1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, -1.0])
    swapped = correlations[..., [0, 1, 3, 2], :][..., [0, 1, 3, 2]]
    return np.asarray(swapped * signs, dtype=np.float64)


# A CNOT from the kept to the measured qubit takes sigma_m x 1 (first rows) and sigma_m x Z (second
# rows) to sign * sigma_KEPT x sigma_MEASURED.
_KEPT = np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
_MEASURED = np.array([[0, 1, 1, 0], [3, 2, 2, 3]])
_SIGN = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, 1.0]])


def _keep_if_equal(
    first: Correlations, second: Correlations, a: GateErrors, b: GateErrors
) -> Purified:
    """On either side a CNOT from the first to the second qubit; the first pair is kept if the
    two readouts of the second are equal.

    That is R'[m, n] = (1/2) (<sigma_m 1, sigma_n 1> + c_a c_b <sigma_m Z, sigma_n Z>), taken
    backwards through the CNOTs.
    """
    kept = np.zeros(np.broadcast_shapes(first.shape, second.shape))
    contrast = single_qubit_shrink(a.readout) * single_qubit_shrink(b.readout)
    for target, weight in enumerate((0.5, 0.5 * contrast)):
        shrink_a, shrink_b = (np.full(4, two_qubit_shrink(e.two_qubit)) for e in (a, b))
        if target == 0:
            shrink_a[0] = shrink_b[0] = 1.0  # The identity loses nothing.
        of_first = np.ix_(_KEPT[target], _KEPT[target])
        of_second = np.ix_(_MEASURED[target], _MEASURED[target])
        factor = weight * np.outer(_SIGN[target] * shrink_a, _SIGN[target] * shrink_b)
        kept += factor * first[(..., *of_first)] * second[(..., *of_second)]
    return Purified(*_conditioned(kept))


_NEVER = 1e-15
"""Probabilities below are rounding: that outcome never comes."""


def _conditioned(correlations: Correlations) -> tuple[NDArray[np.float64], State]:
    """Probabilities (...) and states of trace 1 from correlations whose trace is the former."""
    probabilities = np.where(correlations[..., 0, 0] < _NEVER, 0.0, correlations[..., 0, 0])
    scale = probabilities[..., None, None]
    normal = np.zeros_like(correlations)
    normal[..., 0, 0] = 1.0
    np.divide(correlations, scale, out=normal, where=scale > 0.0)
    return probabilities, to_state(normal)
