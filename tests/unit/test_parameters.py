"""What a node agrees to: what it has computed itself.  Nothing a peer proposes raises or lasts."""

import json
import re
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cores import POLICY, ROUNDS, plan, with_other

from bellhop.stack.diqkd.authenticate import forgery_probability
from bellhop.stack.diqkd.bounds.chsh import losses_max
from bellhop.stack.diqkd.bounds.eat import EatChoice
from bellhop.stack.diqkd.parameters import (
    KEY_BITS_MIN,
    PARAMETERS_BYTES_MAX,
    Parameters,
    SessionPolicy,
    decode_parameters,
    hash_error,
    key_length_of,
    objections,
)
from bellhop.stack.diqkd.pool import FORGERIES_MAX
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS, undetected_error_probability


def encoded(**changes: object) -> bytes:
    """The plan's JSON with some fields replaced, whatever they are replaced by."""
    content = asdict(plan()) | changes
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def objection_to(**changes: object) -> str | None:
    """What a node says of the plan with these fields, as a peer would send it."""
    return objections(decode_parameters(with_other(plan(), **changes)), POLICY)


# --- one spelling ---------------------------------------------------------------------------------


def test_a_plan_is_agreed_to_as_it_was_sent() -> None:
    assert decode_parameters(plan().encode()) == plan()
    assert objections(plan(), POLICY) is None


@pytest.mark.parametrize(
    "proposal",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 10_000,
        plan().encode() + b" ",
        plan().encode()[:-1],
        plan().encode().replace(b'"window":3', b'"window":3,"window":3'),
        plan().encode().replace(b'"window":3', b'"window":03'),
        b" " * (PARAMETERS_BYTES_MAX + 1),
        encoded(more=1),
        encoded(window=3.0),
        encoded(window=True),
        encoded(window="3"),
        encoded(rounds=None),
        encoded(threshold=1),
        encoded(link=7),
        encoded(link="x" * 257),
        encoded(choice={}),
        encoded(choice=[]),
        encoded(choice=asdict(plan().choice) | {"tangent": "1"}),
        encoded(code=asdict(plan().code) | {"degrees": [[1, 2, 3]]}),
        encoded(code=asdict(plan().code) | {"degrees": [[2, -1]]}),
        encoded(code=asdict(plan().code) | {"seed": 1.0}),
        encoded(code=asdict(plan().code) | {"table": 3}),
        encoded(code=7),
    ],
)
def test_what_is_malformed_is_a_value_error(proposal: bytes) -> None:
    with pytest.raises(ValueError, match="the proposal"):
        decode_parameters(proposal)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["s_design", "qber_design", "deviations", "threshold", "epsilon"])
def test_what_is_no_number_is_malformed(field: str, number: str) -> None:
    known = json.dumps(getattr(plan(), field))
    proposal = (
        plan().encode().replace(f'"{field}":{known}'.encode(), f'"{field}":{number}'.encode())
    )
    assert number.encode() in proposal
    with pytest.raises(ValueError, match="the proposal"):
        decode_parameters(proposal)


@pytest.mark.parametrize(
    "probability", ["1e-999999999", "1e999999999", "0.5", "0/1", "1/0", "-1/2", "1/2 ", "1", "１/2"]
)
def test_a_test_probability_is_two_short_numbers_or_is_not_read(probability: str) -> None:
    """A power of ten, read as a fraction, would take all memory there is."""
    with pytest.raises(ValueError, match="test_probability"):
        decode_parameters(with_other(plan(), test_probability=probability))


# --- what is computed again -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "bellhop-diqkd/2"}, "is spoken here"),
        ({"bound": "eat-2109.14600/trevisan"}, "is used here"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": -5}, "rounds"),
        ({"rounds": 4_000_001}, "rounds"),
        ({"rounds": 10**4000}, "rounds"),
        ({"rounds": 5, "block_rounds": 5}, "rounds 5 outside"),
        ({"block_rounds": 0}, "a block has at most"),
        ({"block_rounds": 65_537}, "a block has at most"),
        ({"block_rounds": 5}, "at most 4096 blocks"),
        ({"window": 0}, "the window"),
        ({"window": 17}, "the window"),
        ({"test_probability": "1/3"}, "2\\*\\*-16"),
        ({"test_probability": "2/2"}, "2\\*\\*-16"),
        ({"test_probability": "3/2"}, "2\\*\\*-16"),
        ({"test_probability": "6/64"}, "lowest terms"),
        ({"s_design": 2.0}, "outside"),
        ({"s_design": 1e300}, "outside"),
        ({"s_design": -1e308}, "outside"),
        ({"deviations": 0.5}, "deviations"),
        ({"deviations": 11.0}, "deviations"),
        ({"epsilon": 0.91}, "epsilon is above"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": 1e-300}, "epsilon must lie"),
        ({"qber_design": 0.0}, "error rate"),
        ({"qber_design": 0.5}, "error rate"),
        ({"qber_design": 5e-324}, "error rate"),
        ({"qber_design": 9e-7}, "error rate"),
        ({"qber_design": 0.2}, "code"),
        ({"threshold": 0.75}, "threshold"),
        ({"s_design": 2.8}, "code|threshold"),
        ({"key_bits": plan().key_bits + 1}, "key length"),
        ({"key_bits": plan().key_bits - 1}, "key length"),
        ({"key_bits": -1}, "key length"),
        ({"code": replace(plan().code, syndrome_bits=plan().code.syndrome_bits - 1)}, "code"),
        ({"code": replace(plan().code, seed=1 << 32)}, "32-bit"),
        ({"code": replace(plan().code, seed=-1)}, "32-bit"),
        ({"code": replace(plan().code, rounds=10**9)}, "code"),
        ({"code": replace(plan().code, table="x")}, "code"),
        ({"choice": replace(plan().choice, tangent=0.7)}, "tangent"),
        ({"choice": replace(plan().choice, alpha_prime=2.0)}, "alpha'"),
        ({"choice": replace(plan().choice, alpha_double_prime=1.0)}, "alpha''"),
        ({"choice": replace(plan().choice, privacy_error=0.95)}, "exceed"),
        ({"choice": replace(plan().choice, smoothing_prime=-0.1)}, "error"),
    ],
)
def test_nothing_of_a_proposal_is_believed(changes: dict[str, Any], why: str) -> None:
    objection = objection_to(**changes)
    assert objection is not None
    assert re.search(why, objection), objection


