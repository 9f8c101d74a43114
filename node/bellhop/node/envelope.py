"""What an envelope of the peer stream is, and every bound that it must keep."""

from dataclasses import dataclass
from typing import NoReturn, assert_never

from bellhop.hal.errors import PeerError
from bellhop.hal.operations import BLOCK_ROUNDS_MAX, NodeName
from bellhop.node.clock import ClockReading
from bellhop.stack.diqkd.parameters import ROUNDS_MAX
from bellhop.stack.ids import KeyId
from bellhop.stack.link.machine import RETRIES_MAX
from bellhop.stack.messages import (
    ALLOCATIONS_MAX,
    CALIBRATION_ROUNDS_MAX,
    CALIBRATION_SETTINGS,
    ENDORSEMENT_BYTES_MAX,
    EXTRA_BYTES_MAX,
    EXTRA_STEPS_MAX,
    POSITION_AHEAD_MAX,
    REASON_CHARACTERS_MAX,
    STAGE_BODY_BYTES_MAX,
    Abort,
    Accept,
    Allocation,
    AllocationsRecorded,
    BlockHeralded,
    BlockStored,
    CalibrationData,
    CalibrationResult,
    Decoded,
    KeysAllocated,
    Message,
    Paused,
    Position,
    Propose,
    SlotDone,
    SyndromeExtra,
    SyndromeWanted,
    Tagged,
    TestRounds,
)

ENVELOPE_BYTES_MAX = STAGE_BODY_BYTES_MAX + 64 * 1024
"""The longest message and what surrounds it."""

ID_DIGITS = 32
NAME_CHARACTERS_MAX = 64
BATCH_CHARACTERS_MAX = 64
DIGEST_BYTES_MAX = 64
TAG_BYTES_MAX = 16
PARAMETERS_BYTES_MAX = 64 * 1024
SLOTS_MAX = ROUNDS_MAX
"""Slots of a session: a device that holds one pair at once fills them with one round each."""
BLOCKS_MAX = (RETRIES_MAX + 1) * SLOTS_MAX
"""Blocks are numbered through all retries of all slots."""
MASK_NUMBER_MAX = (1 << 32) - 1
KEY_SLOTS_MAX = 4096
"""Slots that one allocated key may span."""
KEY_SLOT_INDEX_MAX = (1 << 24) - 1
KEY_BITS_MAX = 256 * KEY_SLOTS_MAX
SEQUENCE_MAX = (1 << 64) - 1
TIME_MAX_NS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first word each way; of the connection, not of a core."""

    software: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Somebody is there; of the connection as well."""


Word = Message | Greeting | Heartbeat
"""What an envelope may hold: a core's message, or a word of the connection itself."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with its address.  `message` None: one that this version does not know."""

    sequence: int
    sender: NodeName
    recipient: NodeName
    time: ClockReading
    message: Word | None


def check_envelope(envelope: Envelope) -> None:
    check_count(envelope.sequence, 1, SEQUENCE_MAX, "sequence")
    _text(envelope.sender, NAME_CHARACTERS_MAX, "sender")
    _text(envelope.recipient, NAME_CHARACTERS_MAX, "recipient")
    check_count(envelope.time.nanoseconds, 0, TIME_MAX_NS, "time")


