"""Why a run makes no key: what was seen, what was needed, what to do, in a reason that is told."""

import math
import re
from dataclasses import replace

import pytest
from tests.support.cores import EAT_POLICY, POLICY, plan

from bellhop.stack.diqkd.parameters import KEY_BITS_MIN, key_bits_of
from bellhop.stack.diqkd.rounds import Score
from bellhop.stack.diqkd.verdict import s_error, verdict
from bellhop.stack.messages import reason_told

RENYI = plan(policy=replace(POLICY, s_design=2.7, qber_design=0.02))
EAT = plan(policy=EAT_POLICY)
TESTS = 1_500


def seen(losses: int, errors: int = 0) -> Score:
    return Score(rounds=RENYI.rounds, tests=TESTS, losses=losses, errors=errors)


def test_a_run_that_pays_has_no_reason_to_end() -> None:
    assert verdict(RENYI, seen(200), steps=0) is None
    assert verdict(EAT, seen(EAT.losses_max or 0), steps=0) is None


def test_the_s_that_was_needed_is_that_of_the_most_losses_that_pay() -> None:
    losses = 450
    why = verdict(RENYI, seen(losses, errors=220), steps=3)
    assert why is not None and reason_told(f"by bob: {why}") == f"by bob: {why}"
    numbers = re.findall(r"\d\.\d{3}", why)
    most = max(k for k in range(losses) if key_bits_of(RENYI, TESTS, k, 3) >= KEY_BITS_MIN)
    wanted = [seen(losses).s, s_error(seen(losses)), 8 * (1 - most / TESTS) - 4]
    assert numbers == [f"{number:.3f}" for number in wanted]
    assert why.startswith("Bell test too weak: S = 1.600 +- ") and "0.98% of errors" in why
    assert why.endswith("realign, or plan with more rounds")


def test_the_threshold_of_a_fixed_length_is_said() -> None:
    most = EAT.losses_max
    assert most is not None
    why = verdict(EAT, seen(most + 1), steps=0)
    assert why is not None and "the threshold of this session, fixed beforehand, is " in why
    assert f"{8 * (1 - most / TESTS) - 4:.3f}" in why


def test_errors_that_no_s_pays_for_are_said_to_be_that() -> None:
    code = replace(RENYI.code, syndrome_bits=RENYI.rounds)
    why = verdict(replace(RENYI, code=code), seen(450, errors=8_000), steps=0)
    assert why is not None and "no S pays for 35.56% of errors" in why


@pytest.mark.parametrize(("tests", "losses"), [(0, 0), (5, 5), (5, 0)])
def test_no_counts_raise(tests: int, losses: int) -> None:
    counts = Score(rounds=RENYI.rounds, tests=tests, losses=losses, errors=0)
    why = verdict(RENYI, counts, steps=0)
    assert why is None or len(why) < 250
    assert s_error(counts) >= 0


def test_the_deviation_of_s_is_that_of_a_share() -> None:
    assert s_error(seen(300)) == pytest.approx(8 * math.sqrt(0.2 * 0.8 / TESTS))
