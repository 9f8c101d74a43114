"""The shipped designs: whole, sound by the family's measure, and picked by the expected key."""

import pytest

from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI
from bellhop.stack.diqkd.bounds.designs import (
    best_design,
    certified_designs,
    design_named,
    expected_key_bits,
)
from bellhop.stack.diqkd.bounds.renyi import expected_run, kappa, key_bits


def test_every_design_can_be_drawn_and_has_a_name_of_its_own() -> None:
    shipped = certified_designs()
    assert len({one.name for one in shipped}) == len(shipped)
    for one in shipped:
        assert one.design.drawable
        assert one.bound in {RENYI, FILTERED}
        assert one.name.startswith(f"{one.bound}/")
        assert design_named(one.name) is one


def test_no_kappa_exceeds_what_the_known_attacks_leave() -> None:
    for one in certified_designs():
        if one.bound == RENYI:
            assert one.kappa <= kappa(one.design, one.adaptive) - 1e-5 + 2e-8


def test_the_best_design_is_best_and_its_bits_are_those_of_the_bound() -> None:
    rounds, s, qber = 1_200_000, 2.612, 0.03
    found = best_design(RENYI, rounds, s, qber)
    assert found is not None
    best, bits = found
    assert bits / rounds > 0.26
    for one in certified_designs():
        if one.bound == RENYI:
            assert expected_key_bits(one, rounds, s, qber) <= bits
    run = expected_run(best.design, rounds, s, qber, 1.06, 1e-10)
    # The bound's own formula with the raw kappa: 1e-5 bit a round more, and other small change.
    assert 0 < key_bits(best.design, run) - bits < 60


def test_where_there_is_no_key_there_is_no_design() -> None:
    assert best_design(RENYI, 1_200_000, 2.2, 0.03) is None
    with pytest.raises(ValueError, match="no shipped design"):
        design_named("renyi-2405.05912/0/0")
