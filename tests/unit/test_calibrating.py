"""Calibrations between two cores: what they find, keep, publish and refuse."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from tests.support.two_cores import ALICE, BOB, IDEAL, LINK, OTHER, POLICY, TwoCores

from bellhop.hal.emulator.nature import Link
from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import NodeName
from bellhop.hal.preset import read_preset
from bellhop.stack.core import Action, Answer, Asked, CalibrateLink, Compute, Note, PeerSaid, Refuse
from bellhop.stack.diqkd.calibrate import (
    HISTORY_MAX,
    PLAN_ERRORS,
    Calibrations,
    published_bits,
)
from bellhop.stack.diqkd.device_use import read_use
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.diqkd.parameters import CALIBRATION, Parameters, decode_parameters
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.ids import AskNumber, SessionId
from bellhop.stack.messages import (
    Accept,
    CalibrationData,
    CalibrationResult,
    Decoded,
    Message,
    Position,
    Propose,
    SyndromeWanted,
)

ROUNDS = 20_000
NUMBER = AskNumber(99)
DEGRADED = replace(
    LINK, preset=read_preset(IDEAL, {"noise.phase": 0.1, "device.readout_error": 0.02})
)

M = TypeVar("M", bound=Message)


def met(seed: int = 1, link: Link = LINK) -> TwoCores:
    table = TwoCores(seed, link=link)
    table.meet()
    return table


def asked(table: TwoCores, name: NodeName = ALICE, rounds: int = ROUNDS) -> list[Action]:
    return table.feed(name, Asked(NUMBER, CalibrateLink(OTHER[name], rounds)))


def answers(table: TwoCores) -> list[Answer]:
    return [one for one in table.actions if isinstance(one, Answer) and one.number == NUMBER]


def kept(table: TwoCores, name: NodeName) -> Calibrations:
    return Calibrations(table.store[name].facts)


def both_alike(table: TwoCores) -> None:
    """Both ends have kept the same counts, and have done with the session."""
    alice, bob = (kept(table, name).of(LINK.name) for name in (ALICE, BOB))
    assert [one.counts for one in alice] == [one.counts for one in bob] != []
    for name in (ALICE, BOB):
        left = [fact for fact in table.store[name].facts if fact.startswith(("session/", "link/"))]
        assert not left
        published = read_use(table.store[name].facts[f"device/{LINK.name}"]).published_bits
        assert published == sum(published_bits(one.counts.total) for one in alice)


def waiting(table: TwoCores, name: NodeName, kind: type[M]) -> M | None:
    return next((one for one in table.mail[name] if isinstance(one, kind)), None)


def until_told(table: TwoCores, name: NodeName, kind: type[M]) -> M:
    """Go on until a message of this kind is on its way to a node."""
    table.go_on(lambda: waiting(table, name, kind) is not None)
    found = waiting(table, name, kind)
    assert found is not None
    return found


@pytest.mark.parametrize("asker", [ALICE, BOB])
@pytest.mark.parametrize("link", [LINK, DEGRADED])
def test_both_ends_find_what_nature_has(asker: NodeName, link: Link) -> None:
    table = met(link=link)
    asked(table, asker)
    table.settle()
    (found,) = answers(table)
    assert found.outcome == "calibrated"
    both_alike(table)
    exact = Experiment(link.preset)
    last = kept(table, ALICE).last(LINK.name)
    assert last is not None
    counts = last.counts
    assert counts.total == ROUNDS
    assert last.pairs_per_s == pytest.approx(exact.pairs_per_s_with_pauses, rel=0.1)
    assert abs(counts.s - exact.chsh()) < 4 * counts.s_error
    assert abs(counts.qber - exact.qber()) <= 4 * counts.qber_error
    assert found.fields["s"] == counts.s and found.fields["rounds"] == ROUNDS


def test_nothing_is_spent_and_no_key_is_made() -> None:
    table = met()
    before = {name: Pool(OTHER[name], table.store[name].facts).masks_left for name in (ALICE, BOB)}
    asked(table)
    table.settle()
    for name in (ALICE, BOB):
        assert Pool(OTHER[name], table.store[name].facts).masks_left == before[name]
        assert not table.keys(name)


def test_a_worse_link_is_warned_of_at_both_ends() -> None:
    table = met(link=DEGRADED)
    asked(table)
    table.settle()
    notes = [one.fields for one in table.actions if isinstance(one, Note)]
    drifts = [fields for fields in notes if "standard_errors" in fields]
    by_design = {(f["figure"], f["peer"]) for f in drifts if f["since"] == "design"}
    assert by_design == {("s", ALICE), ("s", BOB), ("qber", ALICE), ("qber", BOB)}
    for name in (ALICE, BOB):
        (drift, _) = table.core[name].snapshot()["drifts"][LINK.name]
        assert drift["before"] == POLICY.s_design and drift["standard_errors"] < -3


def restarted(*names: NodeName) -> Callable[[TwoCores], None]:
    def restart(table: TwoCores) -> None:
        for name in names:
            table.restart(name)

    return restart


def lost(*names: NodeName) -> Callable[[TwoCores], None]:
    def lose(table: TwoCores) -> None:
        for name in names:
            table.mail[name].clear()

    return lose


MISHAPS = {
    "Alice restarts": restarted(ALICE),
    "Bob restarts": restarted(BOB),
    "both restart": restarted(ALICE, BOB),
    "what Alice was told is lost": lost(ALICE),
    "what Bob was told is lost": lost(BOB),
}


@pytest.mark.parametrize("mishap", MISHAPS.values(), ids=MISHAPS)
@pytest.mark.parametrize("moment", ["accept", "rounds", "data", "result"])
def test_whatever_is_lost_both_end_with_the_same(
    mishap: Callable[[TwoCores], None], moment: str
) -> None:
    table = met(3)
    asked(table)
    match moment:
        case "accept":
            until_told(table, ALICE, Accept)
        case "rounds":
            table.go_on(lambda: len(table.reports[BOB]) > 0)
        case "data":
            until_told(table, BOB, CalibrationData)
        case "result":
            until_told(table, ALICE, CalibrationResult)
    mishap(table)
    table.settle()
    both_alike(table)


def test_the_history_is_bounded() -> None:
    table = met()
    asked(table)
    table.settle()
    (one,) = kept(table, ALICE).of(LINK.name)
    known = Calibrations({})
    facts: dict[str, bytes] = {}
    for number in range(HISTORY_MAX + 6):
        fact, forgotten = known.add(LINK.name, replace(one, at_ns=number))
        facts = {name: kept for name, kept in facts.items() if name not in forgotten}
        facts[fact.name] = fact.payload
    assert [one.at_ns for one in known.of(LINK.name)] == list(range(6, HISTORY_MAX + 6))
    assert Calibrations(facts).of(LINK.name) == known.of(LINK.name)


# --- hostile peers ---


def refusals(actions: list[Action]) -> list[str]:
    return [one.reason for one in actions if isinstance(one, Refuse)]


def test_data_that_cannot_be_is_refused_and_the_true_one_taken() -> None:
    table = met()
    asked(table)
    data = until_told(table, BOB, CalibrationData)
    tests_of_none = np.ones(ROUNDS, np.bool_)
    forged = {
        "calibration_length": [
            replace(data, settings=data.settings[:-1], outcomes=data.outcomes[:-1]),
            replace(data, outcomes=data.outcomes[:5]),
            replace(data, settings=np.zeros(0, np.bool_), outcomes=np.zeros(0, np.bool_)),
        ],
        "calibration_settings": [replace(data, settings=tests_of_none)],
        "session_unknown": [replace(data, session=SessionId("0" * 32))],
    }
    for reason, messages in forged.items():
        for message in messages:
            assert refusals(table.feed(BOB, PeerSaid(ALICE, message))) == [reason]
    table.settle()
    both_alike(table)


def test_the_data_are_told_again_no_more_often_than_anyone_needs() -> None:
    table = met()
    asked(table)
    data = until_told(table, BOB, CalibrationData)
    assert table.mail[BOB].pop() is data
    (about,) = table.core[BOB].snapshot()["sessions"]
    slots = -(-about["rounds"] // POLICY.block_rounds)
    position = Position(data.session, slots, np.zeros(0, np.bool_), accepted=True)
    for _ in range(50):
        table.feed(ALICE, PeerSaid(BOB, position))
    assert waiting(table, BOB, CalibrationData) is None
    table.settle()
    both_alike(table)


def test_a_receipt_tells_of_what_calibrations_have_published() -> None:
    table = met()
    asked(table)
    table.settle()
    table.ask(ALICE)
    table.settle()
    for name in (ALICE, BOB):
        (block,) = table.store[name].deliverable.values()
        for end in json.loads(block.receipt)["ends"].values():
            device = end["statement"]["device"]
            assert device["published_bits_before"] == published_bits(ROUNDS) > ROUNDS


def test_a_calibration_hears_nothing_of_a_key() -> None:
    table = met()
    asked(table)
    data = until_told(table, BOB, CalibrationData)
    result = CalibrationResult(data.session, (1,) * 5, (0,) * 5)
    for message in (SyndromeWanted(data.session, 1), Decoded(data.session)):
        assert refusals(table.feed(BOB, PeerSaid(ALICE, message))) == ["message_unexpected"]
        assert refusals(table.feed(ALICE, PeerSaid(BOB, message))) == ["message_unexpected"]
    assert refusals(table.feed(BOB, PeerSaid(ALICE, result))) == ["calibration_unexpected"]
    assert refusals(table.feed(ALICE, PeerSaid(BOB, data))) == ["calibration_unexpected"]


def test_a_key_session_hears_nothing_of_a_calibration() -> None:
    table = met()
    table.ask(ALICE)
    table.go_on(lambda: len(table.reports[BOB]) > 0)
    (about,) = table.core[ALICE].snapshot()["sessions"]
    session = SessionId(about["session"])
    bits = np.zeros(about["rounds"], np.bool_)
    for message in (
        CalibrationData(session, bits, bits),
        CalibrationResult(session, (1,) * 5, (0,) * 5),
    ):
        for name in (ALICE, BOB):
            heard = table.feed(name, PeerSaid(OTHER[name], message))
            assert refusals(heard) == ["message_unexpected"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda n, u: (n, (n[0] + 1, *u[1:])), "counts_impossible"),
        (lambda n, u: (n, (-1, *u[1:])), "counts_impossible"),
        (lambda n, u: (n[:4], u[:4]), "counts_length"),
        (lambda n, u: ((0, n[0] + n[1], *n[2:]), (0, *u[1:])), "counts_missing"),
        (lambda n, u: ((n[0], n[1], n[2], n[3] + 1, n[4] - 1), u), "counts_of_other_rounds"),
        (lambda n, u: ((n[0] + 1, *n[1:]), u), "counts_of_other_rounds"),
    ],
)
def test_counts_that_cannot_be_end_the_calibration(
    change: Callable[[tuple[int, ...], tuple[int, ...]], tuple[tuple[int, ...], tuple[int, ...]]],
    reason: str,
) -> None:
    table = met()
    asked(table)
    result = until_told(table, ALICE, CalibrationResult)
    rounds, unequal = change(result.rounds, result.unequal)
    heard = table.feed(ALICE, PeerSaid(BOB, CalibrationResult(result.session, rounds, unequal)))
    assert refusals(heard) == [reason]
    (found,) = answers(table)
    assert found.outcome == "aborted" and reason in str(found.fields["reason"])
    assert not kept(table, ALICE).of(LINK.name)
    use = read_use(table.store[ALICE].facts[f"device/{LINK.name}"])
    assert use.published_bits == published_bits(ROUNDS)  # they were said, whatever came of it


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 999},
        {"rounds": 1_000_001},
        {"block_rounds": 0},
        {"window": 17},
        {"s_design": 2.5},
        {"steps_max": 1},
        {"even_at_a_loss": True},
        {"pool": "x"},
        {"epsilon": 0.5},
    ],
)
def test_a_proposal_that_is_not_a_calibrations_is_declined(change: dict[str, object]) -> None:
    table = met()
    asked(table)
    proposed = until_told(table, BOB, Propose)
    parameters = decode_parameters(proposed.parameters)
    assert parameters.purpose == CALIBRATION
    forged: Parameters = replace(parameters, **change)  # type: ignore[arg-type]  # of any field
    table.mail[BOB].clear()
    table.feed(BOB, PeerSaid(ALICE, replace(proposed, parameters=forged.encode())))
    assert not table.core[BOB].snapshot()["sessions"]


def test_refused_before_anything_is_proposed() -> None:
    table = met()
    actions = table.feed(ALICE, Asked(NUMBER, CalibrateLink(NodeName("carol"), ROUNDS)))
    assert [one.outcome for one in actions if isinstance(one, Answer)] == ["refused"]
    asked(table, rounds=10)
    found = answers(table)[-1]
    assert found.outcome == "refused" and "1000 to" in str(found.fields["reason"])
    asked(table)
    asked(table)
    assert "under way" in str(answers(table)[-1].fields["reason"])


# --- plans ---


@pytest.mark.parametrize("from_calibration", [False, True])
def test_sessions_are_planned_with_the_last_calibration_if_so_configured(
    from_calibration: bool,
) -> None:
    table = TwoCores(policy=replace(POLICY, plan_from_calibration=from_calibration))
    table.meet()
    asked(table)
    table.settle()
    counts = kept(table, ALICE).of(LINK.name)[0].counts
    actions = table.ask(ALICE)
    (plan,) = (one.work for one in actions if isinstance(one, Compute))
    assert isinstance(plan, Plan)
    expected = POLICY.s_design
    if from_calibration:
        expected = min(counts.s - PLAN_ERRORS * counts.s_error, 2 * np.sqrt(2))
        assert plan.policy.qber_design == counts.qber + PLAN_ERRORS * counts.qber_error
        assert table.core[ALICE].snapshot()["drifts"][LINK.name] == []
    assert plan.policy.s_design == pytest.approx(expected, rel=1e-12)
