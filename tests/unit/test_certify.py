"""Certificates against a global search over all strategies, and wrong ones, which are refused."""

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.support.strategies import PARAMETERS, least_kappa_found, values

from bellhop.stack.diqkd.bounds import filtered, renyi
from bellhop.stack.diqkd.bounds.blocks import Reals, spectral, state_with_logarithm
from bellhop.stack.diqkd.bounds.certify import (
    LATTICE,
    MARGIN,
    Attack,
    Corners,
    best_attack,
    certify,
    check,
    corners_of,
    prove,
)
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED, RENYI, Design
from bellhop.stack.diqkd.bounds.tangents import game_of, tangents_at, value_of

RUBIDIUM = Design(1.000665, 0.08175659, 22.34, -98.73)
NOISY = Design(1.002, 0.18, 10.0, -36.0, 0.02)
DETERMINISTIC = Design(1.001, 0.10, 16.0, -65.0)
"""Its scores are such that a deterministic strategy beats the family that attains the CHSH bound:
the family alone would give 0.39281105 bits a round."""

GAMES = [(RUBIDIUM, RENYI), (NOISY, RENYI), (RUBIDIUM, FILTERED), (NOISY, FILTERED)]


def parameters_of(logarithm: Reals, angles: Reals) -> Reals:
    """Strategies (N, 2, 3), (N, 2) as the slow twin has them."""
    bell = np.array([[1, 0, 0, 1], [0, 1, -1, 0], [1, 0, 0, -1], [0, 1, 1, 0]]) / math.sqrt(2.0)
    states = np.zeros((len(logarithm), 4, 4))
    blocks = spectral(logarithm, np.exp)
    for i in (0, 1):
        k, z, x = (blocks[:, i, part] for part in range(3))
        block = np.stack([np.stack([k + z, x], -1), np.stack([x, k - z], -1)], -2) / 2.0
        basis = bell[2 * i : 2 * i + 2]
        states += basis.T @ block @ basis
    roots = np.linalg.cholesky(states)
    given = np.zeros((len(logarithm), PARAMETERS))
    given[:, :16] = roots.reshape(-1, 16)
    given[:, 33], given[:, 35] = angles[:, 0], angles[:, 1]
    return given


@pytest.mark.parametrize(("design", "bound"), GAMES)
@pytest.mark.parametrize("adaptive", [True, False])
def test_values_are_those_of_plain_matrices(design: Design, bound: str, adaptive: bool) -> None:
    generator = np.random.default_rng(5)
    logarithm = state_with_logarithm(generator.normal(scale=2.0, size=(30, 2, 3)))
    angles = generator.uniform(0.0, math.pi, size=(30, 2))
    ours = value_of(game_of(design, bound, adaptive), logarithm, angles)
    plain = values(design, bound, adaptive, parameters_of(logarithm, angles))
    np.testing.assert_allclose(ours, plain, rtol=0.0, atol=2e-14)


@pytest.mark.parametrize(("design", "bound"), GAMES)
def test_tangents_bound_every_state_at_their_angles(design: Design, bound: str) -> None:
    generator = np.random.default_rng(6)
    angles = generator.uniform(0.0, math.pi, size=(40, 2))
    found = tangents_at(game_of(design, bound, True), angles, iterations=60)
    assert (found.value <= found.bound + 1e-14).all()
    for _ in range(10):
        strategies = generator.normal(size=(40, PARAMETERS))
        # States of any rank: the first columns of T weigh more.
        strategies[:, :32] *= np.tile(10.0 ** generator.uniform(-4.0, 0.0, 4), 8)
        strategies[:, 32:] = 0.0
        strategies[:, 33], strategies[:, 35] = angles[:, 0], angles[:, 1]
        assert (values(design, bound, True, strategies) <= found.bound + 1e-13).all()


@pytest.mark.parametrize(("design", "bound"), GAMES)
@pytest.mark.parametrize("width", [LATTICE >> 2, LATTICE >> 6])
def test_a_cells_bound_holds_at_every_angle_in_it(design: Design, bound: str, width: int) -> None:
    generator = np.random.default_rng(width)
    game = game_of(design, bound, True)
    cells = np.stack(
        [generator.integers(0, reach * LATTICE - width, 40) for reach in (1, 2)], axis=-1
    )
    known, corners = Corners(game), corners_of(cells, width)
    known.look_at(corners)
    bounds = known.bounds(corners, width)
    for _ in range(4):
        points = cells + generator.uniform(0.0, width, size=cells.shape)
        within = tangents_at(game, points * (math.pi / 2.0 / LATTICE), iterations=60)
        assert (within.value <= bounds + 1e-14).all()


