"""What the emulated nature remembers of requests and blocks, per link.

Rules: a block is ordered by both ends, heralded once, and answered by each end at most once; what
an end gave up or answered is *spent* there and never answered again.
"""

from dataclasses import dataclass, field

from bellhop.hal.emulator.born import Answers, Hidden, Rounds
from bellhop.hal.emulator.link import Moment
from bellhop.hal.operations import RequestId, Side
from bellhop.hal.runs import Reasons, Runs

BLOCKS_HELD_MAX = 256
"""Blocks of one link that wait for an end's measurement, or are being attempted."""

ROUNDS_HELD_MAX = 4_194_304
"""Rounds of all those blocks together: at about 12 bytes each they bound an emulator's memory."""

ROUND_BYTES = 12
"""What a round takes in that count; one with hidden variables counts as so many more."""

REQUESTS_OPEN_MAX = 16
"""Requests one end of a link may have open at once."""

ORDERS_PENDING_MAX = 256
"""Attempts one end of a link may have ordered that the other has not."""

ALREADY_MEASURED = "already measured"
RELEASED = "released at this end"
CONNECTION_ENDED = "lost when this end's connection ended"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the link and the request stood when a block began, and how many attempts it takes."""

    at_ns: int
    link: Moment
    request_attempts: int
    attempts: int


@dataclass(slots=True)
class Block:
    """A heralded block, or one under way until `ended_ns`, while an end may still measure it."""

    patterns: Rounds
    begun: Begun
    ended_ns: int
    hidden: Hidden | None = None
    first: Answers | None = None
    spent: set[Side] = field(default_factory=set)

    @property
    def weight(self) -> int:
        """Its rounds, and as many more as its hidden variables take the place of."""
        hidden_bytes = self.hidden.bytes if self.hidden else 0
        return len(self.patterns) + hidden_bytes // ROUND_BYTES


@dataclass(slots=True)
class End:
    """One end's view of a request: orders the other end lacks, and why blocks are spent."""

    open: bool = False
    ordered: dict[int, int] = field(default_factory=dict)
    spent: Reasons = field(default_factory=Reasons)


@dataclass(slots=True)
class Request:
    """Attempts made so far, blocks ever begun, and those still held."""

    ends: dict[Side, End] = field(default_factory=lambda: {side: End() for side in Side})
    attempts: int = 0
    begun: Runs = field(default_factory=Runs)
    blocks: dict[int, Block] = field(default_factory=dict)

    def heralds(self, side: Side, number: int) -> bool:
        """Whether the block was not given up before its last herald, and this end still listens."""
        end = self.ends[side]
        return end.open and (number in self.blocks or number in end.spent)

    def spend(self, side: Side, number: int, reason: str) -> None:
        """This end has no half of the block any more; nobody needs it once both have none."""
        self.ends[side].spent[number] = reason
        block = self.blocks[number]
        block.spent.add(side)
        if len(block.spent) == len(Side):
            del self.blocks[number]


@dataclass(slots=True)
class LinkLedger:
    """All requests of one link; its memories are free for a further block from `free_ns` on."""

    requests: dict[RequestId, Request] = field(default_factory=dict)
    free_ns: int = 0

    def has_room(self, rounds: int) -> bool:
        """Whether another block of `rounds` can be held; its hidden variables count once it is."""
        held = [block.weight for r in self.requests.values() for block in r.blocks.values()]
        return len(held) < BLOCKS_HELD_MAX and sum(held) + rounds <= ROUNDS_HELD_MAX

    def goes_on_after(self, moment: Moment) -> bool:
        """Whether a block is held that began after this moment of the link."""
        held = (block for request in self.requests.values() for block in request.blocks.values())
        return any(block.begun.link.attempts > moment.attempts for block in held)

    def requests_open(self, side: Side) -> int:
        return sum(request.ends[side].open for request in self.requests.values())

    def orders_pending(self, side: Side) -> int:
        return sum(len(request.ends[side].ordered) for request in self.requests.values())

    def give_up(
        self, request_id: RequestId, side: Side, now_ns: int, reason: str
    ) -> dict[int, Block]:
        """End a request at one end.  Returns the blocks that were still being attempted.

        Those are lost to both ends, as an attempt needs both; heralded ones the other end keeps.
        """
        request = self.requests[request_id]
        end = request.ends[side]
        end.open = False
        end.ordered.clear()
        interrupted = {n: block for n, block in request.blocks.items() if block.ended_ns > now_ns}
        for number in interrupted:
            del request.blocks[number]
        for number in [n for n, block in request.blocks.items() if side not in block.spent]:
            request.spend(side, number, reason)
        if interrupted:
            self.free_ns = max(
                (b.ended_ns for r in self.requests.values() for b in r.blocks.values()),
                default=now_ns,
            )
        if not any(one.open for one in request.ends.values()):
            del self.requests[request_id]
        return interrupted
