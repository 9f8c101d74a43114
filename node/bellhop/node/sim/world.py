"""A world of nodes in virtual time: one heap of events, one Nature, seeded chance.

The nodes run the very cores a daemon runs.  Each action is performed here as a daemon performs it,
in order; a crash may come after any of them, and leaves what the store has.
"""

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import assert_never

import numpy as np

from bellhop.hal.emulator.nature import Delivery, Link, Nature
from bellhop.hal.operations import DeviceGone, Heralded, NodeName
from bellhop.node.chance import SeededRng
from bellhop.node.sim.adversary import AttackedNature, Devices, Tamper
from bellhop.node.sim.faults import NO_FAULTS, Faults
from bellhop.node.sim.identities import simulated_identity
from bellhop.node.sim.store import SimulatedStore
from bellhop.node.sim.trace import Trace
from bellhop.stack.core import (
    Action,
    Answer,
    Ask,
    Asked,
    Compute,
    Computed,
    ComputeFailed,
    ConfirmKeys,
    Event,
    ForgetAllocations,
    Note,
    Order,
    PeerJoined,
    PeerLost,
    PeerSaid,
    Persist,
    RecordAllocations,
    Refuse,
    Reported,
    StoreKeys,
    Tell,
    Tick,
    VoidKeys,
)
from bellhop.stack.diqkd.parameters import SessionPolicy
from bellhop.stack.diqkd.pool import Pool
from bellhop.stack.ids import AskNumber
from bellhop.stack.messages import Message
from bellhop.stack.node import NodeCore, NodeSettings

JOB_NS = 500_000_000
"""Every job takes this long in virtual time."""

MASKS = 256
"""One-time masks a direction that each pair of neighbours starts with."""

Watch = Callable[["World", NodeName, Action], None]


@dataclass(slots=True)
class SimulatedNode:
    """A node: its core while it runs, its store always."""

    settings: NodeSettings
    store: SimulatedStore
    core: NodeCore | None = None
    life: int = 0
    tick_ns: int | None = None


@dataclass(slots=True)
class Happenings:
    """What a run is reported by.  `pairs`: as seen at side A of their links."""

    answers: dict[AskNumber, Answer] = field(default_factory=dict)
    pairs: int = 0
    events: int = 0
    actions: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)


