"""No key where no theorem can allow one: attacked sessions beside their honest twin."""

import pytest
from bench.attacks import DEVICES, KINDS, how_it_ended, run_one, summary, wrong

SEEDS = (1, 2)
CAMPAIGN_SEEDS = range(1, 1_001)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_attacked_sessions_leave_no_key(kind: str, seed: int) -> None:
    outcome = run_one(kind, seed)
    assert wrong(outcome) == ""
    assert outcome.key_bits > 0 or kind != "honest"
    assert outcome.ended in ("stored", "aborted", "refused", "unanswered")


@pytest.mark.parametrize("kind", DEVICES)
def test_an_attack_is_one(kind: str) -> None:
    """The adversary knows so many outcomes that the honest twin's key cannot be had."""
    outcome = run_one(kind, 3)
    assert outcome.unknown < 0.8 * 20_000 and outcome.ended == "aborted"


@pytest.mark.parametrize(
    ("kind", "ended"),
    [("intercept-resend", "reconciliation failed"), ("key-basis intercept", "Bell test too weak")],
)
def test_many_errors_end_at_the_decoder_and_few_at_the_bell_test(kind: str, ended: str) -> None:
    """Eve who disturbs no key bit is found by nothing but S."""
    outcome = run_one(kind, 4)
    assert outcome.reason.startswith(f"by bob: {ended}")
    assert how_it_ended(outcome).startswith(f"aborted: by bob: {ended}")


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_seeds(kind: str) -> None:
    assert summary(kind, [run_one(kind, seed) for seed in CAMPAIGN_SEEDS]).wrong == []
