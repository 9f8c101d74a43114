"""Memories and gates the slow way: full density matrices, explicit Kraus sums, explicit gates.

Nothing is shared with bellhop.hal but the numbers of the Bell states.  A stored qubit is a qutrit
here, |2> is where it decays to; a pair of them is 9x9, four qubits are 16x16.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.complex128]
Table = NDArray[np.float64]

ONE = np.array([[1, 0], [0, 1]], dtype=np.complex128)
X = np.array([[0, 1], [1, 0]], dtype=np.complex128)
Y = np.array([[0, -1j], [1j, 0]], dtype=np.complex128)
Z = np.array([[1, 0], [0, -1]], dtype=np.complex128)
PAULIS = (ONE, X, Y, Z)
HADAMARD = (X + Z) / np.sqrt(2.0)
BELL_VECTORS = [
    np.array(v, dtype=np.complex128) / np.sqrt(2.0)
    for v in ([1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 0, -1], [0, 1, -1, 0])
]
"""By the number of the Bell state."""


def tensor(*operators: Matrix) -> Matrix:
    result = np.ones((1, 1), dtype=np.complex128)
    for operator in operators:
        result = np.kron(result, operator).astype(np.complex128)
    return result


def total(matrices: Iterable[Matrix]) -> Matrix:
    return np.asarray(np.sum(list(matrices), axis=0), dtype=np.complex128)


def kraus_sum(state: Matrix, kraus: Iterable[Matrix]) -> Matrix:
    return total(k @ state @ k.conj().T for k in kraus)


def average_over(state: Matrix, choices: Sequence[tuple[Matrix, Matrix]]) -> Matrix:
    """One of these pairs of rotations, each as likely."""
    return total(kraus_sum(state, [tensor(u, v)]) for u, v in choices) / len(choices)


def random_pair(generator: np.random.Generator, rank: int = 4) -> Matrix:
    """A two-qubit state with no symmetry at all."""
    root = generator.normal(size=(4, rank)) + 1j * generator.normal(size=(4, rank))
    state = root @ root.conj().T
    return np.asarray(state / np.trace(state), dtype=np.complex128)


def bell_diagonal(weights: Sequence[float] | Table) -> Matrix:
    vectors = zip(weights, BELL_VECTORS, strict=True)
    return total(w * np.outer(v, v.conj()) for w, v in vectors)


def correlations(state: Matrix) -> Table:
    """Tr(state sigma_i x sigma_j), one trace after the other."""
    return np.array([[np.trace(state @ np.kron(a, b)).real for b in PAULIS] for a in PAULIS])


# Storage: qutrits


@dataclass(frozen=True)
class Keeps:
    """One kind of qubit; `pulses_first`: all pulse errors before the decay, as the model has it,
    or each in its time."""

    coherence_ns: float
    shape: str = "exponential"
    pulse_interval_ns: float | None = None
    pulse_error: float = 0.0
    decay_ns: float | None = None
    pulses_first: bool = True


def qutrit_gate(qubit: Matrix) -> Matrix:
    """A 2x2 matrix on |0>, |1>, and nothing to |2>."""
    whole = np.eye(3, dtype=np.complex128)
    whole[:2, :2] = qubit
    return whole


def pauli_errors(average_infidelity: float) -> list[Matrix]:
    """Depolarising: each Pauli with probability p/4, where p/2 is the average infidelity."""
    p = 2.0 * average_infidelity
    weights = [1.0 - 3.0 * p / 4.0, p / 4.0, p / 4.0, p / 4.0]
    return [np.sqrt(w) * pauli for w, pauli in zip(weights, PAULIS, strict=True)]


def qutrit_pauli_errors(average_infidelity: float) -> list[Matrix]:
    """The same, and |2> stays what it is."""
    p = 2.0 * average_infidelity
    weights = [1.0 - 3.0 * p / 4.0, p / 4.0, p / 4.0, p / 4.0]
    return [np.sqrt(w) * qutrit_gate(pauli) for w, pauli in zip(weights, PAULIS, strict=True)]


def dephasing(left: float) -> list[Matrix]:
    return [
        np.sqrt((1.0 + left) / 2.0) * np.eye(3, dtype=np.complex128),
        np.sqrt((1.0 - left) / 2.0) * qutrit_gate(Z),
    ]


def decay(survival: float) -> list[Matrix]:
    jump = np.zeros((3, 3), dtype=np.complex128)
    jump[2, 1] = np.sqrt(1.0 - survival)
    return [np.diag([1.0, np.sqrt(survival), 1.0]).astype(np.complex128), jump]


def waiting(keeps: Keeps, stored_ns: float) -> Iterator[list[Matrix]]:
    """The channels of a wait, one after the other, each as its Kraus operators."""
    ratio = stored_ns / keeps.coherence_ns
    yield dephasing(float(np.exp(-ratio if keeps.shape == "exponential" else -(ratio**2))))
    decay_ns = keeps.decay_ns or float("inf")
    clock_ns, interval_ns = 0.0, keeps.pulse_interval_ns or float("inf")
    while clock_ns + interval_ns <= stored_ns:
        clock_ns += interval_ns
        if not keeps.pulses_first:
            yield decay(float(np.exp(-interval_ns / decay_ns)))
        yield qutrit_pauli_errors(keeps.pulse_error)
    left_ns = stored_ns if keeps.pulses_first else stored_ns - clock_ns
    yield decay(float(np.exp(-left_ns / decay_ns)))


@dataclass(frozen=True)
class Stores:
    """A communication qubit until the herald, a transfer, a memory qubit."""

    communication: Keeps | None
    memory: Keeps
    herald_wait_ns: float = 0.0
    transfer_ns: float = 0.0
    transfer_error: float = 0.0

    def life(self, stored_ns: float) -> Iterator[list[Matrix]]:
        if self.communication is None:
            yield from waiting(self.memory, stored_ns)
            return
        if stored_ns < self.herald_wait_ns:
            yield from waiting(self.communication, stored_ns)
            return
        yield from waiting(self.communication, self.herald_wait_ns)
        yield qutrit_pauli_errors(self.transfer_error)
        in_memory_ns = stored_ns - self.herald_wait_ns - self.transfer_ns
        if in_memory_ns > 0.0:
            yield from waiting(self.memory, in_memory_ns)


def as_qutrits(pair: Matrix) -> Matrix:
    """The same pair, 9x9."""
    embedding = np.zeros((3, 2), dtype=np.complex128)
    embedding[0, 0] = embedding[1, 1] = 1.0
    both = np.kron(embedding, embedding)
    return np.asarray(both @ pair @ both.conj().T, dtype=np.complex128)


def stored(pair: Matrix, a: Stores, a_ns: float, b: Stores, b_ns: float) -> Matrix:
    """The pair after its halves have waited, 9x9."""
    state, three = as_qutrits(pair), np.eye(3, dtype=np.complex128)
    for kraus in a.life(a_ns):
        state = kraus_sum(state, [tensor(k, three) for k in kraus])
    for kraus in b.life(b_ns):
        state = kraus_sum(state, [tensor(three, k) for k in kraus])
    return state


def still_qubits(state: Matrix) -> Matrix:
    """What of a 9x9 state is in both qubits, 4x4, not normalised."""
    inside = [0, 1, 3, 4]
    return state[np.ix_(inside, inside)]


def measured(state: Matrix, angles: tuple[float, float], errors: tuple[float, float]) -> Table:
    """P(a, b) of a 9x9 state, 3x3 with outcomes 0, 1 and lost: projections, then misreadings."""
    true = np.zeros((3, 3))
    projectors = []
    for angle in angles:
        up = np.array([np.cos(angle / 2), np.sin(angle / 2), 0.0])
        down = np.array([-np.sin(angle / 2), np.cos(angle / 2), 0.0])
        projectors.append([np.outer(v, v) for v in (up, down, np.array([0.0, 0.0, 1.0]))])
    for a, b in product(range(3), repeat=2):
        true[a, b] = np.trace(state @ np.kron(projectors[0][a], projectors[1][b])).real
    read = np.zeros((3, 3))
    for a, b in product(range(3), repeat=2):
        for (told_a, p_a), (told_b, p_b) in product(_told(a, errors[0]), _told(b, errors[1])):
            read[told_a, told_b] += p_a * p_b * true[a, b]
    return read


def _told(outcome: int, error: float) -> list[tuple[int, float]]:
    if outcome == 2:
        return [(2, 1.0)]
    return [(outcome, 1.0 - error), (1 - outcome, error)]


# Four qubits


@dataclass(frozen=True)
class Errors:
    """Average infidelities of gates, and the probability of a wrong readout."""

    single_qubit: float = 0.0
    two_qubit: float = 0.0
    readout: float = 0.0


def on_qubit(operator: Matrix, qubit: int) -> Matrix:
    """A 2x2 operator on one of four qubits, 16x16."""
    return tensor(*(operator if index == qubit else ONE for index in range(4)))


def cnot(control: int, target: int) -> Matrix:
    """16x16, basis state by basis state."""
    matrix = np.zeros((16, 16), dtype=np.complex128)
    for bits in product((0, 1), repeat=4):
        after = list(bits)
        after[target] ^= bits[control]
        matrix[int("".join(map(str, after)), 2), int("".join(map(str, bits)), 2)] = 1.0
    return matrix


def noisy_single(state: Matrix, unitary: Matrix, qubit: int, errors: Errors) -> Matrix:
    turned = kraus_sum(state, [on_qubit(unitary, qubit)])
    return kraus_sum(turned, [on_qubit(k, qubit) for k in pauli_errors(errors.single_qubit)])


def noisy_cnot(state: Matrix, control: int, target: int, errors: Errors) -> Matrix:
    """Each pair of Paulis with probability p/16, where 3 p / 4 is the average infidelity."""
    p = 4.0 * errors.two_qubit / 3.0
    kraus = []
    for left, right in product(range(4), repeat=2):
        weight = 1.0 - 15.0 * p / 16.0 if left == right == 0 else p / 16.0
        operator = on_qubit(PAULIS[left], control) @ on_qubit(PAULIS[right], target)
        kraus.append(np.sqrt(weight) * operator)
    return kraus_sum(kraus_sum(state, [cnot(control, target)]), kraus)


def projected(state: Matrix, bits: dict[int, int]) -> Matrix:
    """The other two qubits' state, 4x4, not normalised, where these qubits are found so."""
    order = [q for q in range(4) if q not in bits]
    result = np.zeros((4, 4), dtype=np.complex128)
    for row, column in product(product((0, 1), repeat=2), repeat=2):
        left, right = dict(zip(order, row, strict=True)), dict(zip(order, column, strict=True))
        i = int("".join(str({**bits, **left}[q]) for q in range(4)), 2)
        j = int("".join(str({**bits, **right}[q]) for q in range(4)), 2)
        result[2 * row[0] + row[1], 2 * column[0] + column[1]] = state[i, j]
    return result


