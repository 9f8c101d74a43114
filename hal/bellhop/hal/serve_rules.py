"""What a laboratory's service remembers of a link, what it refuses, and what no driver answers."""

import asyncio
import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bellhop.hal.errors import HardwareError
from bellhop.hal.identity import valid_name
from bellhop.hal.laboratory import Herald, LabPort
from bellhop.hal.memory_wire import printable
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    SETTINGS_MAX,
    Attempt,
    BellState,
    Measure,
    NodeName,
    RequestId,
    Side,
    Source,
)
from bellhop.hal.runs import BLOCKS_PER_REQUEST_MAX, Reasons, Runs

ORDERS_PENDING_MAX = 256
"""Attempts that wait on one link."""

REQUESTS_OPEN_MAX = 16
"""Requests open on one link."""

LINK_CHARACTERS_MAX = 64
"""Nodes take no longer name of a link."""

IDEALISATIONS_MAX = 16

PORT_FIELDS = {
    "link": str,
    "side": Side,
    "peer": str,
    "settings": int,
    "description": str,
    "idealisations": tuple,
    "pairs_held_max": int,
    "source": Source,
    "herald_is_measurement": bool,
}

OUTCOME = "0, 1 or None"

Block = tuple[RequestId, int]


class DriverFault(HardwareError):
    """The laboratory's driver answered what cannot be."""

    who_must_act = "whoever wrote the laboratory's driver"


class DriverFailed(HardwareError):
    """The laboratory's driver raised what it must not, in a method whose texts are private."""

    who_must_act = DriverFault.who_must_act


class DeviceStalled(HardwareError):
    """The device did not answer in time."""


