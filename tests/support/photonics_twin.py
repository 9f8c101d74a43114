"""Heralding calculated the long way: the state of both ions and of every mode of the light.

Nothing is taken from the formulas under test.  The state vector of two ions and all modes of light
is written down; every optical element is a unitary on the Fock space of all modes; loss is a beam
splitter into a mode that nobody looks at; wave packets that overlap in part are made of two
orthogonal internal modes; which detectors have light and which click in the dark is enumerated.
No scheme here emits more than two photons and every element conserves their number, so the Fock
space up to two photons holds the state without truncation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations, combinations_with_replacement, product

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm, logm

Complex = NDArray[np.complex128]
Mode = tuple[str, ...]
Clicks = frozenset[int]
PHOTONS_MAX = 2
INTERNAL = ("0", "1")
PAULIS = (
    np.eye(2),
    np.array([[0, 1], [1, 0]]),
    np.array([[0, -1j], [1j, 0]]),
    np.diag([1, -1]),
)


@dataclass(frozen=True)
class Node:
    """What a node does, in the words of this file."""

    efficiency: float
    bright_probability: float = 0.5
    dephasing: float = 0.0
    depolarising: float = 0.0


class FockSpace:
    """All states of some modes with up to two photons."""

    def __init__(self, modes: Iterable[Mode]) -> None:
        self.modes = tuple(modes)
        self.states = [
            tuple(chosen.count(mode) for mode in self.modes)
            for photons in range(PHOTONS_MAX + 1)
            for chosen in combinations_with_replacement(self.modes, photons)
        ]
        self.vacuum = np.zeros(len(self.states), dtype=np.complex128)
        self.vacuum[0] = 1.0

    @cached_property
    def create(self) -> dict[Mode, NDArray[np.float64]]:
        """The creation operator of each mode: sqrt(n + 1) |n + 1><n|."""
        index = {occupation: i for i, occupation in enumerate(self.states)}
        operators = {}
        for position, mode in enumerate(self.modes):
            operator = np.zeros((len(self.states), len(self.states)))
            for column, occupation in enumerate(self.states):
                if sum(occupation) < PHOTONS_MAX:
                    more = list(occupation)
                    more[position] += 1
                    operator[index[tuple(more)], column] = np.sqrt(more[position])
            operators[mode] = operator
        return operators

    def element(self, modes: tuple[Mode, ...], matrix: NDArray[np.generic]) -> Complex:
        """The unitary of an element that turns a_j^dagger into sum_i matrix[i, j] a_i^dagger."""
        logarithm = np.asarray(logm(np.asarray(matrix, dtype=np.complex128)))
        generator = np.zeros((len(self.states), len(self.states)), dtype=np.complex128)
        for i, to in enumerate(modes):
            for j, source in enumerate(modes):
                generator += logarithm[i, j] * self.create[to] @ self.create[source].T
        return np.asarray(expm(generator), dtype=np.complex128)

    def lit(self, detectors: tuple[frozenset[Mode], ...]) -> list[Clicks]:
        """For each Fock state, the detectors that light falls on, however many photons."""
        return [
            frozenset(
                number
                for number, seen in enumerate(detectors)
                if any(n for n, mode in zip(occupation, self.modes, strict=True) if mode in seen)
            )
            for occupation in self.states
        ]


def lossy(space: FockSpace, light: Complex, arm: str, efficiency: float) -> Complex:
    """Every mode of the arm meets a beam splitter whose other output is lost."""
    generator = np.zeros((len(space.states), len(space.states)))
    for mode in space.modes:
        if mode[0] == arm:
            kept, lost = space.create[mode], space.create["lost " + arm, *mode[1:]]
            generator += lost @ kept.T - kept @ lost.T
    splitters = expm(np.arccos(np.sqrt(efficiency)) * generator)
    return np.asarray(light @ splitters.T, dtype=np.complex128)


@cache
def midpoint(polarisations: tuple[str, ...]) -> tuple[FockSpace, Complex]:
    """The modes of both arms, and the 50:50 splitter: port "A" then sees a + b, port "B" a - b."""
    arms = ("A", "B", "lost A", "lost B")
    space = FockSpace(product(arms, polarisations, INTERNAL))
    splitter: Complex = np.eye(len(space.states), dtype=np.complex128)
    hadamard = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2.0)
    for polarisation, internal in product(polarisations, INTERNAL):
        ports = (("A", polarisation, internal), ("B", polarisation, internal))
        splitter = space.element(ports, hadamard) @ splitter
    return space, splitter


def packet(space: FockSpace, arm: str, polarisation: str, hom_visibility: float) -> Complex:
    """Creates one photon; B's wave packet overlaps with A's by sqrt(hom_visibility)."""
    overlap = np.sqrt(hom_visibility) if arm == "B" else 1.0
    first, second = (space.create[arm, polarisation, internal] for internal in INTERNAL)
    return np.asarray(overlap * first + np.sqrt(1.0 - overlap**2) * second, np.complex128)


def emission_unitaries(node: Node) -> list[tuple[float, Complex]]:
    """The noise of one ion as unitaries with probabilities: Z, and a random Pauli."""
    q = node.depolarising
    z = [(1.0 - node.dephasing, PAULIS[0]), (node.dephasing, PAULIS[3])]
    paulis = [(1.0 - 0.75 * q, PAULIS[0]), *((0.25 * q, pauli) for pauli in PAULIS[1:])]
    return [
        (p * r, np.asarray(second @ first, np.complex128)) for (p, first), (r, second) in
        product(z, paulis)
    ]  # fmt: skip


def chances(lit: list[Clicks], detectors: int, dark: float) -> dict[Clicks, NDArray[np.float64]]:
    """For each set of detectors that may click, its probability in each state of the light."""
    subsets = [
        frozenset(chosen)
        for number in range(detectors + 1)
        for chosen in combinations(range(detectors), number)
    ]
    result = {pattern: np.zeros(len(lit)) for pattern in subsets}
    for alone in subsets:  # these click in the dark, the others do not
        chance = dark ** len(alone) * (1.0 - dark) ** (detectors - len(alone))
        for state, light in enumerate(lit):
            result[light | alone][state] += chance
    return result


def add_clicks(
    total: dict[Clicks, Complex],
    weight: float,
    amplitudes: Complex,
    patterns: dict[Clicks, NDArray[np.float64]],
) -> None:
    """Adds the ions, not normalised, for each set of detectors that click.

    `amplitudes`: a row for each state of the ions, a column for each one of the light, which is
    traced over.
    """
    for pattern, chance in patterns.items():
        ions = weight * (amplitudes * chance) @ amplitudes.conj().T
        total[pattern] = total.get(pattern, np.zeros_like(ions)) + ions


def noisy_ions(amplitudes: Complex, *nodes: Node) -> list[tuple[float, Complex]]:
    """What the ions' emission noise makes of the state vector, before anything is detected."""
    noisy = []
    for each in product(*(emission_unitaries(node) for node in nodes)):
        chance = float(np.prod([p for p, _ in each]))
        operator: Complex = np.eye(1, dtype=np.complex128)
        for _, unitary in each:
            operator = np.asarray(np.kron(operator, unitary), np.complex128)
        if chance > 0.0:
            noisy.append((chance, operator @ amplitudes))
    return noisy


