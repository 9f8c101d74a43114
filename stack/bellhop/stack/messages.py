"""What two nodes tell each other, as the cores see it.

Every message may come twice, late or out of order: a receiver takes it or refuses it by what it
knows, and one that fits no state is refused, never raised.
"""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import LinkName, RequestId
from bellhop.stack.ids import KeyId, SaeId, SessionId

STAGE_BODY_BYTES_MAX = 4 * 1024 * 1024
"""Bounds the body of a tagged message: a Toeplitz seed for `ROUNDS_MAX` rounds fits."""

POSITION_AHEAD_MAX = 256
"""Bounds the slots that a position lists one by one."""

EXTRA_STEPS_MAX = 32
"""Bounds the steps of extra syndrome."""

EXTRA_BYTES_MAX = 512 * 1024
"""Bounds the extra syndrome."""

CALIBRATION_ROUNDS_MAX = 1_000_000
"""Bounds a calibration."""

CALIBRATION_SETTINGS = 5
"""Pairs of settings of a calibration: 00, 01, 10, 11 and 02."""

ENDORSEMENT_BYTES_MAX = 16 * 1024
"""Bounds one end's signed part of a receipt."""

ALLOCATIONS_MAX = 256
"""Bounds one message about allocations."""

REASON_CHARACTERS_MAX = 256
"""Bounds the reason of an abort."""


def reason_told(reason: str) -> str:
    """A reason fit to be told, stored and logged, whatever a peer or a worker put into it."""
    printable = "".join(c if c.isprintable() else "?" for c in reason[:REASON_CHARACTERS_MAX])
    return printable or "no reason given"


class Stage(Enum):
    """The eight tagged messages of a session, in their order."""

    TRANSCRIPT_A = "transcript_a"
    TRANSCRIPT_B = "transcript_b"
    INPUTS_A = "inputs_a"
    INPUTS_B = "inputs_b"
    SYNDROME = "syndrome"
    VERIFICATION = "verification"
    DECISION = "decision"
    AMPLIFICATION = "amplification"


@dataclass(frozen=True, slots=True)
class BlockHeralded:
    """Link: what one end saw of a block.  `digest` of attempts and patterns, empty: lost here."""

    link: LinkName
    request: RequestId
    block: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Propose:
    """Session: everything that is fixed before the first round, in canonical JSON."""

    session: SessionId
    parameters: bytes


@dataclass(frozen=True, slots=True)
class Accept:
    session: SessionId
    digest: bytes


@dataclass(frozen=True, slots=True, eq=False)
class TestRounds:
    """Alice's device has answered a slot: these rounds of it are tests (bool, shape (rounds,))."""

    __test__ = False  # not a test case, whatever its name

    session: SessionId
    slot: int
    tests: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SlotDone:
    """Bob's device has answered a slot of rounds, or lost it; both count."""

    session: SessionId
    slot: int


@dataclass(frozen=True, slots=True)
class Tagged:
    """One of the eight: tagged with a one-time mask named by its batch and number."""

    session: SessionId
    stage: Stage
    body: bytes = field(repr=False)
    batch: str
    number: int
    tag: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Bob's decoder has ended; only now Alice draws the key of the verification hash."""

    session: SessionId


@dataclass(frozen=True, slots=True)
class SyndromeWanted:
    """Bob's decoder needs `steps` steps of extra syndrome, all in all."""

    session: SessionId
    steps: int


@dataclass(frozen=True, slots=True)
class SyndromeExtra:
    """Alice's extra syndrome of the first `steps` steps; her verification tag covers it."""

    session: SessionId
    steps: int
    bits: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Paused:
    """The sender orders no more pairs for this session until it says otherwise."""

    session: SessionId
    paused: bool


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationData:
    """Alice's settings and outcomes of a calibration (bool, shape (rounds,)): they make no key."""

    session: SessionId
    settings: NDArray[np.bool_] = field(repr=False)
    outcomes: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """Rounds, and unequal outcomes among them, of the settings 00, 01, 10, 11 and 02."""

    session: SessionId
    rounds: tuple[int, ...]
    unequal: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """How far one end is, so that the other says again what was lost.

    It has finished all slots below `first`, and of those from there on the ones that `ahead` says;
    `heard`: stages it has.  `paused`: it orders no new pairs; `device_away`: it could not.
    """

    session: SessionId
    first: int
    ahead: NDArray[np.bool_] = field(compare=False)
    heard: tuple[Stage, ...] = ()
    accepted: bool = False
    decoded: bool = False
    paused: bool = False
    device_away: bool = False

    def done(self, slot: int) -> bool:
        """Whether the sender has finished this slot."""
        beyond = slot - self.first
        return beyond < 0 or (beyond < len(self.ahead) and bool(self.ahead[beyond]))


@dataclass(frozen=True, slots=True)
class Abort:
    """The session has ended without a key, or is not known (any more)."""

    session: SessionId
    reason: str


@dataclass(frozen=True, slots=True)
class BlockStored:
    """The session's keys are on this end's disk.

    `confirmed`: this end knows that the other has them too, so it wants no answer.
    `endorsement`: the sender's signed part of the receipt, if it has one.
    """

    session: SessionId
    confirmed: bool
    endorsement: bytes = b""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A key handed to its master: the peer's node may hand it to the slave.

    `slots`: indices in the block, the first one the key id's own; a key longer than a slot spans
    several, in order, and is cut to `size_bits`.
    """

    session: SessionId
    key_id: KeyId
    slots: tuple[int, ...]
    size_bits: int
    master: SaeId
    slave: SaeId


@dataclass(frozen=True, slots=True)
class KeysAllocated:
    """Keys: these were handed to their masters here."""

    keys: tuple[Allocation, ...]


@dataclass(frozen=True, slots=True)
class AllocationsRecorded:
    key_ids: tuple[KeyId, ...]


Message = (
    BlockHeralded
    | Propose
    | Accept
    | TestRounds
    | SlotDone
    | Tagged
    | Decoded
    | SyndromeWanted
    | SyndromeExtra
    | Paused
    | CalibrationData
    | CalibrationResult
    | Position
    | Abort
    | BlockStored
    | KeysAllocated
    | AllocationsRecorded
)
