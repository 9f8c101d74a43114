"""Qubits that wait: dephasing, decoupling pulses, decay, and a transfer between two qubits.

A pulse is taken as done at once and as undone in the frame of the outcomes; what stays is its
error, a depolarising one.  The errors of all pulses act before the decay, which is of the |1> of
that frame throughout: the two do not commute, and the difference is at most the product of the
share that decayed and the share that pulses spoiled.  That decoupling pulses also exchange the
level that decays is left out.  Nielsen and Chuang, Quantum Computation and Quantum Information,
section 8.3; transfer matrices as in `correlations`.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bellhop.hal.correlations import Effect, Transfer, decaying, shrinking
from bellhop.hal.sections import Device, Qubit
from bellhop.hal.states import CoherenceShape, coherence

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Keeping:
    """How one kind of qubit keeps its state.

    `coherence_ns` is when its coherence has fallen to 1/e.  A pulse each `pulse_interval_ns` has
    the average infidelity `pulse_error`.  `decay_ns` is the lifetime of |1>, which decays to a
    level outside the qubit.  None: no pulses, no decay.
    """

    coherence_ns: float
    shape: CoherenceShape = "exponential"
    pulse_interval_ns: float | None = None
    pulse_error: float = 0.0
    decay_ns: float | None = None

    @classmethod
    def of(cls, qubit: Qubit) -> Self:
        interval, decay = qubit.pulse_interval_ns, qubit.decay_ns
        return cls(
            qubit.coherence_ns.value,
            qubit.coherence_shape,
            interval.value if interval else None,
            qubit.pulse_error.value,
            decay.value if decay else None,
        )

    def factors(self, stored_ns: ArrayLike) -> tuple[Times, Times, Times]:
        """What is left after `stored_ns` (...) of X and Y, of Z, and of |1>, each (...).

        The first is dephasing and pulses, without the decay's root of the third.
        """
        ns = np.asarray(stored_ns, dtype=np.float64)
        transverse = coherence(ns, self.coherence_ns, self.shape)
        longitudinal, survival = np.ones_like(ns), np.ones_like(ns)
        if self.pulse_interval_ns is not None:
            pulses = np.floor(ns / self.pulse_interval_ns)
            longitudinal = np.asarray(np.power(single_qubit_shrink(self.pulse_error), pulses))
            transverse = transverse * longitudinal
        if self.decay_ns is not None:
            survival = coherence(ns, self.decay_ns, "exponential")
        return transverse, longitudinal, survival

    def map(self, stored_ns: ArrayLike) -> Transfer:
        """The Pauli transfer matrices (..., 4, 4) of waiting for `stored_ns` (...)."""
        transverse, longitudinal, survival = self.factors(stored_ns)
        return decaying(survival) @ shrinking(transverse, longitudinal)

    def aged(self, effects: Effect, stored_ns: ArrayLike) -> Effect:
        """`map` transposed, on effects (..., 4), written out: no matrices for millions of rounds.

        The X and Z components and the identity's are separate but for the decay, which mixes the
        last two.
        """
        transverse, longitudinal, survival = self.factors(stored_ns)
        shape = np.broadcast_shapes(effects.shape[:-1], transverse.shape)
        result = np.empty((*shape, 4))
        identity, along = effects[..., 0], effects[..., 3]
        if self.decay_ns is not None:
            transverse = transverse * np.sqrt(survival)
            lost = (1.0 - survival) * (identity - along) / 2.0
            identity, along = identity - lost, along + lost
        result[..., 0] = identity
        np.multiply(effects[..., 1], transverse, out=result[..., 1])
        np.multiply(effects[..., 2], transverse, out=result[..., 2])
        np.multiply(along, longitudinal, out=result[..., 3])
        return result


@dataclass(frozen=True, slots=True)
class StorageModel:
    """One end's qubit from its emission on.

    With a communication qubit, that one keeps the state for `herald_wait_ns`, or `late_ns` longer
    where the herald is known so much later; then the transfer takes `transfer_ns` with the average
    infidelity `transfer_error`, all its noise included, and the memory qubit keeps the state from
    then on.  Without, the memory qubit emits and keeps it.
    """

    communication: Keeping | None
    memory: Keeping
    herald_wait_ns: float = 0.0
    transfer_ns: float = 0.0
    transfer_error: float = 0.0

    @classmethod
    def of(cls, device: Device, herald_wait_ns: float) -> Self:
        """`herald_wait_ns`: from the emission until the device knows that it was heralded."""
        return cls(
            Keeping.of(device.communication) if device.communication else None,
            Keeping.of(device.memory),
            herald_wait_ns,
            device.transfer_ns.value,
            device.transfer_error.value,
        )

    @classmethod
    def ideal(cls) -> Self:
        """Keeps for ever, as what is measured at once by a detector needs."""
        return cls(None, Keeping(math.inf))

    def map(self, stored_ns: ArrayLike, late_ns: ArrayLike = 0.0) -> Transfer:
        """The Pauli transfer matrices (..., 4, 4) for `stored_ns` (...) since the emission.

        Until the herald there is no transfer; from that time on its error counts in full.
        """
        ns = np.asarray(stored_ns, dtype=np.float64)
        if self.communication is None:
            return self.memory.map(ns)
        known_ns = self._known_ns(late_ns)
        shrink = self._transfer_shrink(ns, known_ns)
        moved = shrinking(shrink, shrink) @ self.communication.map(np.minimum(ns, known_ns))
        return self.memory.map(self._memory_ns(ns, known_ns)) @ moved

    def aged(self, effects: Effect, stored_ns: ArrayLike, late_ns: ArrayLike = 0.0) -> Effect:
        """The effects (..., 4) at the emission of a measurement `stored_ns` (...) after it.

        That is M^T e with M from `map`; what is missing from a sum of outcomes' effects is loss.
        """
        ns = np.asarray(stored_ns, dtype=np.float64)
        if self.communication is None:
            return self.memory.aged(effects, ns)
        known_ns = self._known_ns(late_ns)
        result = self.memory.aged(effects, self._memory_ns(ns, known_ns))
        if ns.size and known_ns.ndim == 0 and ns.min() >= known_ns:
            ns = known_ns  # The rest is the same for all: one exponential.
        result[..., 1:] *= self._transfer_shrink(ns, known_ns)[..., None]
        return self.communication.aged(result, np.minimum(ns, known_ns))

    def _known_ns(self, late_ns: ArrayLike) -> Times:
        return np.asarray(np.add(self.herald_wait_ns, late_ns, dtype=np.float64))

    def _memory_ns(self, ns: Times, known_ns: Times) -> Times:
        return np.maximum(ns - (known_ns + self.transfer_ns), 0.0)

    def _transfer_shrink(self, ns: Times, known_ns: Times) -> Times:
        return np.where(ns >= known_ns, single_qubit_shrink(self.transfer_error), 1.0)


def single_qubit_shrink(average_infidelity: float) -> float:
    """What depolarising of this average infidelity leaves of X, Y and Z: 1 - 2 eps.

    rho -> (1 - p) rho + p 1/2 has the average fidelity 1 - p/2: M. A. Nielsen, Phys. Lett. A 303,
    249 (2002), for a dimension of 2.
    """
    return 1.0 - 2.0 * average_infidelity