@pytest.mark.parametrize(("design", "bound"), [(RUBIDIUM, RENYI), (NOISY, FILTERED)])
def test_no_strategy_found_leaves_less_than_is_certified(design: Design, bound: str) -> None:
    certificate = certify(design, bound)
    found = least_kappa_found(design, bound, True, np.random.default_rng(3), starts=2)
    assert found >= certificate.kappa
    # And the search is worth something: it finds an attack that leaves no more than 1e-4 bit more.
    assert found <= certificate.kappa + 1e-4
    assert check(certificate).holds


@pytest.mark.parametrize(
    ("design", "bound", "adaptive"),
    [(RUBIDIUM, RENYI, False), (RUBIDIUM, FILTERED, True), (DETERMINISTIC, RENYI, True)],
)
def test_certificates_agree_with_the_closed_forms(
    design: Design, bound: str, adaptive: bool
) -> None:
    certificate = certify(design, bound, adaptive)
    closed = {RENYI: renyi.kappa, FILTERED: filtered.kappa}[bound](design, adaptive)
    assert certificate.attack.kappa == pytest.approx(closed, abs=1e-8)
    assert closed - MARGIN - 2e-8 <= certificate.kappa <= closed - MARGIN + 1e-12


def test_a_kappa_that_is_too_large_is_refuted_by_an_attack() -> None:
    certificate = certify(RUBIDIUM, RENYI)
    proof = check(replace(certificate, kappa=certificate.kappa + 1e-4))
    assert not proof.holds
    assert proof.attack is not None
    assert proof.attack.kappa < certificate.kappa + 1e-4
    angles = np.array([[proof.attack.alice, proof.attack.bob]])
    logarithm = np.reshape(proof.attack.logarithm, (1, 2, 3))
    game = game_of(RUBIDIUM, RENYI, True)
    value = float(value_of(game, logarithm, angles)[0])
    assert -math.log2(value) / (game.order - 1.0) == pytest.approx(proof.attack.kappa, abs=1e-9)


def test_the_familys_kappa_is_refused_where_a_deterministic_strategy_is_better() -> None:
    proof = prove(DETERMINISTIC, RENYI, True, 0.39281105 - MARGIN)
    assert not proof.holds
    assert proof.attack is not None
    assert proof.attack.kappa < 0.3929
    assert prove(DETERMINISTIC, RENYI, True, 0.38226633 - MARGIN).holds


def test_a_kappa_within_a_hair_of_the_best_attack_is_neither_proved_nor_refuted() -> None:
    attack = best_attack(RUBIDIUM, RENYI)
    proof = prove(RUBIDIUM, RENYI, True, attack.kappa - 1e-13, cells_max=2_000)
    assert "remain open" in proof.why
    assert proof.attack is None


def test_an_attack_that_is_not_what_is_said_is_refused() -> None:
    certificate = certify(RUBIDIUM, RENYI)
    better = replace(certificate.attack, kappa=certificate.attack.kappa + 1e-3)
    elsewhere = Attack(0.3, 0.3, certificate.attack.logarithm, certificate.attack.kappa)
    for attack in (better, elsewhere):
        assert not check(replace(certificate, attack=attack)).holds


def test_a_certificate_is_for_its_own_eve() -> None:
    """A static Eve leaves more; that kappa does not hold against one who adapts."""
    static = certify(RUBIDIUM, FILTERED, adaptive=False)
    assert not check(replace(static, adaptive=True)).holds


def test_only_bounds_with_designs_can_be_certified() -> None:
    with pytest.raises(ValueError, match="no kappa"):
        certify(RUBIDIUM, EAT)


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    proof = prove(RUBIDIUM, RENYI, True, 0.49, lambda depth, cells: told.append((depth, cells)))
    assert proof.holds
    assert [depth for depth, _ in told] == list(range(proof.depth + 1))
    assert sum(cells for _, cells in told) == proof.cells