def test_a_node_does_not_agree_to_a_weaker_epsilon_than_its_own() -> None:
    assert objections(plan(), SessionPolicy(epsilon=1e-10)) is not None
    assert objections(plan(), replace(POLICY, epsilon=plan().epsilon)) is None


def test_a_session_that_cannot_pay_for_itself_is_not_begun() -> None:
    assert KEY_BITS_MIN == 8 * (64 + 32 + 32)
    short = plan(ROUNDS * 3 // 4)
    assert short.key_bits == key_length_of(short).key_bits < KEY_BITS_MIN
    assert objections(short, POLICY) == (
        "no key can come of this: take more rounds, or a better link"
    )


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(st.builds(EatChoice, *[FLOATS | st.floats(0, 3) for _ in asdict(plan().choice)]))
def test_no_choice_of_the_bounds_parameters_raises(choice: EatChoice) -> None:
    objection = objection_to(choice=choice)
    assert objection is not None or choice == plan().choice


NEAR = st.sampled_from([5e-324, 1e-300, 1e-17, 2.0**-52, 1e-9, 0.5, 0.899])


@settings(deadline=None, max_examples=60)
@given(NEAR, NEAR, NEAR, NEAR, NEAR, st.floats(0.75, 0.8535))
def test_no_extreme_of_the_admissible_raises(
    prime: float, double_prime: float, one: float, two: float, privacy: float, tangent: float
) -> None:
    choice = EatChoice(
        tangent=tangent,
        alpha_prime=1 + prime,
        alpha_double_prime=1 + double_prime / 3,
        smoothing_prime=one,
        smoothing_double_prime=two,
        privacy_error=privacy,
    )
    assert isinstance(objection_to(choice=choice), str)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(asdict(plan()))), ANY, min_size=1, max_size=3))
def test_whatever_stands_in_a_field_is_refused(changes: dict[str, object]) -> None:
    try:
        parameters = decode_parameters(encoded(**changes))
    except ValueError as error:
        assert str(error)
    else:
        names = {"link", "session", "alice", "bob", "pool"}  # held against what is known elsewhere
        changed = {n for n in changes if getattr(parameters, n) != getattr(plan(), n)}
        assert changed <= names or objections(parameters, POLICY)


# --- sums -----------------------------------------------------------------------------------------


def test_everything_said_of_alices_string_is_paid_for() -> None:
    p = plan()
    counts = 2 * (p.rounds).bit_length()  # 0 ... n losses and 0 ... n errors
    assert p.rounds & (p.rounds + 1), "else one bit less"
    assert p.count_bits == counts
    assert p.leak_bits == p.code.syndrome_bits + VERIFICATION_TAG_BITS + counts
    assert key_length_of(p).leak_bits == p.leak_bits


@pytest.mark.parametrize("rounds", [1, 3, 7, 8, 9, 1023, 1024, 4_000_000])
def test_count_bits_name_every_count(rounds: int) -> None:
    one = replace(plan(), rounds=rounds).count_bits // 2
    assert 2**one >= rounds + 1 > 2 ** (one - 1)


def test_the_losses_allowed_are_those_of_the_bound() -> None:
    p = plan()
    assert p.losses_max == losses_max(p.rounds, Fraction(3, 32), p.threshold)
    assert p.losses_max <= p.rounds * Fraction(3, 32) * (1 - Fraction(p.threshold))


def test_every_try_under_the_hash_key_is_in_the_error() -> None:
    """Eight tags a session, and all wrong ones that are ever looked at."""
    longest = 1_500_000 // 4 + PARAMETERS_BYTES_MAX
    tries = 8 + FORGERIES_MAX
    expected = undetected_error_probability(1_500_000) + tries * forgery_probability(longest)
    assert hash_error(1_500_000) == expected < 1e-12
    assert hash_error(4_000_000) < 1e-12


def test_parameters_are_the_same_at_both_ends_to_the_last_digit() -> None:
    again = decode_parameters(plan().encode())
    assert isinstance(again, Parameters)
    assert again.encode() == plan().encode() and hash(again) == hash(plan())
