"""Keys handed to their masters here, told to the peer until it has recorded them.

The outbox is durable before this core hears of it (`KeysTaken`), and telling is repeatable: the
peer records a key's allocation once however often it is told.  However long an outbox has grown
while the peer was away, only its first `TOLD_MAX` are told at a time: as they leave, others follow.
"""

from collections.abc import Mapping
from itertools import islice

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Action, ForgetAllocations, KeysTaken, RecordAllocations, Tell
from bellhop.stack.ids import KeyId
from bellhop.stack.messages import (
    ALLOCATIONS_MAX,
    Allocation,
    AllocationsRecorded,
    KeysAllocated,
)

TOLD_MAX = 4 * ALLOCATIONS_MAX
"""Allocations told and not yet recorded, so that no outbox floods the stream to the peer."""


class Handover:
    """One node's outboxes, one a peer."""

    def __init__(self, outbox: Mapping[NodeName, tuple[Allocation, ...]]) -> None:
        self._outbox: dict[NodeName, dict[KeyId, Allocation]] = {
            peer: {allocation.key_id: allocation for allocation in allocations}
            for peer, allocations in outbox.items()
        }

    def waiting(self, peer: NodeName) -> int:
        return len(self._outbox.get(peer, {}))

    def taken(self, event: KeysTaken) -> list[Action]:
        box = self._outbox.setdefault(event.peer, {})
        room = max(0, TOLD_MAX - len(box))
        box.update({allocation.key_id: allocation for allocation in event.allocations})
        return _tell(event.peer, event.allocations[:room])

    def retell(self, peer: NodeName) -> list[Action]:
        return _tell(peer, self._span(peer, 0, TOLD_MAX))

    def _span(self, peer: NodeName, start: int, end: int) -> tuple[Allocation, ...]:
        return tuple(islice(self._outbox.get(peer, {}).values(), start, end))

    def hear_allocated(self, peer: NodeName, message: KeysAllocated) -> list[Action]:
        """Record them, and say that they need not be told again.

        That is said of those too which the store refuses (of a block it does not have, of keys it
        has handed out itself): telling them again would change nothing, and would hold up those
        that follow.  Such a key stays with its master alone; the driver logs each refusal with who
        must act.
        """
        recorded = AllocationsRecorded(tuple(key.key_id for key in message.keys))
        return [RecordAllocations(peer, message.keys), Tell(peer, recorded)]

    def hear_recorded(self, peer: NodeName, message: AllocationsRecorded) -> list[Action]:
        box = self._outbox.get(peer, {})
        known = tuple(key_id for key_id in message.key_ids if box.pop(key_id, None) is not None)
        following = self._span(peer, TOLD_MAX - len(known), TOLD_MAX)
        return [ForgetAllocations(peer, known), *_tell(peer, following)] if known else []


def _tell(peer: NodeName, allocations: tuple[Allocation, ...]) -> list[Action]:
    chunks = range(0, len(allocations), ALLOCATIONS_MAX)
    return [
        Tell(peer, KeysAllocated(allocations[start : start + ALLOCATIONS_MAX])) for start in chunks
    ]