def swapped(left: Matrix, right: Matrix, errors: Errors) -> list[Matrix]:
    """The far ends' states, not normalised, for each told outcome 2 z + x; qubits A, l, r, B."""
    state = noisy_cnot(tensor(left, right), 1, 2, errors)
    state = noisy_single(state, HADAMARD, 1, errors)
    told = [np.zeros((4, 4), dtype=np.complex128) for _ in range(4)]
    for z, x in product((0, 1), repeat=2):
        found = projected(state, {1: z, 2: x})
        for wrong_z, wrong_x in product((0, 1), repeat=2):
            probability = 1.0
            for wrong in (wrong_z, wrong_x):
                probability *= errors.readout if wrong else 1.0 - errors.readout
            told[2 * (z ^ wrong_z) + (x ^ wrong_x)] += probability * found
    return told


def purified(first: Matrix, second: Matrix, turn: str, a: Errors, b: Errors) -> Matrix:
    """The kept pair, not normalised: its trace is the probability of success.

    Qubits A1, B1, A2, B2; `turn` is "twirl" (Bennett et al.) or "rotate" (Deutsch et al.).
    """
    choices = twirl() if turn == "twirl" else rotation()
    state = tensor(average_over(first, choices), average_over(second, choices))
    for qubit, errors in ((0, a), (1, b), (2, a), (3, b)):
        state = noisy_single(state, ONE, qubit, errors)
    state = noisy_cnot(state, 0, 2, a)
    state = noisy_cnot(state, 1, 3, b)
    kept = np.zeros((4, 4), dtype=np.complex128)
    for bit_a, bit_b, wrong_a, wrong_b in product((0, 1), repeat=4):
        if bit_a ^ wrong_a != bit_b ^ wrong_b:
            continue
        probability = a.readout if wrong_a else 1.0 - a.readout
        probability *= b.readout if wrong_b else 1.0 - b.readout
        kept += probability * projected(state, {2: bit_a, 3: bit_b})
    return kept


def twirl() -> list[tuple[Matrix, Matrix]]:
    """The twelve rotations of a tetrahedron on side A, their conjugates on side B."""
    third = (ONE - 1j * (X + Y + Z)) / 2.0  # By 120 degrees about (1, 1, 1).
    powers = [ONE, third, third @ third]
    group = [pauli @ power for pauli in PAULIS for power in powers]
    return [(u, u.conj()) for u in group]


def rotation() -> list[tuple[Matrix, Matrix]]:
    """By 90 degrees about X on side A, by -90 degrees on side B."""
    quarter = (ONE - 1j * X) / np.sqrt(2.0)
    return [(quarter, quarter.conj().T)]