class World:
    """See the module.  `watch` sees every action before it is performed.

    An adversary may play the devices of the first link, and change what is told on the wires.
    """

    def __init__(
        self,
        links: tuple[Link, ...],
        policy: SessionPolicy,
        seed: int,
        faults: Faults = NO_FAULTS,
        watch: Watch | None = None,
        devices: Devices | None = None,
        tamper: Tamper | None = None,
    ) -> None:
        self.now_ns = 0
        self.trace = Trace()
        self.happened = Happenings()
        self.faults = faults
        self._watch = watch
        self._devices = devices
        self._tamper = tamper
        self._seed = seed
        self._links = links
        self._side_a = {link.name: link.a for link in links}
        self._chance = np.random.default_rng([seed, 1])
        self._nature_life = 0
        self._nature = self._new_nature()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._asks = 0
        self._asked: dict[AskNumber, tuple[NodeName, int]] = {}
        self._broken: set[frozenset[NodeName]] = set()
        self.nodes = {name: self._make(name, policy) for name in self._names()}
        self._provision()
        for name in self.nodes:
            self._start(name)

    # --- making ---------------------------------------------------------------------------------

    def _names(self) -> list[NodeName]:
        return sorted({name for link in self._links for name in (link.a, link.b)})

    def _neighbours(self, name: NodeName) -> tuple[NodeName, ...]:
        both = {(link.a, link.b) for link in self._links if name in (link.a, link.b)}
        return tuple(sorted({b if a == name else a for a, b in both}))

    def _make(self, name: NodeName, policy: SessionPolicy) -> SimulatedNode:
        settings = NodeSettings(name, self._neighbours(name), policy)
        return SimulatedNode(settings, SimulatedStore())

    def _provision(self) -> None:
        for a, b in combinations(self.nodes, 2):
            if b in self._neighbours(a):
                content = Pool.provision(SeededRng(self._seed, "pool", a, b), (a, b), MASKS)
                self.nodes[a].store.perform(Persist(Pool.facts(content, a, b)))
                self.nodes[b].store.perform(Persist(Pool.facts(content, b, a)))

    def _new_nature(self) -> Nature:
        self._nature_life += 1
        generator = np.random.default_rng([self._seed, 2, self._nature_life])
        if self._devices is None:
            return Nature(self._links, generator)
        return AttackedNature(self._links, generator, self._devices)

    # --- time -----------------------------------------------------------------------------------

    def ask(self, name: NodeName, ask: Ask) -> AskNumber:
        """An operator asks; the answer appears in `happened.answers`."""
        self._asks += 1
        number = AskNumber(self._asks)
        self._asked[number] = name, self.nodes[name].life
        self._later(self.now_ns, lambda: self._feed(name, Asked(number, ask)))
        return number

    def take(self, name: NodeName, count: int) -> None:
        """Applications take up to `count` keys at a node, if it is running."""
        if self.nodes[name].core is not None:
            for taken in self.nodes[name].store.take(name, count):
                self._feed(name, taken)

    @property
    def settled(self) -> bool:
        """Nothing is under way at any node, and all of them are up and connected."""
        cores = [node.core for node in self.nodes.values()]
        return not self._broken and all(core is not None and core.idle for core in cores)

    def answered(self, number: AskNumber) -> bool:
        """Whether an ask is answered, or never will be: the node it was put to has crashed."""
        name, life = self._asked[number]
        return number in self.happened.answers or self.nodes[name].life != life

    def run(self, until_ns: int, done: Callable[[], bool] = lambda: False) -> None:
        """Let things happen until `until_ns` or until `done`, looked at after each event."""
        while self._heap and self._heap[0][0] <= until_ns and not done():
            self.now_ns, _, action = heapq.heappop(self._heap)
            self.happened.events += 1
            action()
        if not done():
            self.now_ns = until_ns

    def _later(self, at_ns: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at_ns, self._order, action))

    def _strikes(self, probability: float) -> bool:
        if probability <= 0 or not self.faults.on_at(self.now_ns):
            return False
        return bool(self._chance.random() < probability)

    # --- nodes ----------------------------------------------------------------------------------

    def _start(self, name: NodeName) -> None:
        node = self.nodes[name]
        node.life += 1
        rng = SeededRng(self._seed, name, node.life)
        identity = simulated_identity(name)
        node.core = NodeCore(node.settings, rng, node.store.restored(), identity)
        self._feed(name, Tick())
        if node.core is None:
            return  # crashed again in its first step
        self._deliver(self._nature.attach(self.now_ns, name))
        for peer in self._neighbours(name):
            if frozenset((name, peer)) not in self._broken and self.nodes[peer].core is not None:
                self._feed(name, PeerJoined(peer))
                self._feed(peer, PeerJoined(name))

    def _crash(self, name: NodeName) -> None:
        self.happened.counts["crash"] += 1
        node = self.nodes[name]
        node.core, node.tick_ns = None, None
        self._deliver(self._nature.forget(self.now_ns, name))
        for peer in self._neighbours(name):
            self._feed_soon(peer, PeerLost(name))
        self._later(self.now_ns + self.faults.restart_ns, lambda: self._start(name))

    def _feed(self, name: NodeName, event: Event) -> None:
        node = self.nodes[name]
        if node.core is None:
            return
        self.trace.add(self.now_ns, name, event)
        life = node.life
        for action in node.core.step(self.now_ns, event):
            self._perform(name, action)
            if node.life != life or node.core is None:
                return
            if self._crashes():
                self._crash(name)
                return
        self._set_timer(name)

    def _crashes(self) -> bool:
        self.happened.actions += 1
        if self.happened.actions in self.faults.crash_at:
            return True
        may_crash = self.happened.counts["crash"] < self.faults.crashes_max
        return may_crash and self._strikes(self.faults.crash)

    def _set_timer(self, name: NodeName) -> None:
        node = self.nodes[name]
        due_ns = node.core.next_deadline() if node.core else None
        if due_ns is None or due_ns == node.tick_ns:
            return
        node.tick_ns, life = due_ns, node.life

        def tick() -> None:
            if node.life == life and node.tick_ns == due_ns:
                node.tick_ns = None
                self._feed(name, Tick())

        self._later(max(due_ns, self.now_ns + 1), tick)

    def _perform(self, name: NodeName, action: Action) -> None:
        node = self.nodes[name]
        if self._watch is not None:
            self._watch(self, name, action)
        match action:
            case Order(operation):
                self._deliver(self._nature.step(self.now_ns, name, operation))
            case Tell(peer, message):
                self._send(name, peer, message)
            case (
                Persist()
                | StoreKeys()
                | ConfirmKeys()
                | VoidKeys()
                | RecordAllocations()
                | ForgetAllocations()
            ):
                node.store.perform(action)
            case Compute():
                self._compute(name, action)
            case Answer(number):
                self.happened.answers[number] = action
            case Refuse(_, reason):
                self.happened.refusals[reason] += 1
            case Note(note):
                self.happened.counts[note] += 1
            case _:
                assert_never(action)

    def _compute(self, name: NodeName, order: Compute) -> None:
        life = self.nodes[name].life
        ended: Event
        if self._strikes(self.faults.job_failure):
            self.happened.counts["job_failed_by_fault"] += 1
            ended = ComputeFailed(order.job, "the worker stopped")
        else:
            ended = Computed(order.job, order.work.run())
        self._later(self.now_ns + JOB_NS, lambda: self._feed_life(name, life, ended))

    def _feed_soon(self, name: NodeName, event: Event) -> None:
        self._later(self.now_ns, lambda: self._feed(name, event))

    def _feed_life(self, name: NodeName, life: int, event: Event) -> None:
        """An event that a crash in between has made void."""
        if self.nodes[name].life == life:
            self._feed(name, event)

    # --- what connects them ---------------------------------------------------------------------

    def _send(self, source: NodeName, target: NodeName, message: Message) -> None:
        if frozenset((source, target)) in self._broken:
            return
        if self._tamper is not None:
            message = self._tamper(source, target, message)
        if self._strikes(self.faults.message_loss):
            self.happened.counts["message_lost"] += 1
            return
        if self._strikes(self.faults.stream_break):
            self._break(source, target)
            return
        self._carry(source, target, message)
        if self._strikes(self.faults.message_duplicate):
            self.happened.counts["message_duplicated"] += 1
            self._carry(source, target, message)

    def _carry(self, source: NodeName, target: NodeName, message: Message) -> None:
        jitter_ns = self.faults.message_jitter_ns if self.faults.on_at(self.now_ns) else 0
        delay_ns = self.faults.message_delay_ns
        delay_ns += int(self._chance.integers(jitter_ns + 1)) if jitter_ns else 0
        life = self.nodes[target].life
        event = PeerSaid(source, message)
        self._later(self.now_ns + delay_ns, lambda: self._feed_life(target, life, event))

    def _break(self, a: NodeName, b: NodeName) -> None:
        self.happened.counts["stream_broken"] += 1
        pair = frozenset((a, b))
        self._broken.add(pair)
        self._feed_soon(a, PeerLost(b))
        self._feed_soon(b, PeerLost(a))

        def mend() -> None:
            self._broken.discard(pair)
            if self.nodes[a].core is not None and self.nodes[b].core is not None:
                self._feed(a, PeerJoined(b))
                self._feed(b, PeerJoined(a))

        self._later(self.now_ns + self.faults.restart_ns, mend)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if self._strikes(self.faults.device_loss):
                self._lose_nature()
                return
            at_ns = max(delivery.due_ns, self.now_ns + 1)
            self._later(at_ns, partial(self._arrive, delivery))

    def _arrive(self, delivery: Delivery) -> None:
        if not self._nature.current(delivery):
            return
        report = delivery.report
        if isinstance(report, Heralded) and self._side_a[report.link] == delivery.node:
            self.happened.pairs += len(report.patterns)
        self._feed(delivery.node, Reported(report))

    def _lose_nature(self) -> None:
        """The emulator dies with all it held, and comes back empty."""
        self.happened.counts["device_lost"] += 1
        self._nature = self._new_nature()
        for name in self.nodes:
            self._feed_soon(name, Reported(DeviceGone("the emulator stopped")))
        self._later(self.now_ns + self.faults.device_restart_ns, self._attach_all)

    def _attach_all(self) -> None:
        for name, node in self.nodes.items():
            if node.core is not None:
                self._deliver(self._nature.attach(self.now_ns, name))
