"""Certificates: a kappa that holds against every strategy, by branch and bound over two angles.

Theorem.  kappa = -log2(Theta)/(ah-1), Theta the supremum of one round's value over all devices, for
the bounds of `renyi` and `filtered`.  `prove` succeeds only if no device's value exceeds
2^(-(ah-1) kappa).  The steps, each an upper bound:

1. Two qubits, measured in their XZ planes, are enough.  Alice's two observables (Bob's two test
   observables; his key setting does not occur) are projective on a larger space (M. Naimark), and
   by Jordan's lemma act as blocks of dimension one or two, in which both are real (S. Pironio et
   al., New J. Phys. 11, 045021 (2009), section 2).  Telling Eve the block never lowers the value
   (data processing of the sandwiched entropy), and then the value is the average over blocks.  Eve
   may hold a purification, for the same reason.  A block of dimension one is part of one of
   dimension two, at angle 0 or pi.  Turning each qubit makes A0 = B0 = Z; conjugation by Z on one
   qubit turns its other angle's sign.  So A1, B1 are at angles (a, b) in [0, pi] x [0, pi].
2. a <= pi/2 is enough.  Negating A1 and exchanging B0 with B1 leaves the game as it is, and the
   generation rounds too, as they use A0.  It takes (a, b) to (pi - a, b).
3. At given angles and any reference state, the value of every state, entangled or not, real or
   complex, is at most the largest eigenvalue of K, the sum of the terms' gradients (`tangents`).
4. Between angles.  Let a cell be a rectangle with corners i, K_i a K made at corner i, and t_i >= 0
   the bilinear weights of a point in it.  A test's value at other angles is its value at corner i
   in local bases turned by the difference, so that K_i with its test terms turned bounds it; and
   the average of four bounds is a bound: sum_i t_i (K_i + turned_i - unturned_i).  The first part
   has eigenvalues at most max_i of K_i's.  In either block (see `blocks`) a test's vector v is
   turned by phi, and |turned - v - phi Jv| <= phi^2 |v|/2, J the turn by a right angle.  On average
   over the corners phi is 0 and phi^2 at most (width_a^2 + width_b^2)/4, of those widths that the
   test depends on; J acts on differences of the vectors between opposite corners, times at most
   width/4.  Half the length of the vectors' sum is added to the eigenvalues.
5. Rounding.  What is compared is a sum of some hundred products of numbers no larger than 2 times
   the largest weight of a test, made in IEEE double precision by functions that are accurate to a
   few units in the last place; small eigenvalues that cancellation has made inaccurate err to the
   safe side (`tangents.DUST`).  That is off by 1e-13 at most, and `ROUNDING` = 1e-12 times the
   largest weight is added.  This is an argument, not interval arithmetic.

A cell whose bound is too large is cut in four.  References are near the best at their corners, so
bounds exceed the true value by a term quadratic in the width wherever it is smooth, and a few
thousand angles are enough.  If a corner's own state exceeds the claim, that state refutes it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.bounds.blocks import Reals
from bellhop.stack.diqkd.bounds.design import Design
from bellhop.stack.diqkd.bounds.tangents import (
    Game,
    Tangents,
    game_of,
    kappa_of,
    tangents_at,
    value_of,
)

MARGIN = 1e-5
"""Bits a round by which a certified kappa is below the best attack's."""

ROUNDING = 1e-12
"""Added to every bound on the value, times the largest weight of a test."""

BASE = 16
"""Cells along a quarter turn at first."""

DEPTH_MAX = 22
CELLS_MAX = 100_000
"""Where a proof is given up: levels of cutting, and open cells in one."""

LATTICE = BASE << DEPTH_MAX
"""Points along a quarter turn, where corners may lie."""

_ITERATIONS = 60
_POINTS_AT_ONCE = 4096
_SEARCH = 32
_ZOOMS, _ZOOM_POINTS, _CENTRES = 12, 7, 4
_AGREEMENT = 1e-8
_DECIMALS = 1e8

Indices = NDArray[np.int64]
Progress = Callable[[int, int], None]
"""Told the level of cutting and how many cells are open in it."""


class NotCertified(ValueError):
    """No proof for this design was found.  The text says why."""


