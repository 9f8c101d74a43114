"""The true state of every memory of the network; a core: operations and the time in, reports out.

Only nature knows what two distant outcomes have in common.  A node learns its heralds and its own
outcomes; its outcomes depend on the other end's settings through Born's rule and nothing else.
Attempts are not made one by one: the number of each successful one is drawn, and mapped to the time
at which it would have been made.

In the experiment every pair is measured at once: side A's half when its herald has come, side B's
when the announcement from side A has.  So halves age by what light and devices take (see `ages`),
and by nothing that the host or the nodes take, nor by whose order comes first: nature keeps a
block's halves as they are until they are asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from bellhop.hal.emulator.born import Answers, Rounds
from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.ledger import (
    ALREADY_MEASURED,
    CONNECTION_ENDED,
    ORDERS_PENDING_MAX,
    RELEASED,
    REQUESTS_OPEN_MAX,
    Begun,
    Block,
    End,
    LinkLedger,
    Request,
)
from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.errors import ConfigError
from bellhop.hal.experiment import LOST
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    Attempt,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    NodeName,
    Operation,
    Port,
    Ready,
    Release,
    Report,
    RequestId,
    Side,
    Source,
)
from bellhop.hal.preset import Preset
from bellhop.hal.runs import BLOCKS_PER_REQUEST_MAX, Runs

BLOCK_IDEALISATION = (
    "all pairs of a block are held at once; each half ages until its herald, side B's also until "
    "side A's announcement, could have come by light, not by what the nodes take"
)

DETECTOR_IDEALISATION = (
    "a photon's setting is asked for after the click that heralds it: without the assumption of "
    "fair sampling, outcomes of this link certify nothing"
)
"""Of links that end at a detector."""


@dataclass(frozen=True, slots=True)
class Link:
    """Two named nodes, and the experiment between them."""

    name: LinkName
    a: NodeName
    b: NodeName
    preset: Preset

    def node(self, side: Side) -> NodeName:
        return self.a if side is Side.A else self.b


@dataclass(frozen=True, slots=True)
class Delivery:
    """A report to hand to `node` at `due_ns` of the host's clock, if it is then still `current`."""

    due_ns: int
    node: NodeName
    report: Report
    attachment: int