def check(message: Word) -> None:  # noqa: C901, PLR0912, PLR0915 - a table
    match message:
        case Greeting(software):
            _text(software, NAME_CHARACTERS_MAX, "software")
        case Heartbeat():
            pass
        case BlockHeralded(link, request, block, digest):
            _text(link, NAME_CHARACTERS_MAX, "link")
            _hexadecimal(request, "request")
            check_count(block, 0, BLOCKS_MAX, "block")
            check_count(len(digest), 0, DIGEST_BYTES_MAX, "size of the digest")
        case Propose(session, parameters):
            _hexadecimal(session, "session")
            check_count(len(parameters), 1, PARAMETERS_BYTES_MAX, "size of the parameters")
        case Accept(session, digest):
            _hexadecimal(session, "session")
            check_count(len(digest), 0, DIGEST_BYTES_MAX, "size of the digest")
        case TestRounds(session, slot, tests):
            _hexadecimal(session, "session")
            check_count(slot, 0, SLOTS_MAX - 1, "slot")
            check_count(len(tests), 1, BLOCK_ROUNDS_MAX, "rounds")
        case SlotDone(session, slot):
            _hexadecimal(session, "session")
            check_count(slot, 0, SLOTS_MAX - 1, "slot")
        case Tagged():
            _hexadecimal(message.session, "session")
            check_count(len(message.body), 0, STAGE_BODY_BYTES_MAX, "size of the body")
            _text(message.batch, BATCH_CHARACTERS_MAX, "batch")
            check_count(message.number, 0, MASK_NUMBER_MAX, "number")
            check_count(len(message.tag), 1, TAG_BYTES_MAX, "size of the tag")
        case Position():
            _hexadecimal(message.session, "session")
            check_count(message.first, 0, SLOTS_MAX, "slot")
            check_count(len(message.ahead), 0, POSITION_AHEAD_MAX, "slots")
            _distinct(message.heard, "stages heard")
        case Abort(session, reason):
            _hexadecimal(session, "session")
            _text(reason, REASON_CHARACTERS_MAX, "reason")
        case Decoded(session) | Paused(session=session):
            _hexadecimal(session, "session")
        case BlockStored(session, _, endorsement):
            _hexadecimal(session, "session")
            check_count(len(endorsement), 0, ENDORSEMENT_BYTES_MAX, "size of the endorsement")
        case SyndromeWanted(session, steps):
            _hexadecimal(session, "session")
            check_count(steps, 1, EXTRA_STEPS_MAX, "steps")
        case SyndromeExtra(session, steps, bits):
            _hexadecimal(session, "session")
            check_count(steps, 1, EXTRA_STEPS_MAX, "steps")
            check_count(len(bits), 1, EXTRA_BYTES_MAX, "size of the extra syndrome")
        case CalibrationData() | CalibrationResult():
            _hexadecimal(message.session, "session")
            _check_calibration(message)
        case KeysAllocated(keys):
            check_count(len(keys), 1, ALLOCATIONS_MAX, "allocations")
            _distinct([key.key_id for key in keys], "key ids")
            for key in keys:
                _check_allocation(key)
        case AllocationsRecorded(key_ids):
            check_count(len(key_ids), 1, ALLOCATIONS_MAX, "allocations")
            _distinct(key_ids, "key ids")
            for key_id in key_ids:
                _uuid(key_id)
        case _:
            assert_never(message)


def _check_calibration(message: CalibrationData | CalibrationResult) -> None:
    if isinstance(message, CalibrationData):
        rounds = len(message.settings)
        check_count(rounds, 1, CALIBRATION_ROUNDS_MAX, "rounds")
        check_count(len(message.outcomes), rounds, rounds, "outcomes")
        return
    for counts in (message.rounds, message.unequal):
        check_count(len(counts), CALIBRATION_SETTINGS, CALIBRATION_SETTINGS, "counts")
    for unequal, rounds in zip(message.unequal, message.rounds, strict=True):
        check_count(rounds, 0, CALIBRATION_ROUNDS_MAX, "rounds")
        check_count(unequal, 0, rounds, "unequal outcomes")


def _check_allocation(key: Allocation) -> None:
    _hexadecimal(key.session, "session")
    _uuid(key.key_id)
    check_count(len(key.slots), 1, KEY_SLOTS_MAX, "slots of a key")
    _distinct(key.slots, "slots of a key")
    for slot in key.slots:
        check_count(slot, 0, KEY_SLOT_INDEX_MAX, "slot of a key")
    check_count(key.size_bits, 1, KEY_BITS_MAX, "size of a key")
    _text(key.master, NAME_CHARACTERS_MAX, "master")
    _text(key.slave, NAME_CHARACTERS_MAX, "slave")


def check_count(value: int, low: int, high: int, what: str) -> None:
    if not low <= value <= high:
        refuse(f"{what} out of bounds", value=value, low=low, high=high)


def _distinct(values: list[KeyId] | tuple[object, ...], what: str) -> None:
    if len(set(values)) != len(values):
        refuse(f"{what} repeated")


def _text(text: str, length_max: int, what: str) -> None:
    """Printable, so that a peer cannot write control characters into our log."""
    if not 1 <= len(text) <= length_max:
        refuse(f"length of the {what} out of bounds", value=len(text), high=length_max)
    if not text.isprintable():
        refuse(f"{what} not printable")


def _hexadecimal(text: str, what: str) -> None:
    if len(text) != ID_DIGITS or not set(text) <= set("0123456789abcdef"):
        refuse(f"{what} is not {ID_DIGITS} hexadecimal digits")


def _uuid(text: str) -> None:
    """In the one spelling that both ends derive: lower case, with hyphens (RFC 9562)."""
    parts = text.split("-")
    digits = "".join(parts)
    if [len(part) for part in parts] != [8, 4, 4, 4, 12] or not set(digits) <= set(
        "0123456789abcdef"
    ):
        refuse("key id is not a UUID")


def refuse(reason: str, **fields: str | int | float) -> NoReturn:
    raise PeerError(reason, **fields)