class LoopBlocked(DeviceStalled):
    """An answer was late, and nobody could say so before it came."""

    who_must_act = DriverFault.who_must_act


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a device may take, in seconds: from one herald to the next, to answer one round (or
    to release a request), and to close.  `grace_seconds`: how long a method that is cancelled may
    take to end."""

    herald_seconds: float = 60.0
    measure_seconds: float = 5.0
    close_seconds: float = 20.0
    grace_seconds: float = 1.0


@dataclass(slots=True)
class RequestState:
    """A request at this end: `attempts` made so far, blocks ever `begun`, why some are `spent`,
    and the rounds of those `held`."""

    attempts: int = 0
    begun: Runs = field(default_factory=Runs)
    spent: Reasons = field(default_factory=Reasons)
    held: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class LinkState:
    """One link: attempts that wait, the one under way with the pairs reserved for it, and the
    measurements ordered."""

    port: LabPort
    requests: dict[RequestId, RequestState] = field(default_factory=dict)
    waiting: dict[Block, Attempt] = field(default_factory=dict)
    attempting: tuple[Block, asyncio.Task[None]] | None = None
    reserved: int = 0
    measuring: dict[Block, asyncio.Task[None]] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def room(self) -> int:
        held = sum(sum(request.held.values()) for request in self.requests.values())
        return self.port.pairs_held_max - held - self.reserved

    def fitting(self) -> dict[Block, Attempt]:
        """What waits and has room, in the sequence it was ordered."""
        room = self.room()
        return {block: one for block, one in self.waiting.items() if one.rounds <= room}


def check_ports(node: NodeName, ports: object) -> tuple[LabPort, ...]:
    """What `open` answered.  Raises DriverFault for ports that no node could use."""
    if not isinstance(ports, tuple | list) or not all(isinstance(one, LabPort) for one in ports):
        raise DriverFault(f"open of {node}'s laboratory must answer a tuple of LabPort")
    if len({port.link for port in ports if _typed(port)}) != len(ports) or not ports:
        raise DriverFault(f"open of {node}'s laboratory gave no port, or two on one link")
    for port in ports:
        for holds, wrong in _port_rules(node, port):
            if not holds:
                raise DriverFault(f"link {printable(port.link)}: {wrong}")
    return tuple(ports)


def _typed(port: LabPort) -> bool:
    """True.  Raises DriverFault naming a field of another type: nothing else checks them."""
    for name, kind in PORT_FIELDS.items():
        value = getattr(port, name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            found = type(value).__name__
            raise DriverFault(f"a LabPort's {name} is {found}, and must be {kind.__name__}")
    if not all(isinstance(text, str) for text in port.idealisations):
        raise DriverFault("a LabPort's idealisations are not all str")
    return True


def _port_rules(node: NodeName, port: LabPort) -> tuple[tuple[bool, str], ...]:
    """Rules, and what is wrong where they do not hold."""
    least = 2 if port.side is Side.A else 3
    settings = f"side {port.side.name} has {least} to {SETTINGS_MAX} settings, not {port.settings}"
    link = 0 < len(port.link) <= LINK_CHARACTERS_MAX and port.link.isprintable()
    return (
        (link, f"a link's name has 1 to {LINK_CHARACTERS_MAX} printable characters"),
        (least <= port.settings <= SETTINGS_MAX, settings),
        (port.pairs_held_max >= 1, "a device holds at least one pair"),
        (valid_name(port.peer), f"{port.peer!r} is no name of a node"),
        (
            len(port.idealisations) <= IDEALISATIONS_MAX,
            f"at most {IDEALISATIONS_MAX} idealisations",
        ),
        (port.peer != node, f"leads from {node} to itself"),
    )


def attempt_refusal(link: LinkState, order: Attempt) -> str:
    request = link.requests.get(order.request)
    most = min(link.port.pairs_held_max, BLOCK_ROUNDS_MAX)
    begun = Runs() if request is None else request.begun
    may_open = request is not None or len(link.requests) < REQUESTS_OPEN_MAX
    rules = (
        (1 <= order.rounds <= most, f"the device holds 1 to {most} pairs at once"),
        (
            0 <= order.block < BLOCKS_PER_REQUEST_MAX,
            f"block numbers are below {BLOCKS_PER_REQUEST_MAX}",
        ),
        (may_open, "too many open requests on this link"),
        (order.block not in begun, "already heralded or being attempted"),
        (not begun.scattered(order.block), "too many gaps between block numbers"),
        ((order.request, order.block) not in link.waiting, "already ordered"),
        (len(link.waiting) < ORDERS_PENDING_MAX, "too many attempts wait on this link"),
    )
    return next((reason for holds, reason in rules if not holds), "")


def measure_refusal(link: LinkState, order: Measure) -> str:
    request = link.requests.get(order.request)
    spent = None if request is None else request.spent.get(order.block)
    if spent is not None:
        return spent
    rounds = request.held.get(order.block) if request is not None else None
    if rounds is None:
        return "not heralded"
    if order.settings.shape != (rounds,) or order.settings.dtype != np.uint8:
        return f"the block has {rounds} rounds, each with one setting"
    if int(order.settings.max()) >= link.port.settings:
        return "no such setting at this end"
    return ""


def check_herald(herald: Herald, least: int, last_ns: int) -> None:
    """Raises DriverFault."""
    if not isinstance(herald, Herald):
        raise DriverFault(f"attempt gave {type(herald).__name__} instead of a Herald")
    attempt = whole(herald.attempt, "attempt", "the number of an attempt")
    at_ns = whole(herald.at_ns, "attempt", "the time of a herald")
    if not least <= attempt < 2**63:
        raise DriverFault(
            f"attempt numbers do not rise: {attempt} came where at least {least} must"
        )
    if not last_ns <= at_ns < 2**63:
        raise DriverFault(f"times of heralds fall: {at_ns} came after {last_ns}")
    if whole(herald.announces, "attempt", "a Bell state") not in set(BellState):
        raise DriverFault(f"attempt announced {herald.announces}, which is no Bell state")


def outcome_of(answer: object, index: int) -> int | None:
    """Raises DriverFault, which does not repeat the answer: it may be an outcome after all."""
    if answer is None:
        return None
    # numpy's truth values are no integers.
    bit = int(answer) if isinstance(answer, np.bool_) else whole(answer, "measure", OUTCOME)
    if bit not in (0, 1):
        raise DriverFault(f"measure answered round {index} with a number that is not {OUTCOME}")
    return bit


def whole(value: Any, method: str, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        kind = type(value).__name__
        raise DriverFault(f"{method} answered {kind} where {what} is due") from None
