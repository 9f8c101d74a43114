"""The shipped designs: whole, proved, and picked by the expected key."""

import json
import math

import pytest

from bellhop.stack.diqkd.bounds.certificates import certificate_of, entry_of, file_text
from bellhop.stack.diqkd.bounds.certify import MARGIN, ROUNDING, certify, check
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI, SCALE, Design
from bellhop.stack.diqkd.bounds.designs import (
    best_design,
    certified_designs,
    design_named,
    entries_in,
    expected_key_bits,
    read_design,
    shipped_entries,
)
from bellhop.stack.diqkd.bounds.expected import KAPPA, expected_shown, uncertified
from bellhop.stack.diqkd.bounds.library import designed_bound
from bellhop.stack.diqkd.bounds.optimise import optimise

PROVED_HERE = (
    f"{RENYI}/1.2e6/2.60",
    f"{RENYI}/4e4/2.80",
    f"{RENYI}/4e6/2.50/noisy",
    f"{FILTERED}/4e5/2.60",
)
"""A few of either bound; `make designs-check` proves all of them."""


def test_every_design_can_be_drawn_and_has_a_name_of_its_own() -> None:
    shipped = certified_designs()
    assert len({one.name for one in shipped}) == len(shipped)
    for one in shipped:
        assert one.design.drawable
        assert one.adaptive
        assert one.name.startswith(f"{one.bound}/")
        assert design_named(one.name) is one


def test_no_kappa_exceeds_what_known_attacks_leave() -> None:
    for one, entry in zip(certified_designs(), shipped_entries(), strict=True):
        assert one.kappa <= KAPPA[one.bound](one.design, one.adaptive) - MARGIN + 1e-8
        attack = entry["certificate"]["attack"]["kappa"]
        assert 0.0 <= attack - MARGIN - one.kappa <= 1.001e-8
        assert entry["certificate"]["rounding"] >= ROUNDING


@pytest.mark.parametrize("name", PROVED_HERE)
def test_the_proof_of_a_shipped_design_is_done_again(name: str) -> None:
    [entry] = [entry for entry in shipped_entries() if entry["name"] == name]
    proof = check(certificate_of(entry))
    assert proof.holds, proof.why
    assert proof.cells <= 2 * entry["certificate"]["cells"]


def test_a_design_that_was_altered_is_noticed_twice() -> None:
    """By the digest; and whoever makes the digest fit is found out by the proof."""
    entries = shipped_entries()
    text = file_text(entries)
    assert entries_in(text) == entries
    altered = json.loads(text)
    altered["designs"][0]["kappa"] += 1e-4
    with pytest.raises(ValueError, match="digest"):
        entries_in(json.dumps(altered))
    [forged, *_] = entries_in(file_text(altered["designs"]))
    assert not check(certificate_of(forged)).holds


def test_the_best_design_is_best_and_its_bits_are_those_of_the_bound() -> None:
    rounds, s, qber = 1_200_000, 2.612, 0.03
    found = best_design(RENYI, rounds, s, qber)
    assert found is not None
    best, bits = found
    for one in certified_designs():
        if one.bound == RENYI:
            assert expected_key_bits(one, rounds, s, qber) <= bits
    shown = expected_shown(best.design, rounds, s, qber, 1.06, bins=float(rounds) ** 2)
    assert designed_bound(best, 1e-10).key_bits(shown) == bits
    # The raw kappa gives 1e-5 bit a round more, 12 in all.
    assert 12 <= uncertified(RENYI, best.design, 1e-10).key_bits(shown) - bits <= 13


@pytest.mark.parametrize(
    ("rounds", "s", "qber", "least"),
    [
        (1_500_000, 2.677, 0.0144, 0.44),
        (1_200_000, 2.612, 0.03, 0.26),
        (1_200_000, 2.589, 0.045, 0.16),
        (405_145, 2.5758, 0.036, 0.13),
    ],
)
def test_published_runs_with_shipped_designs(
    rounds: int, s: float, qber: float, least: float
) -> None:
    """Efficiency 1.06 assumed throughout, and the error rates of the second and third."""
    found = best_design(RENYI, rounds, s, qber)
    assert found is not None
    assert found[1] / rounds >= least


@pytest.mark.parametrize(
    ("rounds", "s", "qber"),
    [(150_000, 2.675, 0.02), (900_000, 2.625, 0.03), (3_000_000, 2.525, 0.045)],
)
def test_little_is_lost_between_the_designs(rounds: int, s: float, qber: float) -> None:
    """`bench/designs.py` measures it at many more runs."""
    found = best_design(RENYI, rounds, s, qber)
    assert found is not None
    made = optimise(RENYI, rounds, s, qber)
    shown = expected_shown(made, rounds, s, qber, 1.06, bins=float(rounds) ** 2)
    best = uncertified(RENYI, made, 1e-10).key_bits(shown)
    assert 0.985 * best <= found[1] <= best


def test_noisy_preprocessing_is_chosen_where_errors_are_many() -> None:
    rounds, s, qber = 4_000_000, 2.5, 0.062
    found = best_design(RENYI, rounds, s, qber)
    assert found is not None
    assert found[0].design.flip_probability > 0.0
    quiet = [
        expected_key_bits(one, rounds, s, qber)
        for one in certified_designs()
        if one.bound == RENYI and not one.design.flip_probability
    ]
    assert found[1] > max(quiet)


def test_where_there_is_no_key_there_is_no_design() -> None:
    assert best_design(RENYI, 1_200_000, 2.2, 0.03) is None
    with pytest.raises(ValueError, match="no shipped design"):
        design_named("renyi-2405.05912/0/0")


def test_certificates_survive_the_file() -> None:
    design = Design(1.001, 8192 / SCALE, 12.0, -53.0)
    certificate = certify(design, RENYI)
    entry = entry_of(certificate, "mine", (1_000_000, 2.6, 0.03))
    [read] = entries_in(file_text([entry]))
    assert certificate_of(read) == certificate
    named = read_design(read)
    assert (named.name, named.design, named.kappa) == ("mine", design, certificate.kappa)
    assert math.isclose(named.kappa, certificate.attack.kappa - MARGIN, abs_tol=1.01e-8)


def test_a_design_that_no_session_can_draw_is_not_written() -> None:
    certificate = certify(Design(1.001, 0.1, 12.0, -53.0), RENYI)
    with pytest.raises(ValueError, match="2\\^-16"):
        entry_of(certificate, "mine", (1_000_000, 2.6, 0.03))
