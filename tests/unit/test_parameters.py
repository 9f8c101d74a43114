"""What a node agrees to: what it has computed itself.  Nothing a peer proposes raises or lasts."""

import json
import re
from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cores import EAT_POLICY, NOISY_POLICY, POLICY, plan, with_other

from bellhop.stack.diqkd.agreement import objections
from bellhop.stack.diqkd.authenticate import forgery_probability
from bellhop.stack.diqkd.bounds.chsh import losses_max
from bellhop.stack.diqkd.bounds.design import CertifiedDesign, Design
from bellhop.stack.diqkd.bounds.designs import certified_designs
from bellhop.stack.diqkd.bounds.eat import EatChoice
from bellhop.stack.diqkd.bounds.library import Shown
from bellhop.stack.diqkd.parameters import (
    CALIBRATION,
    KEY_BITS_MIN,
    PARAMETERS_BYTES_MAX,
    SPENT_BITS,
    EatDesign,
    Parameters,
    SessionPolicy,
    bound_of,
    decode_parameters,
    expected_key_bits,
    hash_error,
    key_bits_of,
)
from bellhop.stack.diqkd.pool import FORGERIES_MAX
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS, undetected_error_probability

EAT_PLAN = plan(policy=EAT_POLICY)
assert isinstance(EAT_PLAN.design, EatDesign)
EAT_DESIGN = EAT_PLAN.design


def certified(agreed: Parameters) -> CertifiedDesign:
    assert isinstance(agreed.design, CertifiedDesign)
    return agreed.design


DESIGN = certified(plan())
BOTH = pytest.mark.parametrize("agreed", [plan(), EAT_PLAN], ids=["renyi", "eat"])


def encoded(agreed: Parameters, **changes: object) -> bytes:
    """A plan's JSON with some fields replaced, whatever they are replaced by."""
    content = asdict(agreed) | changes
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def objection_to(agreed: Parameters, **changes: object) -> str | None:
    """What a node says of the plan with these fields, as a peer would send it."""
    try:
        return objections(decode_parameters(with_other(agreed, **changes)), POLICY)
    except ValueError as error:
        return str(error)


# --- one spelling ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [POLICY, EAT_POLICY])
def test_a_plan_is_agreed_to_as_it_was_sent(policy: SessionPolicy) -> None:
    agreed = plan(policy=policy)
    assert decode_parameters(agreed.encode()) == agreed
    assert objections(agreed, policy) is None


def changed_design(**changes: object) -> dict[str, object]:
    return asdict(DESIGN) | changes


def changed_code(**changes: object) -> dict[str, object]:
    return asdict(plan().code) | changes


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
        encoded(plan(), more=1),
        encoded(plan(), window=3.0),
        encoded(plan(), window=True),
        encoded(plan(), window="3"),
        encoded(plan(), rounds=None),
        encoded(plan(), rounds=1 << 63),
        encoded(plan(), rounds=10**4000),
        encoded(plan(), epsilon=1),
        encoded(plan(), link=7),
        encoded(plan(), link="x" * 257),
        encoded(plan(), even_at_a_loss=0),
        encoded(plan(), design=None),
        encoded(plan(), design={}),
        encoded(plan(), design=[]),
        encoded(plan(), design=asdict(EAT_DESIGN)),
        encoded(plan(), bound="eat-2109.14600"),
        encoded(plan(), design=changed_design(name=7)),
        encoded(plan(), design=changed_design(more=7)),
        encoded(plan(), design=changed_design(adaptive=1)),
        encoded(plan(), design=changed_design(made_for=[1, 2.0])),
        encoded(plan(), design=changed_design(made_for=[1.0, 2.0, 3.0])),
        encoded(plan(), design=changed_design(design=asdict(DESIGN.design) | {"alpha": 1.0})),
        encoded(plan(), design=changed_design(design=asdict(DESIGN.design) | {"alpha": "1.1"})),
        encoded(plan(), design=changed_design(design=asdict(DESIGN.design) | {"flip": 0.0})),
        encoded(EAT_PLAN, design=asdict(EAT_DESIGN) | {"choice": {}}),
        encoded(EAT_PLAN, design=asdict(EAT_DESIGN) | {"choice": []}),
        encoded(
            EAT_PLAN,
            design=asdict(EAT_DESIGN) | {"choice": asdict(EAT_DESIGN.choice) | {"tangent": "1"}},
        ),
        encoded(plan(), code=changed_code(degrees=[[1, 2, 3]])),
        encoded(plan(), code=changed_code(degrees=[[2, -1.0]])),
        encoded(plan(), code=changed_code(degrees=[[2, 1]] * 257)),
        encoded(plan(), code=changed_code(seed=1.0)),
        encoded(plan(), code=changed_code(table=3)),
        encoded(plan(), code=7),
    ],
)
def test_what_is_malformed_is_a_value_error(proposal: bytes) -> None:
    with pytest.raises(ValueError, match="the proposal"):
        decode_parameters(proposal)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["s_design", "qber_design", "epsilon", "alpha", "kappa"])
