"""Two node cores and one nature on a table: what passes between them is carried by hand.

Whatever happens is written down as text: an event a line, and under it the node's exact actions.
Secrets are seeded here; they stand in the text as sizes and the heads of their hashes.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Delivery, Link, Nature
from bellhop.hal.operations import LinkName, NodeName
from bellhop.hal.preset import read_preset
from bellhop.node.chance import SeededRng
from bellhop.node.sim.identities import simulated_identity
from bellhop.node.sim.store import SimulatedStore
from bellhop.stack.core import (
    Action,
    Asked,
    Compute,
    Computed,
    ConfirmKeys,
    Event,
    ForgetAllocations,
    Order,
    PauseSession,
    PeerJoined,
    PeerSaid,
    Persist,
    RecordAllocations,
    Reported,
    RunSession,
    StoreKeys,
    Tell,
    Tick,
    VoidKeys,
)
from bellhop.stack.diqkd.bounds.design import EAT
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.diqkd.parameters import Parameters, SessionPolicy
from bellhop.stack.diqkd.pool import PoolFile
from bellhop.stack.ids import AskNumber
from bellhop.stack.messages import Message
from bellhop.stack.node import NodeCore, NodeSettings

ALICE, BOB = NodeName("alice"), NodeName("bob")
OTHER = {ALICE: BOB, BOB: ALICE}
ROUNDS = 24_000
SECOND_NS = 1_000_000_000

POLICY = SessionPolicy(
    s_design=2.8284,
    qber_design=0.0005,
    epsilon=0.9,
    block_rounds=8_000,
    stall_ns=30_000_000_000,
    pair_ns=0,
)
"""The keys are worth nothing with this epsilon, but few rounds make them."""

EAT_POLICY = replace(POLICY, bound=EAT, test_probability=Fraction(3, 32), deviations=2.0)
"""By the theorem of fixed length and threshold."""

NOISY_POLICY = replace(POLICY, s_design=2.5, qber_design=0.08, accept_losing_sessions=True)
"""For a link so bad that Alice flips key bits (noisy preprocessing); no key is expected of it."""

IDEAL = Path(__file__).parents[1] / "scenarios" / "ideal.toml"
LINK = Link(LinkName("fibre"), ALICE, BOB, read_preset(IDEAL))

DURABLE = (Persist, StoreKeys, ConfirmKeys, VoidKeys, RecordAllocations, ForgetAllocations)


def pool_file(seed: int = 1, masks: int = 64) -> PoolFile:
    """What two cores of this seed share."""
    return PoolFile.draw(SeededRng(seed, "pool"), (ALICE, BOB), masks)


class TwoCores:
    """`mail` what a node was told and has not heard, `reports` what its device has said."""

    def __init__(
        self, seed: int = 1, masks: int = 64, policy: SessionPolicy = POLICY, link: Link = LINK
    ) -> None:
        self.now_ns = 0
        self.lines: list[str] = []
        self.actions: list[Action] = []
        self.mail: dict[NodeName, deque[Message]] = {ALICE: deque(), BOB: deque()}
        self.reports: dict[NodeName, deque[Delivery]] = {ALICE: deque(), BOB: deque()}
        self.jobs: dict[NodeName, deque[Compute]] = {ALICE: deque(), BOB: deque()}
        self.store = {ALICE: SimulatedStore(), BOB: SimulatedStore()}
        self._seed = seed
        self._policy = policy
        self._lives = {ALICE: 0, BOB: 0}
        self._names: dict[str, str] = {}
        self._asks = 0
        self.nature = Nature((link,), np.random.default_rng(seed), Clock(fast=True))
        shared = pool_file(seed, masks)
        for name in (ALICE, BOB):
            self.store[name].perform(Persist(shared.facts(name, OTHER[name])))
        self.core = {name: self._new_core(name) for name in (ALICE, BOB)}

    def _new_core(self, name: NodeName) -> NodeCore:
        self._lives[name] += 1
        rng = SeededRng(self._seed, name, self._lives[name])
        settings = NodeSettings(name, (OTHER[name],), self._policy)
        return NodeCore(settings, rng, self.store[name].restored(), simulated_identity(name))

    # --- by hand ----------------------------------------------------------------------------------

    def say(self, title: str) -> None:
        self.lines += ["", f"# {title}"]

    def feed(self, name: NodeName, event: Event) -> list[Action]:
        """An event to a node; its actions are performed as far as they concern nobody else."""
        self.lines.append(f"{name} < {self.text(event)}")
        actions = self.core[name].step(self.now_ns, event)
        for action in actions:
            self.lines.append(f"    {self.text(action)}")
            self._perform(name, action)
        self.actions += actions
        return actions

    def _perform(self, name: NodeName, action: Action) -> None:
        if isinstance(action, DURABLE):
            self.store[name].perform(action)
        elif isinstance(action, Tell):
            self.mail[action.peer].append(action.message)
        elif isinstance(action, Order):
            self._deliver(self.nature.step(self.now_ns, name, action.operation))
        elif isinstance(action, Compute):
            self.jobs[name].append(action)

    def _deliver(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.reports[delivery.node].append(delivery)

    def meet(self) -> None:
        """Both nodes start, find their devices and each other."""
        for name in (ALICE, BOB):
            self.feed(name, Tick())
            self.attach(name)
        for name in (ALICE, BOB):
            self.feed(name, PeerJoined(OTHER[name]))

    def attach(self, name: NodeName) -> None:
        self._deliver(self.nature.attach(self.now_ns, name))
        self.report(name)

    def ask(
        self, name: NodeName, rounds: int = ROUNDS, *, even_at_a_loss: bool = False
    ) -> list[Action]:
        self._asks += 1
        ask = RunSession(OTHER[name], rounds, even_at_a_loss)
        return self.feed(name, Asked(AskNumber(self._asks), ask))

    def pause(self, name: NodeName, paused: bool = True) -> list[Action]:
        self._asks += 1
        return self.feed(name, Asked(AskNumber(self._asks), PauseSession(OTHER[name], paused)))

    def hear(self, name: NodeName, count: int | None = None) -> None:
        """A node hears the next messages, or those that wait now."""
        for _ in range(len(self.mail[name]) if count is None else count):
            self.feed(name, PeerSaid(OTHER[name], self.mail[name].popleft()))

    def report(self, name: NodeName, count: int | None = None) -> None:
        """A node's device says what it has to say."""
        for _ in range(len(self.reports[name]) if count is None else count):
            delivery = self.reports[name].popleft()
            if self.nature.current(delivery):
                self.feed(name, Reported(delivery.report))

    def work(self, name: NodeName, count: int | None = None) -> None:
        """A node's jobs are done."""
        for _ in range(len(self.jobs[name]) if count is None else count):
            job = self.jobs[name].popleft()
            self.feed(name, Computed(job.job, job.work.run()))

    def pass_time(self, seconds: float) -> None:
        """Time passes, and every node looks whether something is due."""
        self.now_ns += round(seconds * SECOND_NS)
        for name in (ALICE, BOB):
            self.feed(name, Tick())

    def restart(self, name: NodeName) -> None:
        """A node stops and starts again: what was on its way to it, and in its hands, is lost."""
        self._deliver(self.nature.forget(self.now_ns, name))
        for waiting in (self.mail, self.reports, self.jobs):
            waiting[name].clear()
        self.core[name] = self._new_core(name)
        self.lines.append(f"{name} restarts")
        self.feed(name, Tick())
        self.attach(name)
        self.feed(name, PeerJoined(OTHER[name]))
        self.feed(OTHER[name], PeerJoined(name))

    def go_on(self, until: Callable[[], bool] = lambda: False, steps: int = 200) -> None:
        """Carry whatever there is, until there is nothing or `until` holds."""
        for _ in range(steps):
            moved = False
            for name in (ALICE, BOB):
                for queue, carry in (
                    (self.reports, self.report), (self.mail, self.hear), (self.jobs, self.work)
                ):  # fmt: skip
                    if until():
                        return
                    if queue[name]:
                        carry(name, 1)
                        moved = True
            if not moved:
                return
        raise AssertionError("the two talk without end")

    def settle(self, patience_s: int = 120) -> None:
        """Time passes until nothing is under way at either end."""
        for _ in range(patience_s // 3):
            self.go_on()
            if all(self.core[name].idle for name in (ALICE, BOB)):
                return
            self.pass_time(3)
        raise AssertionError("something is under way without end")

    def keys(self, name: NodeName) -> dict[str, bytes]:
        blocks = self.store[name].deliverable.values()
        return {slot.key_id: slot.key for block in blocks for slot in block.slots}

    # --- as text ----------------------------------------------------------------------------------

    def text(self, value: Any) -> str:
        """One line: types and fields, what is long or secret as its size and its hash's head."""
        match value:
            case Enum():
                return str(value.value)
            case Parameters() | Plan():
                return f"{type(value).__name__} of {value.rounds} rounds"
            case bytes():
                head = hashlib.sha256(value).hexdigest()[:8]
                return f"{len(value)} B #{head}" if value else "0 B"
            case np.ndarray():
                head = hashlib.sha256(value.tobytes()).hexdigest()[:8]
                return f"{value.dtype}[{len(value)}] #{head}"
            case tuple() | list():
                if len(value) > 6:
                    return f"{len(value)} of {self.text(value[0])} ..."
                return "(" + ", ".join(self.text(item) for item in value) + ")"
            case dict():
                return "{" + ", ".join(f"{k}: {self.text(value[k])}" for k in value) + "}"
            case float():
                return f"{value:.6g}"
            case str():
                return self._short(value)
            case _ if is_dataclass(value):
                inner = ", ".join(self.text(getattr(value, f.name)) for f in fields(value))
                return f"{type(value).__name__}({inner})"
            case _:
                return str(value)

    def _short(self, text: str) -> str:
        """Session ids by their order of appearance; long texts by their hash."""
        for word in _hex_ids(text):
            self._names.setdefault(word, f"<session {len(self._names) + 1}>")
            text = text.replace(word, self._names[word])
        if len(text) > 120:
            return f"text[{len(text)}] #{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        return text


def _hex_ids(text: str) -> list[str]:
    words = text.replace("/", " ").split()
    return [w for w in words if len(w) == 32 and all(c in "0123456789abcdef" for c in w)]
