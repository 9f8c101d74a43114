"""What the key store says: outcomes of a delivery, and summaries.  Outcomes are not errors."""

from dataclasses import dataclass, field
from enum import StrEnum

from bellhop.hal.operations import NodeName
from bellhop.stack.core import KeysTaken
from bellhop.stack.ids import KeyId, SaeId, SessionId


class BlockState(StrEnum):
    """How far a block is.  HELD: the peer may not have it yet.  SPENT: no key of it is left."""

    HELD = "held"
    DELIVERABLE = "deliverable"
    SPENT = "spent"
    VOID = "void"


class KeyState(StrEnum):
    """How far one slot is.  ALLOCATED: the peer handed it to its master; its slave may fetch it."""

    FREE = "free"
    ALLOCATED = "allocated"
    DELIVERED = "delivered"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class DeliveredKey:
    """A key as it leaves this node, erased from the store already."""

    key_id: KeyId
    session: SessionId
    source: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """Keys for a master, and what the peer must be told of them (in the outbox already)."""

    keys: tuple[DeliveredKey, ...]
    told: KeysTaken


@dataclass(frozen=True, slots=True)
class InsufficientKeys:
    """There are `available` keys of the size asked for, which is not enough; none was taken."""

    available: int


@dataclass(frozen=True, slots=True)
class EmulatedRefused:
    """Production: there are keys, but too few (`available`) that are not emulated."""

    available: int


@dataclass(frozen=True, slots=True)
class SourceUnmet:
    """There are keys, but too few (`available`) of the source that was demanded."""

    available: int


TakeOutcome = Taken | InsufficientKeys | EmulatedRefused | SourceUnmet


@dataclass(frozen=True, slots=True)
class Fetched:
    """Keys for a slave, in the order of the request."""

    keys: tuple[DeliveredKey, ...]


@dataclass(frozen=True, slots=True)
class NotFound:
    """These are unknown, delivered already, void, or of another master."""

    key_ids: tuple[KeyId, ...]


@dataclass(frozen=True, slots=True)
class NotYours:
    """These were handed out for another slave."""

    key_ids: tuple[KeyId, ...]


@dataclass(frozen=True, slots=True)
class NotYetAllocated:
    """The peer has not said yet for whom these are."""

    key_ids: tuple[KeyId, ...]


FetchOutcome = Fetched | NotFound | NotYours | NotYetAllocated | EmulatedRefused


@dataclass(frozen=True, slots=True)
class RefusedAllocation:
    """What a peer said of a key and cannot be."""

    key_id: KeyId
    reason: str


@dataclass(frozen=True, slots=True)
class Stock:
    """What this node may hand to masters towards a peer: keys of a size, and their sources."""

    keys: int
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """A block without its keys.  `own`: slots that this node hands out first; `peer`: the peer."""

    session: SessionId
    peer: NodeName
    state: BlockState
    source: str
    stored_ns: int
    own_slots: int
    own_free: int
    peer_slots: int
    peer_free: int
    peer_allocated: int
    void_why: str


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is known of a key id for ever: its block, and who was handed the key when.

    `done_ns`: when it was delivered or voided here, None before.
    """

    key_id: KeyId
    session: SessionId
    state: KeyState
    size_bits: int | None
    master: SaeId | None
    slave: SaeId | None
    done_ns: int | None