def test_what_is_no_number_is_malformed(field: str, number: str) -> None:
    spelt = re.compile(rb'"%s":[-+.e0-9]+' % field.encode())
    proposal = spelt.sub(f'"{field}":{number}'.encode(), plan().encode())
    assert number.encode() in proposal
    with pytest.raises(ValueError, match="the proposal"):
        decode_parameters(proposal)


# --- what is computed again -----------------------------------------------------------------------


def with_choice(**changes: float) -> EatDesign:
    return replace(EAT_DESIGN, choice=replace(EAT_DESIGN.choice, **changes))


def of_a_round(**changes: float) -> CertifiedDesign:
    return replace(DESIGN, design=replace(DESIGN.design, **changes))


COMMON = [
    ({"protocol": "bellhop-diqkd/1"}, "is spoken here"),
    ({"purpose": CALIBRATION}, "sessions for calibration are not"),
    ({"purpose": "x" * 256}, "sessions for x"),
    ({"rounds": 0}, "rounds"),
    ({"rounds": -5}, "rounds"),
    ({"rounds": 4_000_001}, "rounds"),
    ({"rounds": (1 << 63) - 1}, "rounds"),
    ({"rounds": 5, "block_rounds": 5}, "rounds 5 outside"),
    ({"block_rounds": 0}, "a block has at most"),
    ({"block_rounds": 65_537}, "a block has at most"),
    ({"window": 0}, "the window"),
    ({"window": 17}, "the window"),
    ({"s_design": 2.0}, "realign the link, calibrate it"),
    ({"s_design": 1e300}, "outside"),
    ({"s_design": -1e308}, "outside"),
    ({"epsilon": 0.91}, "epsilon is above"),
    ({"epsilon": 0.0}, "epsilon"),
    ({"epsilon": 1e-300}, "epsilon is below"),
    ({"qber_design": 0.0}, "plan with what the link has"),
    ({"qber_design": 0.5}, "error rate"),
    ({"qber_design": 5e-324}, "error rate"),
    ({"qber_design": 9e-7}, "error rate"),
    ({"qber_design": 0.2}, "code"),
    ({"s_design": 2.8}, "code|threshold"),
    ({"steps_max": -1}, "steps"),
    ({"steps_max": 33}, "32 steps"),
]

CODES = [
    {"syndrome_bits": 1},
    {"syndrome_bits": -1},
    {"rounds": 10**9},
    {"table": "x"},
    {"lifting": 0},
    {"paired_rows": 0},
    {"step_rows": 1 << 40},
    {"steps_max": 1 << 40},
    {"degrees": ()},
]


@BOTH
@pytest.mark.parametrize(("changes", "why"), COMMON)
def test_nothing_of_a_proposal_is_believed(
    agreed: Parameters, changes: dict[str, Any], why: str
) -> None:
    objection = objection_to(agreed, **changes)
    assert objection is not None
    assert re.search(why, objection), objection


@BOTH
@pytest.mark.parametrize("changes", CODES)
def test_no_code_is_believed(agreed: Parameters, changes: dict[str, Any]) -> None:
    why = objection_to(agreed, code=replace(agreed.code, **changes))
    assert why == "the code does not follow from the design"


@BOTH
@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_a_seed_has_32_bits(agreed: Parameters, seed: int) -> None:
    why = objection_to(agreed, code=replace(agreed.code, seed=seed))
    assert why == "the code's seed is no 32-bit number"