class Nature:
    """See the module.  `generator` is seeded in simulations only."""

    def __init__(
        self, links: tuple[Link, ...], generator: np.random.Generator, clock: Clock | None = None
    ) -> None:
        assert len({link.name for link in links}) == len(links), "a link's name is its own"
        self._clock = clock or Clock()
        self._links = {link.name: link for link in links}
        self._physics = _physics_of(links)
        self._ledgers = {link.name: LinkLedger() for link in links}
        # One generator a link: what happens on one moves no draw on another.
        children = generator.spawn(len(links))
        self._generators = {link.name: c for link, c in zip(links, children, strict=True)}
        self._pasts = {name: Past(child) for name, child in self._generators.items()}
        self._attachments = dict.fromkeys((n for link in links for n in (link.a, link.b)), 0)

    @property
    def nodes(self) -> frozenset[NodeName]:
        return frozenset(self._attachments)

    def degree(self, node: NodeName) -> int:
        """How many links end at a node."""
        return sum(node in (link.a, link.b) for link in self._links.values())

    def attach(self, now_ns: int, node: NodeName) -> list[Delivery]:
        """A node connects, for the first time or anew: its ports, after it forgot all else."""
        deliveries = self.forget(now_ns, node)
        ports = tuple(
            self._port(link, side)
            for link in self._links.values()
            for side in Side
            if link.node(side) == node
        )
        return [*deliveries, self.deliver(now_ns, node, Ready(ports))]

    def forget(self, now_ns: int, node: NodeName) -> list[Delivery]:
        """A node is gone: its orders are void and its halves lost.

        The other ends keep what is heralded and may measure it; what was being attempted is lost.
        """
        self._attachments[node] += 1
        deliveries: list[Delivery] = []
        for link in self._links.values():
            for side in Side:
                if link.node(side) != node:
                    continue
                for request_id in list(self._ledgers[link.name].requests):
                    deliveries += self._give_up(now_ns, link, side, request_id, CONNECTION_ENDED)
        return deliveries

    def current(self, delivery: Delivery) -> bool:
        """Whether a report that was due later is still to be delivered."""
        if delivery.attachment != self._attachments[delivery.node]:
            return False
        report = delivery.report
        if not isinstance(report, Heralded):
            return True
        request = self._ledgers[report.link].requests.get(report.request)
        if request is None:
            return False
        link = self._links[report.link]
        side = self._side(link, delivery.node)
        return side is not None and request.heralds(side, report.block)

    def step(self, now_ns: int, node: NodeName, operation: Operation) -> list[Delivery]:
        """Carry out one order of `node`.  What cannot be is answered by MemoryLost."""
        link = self._links.get(operation.link)
        side = self._side(link, node)
        if link is None or side is None:
            return self._refuse(now_ns, node, operation, "no such link at this node")
        match operation:
            case Attempt():
                return self._attempt(now_ns, link, side, operation)
            case Measure():
                return self._measure(now_ns, link, side, operation)
            case Release():
                return self._give_up(now_ns, link, side, operation.request, RELEASED)

    def deliver(self, due_ns: int, node: NodeName, report: Report) -> Delivery:
        """Any report, as the node's connection of now gets it."""
        return Delivery(due_ns, node, report, self._attachments[node])

    # Attempts

    def _attempt(self, now_ns: int, link: Link, side: Side, order: Attempt) -> list[Delivery]:
        ledger = self._ledgers[link.name]
        node = link.node(side)
        request = ledger.requests.get(order.request)
        reason = self._attempt_refusal(ledger, side, request, order)
        if reason:
            return self._refuse(now_ns, node, order, reason)
        if request is None:
            request = ledger.requests.setdefault(order.request, Request())
        request.ends[side].open = True
        theirs = request.ends[side.other].ordered
        if order.block not in theirs:
            request.ends[side].ordered[order.block] = order.rounds
            return []
        peer = link.node(side.other)
        rounds = theirs.pop(order.block)
        if rounds != order.rounds:
            ordered = sorted((rounds, order.rounds))
            reason = f"the ends ordered {ordered[0]} and {ordered[1]} rounds"
        elif not ledger.has_room(rounds):
            reason = "no memory is free: measure or release what is held"
        try:
            if not reason:
                return self._herald(now_ns, link, request, order)
        except ConfigError as error:
            reason = error.message
        return [
            delivery
            for one in (node, peer)
            for delivery in self._refuse(now_ns, one, order, reason)
        ]

    @staticmethod
    def _attempt_refusal(
        ledger: LinkLedger, side: Side, request: Request | None, order: Attempt
    ) -> str:
        end = request.ends[side] if request else End()
        begun = request.begun if request else Runs()
        pending = ledger.orders_pending(side)
        may_open = end.open or ledger.requests_open(side) < REQUESTS_OPEN_MAX
        rules = (
            (1 <= order.rounds <= BLOCK_ROUNDS_MAX, f"a block has 1 to {BLOCK_ROUNDS_MAX} rounds"),
            (
                0 <= order.block < BLOCKS_PER_REQUEST_MAX,
                f"block numbers are below {BLOCKS_PER_REQUEST_MAX}",
            ),
            (may_open, "too many open requests on this link"),
            (order.block not in begun, "already heralded or being attempted"),
            (not begun.scattered(order.block), "too many gaps between block numbers"),
            (order.block not in end.ordered, "already ordered"),
            (pending < ORDERS_PENDING_MAX, "too many orders the other end has not given"),
        )
        return next((reason for holds, reason in rules if not holds), "")

    def _herald(self, now_ns: int, link: Link, request: Request, order: Attempt) -> list[Delivery]:
        """Raises ConfigError if the heralds would take centuries."""
        ledger = self._ledgers[link.name]
        physics = self._physics[link.name]
        past = self._pasts[link.name]
        moment = past.moment
        heralds = physics.herald(self._generators[link.name], order.rounds, past)
        begun_ns = ledger.free_ns + heralds.lead_ns
        if not self._clock.fast:
            begun_ns = max(begun_ns, self._clock.emulated_ns(now_ns))
        ended_ns = begun_ns + heralds.duration_ns
        attempts = heralds.attempts + request.attempts
        attempts.flags.writeable = False
        announced = physics.announced[heralds.patterns]
        announced.flags.writeable = False
        begun = Begun(begun_ns, moment, request.attempts, past.attempts - moment.attempts)
        request.attempts = int(attempts[-1]) + 1
        request.begun.add(order.block)
        request.blocks[order.block] = Block(heralds.patterns, begun, ended_ns, heralds.hidden)
        ledger.free_ns = ended_ns
        report = Heralded(
            link.name, order.request, order.block, attempts, announced, begun_ns, ended_ns
        )
        due_ns = self._clock.due_ns(now_ns, ended_ns)
        return [self.deliver(due_ns, link.node(side), report) for side in Side]

    # Measurements

    def _measure(self, now_ns: int, link: Link, side: Side, order: Measure) -> list[Delivery]:
        node = link.node(side)
        request = self._ledgers[link.name].requests.get(order.request)
        block = request.blocks.get(order.block) if request else None
        spent = request.ends[side].spent.get(order.block) if request else None
        reason = spent or self._measure_refusal(now_ns, link, side, block, order)
        if reason:
            return self._refuse(now_ns, node, order, reason)
        assert request is not None and block is not None, "else refused above"
        outcomes = self._answer(link.name, side, block, order.settings)
        if block.first is None:
            # Nature's own copy: the caller's array is the caller's.
            block.first = Answers(side, order.settings.copy(), outcomes)
        request.spend(side, order.block, ALREADY_MEASURED)
        return [self.deliver(now_ns, node, self._report(link, side, order, outcomes))]

    def _answer(self, name: LinkName, side: Side, block: Block, settings: Rounds) -> Rounds:
        """What the device of one end answers, whether or not that reaches the node."""
        physics = self._physics[name]
        uniforms = self._generators[name].random(len(settings))
        return physics.answer(
            side, block.patterns, settings, uniforms, block.hidden, first=block.first
        )

    def _report(self, link: Link, side: Side, order: Measure, outcomes: Rounds) -> Measured:
        """The outcomes as the node gets them: some may be missing, and then read as 0.

        A half that was lost and a readout that failed look the same.
        """
        missing = self._physics[link.name].no_answer_probability(side)
        answered = outcomes != LOST
        if missing > 0.0:
            answered &= self._generators[link.name].random(len(outcomes)) >= missing
        told = outcomes & answered
        told.flags.writeable = False
        answered.flags.writeable = False
        return Measured(link.name, order.request, order.block, told, answered)

    def _measure_refusal(
        self, now_ns: int, link: Link, side: Side, block: Block | None, order: Measure
    ) -> str:
        if block is None or self._under_way(now_ns, block):
            return "not heralded"
        if order.settings.shape != block.patterns.shape or order.settings.dtype != np.uint8:
            return f"the block has {len(block.patterns)} rounds, each with one setting"
        if int(order.settings.max()) >= self._physics[link.name].settings(side):
            return "no such setting at this end"
        return ""

    def _under_way(self, now_ns: int, block: Block) -> bool:
        return self._clock.due_ns(now_ns, block.ended_ns) > now_ns

    # The rest

    def _give_up(
        self, now_ns: int, link: Link, side: Side, request_id: RequestId, reason: str
    ) -> list[Delivery]:
        ledger = self._ledgers[link.name]
        request = ledger.requests.get(request_id)
        if request is None:
            return []
        at_ns = ledger.free_ns if self._clock.fast else self._clock.emulated_ns(now_ns)
        interrupted = ledger.give_up(request_id, side, at_ns, reason)
        if interrupted:
            self._go_back(link.name, request, list(interrupted.values()), at_ns)
        why = "the other end gave the request up"
        return [
            self.deliver(
                now_ns,
                link.node(side.other),
                MemoryLost(link.name, request_id, number, "attempt", why),
            )
            for number in interrupted
        ]

    def _go_back(
        self, name: LinkName, request: Request, interrupted: list[Block], at_ns: int
    ) -> None:
        """Count the attempts made until now, not those that were still to come: how many they would
        have been is nobody's to know."""
        begun = min((block.begun for block in interrupted), key=lambda one: one.link.attempts)
        schedule = self._physics[name].experiment.schedule
        made = schedule.begun_in(begun.link.attempts, at_ns - begun.at_ns, begun.attempts)
        request.attempts = begun.request_attempts + made
        if not self._ledgers[name].goes_on_after(begun.link):
            self._pasts[name].go_back(begun.link, made)

    @staticmethod
    def _side(link: Link | None, node: NodeName) -> Side | None:
        return next((side for side in Side if link and link.node(side) == node), None)

    def _port(self, link: Link, side: Side) -> Port:
        physics = self._physics[link.name]
        sampled = DETECTOR_IDEALISATION if physics.ends_at_a_detector else ""
        idealisations = (BLOCK_IDEALISATION, sampled, self._clock.idealisation)
        return Port(
            link=link.name,
            side=side,
            peer=link.node(side.other),
            settings=physics.settings(side),
            source=Source.EMULATED,
            description=link.preset.description,
            idealisations=tuple(text for text in idealisations if text),
            herald_is_measurement=physics.ends_at_a_detector,
        )

    def _refuse(
        self, now_ns: int, node: NodeName, operation: Operation, reason: str
    ) -> list[Delivery]:
        if isinstance(operation, Release):
            return []  # There is nothing to give up.
        name = "attempt" if isinstance(operation, Attempt) else "measure"
        lost = MemoryLost(operation.link, operation.request, operation.block, name, reason)
        return [self.deliver(now_ns, node, lost)]


def _physics_of(links: tuple[Link, ...]) -> dict[LinkName, LinkPhysics]:
    """Made ready once for all links whose presets are the same."""
    made: dict[bytes, LinkPhysics] = {}
    physics = {}
    for link in links:
        figures = msgspec.msgpack.encode(link.preset)
        if figures not in made:
            made[figures] = LinkPhysics(link.preset)
        physics[link.name] = made[figures]
    return physics


def links_of(nodes: Mapping[str, tuple[str, str]], preset: Preset) -> tuple[Link, ...]:
    """Links of one preset by name: {"fibre": ("alice", "bob")}."""
    return tuple(
        Link(LinkName(name), NodeName(a), NodeName(b), preset) for name, (a, b) in nodes.items()
    )
