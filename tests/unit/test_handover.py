"""Keys handed out: told until the peer has recorded them, never more at once than it can take."""

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Action, ForgetAllocations, KeysTaken, RecordAllocations, Tell
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.keys.handover import TOLD_MAX, Handover
from bellhop.stack.messages import (
    ALLOCATIONS_MAX,
    Allocation,
    AllocationsRecorded,
    KeysAllocated,
)

BOB, CAROL = NodeName("bob"), NodeName("carol")


def allocation(number: int) -> Allocation:
    session = SessionId(f"{number:032x}")
    return Allocation(session, KeyId(f"key {number}"), (0,), 256, SaeId("m"), SaeId("s"))


def told(actions: list[Action]) -> list[Allocation]:
    messages = [a.message for a in actions if isinstance(a, Tell)]
    assert all(isinstance(m, KeysAllocated) for m in messages)
    assert all(len(m.keys) <= ALLOCATIONS_MAX for m in messages if isinstance(m, KeysAllocated))
    return [key for m in messages if isinstance(m, KeysAllocated) for key in m.keys]


def taken(*numbers: int) -> KeysTaken:
    return KeysTaken(BOB, tuple(allocation(n) for n in numbers))


def test_a_taken_key_is_told_until_it_is_recorded() -> None:
    handover = Handover({})
    assert handover.taken(taken(1, 2)) == [Tell(BOB, KeysAllocated((allocation(1), allocation(2))))]
    assert handover.waiting(BOB) == 2 and handover.waiting(CAROL) == 0
    assert told(handover.retell(BOB)) == [allocation(1), allocation(2)]
    recorded = AllocationsRecorded((allocation(1).key_id,))
    assert handover.hear_recorded(BOB, recorded) == [ForgetAllocations(BOB, recorded.key_ids)]
    assert told(handover.retell(BOB)) == [allocation(2)]
    assert handover.retell(CAROL) == []


def test_the_outbox_outlives_a_restart() -> None:
    handover = Handover({BOB: (allocation(1),)})
    assert told(handover.retell(BOB)) == [allocation(1)]


def test_words_about_keys_nobody_waits_for_change_nothing() -> None:
    handover = Handover({BOB: (allocation(1),)})
    nonsense = AllocationsRecorded((allocation(9).key_id,))
    assert handover.hear_recorded(BOB, nonsense) == []
    assert handover.hear_recorded(CAROL, AllocationsRecorded((allocation(1).key_id,))) == []
    assert handover.waiting(BOB) == 1
    twice = AllocationsRecorded((allocation(1).key_id, allocation(1).key_id))
    assert handover.hear_recorded(BOB, twice) == [ForgetAllocations(BOB, (allocation(1).key_id,))]
    assert handover.hear_recorded(BOB, twice) == []


def test_what_the_peer_handed_out_is_recorded_before_it_is_told() -> None:
    message = KeysAllocated((allocation(1), allocation(2)))
    assert Handover({}).hear_allocated(BOB, message) == [
        RecordAllocations(BOB, message.keys),
        Tell(BOB, AllocationsRecorded((allocation(1).key_id, allocation(2).key_id))),
    ]


def test_a_long_outbox_is_told_bit_by_bit_and_to_the_end() -> None:
    everything = [allocation(n) for n in range(TOLD_MAX + 700)]
    handover = Handover({BOB: tuple(everything)})
    heard = told(handover.retell(BOB))
    assert heard == everything[:TOLD_MAX]
    assert told(handover.taken(taken(10_000))) == [], "no room: it follows later"
    everything.append(allocation(10_000))
    place = 0
    while handover.waiting(BOB):
        recorded = AllocationsRecorded(tuple(a.key_id for a in heard[place : place + 256]))
        place += len(recorded.key_ids)
        heard += told(handover.hear_recorded(BOB, recorded))
    assert heard == everything, "each told once, in order, without a repetition"


def test_taken_keys_fill_the_room_there_is() -> None:
    handover = Handover({BOB: tuple(allocation(n) for n in range(TOLD_MAX - 1))})
    assert told(handover.taken(taken(5_000, 5_001))) == [allocation(5_000)]