@pytest.mark.parametrize(
    ("design", "why"),
    [
        (replace(DESIGN, name="renyi-2405.05912/another"), "is not shipped"),
        (replace(DESIGN, name="x" * 256), "is not shipped"),
        (replace(DESIGN, kappa=DESIGN.kappa + 1e-8), "has other figures"),
        (replace(DESIGN, adaptive=False), "has other figures"),
        (replace(DESIGN, made_for=(1, 2.0, 0.0)), "has other figures"),
        (of_a_round(score_win=DESIGN.design.score_win + 0.01), "code|other figures"),
        (of_a_round(alpha=1.4), "other figures"),
        (of_a_round(flip_probability=2**-16), "code"),
        (of_a_round(flip_probability=2**-17), "flip probability is no multiple"),
        (of_a_round(test_probability=0.1), "test probability is no multiple"),
        (of_a_round(test_probability=5e-324), "test probability is no multiple"),
        (of_a_round(test_probability=0.5), "code"),
    ],
)
def test_every_number_of_a_design_is_compared_with_what_is_shipped(
    design: CertifiedDesign, why: str
) -> None:
    objection = objection_to(plan(), design=design)
    assert objection is not None
    assert re.search(why, objection), objection


def test_a_design_of_another_name_is_not_taken_for_the_shipped_one() -> None:
    other = next(d for d in certified_designs() if d.bound == DESIGN.bound and d != DESIGN)
    why = objection_to(plan(), design=replace(other, name=DESIGN.name))
    assert why is not None


@pytest.mark.parametrize(
    ("design", "why"),
    [
        (replace(EAT_DESIGN, deviations=0.5), "deviations"),
        (replace(EAT_DESIGN, deviations=11.0), "deviations"),
        (replace(EAT_DESIGN, threshold=0.75), "threshold"),
        (replace(EAT_DESIGN, test_probability=1 / 3), "2\\*\\*-16"),
        (replace(EAT_DESIGN, test_probability=0.25), "code"),
        (replace(EAT_DESIGN, key_bits=EAT_DESIGN.key_bits + 1), "key length"),
        (replace(EAT_DESIGN, key_bits=EAT_DESIGN.key_bits - 1), "key length"),
        (replace(EAT_DESIGN, key_bits=-1), "key length"),
        (with_choice(tangent=0.7), "tangent"),
        (with_choice(alpha_prime=2.0), "alpha'"),
        (with_choice(alpha_double_prime=1.0), "alpha''"),
        (with_choice(privacy_error=0.95), "exceed"),
        (with_choice(smoothing_prime=-0.1), "error"),
    ],
)
def test_threshold_choice_and_length_follow_from_the_design(design: EatDesign, why: str) -> None:
    objection = objection_to(EAT_PLAN, design=design)
    assert objection is not None
    assert re.search(why, objection), objection


def test_a_node_does_not_agree_to_a_weaker_epsilon_than_its_own() -> None:
    assert objections(plan(), SessionPolicy(epsilon=1e-10)) is not None
    assert objections(plan(), replace(POLICY, epsilon=plan().epsilon)) is None


def test_a_session_that_cannot_pay_for_itself_is_not_begun() -> None:
    assert KEY_BITS_MIN == 8 * (64 + 32 + 32) and SPENT_BITS == 8 * (64 + 32)
    short = plan(1_000)
    assert expected_key_bits(short) < KEY_BITS_MIN
    why = objections(short, POLICY)
    assert why is not None and why.startswith("not started unless told: expected ")
    short = plan(16_000, EAT_POLICY)
    assert objections(short, EAT_POLICY) == (
        "no key can come of this: take more rounds, or a better link"
    )


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=60)
@given(st.builds(EatChoice, *[FLOATS | st.floats(0, 3) for _ in asdict(EAT_DESIGN.choice)]))
def test_no_choice_of_the_bounds_parameters_raises(choice: EatChoice) -> None:
    objection = objection_to(EAT_PLAN, design=replace(EAT_DESIGN, choice=choice))
    assert objection is not None or choice == EAT_DESIGN.choice


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
    why = objection_to(EAT_PLAN, design=replace(EAT_DESIGN, choice=choice))
    assert isinstance(why, str)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(1, 1.5, exclude_min=True, exclude_max=True),
    st.integers(1, 65_535),
    FLOATS,
    FLOATS,
    st.integers(0, 32_768),
    FLOATS,
)
def test_no_design_that_was_not_proved_is_agreed_to(
    alpha: float, tests: int, win: float, lose: float, flips: int, kappa: float
) -> None:
    if not win > lose:
        win, lose = lose + 1.0, win
    if not win > lose:
        return
    other = replace(DESIGN, design=Design(alpha, tests / 65_536, win, lose, flips / 65_536))
    assert objection_to(plan(), design=replace(other, kappa=kappa)) is not None


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(sorted(asdict(plan()))), ANY, min_size=1, max_size=3))
def test_whatever_stands_in_a_field_is_refused(changes: dict[str, object]) -> None:
    try:
        parameters = decode_parameters(encoded(plan(), **changes))
    except ValueError as error:
        assert str(error)
    else:
        # Names are held against what is known elsewhere; the others are free within their ranges.
        free = {"link", "session", "alice", "bob", "pool", "window", "steps_max", "even_at_a_loss"}
        changed = {n for n in changes if getattr(parameters, n) != getattr(plan(), n)}
        assert changed <= free | {"epsilon"} or objections(parameters, POLICY)


