"""A session's life at one end: who may give up when, stalls, positions, another device."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tests.support.cores import (
    ALICE,
    BOB,
    LINK,
    NO_SLOTS,
    OTHER,
    POLICY,
    SESSION,
    bits_of,
    facts_of,
    kinds,
    measured_records,
    pools,
    port,
    records,
    told,
)

from bellhop.hal.operations import DeviceGone, NodeName, Ready, Release, Side, Source
from bellhop.node.chance import SeededRng
from bellhop.node.sim.identities import simulated_identity
from bellhop.stack.core import Action, Compute, Note, Order, Refuse, StoreKeys
from bellhop.stack.diqkd.device_use import DeviceUse
from bellhop.stack.diqkd.distil import POOL_ADVICE
from bellhop.stack.diqkd.endorsements import Endorsements
from bellhop.stack.diqkd.jobs import Corrected, Decode, Encode, Encoded, Prepare
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.diqkd.record import Record
from bellhop.stack.diqkd.session import Session
from bellhop.stack.diqkd.stages import ORDER, SENT_BY_ALICE
from bellhop.stack.ids import JobNumber
from bellhop.stack.messages import (
    REASON_CHARACTERS_MAX,
    Abort,
    BlockStored,
    Decoded,
    Position,
    SlotDone,
    Stage,
    Tagged,
    TestRounds,
)

RETRY_NS, STALL_NS = POLICY.retry_ns, POLICY.stall_ns


class OneEnd:
    """A session of one end; jobs are done at once, but for one that `never` ends."""

    def __init__(self, own: NodeName, record: Record, pool: Pool, string: Corrected) -> None:
        self.own = own
        self.pool = pool
        self.string = string
        self.now_ns = 0
        self.numbers: Iterator[int] = iter(range(1, 10_000))
        self.port = port(Side.A if own == ALICE else Side.B)
        words = Endorsements(own, simulated_identity(own), {})
        self.session = Session(
            record, POLICY, pool, SeededRng(8, own), self.port, {}, DeviceUse(), words,
            self._number, device_ready=True,
        )  # fmt: skip
        self.actions: list[Action] = []
        self.never = ""

    def _number(self) -> JobNumber:
        return JobNumber(next(self.numbers))

    def do(self, actions: list[Action]) -> list[Action]:
        done = list(actions)
        self.actions += actions
        for action in actions:
            if isinstance(action, Compute) and action.work.name != self.never:
                done += self.do(self.session.computed(self.now_ns, action.job, self.work(action)))
        return done

    def work(self, order: Compute) -> object:
        match order.work:
            case Prepare():
                return b""
            case Encode(design=design):
                return Encoded(bytes(32), bytes(-(-design.syndrome_bits // 8)))
            case Decode():
                return self.string
            case _:
                return order.work.run()

    def begin(self) -> list[Action]:
        return self.do(self.session.begin(self.now_ns))

    def hear(self, message: Tagged | Decoded | Position) -> list[Action]:
        return self.do(self.session.hear(self.now_ns, message))

    def tick(self, after_ns: int, *, joined: bool = True) -> list[Action]:
        self.now_ns += after_ns
        return self.do(self.session.tick(self.now_ns, peer_joined=joined))


def two_ends(measured: bool = True) -> dict[NodeName, OneEnd]:
    both = measured_records() if measured else records()
    shared, string = pools(), Corrected(bits_of(both[ALICE]))
    return {own: OneEnd(own, both[own], shared[own], string) for own in (ALICE, BOB)}


def carry(ends: dict[NodeName, OneEnd], until: Stage | None = None) -> Tagged | None:
    """Both begin; what they say is carried up to the stage, which is not heard."""
    waiting = [(own, m) for own, end in ends.items() for m in told(end.begin())]
    while waiting:
        speaker, message = waiting.pop(0)
        if isinstance(message, Tagged) and message.stage is until:
            return message
        if isinstance(message, Tagged | Decoded | Position):
            listener = ends[OTHER[speaker]]
            waiting += [(listener.own, m) for m in told(listener.hear(message))]
    return None


# --- who may give up when -------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ORDER)
def test_bob_may_give_up_before_his_decision_alice_before_her_seed(stage: Stage) -> None:
    """`stage` is said and on its way: what each end may do then."""
    ends = two_ends()
    carry(ends, until=stage)
    place = ORDER.index(stage)
    assert ends[ALICE].session.abortable == (place < ORDER.index(Stage.AMPLIFICATION))
    assert ends[BOB].session.abortable == (place < ORDER.index(Stage.DECISION))


def test_no_end_gives_up_what_it_has_stored() -> None:
    ends = two_ends()
    carry(ends)
    for end in ends.values():
        assert end.session.record.stored and not end.session.abortable
        assert end.session.ended is not None and end.session.ended.outcome == "stored"


@pytest.mark.parametrize("own", [ALICE, BOB])
def test_a_committed_end_does_not_stall_it_goes_on_asking(own: NodeName) -> None:
    ends = two_ends()
    end = ends[own]
    end.never = "amplify"
    carry(ends)
    assert not end.session.record.stored and end.session.stage == "amplifying"
    for _ in range(3):
        actions = end.tick(STALL_NS)
        assert end.session.ended is None
        assert [type(m) for m in told(actions)] == [Position]


def test_wrong_tags_do_not_end_a_committed_bob() -> None:
    ends = two_ends()
    message = carry(ends, until=Stage.AMPLIFICATION)
    assert message is not None
    bob = ends[BOB]
    wrong = replace(message, tag=bytes(8))
    actions = bob.hear(wrong)
    assert [a.reason for a in actions if isinstance(a, Refuse)] == ["tag_wrong"]
    assert bob.session.ended is None and bob.pool.forgeries == 1
    bob.hear(message)
    assert bob.session.record.stored


@pytest.mark.parametrize("stage", [s for s in ORDER if s is not Stage.AMPLIFICATION])
def test_a_wrong_tag_ends_whoever_may_end(stage: Stage) -> None:
    ends = two_ends()
    message = carry(ends, until=stage)
    assert message is not None
    end = ends[BOB if SENT_BY_ALICE[stage] else ALICE]
    actions = end.hear(replace(message, tag=bytes(8)))
    assert end.session.ended is not None and end.session.ended.outcome == "aborted"
    assert told(actions) == [Abort(SESSION, f"authentication failed: tag_wrong; {POOL_ADVICE}")]
    names = [fact.name for fact in facts_of(actions)]
    assert names == [f"pool/{OTHER[end.own]}/forgeries", f"ended/{SESSION}", f"device/{LINK.name}"]


# --- the end --------------------------------------------------------------------------------------


def test_an_abort_is_remembered_before_it_is_told_and_frees_the_device() -> None:
    end = two_ends()[ALICE]
    end.begin()
    actions = end.session.abort("enough")
    assert kinds(actions) == ["Persist", "Tell", "Order", "Note"]
    assert [f.name for f in facts_of(actions)] == [f"ended/{SESSION}", f"device/{LINK.name}"]
    (order,) = [a.operation for a in actions if isinstance(a, Order)]
    assert order == Release(end.session.record.parameters.link, end.session.record.request.request)
    assert end.session.next_deadline() is None
    assert end.tick(STALL_NS) == []


def test_an_abort_forgets_everything_of_the_session_and_no_mask() -> None:
    end = two_ends()[ALICE]
    end.begin()
    spent = end.pool.masks_left
    (persist, *_) = end.session.abort("enough")
    assert persist.forget == (f"session/{SESSION}/", f"link/{SESSION}/")  # type: ignore[union-attr] # a Persist
    assert end.pool.masks_left == spent == 15


@pytest.mark.parametrize("reason", ["x" * 5000, "a\nb\x00\ud800", ""])
def test_whatever_the_reason_it_can_be_told(reason: str) -> None:
    end = two_ends()[ALICE]
    (message,) = told(end.session.abort(reason))
    assert isinstance(message, Abort)
    assert 0 < len(message.reason) <= REASON_CHARACTERS_MAX
    assert message.reason.isprintable()


def test_a_stored_session_tells_after_it_has_stored() -> None:
    ends = two_ends()
    carry(ends)
    for end in ends.values():
        names = kinds(end.actions)
        stored = names.index("StoreKeys")
        words = [k for k, a in enumerate(end.actions) for m in told([a]) if type(m) is BlockStored]
        assert words == [stored + 1]
        (word,) = told([end.actions[stored + 1]])
        assert isinstance(word, BlockStored) and not word.confirmed and word.endorsement


def test_a_restarted_stored_session_only_answers() -> None:
    ends = two_ends()
    carry(ends)
    record = ends[ALICE].session.record
    again = OneEnd(ALICE, record, pools()[ALICE], ends[ALICE].string)
    assert again.begin() == [] and again.session.ended is not None
    heard = tuple(s for s in ORDER[:-1] if SENT_BY_ALICE[s])
    assert [m.stage for m in told(again.hear(Position(SESSION, 0, NO_SLOTS, heard)))
            if isinstance(m, Tagged)] == [Stage.AMPLIFICATION]  # fmt: skip


# --- time -----------------------------------------------------------------------------------------


def test_a_session_that_gets_nothing_new_says_where_it_is_and_then_ends() -> None:
    end = two_ends(measured=False)[ALICE]
    end.begin()
    assert end.session.next_deadline() == RETRY_NS
    assert end.tick(RETRY_NS - 1) == []
    assert [type(m) for m in told(end.tick(1))] == [Position]
    assert end.tick(RETRY_NS, joined=False) == [], "nobody hears it"
    end.tick(STALL_NS - RETRY_NS - 1)
    assert end.session.ended is None
    actions = end.tick(RETRY_NS)
    assert [type(m) for m in told(actions)] == [Abort]
    assert end.session.ended is not None and end.session.ended.reason.startswith("stalled")


def test_a_peer_that_repeats_itself_does_not_keep_a_session_alive() -> None:
    bob = two_ends(measured=False)[BOB]
    bob.begin()
    rounds = bob.session.record.request.slot_rounds(0)
    tests = TestRounds(SESSION, 0, np.zeros(rounds, np.bool_))
    for _ in range(STALL_NS // RETRY_NS):
        bob.do(bob.session.hear(bob.now_ns, tests))
        bob.do(bob.session.hear(bob.now_ns, SlotDone(SESSION, 0)))
        bob.tick(RETRY_NS)
    assert bob.session.ended is not None and bob.session.ended.reason.startswith("stalled")


# --- positions ------------------------------------------------------------------------------------


def test_a_position_says_how_far_an_end_is() -> None:
    ends = two_ends()
    carry(ends, until=Stage.DECISION)
    (alice,), (bob,) = (told(end.session.position()) for end in ends.values())
    assert isinstance(alice, Position) and isinstance(bob, Position)
    assert alice.heard == (Stage.TRANSCRIPT_B, Stage.INPUTS_B) and alice.decoded
    assert bob.heard == (
        Stage.TRANSCRIPT_A, Stage.INPUTS_A, Stage.SYNDROME, Stage.VERIFICATION
    )  # fmt: skip
    slots = ends[ALICE].session.record.request.slots
    assert alice.first == bob.first == slots and alice.accepted
    assert len(alice.ahead) == len(bob.ahead) == 0


@pytest.mark.parametrize(("first", "ahead"), [(0, 4), (1, 3), (3, 1), (4, 0), (4_000_000, 256)])
def test_a_position_of_another_session_is_refused(first: int, ahead: int) -> None:
    end = two_ends()[BOB]
    assert end.session.record.request.slots == 3
    end.begin()
    actions = end.hear(Position(SESSION, first, np.ones(ahead, np.bool_)))
    assert [a.reason for a in actions if isinstance(a, Refuse)] == ["position_length"]


def test_bob_answers_a_position_that_knows_less_with_his_own_alice_never() -> None:
    ends = two_ends()
    for end in ends.values():
        end.begin()
    nothing = Position(SESSION, 0, NO_SLOTS)
    assert [type(m) for m in told(ends[BOB].hear(nothing))] == [Position]
    assert not [m for m in told(ends[ALICE].hear(nothing)) if isinstance(m, Position)]
    everything = replace(nothing, first=ends[BOB].session.record.request.slots)
    assert not [m for m in told(ends[BOB].hear(everything)) if isinstance(m, Position)]


def test_what_a_position_lacks_is_said_again_unchanged() -> None:
    ends = two_ends()
    carry(ends, until=Stage.SYNDROME)
    alice = ends[ALICE]
    slots = alice.session.record.request.slots
    before = alice.pool.masks_left
    again = told(alice.hear(Position(SESSION, slots, NO_SLOTS, (Stage.TRANSCRIPT_A,))))
    said = alice.session.record.said
    assert again == [said[Stage.INPUTS_A], said[Stage.SYNDROME]]
    assert alice.pool.masks_left == before, "no mask is spent for a repetition"


# --- the device -----------------------------------------------------------------------------------


def test_another_device_on_the_link_ends_a_session_among_its_rounds() -> None:
    """Else a receipt could call outcomes of an emulator those of a device."""
    end = two_ends(measured=False)[ALICE]
    end.begin()
    other = replace(end.port, source=Source.HARDWARE)
    actions = end.do(end.session.reported(0, Ready((other,))))
    assert end.session.ended is not None and "another device" in end.session.ended.reason
    assert "Order" in kinds(actions), "released"


def test_the_same_device_again_or_another_after_the_rounds_is_none() -> None:
    end = two_ends(measured=False)[ALICE]
    end.begin()
    end.do(end.session.reported(0, DeviceGone("pulled")))
    end.do(end.session.reported(0, Ready((end.port,))))
    assert end.session.ended is None
    done = two_ends()[ALICE]
    done.begin()
    done.do(done.session.reported(0, Ready((replace(done.port, settings=7),))))
    assert done.session.ended is None


def test_notes_hold_no_secret() -> None:
    ends = two_ends()
    carry(ends)
    notes = [a for end in ends.values() for a in end.actions if isinstance(a, Note)]
    (store,) = [a for a in ends[ALICE].actions if isinstance(a, StoreKeys)]
    shown = repr(notes)
    assert len(notes) >= 10
    assert all(slot.key.hex() not in shown for slot in store.block.slots)