def single_photon(
    a: Node, b: Node, dark: float, phase_visibility: float, hom_visibility: float
) -> dict[Clicks, Complex]:
    """Ions for each pattern of the detectors 0 (behind a + b) and 1 (behind a - b)."""
    space, splitter = midpoint(("h",))
    lit = space.lit(tuple(frozenset(m for m in space.modes if m[0] == port) for port in ("A", "B")))
    patterns = chances(lit, 2, dark)
    total: dict[Clicks, Complex] = {}
    error = np.arccos(phase_visibility)
    for phase in (error, -error):  # their mean of exp(i phase) is the visibility
        rows = []
        for bright_a, bright_b in product((0, 1), repeat=2):
            light = space.vacuum.copy()
            amplitude = 1.0 + 0.0j
            for node, arm, bright in ((a, "A", bright_a), (b, "B", bright_b)):
                alpha = node.bright_probability
                amplitude *= np.sqrt(alpha if bright else 1.0 - alpha)
                if bright:
                    light = np.asarray(packet(space, arm, "h", hom_visibility) @ light)
            rows.append(amplitude * np.exp(1j * phase * bright_b) * light)
        light = lossy(space, lossy(space, np.array(rows), "A", a.efficiency), "B", b.efficiency)
        for chance, amplitudes in noisy_ions(light @ splitter.T, a, b):
            add_clicks(total, chance / 2.0, amplitudes, patterns)
    return total


TWO_PHOTON_DETECTORS = (("A", "h"), ("A", "v"), ("B", "h"), ("B", "v"))
"""Port behind the splitter and polarisation of the detectors 0 to 3."""


def two_photon(
    a: Node, b: Node, dark: float, phase: float, hom_visibility: float
) -> dict[Clicks, Complex]:
    """Ions for each pattern of `TWO_PHOTON_DETECTORS`; `phase` is that of B's light."""
    space, splitter = midpoint(("h", "v"))
    lit = space.lit(
        tuple(frozenset(m for m in space.modes if m[:2] == seen) for seen in TWO_PHOTON_DETECTORS)
    )
    rows = []
    for of_a, of_b in product("hv", repeat=2):
        emitted = packet(space, "A", of_a, hom_visibility) @ space.vacuum
        emitted = packet(space, "B", of_b, hom_visibility) @ emitted
        rows.append(0.5 * np.exp(1j * phase) * emitted)
    light = lossy(space, lossy(space, np.array(rows), "A", a.efficiency), "B", b.efficiency)
    patterns = chances(lit, 4, dark)
    total: dict[Clicks, Complex] = {}
    for chance, amplitudes in noisy_ions(light @ splitter.T, a, b):
        add_clicks(total, chance, amplitudes, patterns)
    return total


def direct_measured(node: Node, dark: float, analyser: Complex) -> dict[Clicks, Complex]:
    """The ion (2, 2) for each pattern of two detectors behind an analyser.

    `analyser`: its columns are the two polarisations that go to detectors 0 and 1.
    """
    space = FockSpace(product(("A", "lost A"), ("h", "v")))
    rows = [space.create["A", p] @ space.vacuum / np.sqrt(2.0) for p in "hv"]
    light = lossy(space, np.array(rows), "A", node.efficiency)
    arm = (("A", "h"), ("A", "v"))
    light = light @ space.element(arm, analyser.conj().T).T
    patterns = chances(space.lit((frozenset(arm[:1]), frozenset(arm[1:]))), 2, dark)
    total: dict[Clicks, Complex] = {}
    for chance, amplitudes in noisy_ions(light, node):
        add_clicks(total, chance, amplitudes, patterns)
    return total


def direct(node: Node, dark: float) -> Complex:
    """The ion and the photon's qubit, not normalised, by tomography with exactly one click."""
    pair = np.zeros((4, 4), dtype=np.complex128)
    for pauli in PAULIS[1:]:
        _, polarisations = np.linalg.eigh(pauli)
        ions = direct_measured(node, dark, polarisations[:, ::-1].astype(np.complex128))
        zero, one = ions[frozenset({0})], ions[frozenset({1})]
        pair += np.kron(zero - one, pauli) / 2.0
    return pair + np.kron(zero + one, np.eye(2)) / 2.0