# --- sums -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("steps", [0, 1, 12])
def test_everything_said_of_alices_string_is_paid_for(agreed: Parameters, steps: int) -> None:
    p = agreed
    counts = 2 * (p.rounds).bit_length()  # 0 ... n losses and 0 ... n errors
    assert p.rounds & (p.rounds + 1), "else one bit less"
    assert p.count_bits == counts
    syndrome = p.code.syndrome_bits + steps * p.code.step_bits
    requests = p.steps_max  # each of the possible ones is made or not
    said = syndrome + requests + VERIFICATION_TAG_BITS + counts
    assert p.leak_bits(steps) == said


def test_a_key_of_variable_length_pays_for_the_steps_that_were_said() -> None:
    p = plan()
    keys = [key_bits_of(p, 1_500, 250, steps) for steps in (0, 1, 32)]
    assert keys[0] - keys[1] == p.code.step_bits
    assert keys[0] - keys[2] == p.code.steps_max * p.code.step_bits
    shown = Shown(p.rounds, 1_500, 250, p.leak_bits(1))
    assert bound_of(p).key_bits(shown) == keys[1]


def test_a_key_of_fixed_length_pays_for_all_that_might_be_said() -> None:
    keys = {key_bits_of(EAT_PLAN, 2_250, 300, steps) for steps in range(EAT_PLAN.steps_max + 1)}
    assert keys == {EAT_DESIGN.key_bits}
    assert EAT_PLAN.steps_max < EAT_PLAN.code.steps_max
    assert key_bits_of(EAT_PLAN, 2_250, 300, EAT_PLAN.steps_max + 1) == 0


@BOTH
def test_the_errors_of_a_session_add_up_to_its_epsilon(agreed: Parameters) -> None:
    total = bound_of(agreed).errors.soundness(hash_error(agreed.rounds))
    assert total == pytest.approx(agreed.epsilon, rel=1e-12)


def test_flipped_bits_are_unequal_as_often_as_their_two_errors_say() -> None:
    p = plan(policy=NOISY_POLICY)
    flips = float(p.flip_probability)
    assert flips > 0 and p.error_rate == flips * (1 - 0.08) + (1 - flips) * 0.08
    assert plan().error_rate == plan().qber_design and plan().flip_probability == 0


@pytest.mark.parametrize("rounds", [1, 3, 7, 8, 9, 1023, 1024, 4_000_000])
def test_count_bits_name_every_count(rounds: int) -> None:
    one = replace(plan(), rounds=rounds).count_bits // 2
    assert 2**one >= rounds + 1 > 2 ** (one - 1)


def test_the_losses_allowed_are_those_of_the_bound() -> None:
    p, threshold = EAT_PLAN, EAT_DESIGN.threshold
    most = losses_max(p.rounds, Fraction(3, 32), threshold)
    assert p.losses_max == most <= p.rounds * Fraction(3, 32) * (1 - Fraction(threshold))
    assert key_bits_of(p, 2_250, most, 0) == EAT_DESIGN.key_bits
    assert key_bits_of(p, 2_250, most + 1, 0) == 0
    assert plan().losses_max is None


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
