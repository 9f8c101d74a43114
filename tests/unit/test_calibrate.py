"""What is made of a calibration's counts: S and QBER with their errors, drift, and plans."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal.operations import LinkName
from bellhop.node.cli.calibrate import too_short
from bellhop.node.config_diqkd import DiqkdSection
from bellhop.stack.diqkd.beside import endless_rate
from bellhop.stack.diqkd.calibrate import (
    PAIRS,
    PLAN_ERRORS,
    Calibration,
    Calibrations,
    Compared,
    Counts,
    Drift,
    Keyless,
    cautious,
    count,
    counts_objection,
    drift,
)
from bellhop.stack.ids import SessionId

FIBRE = LinkName("fibre")
SHARES = np.array([0.16, 0.18, 0.17, 0.83, 0.03])
"""Of unequal outcomes: a link with S = 2.64 and 3 % of errors."""

S, QBER = 2 * float(SHARES[3] - SHARES[:3].sum()) + 2, float(SHARES[4])


def drawn(generator: np.random.Generator, rounds: int = 20_000) -> Counts:
    """What honest rounds show: half of them tests."""
    met = generator.multinomial(rounds, [0.125] * 4 + [0.5])
    return Counts(tuple(met.tolist()), tuple(generator.binomial(met, SHARES).tolist()))


def calibration(counts: Counts, at_ns: int = 0) -> Calibration:
    return Calibration(SessionId("0" * 32), at_ns, counts, 0)


def drifts(now: Counts, before: Counts | None, design: Compared | None) -> list[Drift]:
    return [one for one in drift(now, before, design) if isinstance(one, Drift)]


def test_errors_are_those_of_repeated_calibrations() -> None:
    generator = np.random.default_rng(3)
    every = [drawn(generator) for _ in range(2_000)]
    s = np.array([counts.s for counts in every])
    qber = np.array([counts.qber for counts in every])
    assert abs(s.mean() - S) < 5 * s.std() / np.sqrt(len(every))
    assert abs(qber.mean() - QBER) < 5 * qber.std() / np.sqrt(len(every))
    assert every[0].s_error == pytest.approx(s.std(), rel=0.1)
    assert every[0].qber_error == pytest.approx(qber.std(), rel=0.1)


def test_no_error_seen_is_not_no_error() -> None:
    counts = Counts((100,) * 5, (0, 0, 0, 100, 0))
    assert counts.s == 4.0 and counts.qber == 0.0
    assert 0.0 < counts.qber_error < 0.02 and counts.s_error > 0.0


@given(st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_every_round_is_counted_once(rounds: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    tests = generator.random(rounds) < 0.5
    a, b = generator.integers(0, 2, (2, rounds), dtype=np.uint8)
    x = np.where(tests, generator.integers(0, 2, rounds), 0).astype(np.uint8)
    y = np.where(tests, generator.integers(0, 2, rounds), 2).astype(np.uint8)
    counts = count(a, b, x, y)
    assert counts.total == rounds
    assert sum(counts.unequal) == np.count_nonzero(a != b)
    for place, (setting_a, setting_b) in enumerate(PAIRS):
        met = (x == setting_a) & (y == setting_b)
        assert counts.rounds[place] == np.count_nonzero(met)
        assert counts.unequal[place] == np.count_nonzero(met & (a != b))
    if all(counts.rounds):
        assert counts_objection(counts, tests, x) is None
    else:
        assert counts_objection(counts, tests, x) == "counts_missing"


def test_drift_from_a_design_is_a_warning_only_for_the_worse() -> None:
    now = drawn(np.random.default_rng(1))
    assert drift(now, None, Compared(S - 0.5, QBER + 0.02)) == ()
    worse = drifts(now, None, Compared(S + 0.5, QBER - 0.02))
    assert [(one.figure, one.since) for one in worse] == [("s", "design"), ("qber", "design")]
    assert worse[0].standard_errors == pytest.approx((now.s - S - 0.5) / now.s_error)
    assert worse[1].standard_errors > 3
    assert "s_design" in worse[0].what_to_do and "qber_design" in worse[1].what_to_do
    assert drift(now, None, None) == ()


def test_a_worse_link_is_warned_of_where_plans_are_made_of_calibrations_too() -> None:
    """S = 2.6802 +- 0.0188 where 2.75 was expected: nothing was said of it."""
    rounds, worse = (9_600,) * 4 + (40_000,), 0.16494
    share = np.array([worse, worse, worse, 1 - worse, 0.014])
    now = Counts(rounds, tuple((np.array(rounds) * share).round().astype(int).tolist()))
    assert now.s == pytest.approx(2.6805, abs=1e-3) and now.s_error == pytest.approx(0.0151, 0.02)
    (found,) = drift(now, None, Compared(2.75, 0.015, planned=False))
    assert isinstance(found, Drift) and (found.figure, found.since) == ("s", "design")
    assert "s_design" in found.what_to_do and "plan_from" not in found.what_to_do
    errors = (now.s - 2.75) / now.s_error
    warning = f"s is {now.s:.5g}, the design has 2.75 ({errors:+.1f} standard errors)"
    assert found.fields()["warning"] == warning
    assert drift(now, None, Compared(2.70, 0.015, planned=False)) == ()


@pytest.mark.parametrize("s", [2.15, 1.9, -2.7])
def test_a_first_calibration_that_no_key_can_be_planned_from_says_so(s: float) -> None:
    share = np.array([*[(1 - s / 4) / 2] * 3, (1 + s / 4) / 2, 0.03])
    now = Counts((5_000,) * 5, tuple((5_000 * share).round().astype(int).tolist()))
    (*_, keyless) = drift(now, None, Compared(S, QBER, planned=False))
    assert isinstance(keyless, Keyless) and (keyless.s, keyless.qber) == cautious(now)
    assert keyless.fields()["figure"] == "key"
    assert "calibrate it again" in str(keyless.fields()["what_to_do"])
    assert "no key can be planned" in str(keyless.fields()["warning"])
    planned = drift(now, None, Compared(S, QBER))
    assert planned and all(isinstance(one, Drift) for one in planned)


def test_no_key_is_said_just_where_no_run_has_one() -> None:
    counts = drawn(np.random.default_rng(1), rounds=2_000_000)
    for qber in np.linspace(0.0, 0.2, 41):
        counts = replace(counts, unequal=(*counts.unequal[:4], int(qber * counts.rounds[4])))
        s, worse = cautious(counts)
        said = any(isinstance(one, Keyless) for one in drift(counts, None, Compared(S, 0.2, False)))
        assert said == (endless_rate(s, worse) <= 0.0)


@pytest.mark.parametrize("direction", [1, -1])
def test_drift_from_the_last_calibration_counts_in_both_directions(direction: int) -> None:
    now = drawn(np.random.default_rng(1))
    shares = SHARES + direction * np.array([0.05, 0.05, 0.05, -0.05, -0.01])
    before = replace(now, unequal=tuple((np.array(now.rounds) * shares).astype(int).tolist()))
    found = drifts(now, before, None)
    assert [(one.figure, one.since) for one in found] == [
        ("s", "last calibration"),
        ("qber", "last calibration"),
    ]
    assert np.sign(found[0].standard_errors) == direction
    assert "calibrate again" in found[0].what_to_do
    assert drift(now, now, None) == ()


def test_chance_alone_seldom_warns() -> None:
    generator = np.random.default_rng(8)
    warned = sum(
        bool(drift(drawn(generator), drawn(generator), Compared(S, QBER))) for _ in range(1_000)
    )
    assert warned < 30  # about 8 are expected


def test_a_plan_takes_the_last_and_takes_it_worse() -> None:
    known = Calibrations({})
    assert known.planned(FIBRE) is None and known.drift(FIBRE, Compared(S, QBER)) == ()
    generator = np.random.default_rng(2)
    for at_ns in range(3):
        counts = drawn(generator)
        known.add(FIBRE, calibration(counts, at_ns))
    s, qber = counts.s - PLAN_ERRORS * counts.s_error, counts.qber + PLAN_ERRORS * counts.qber_error
    assert known.planned(FIBRE) == (s, qber)
    perfect = Counts((1_000,) * 5, (0, 0, 0, 1_000, 0))
    known.add(FIBRE, calibration(perfect, 3))
    planned = known.planned(FIBRE)
    assert planned is not None and planned[0] == pytest.approx(2 * np.sqrt(2))


def test_what_is_kept_is_read_again_whatever_the_link_is_called() -> None:
    for link in ("fibre", "a/b", "calibration/x/1", "é ï"):
        known = Calibrations({})
        one = Calibration(SessionId("0" * 32), 5, drawn(np.random.default_rng(4)), 10**9)
        fact, _ = known.add(LinkName(link), one)
        again = Calibrations({fact.name: fact.payload, "device/" + link: b"x"})
        assert again.of(LinkName(link)) == [one]
        assert again.of_session(one.session) == one
        assert again.document() == {link: [one.fields()]}
        assert one.fields()["pairs_per_s"] == 20_000.0


@pytest.mark.parametrize(
    ("rounds", "s", "plan_from", "warned"),
    [
        (1_500_000, 2.65, "calibration", False),
        (10_000, 2.65, "calibration", True),
        (1_500_000, 2.30, "calibration", True),
        (10_000, 2.65, "configuration", False),
    ],
)
def test_the_command_warns_if_sessions_are_too_short_for_a_key(
    rounds: int, s: float, plan_from: Literal["calibration", "configuration"], warned: bool
) -> None:
    diqkd = DiqkdSection(rounds=rounds, plan_from=plan_from, block_rounds=1_000)
    found = too_short(diqkd, {"s": s, "s_error": 0.01, "qber": 0.02, "qber_error": 0.001})
    assert bool(found) == warned
    assert all(f"{rounds:,} rounds" in one["warning"] for one in found)