@dataclass(frozen=True, slots=True)
class Attack:
    """A strategy, as an upper bound on kappa: A0 = B0 = Z, A1 and B1 at these angles (radians), and
    the logarithm of the state as `blocks` has it, (k, z, x) of either block.  `kappa`: what it
    leaves, which no true bound exceeds."""

    alice: float
    bob: float
    logarithm: tuple[float, ...]
    kappa: float


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of trying to prove a kappa.

    `cells` and `points` that were looked at, `depth` of the cutting, `rounding` allowed for in the
    value.  `why` it failed, empty if it `holds`; `attack`: one that refutes the claim, if any.
    """

    cells: int
    points: int
    depth: int
    rounding: float
    why: str = ""
    attack: Attack | None = None

    @property
    def holds(self) -> bool:
        return not self.why


@dataclass(frozen=True, slots=True)
class Certificate:
    """A kappa, proved when this was made, and the attack that shows that little more is true."""

    design: Design
    bound: str
    adaptive: bool
    kappa: float
    attack: Attack
    proof: Proof


def certify(
    design: Design, bound: str, adaptive: bool = True, progress: Progress | None = None
) -> Certificate:
    """The best attack that is found, and a proof that no other leaves `MARGIN` less.

    Takes about a second, and up to a minute where a deterministic strategy is as good as the best:
    then a whole edge of the square is.  Raises NotCertified if cutting does not end, ValueError for
    a bound that has no designs.
    """
    attack = best_attack(design, bound, adaptive)
    while True:
        claim = math.floor((attack.kappa - MARGIN) * _DECIMALS) / _DECIMALS
        proof = prove(design, bound, adaptive, claim, progress)
        if proof.holds:
            return Certificate(design, bound, adaptive, claim, attack, proof)
        if proof.attack is None or proof.attack.kappa >= attack.kappa:
            raise NotCertified(proof.why)
        attack = proof.attack  # the search had missed it


def check(certificate: Certificate, progress: Progress | None = None) -> Proof:
    """The proof anew, from the design and the claim alone; the stored proof is not relied on.

    The attack must leave the kappa that the certificate says, and no less than the claim.
    """
    of = certificate
    game = game_of(of.design, of.bound, of.adaptive)
    attack = of.attack
    value = value_of(
        game, np.reshape(attack.logarithm, (1, 2, 3)), np.array([[attack.alice, attack.bob]])
    )
    if abs(kappa_of(float(value[0]), game.order) - attack.kappa) > _AGREEMENT:
        return Proof(0, 1, 0, 0.0, "the attack does not leave the kappa that is said")
    return prove(of.design, of.bound, of.adaptive, of.kappa, progress)


def best_attack(design: Design, bound: str, adaptive: bool = True) -> Attack:
    """The strategy that leaves the least kappa: a grid of angles, then closer looks at the best."""
    game = game_of(design, bound, adaptive)
    quarter = np.linspace(0.0, math.pi / 2.0, _SEARCH + 1)
    half = np.linspace(0.0, math.pi, 2 * _SEARCH + 1)
    angles = np.stack(np.meshgrid(quarter, half, indexing="ij"), axis=-1)
    values = _tangents(game, angles.reshape(-1, 2)).value.reshape(angles.shape[:2])
    centres = angles[_peaks(values)][:_CENTRES]
    steps = np.linspace(-1.0, 1.0, _ZOOM_POINTS)
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    reach, best = math.pi / 2.0 / _SEARCH, None
    for _ in range(_ZOOMS):
        square = np.clip(centres[:, None] + reach * offsets, 0.0, [math.pi / 2.0, math.pi])
        near = square.reshape(-1, 2)
        found = _tangents(game, near)
        which = found.value.reshape(len(centres), -1).argmax(axis=1)
        centres = square[np.arange(len(centres)), which]
        reach *= 2.5 / (_ZOOM_POINTS - 1)
        best = _better(best, _attack(game, near, found))
    assert best is not None
    return best


def prove(
    design: Design,
    bound: str,
    adaptive: bool,
    kappa: float,
    progress: Progress | None = None,
    cells_max: int = CELLS_MAX,
) -> Proof:
    """Whether no strategy leaves less than `kappa`; see the module."""
    game = game_of(design, bound, adaptive)
    rounding = ROUNDING * game.largest_weight
    # A kappa beyond these is false or worthless, and its power of two might not be a number.
    theta = 2.0 ** (-(game.order - 1.0) * min(max(kappa, -1e4), 1e4))
    known = Corners(game)
    cells = np.stack(np.meshgrid(np.arange(BASE), np.arange(2 * BASE)), axis=-1).reshape(-1, 2)
    cells = cells.astype(np.int64) << DEPTH_MAX
    looked_at = 0
    for depth in range(DEPTH_MAX + 1):
        if progress is not None:
            progress(depth, len(cells))
        looked_at += len(cells)
        width = 1 << (DEPTH_MAX - depth)
        corners = corners_of(cells, width)
        attack = known.look_at(corners)
        if attack is not None and attack.kappa < kappa:
            why = f"an attack leaves {attack.kappa:.8f} bits a round, less than {kappa:.8f}"
            return Proof(looked_at, known.size, depth, rounding, why, attack)
        open_ = ~(known.bounds(corners, width) + rounding <= theta)  # what is no number is open
        if not open_.any():
            return Proof(looked_at, known.size, depth, rounding)
        cells = _quarters(cells[open_], width)
        if len(cells) > cells_max:
            break
    return Proof(looked_at, known.size, depth, rounding, f"{len(cells)} cells remain open")


class Corners:
    """The tangents at all lattice points that were looked at, ordered by their keys."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self._keys: Indices = np.empty(0, dtype=np.int64)
        self._bound: Reals = np.empty(0)
        self._vectors: Reals = np.empty((0, 4, 2, 2))

    @property
    def size(self) -> int:
        return len(self._keys)

    def look_at(self, corners: Indices) -> Attack | None:
        """Finds the tangents that are not known yet; the best attack among them."""
        new = np.setdiff1d(_key(corners), self._keys)
        if not len(new):
            return None
        points = np.stack([new // (4 * LATTICE), new % (4 * LATTICE)], axis=-1)
        angles = points.astype(np.float64) * (math.pi / 2.0 / LATTICE)
        found = _tangents(self._game, angles)
        keys = np.concatenate([self._keys, new])
        order = np.argsort(keys)
        self._keys = keys[order]
        self._bound = np.concatenate([self._bound, found.bound])[order]
        self._vectors = np.concatenate([self._vectors, found.vectors])[order]
        return _attack(self._game, angles, found)

    def bounds(self, corners: Indices, width: int) -> Reals:
        """An upper bound on the value in each cell, from its corners (N, 4, 2): step 4."""
        index = np.searchsorted(self._keys, _key(corners))
        vectors, side = self._vectors[index], width * (math.pi / 2.0 / LATTICE)
        bob, alice, both = (vectors[:, :, setting] for setting in (1, 2, 3))
        second = side**2 / 8.0 * (_most(bob) + _most(alice) + 2.0 * _most(both))
        along_alice = _apart(alice + both, (0, 1), (2, 3))
        along_bob = _apart(bob + both, (0, 2), (1, 3))
        first = side / 4.0 * (along_alice + along_bob)
        remainder = (first + second).max(axis=1) / 2.0
        return np.asarray(self._bound[index].max(axis=1) + remainder)


def _most(vectors: Reals) -> Reals:
    """The greatest length over four corners, (N, 4, 2, 2) to (N, 2)."""
    return np.asarray(np.hypot(vectors[..., 0], vectors[..., 1]).max(axis=1))


def _apart(vectors: Reals, ones: tuple[int, int], others: tuple[int, int]) -> Reals:
    """The greater difference between corners `ones` and `others`, (N, 4, 2, 2) to (N, 2)."""
    return _most(vectors[:, list(ones)] - vectors[:, list(others)])


def _key(points: Indices) -> Indices:
    return np.asarray(points[..., 0] * (4 * LATTICE) + points[..., 1])


def corners_of(cells: Indices, width: int) -> Indices:
    """Of cells with these lower corners (N, 2), in (N, 4, 2), Alice's angle the slower."""
    offsets = np.array([[0, 0], [0, width], [width, 0], [width, width]], dtype=np.int64)
    return np.asarray(cells[:, None] + offsets)


def _quarters(cells: Indices, width: int) -> Indices:
    return np.asarray(corners_of(cells, width // 2).reshape(-1, 2))


def _tangents(game: Game, angles: Reals) -> Tangents:
    parts = [
        tangents_at(game, angles[start : start + _POINTS_AT_ONCE], _ITERATIONS)
        for start in range(0, len(angles), _POINTS_AT_ONCE)
    ]
    return Tangents(
        np.concatenate([part.bound for part in parts]),
        np.concatenate([part.value for part in parts]),
        np.concatenate([part.logarithm for part in parts]),
        np.concatenate([part.vectors for part in parts]),
    )


def _attack(game: Game, angles: Reals, found: Tangents) -> Attack:
    best = int(found.value.argmax())
    state = tuple(float(part) for part in found.logarithm[best].ravel())
    alice, bob = (float(angle) for angle in angles[best])
    return Attack(alice, bob, state, kappa_of(float(found.value[best]), game.order))


def _better(one: Attack | None, other: Attack) -> Attack:
    return other if one is None or other.kappa < one.kappa else one


def _peaks(values: Reals) -> tuple[Indices, Indices]:
    """Where no neighbour is higher, highest first."""
    padded = np.pad(values, 1, constant_values=-np.inf)
    rows, columns = values.shape
    highest = np.full(values.shape, True)
    for i in range(3):
        for j in range(3):
            highest &= values >= padded[i : i + rows, j : j + columns]
    at = np.nonzero(highest)
    order = np.argsort(-values[at], kind="stable")
    return at[0][order], at[1][order]
