"""Running a scenario under one seed: a safety phase with faults, then a liveness phase without.

Invariants are watched in both.  After the faults have stopped everything under way must come to an
end within bounded time, and one session more must do so without a fault to blame.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bellhop.hal.emulator.nature import Link
from bellhop.hal.errors import ConfigError
from bellhop.node.sim.checkers import Invariants, Violation
from bellhop.node.sim.faults import NO_FAULTS, Faults, kinds, swarm_faults
from bellhop.node.sim.scenario import Scenario
from bellhop.node.sim.world import World
from bellhop.stack.core import AbortSession, PauseSession, RunSession
from bellhop.stack.diqkd.agreement import objections
from bellhop.stack.diqkd.endings import read_past
from bellhop.stack.diqkd.jobs import Plan
from bellhop.stack.ids import AskNumber, SessionId

SECOND_NS = 1_000_000_000
RESUMED_MAX = 100
"""So often does an operator ask a node that may be down to go on with a session."""

ASKED_MAX = 4
"""Times an operator asks again for a session that was refused."""

KEYS_TAKEN = 3
"""Keys that applications take at each end between sessions."""

Fields = dict[str, str | int | float]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did.  `sessions` in the order they were proposed; `simulated_ns` their time."""

    seed: int
    pairs: int
    simulated_ns: int
    events: int
    trace_sha256: str
    sessions: tuple[Fields, ...]
    counts: dict[str, int]
    refusals: dict[str, int]
    checked: int
    faults: dict[str, float | int] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        seconds = self.simulated_ns / SECOND_NS
        return {
            "seed": self.seed,
            "pairs": self.pairs,
            "pairs_per_s": round(self.pairs / seconds, 3) if seconds else 0.0,
            "simulated_s": seconds,
            "events": self.events,
            "trace_sha256": self.trace_sha256,
            "sessions": list(self.sessions),
            "faults": self.faults,
            "counts": self.counts,
            "refusals": self.refusals,
            "invariants_checked": self.checked,
        }


def command(scenario: Scenario, seed: int) -> str:
    """The command that repeats a run."""
    words = ["bellhop sim", scenario.name, f"--seed {seed}", f"--rounds {scenario.rounds}"]
    words += [f"--sessions {scenario.sessions}", f"--faults {scenario.faults}"]
    return " ".join(word for word in words if word)


def run_scenario(scenario: Scenario, seed: int, progress: Progress = lambda _pairs: None) -> Report:
    """Raises Violation if an invariant does not hold; a note on any error says what repeats it.

    ConfigError if no session of the scenario could make a key.
    """
    require_key(scenario)
    swarm = scenario.faults == "swarm"
    faults = swarm_faults(seed, _session_ns(scenario), scenario.sessions) if swarm else NO_FAULTS
    try:
        return Run(scenario, seed, faults, progress).report()
    except Exception as error:
        error.add_note(f"repeat it with: {command(scenario, seed)}")
        raise


def require_key(scenario: Scenario) -> None:
    """What two nodes would answer each operator, said before anything is run."""
    link = scenario.links[0]
    nobody = SessionId("0" * 32)
    plan = Plan(nobody, link.name, link.a, link.b, "", scenario.rounds, 0, scenario.policy)
    planned = plan.run()
    why = planned if isinstance(planned, str) else objections(planned, scenario.policy)
    if why:
        raise ConfigError(f"rounds: {why}", "rounds")


def _session_ns(scenario: Scenario) -> int:
    """What a session without faults is over in: pairs, a margin for their chance, then jobs."""
    return round((1.7 * scenario.rounds / scenario.rate_hz + 5) * SECOND_NS)


class Run:
    """One world and the people around it: operators who ask, applications that take keys."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        faults: Faults,
        progress: Progress = lambda _pairs: None,
    ) -> None:
        self.scenario = scenario
        self.seed = seed
        self.invariants = Invariants()
        self.world = World(
            scenario.links, scenario.policy, seed, faults, watch=self.invariants.watch
        )
        self._people = np.random.default_rng([seed, 3])
        self._progress = progress
        self._settled_ns = 0
        self._faulty = scenario.faults == "swarm"

    def report(self) -> Report:
        """Run everything, then say what happened."""
        self.world.run(SECOND_NS)  # nodes find each other and their devices
        for _ in range(self.scenario.sessions):
            self.sessions()
        if self._faulty:
            self._liveness()
        self.settle()
        self.invariants.check_settled(self.world)
        return self._report()

    # --- phases -----------------------------------------------------------------------------------

    def sessions(self) -> None:
        """A session on each link at a time, asked for at either end, sometimes at both."""
        world = self.world
        for _ in range(ASKED_MAX):
            self._let(lambda: world.settled, _session_ns(self.scenario))
            asked = [number for link in self.scenario.links for number in self._ask(link)]
            self._wait(asked)
            answers = [world.happened.answers.get(number) for number in asked]
            if not all(answer and answer.outcome == "refused" for answer in answers):
                break
            world.run(world.now_ns + 2 * SECOND_NS)  # a peer or a device was away
        for name in world.nodes:
            world.take(name, KEYS_TAKEN)

    def _wait(self, asked: list[AskNumber]) -> None:
        """Until the sessions have ended; now and then an operator gives them up before."""
        world, link = self.world, self.scenario.links[0]
        ended = lambda: all(world.answered(number) for number in asked)  # noqa: E731 - used twice
        if self._faulty and self._people.random() < 0.2:
            self._pause(ended)
        if self._faulty and self._people.random() < 0.1:
            self._let(ended, int(self._people.integers(_session_ns(self.scenario))))
            world.ask(link.a, AbortSession(link.b))
        self._let(ended, self._bound_ns())

    def _pause(self, ended: Callable[[], bool]) -> None:
        """An operator pauses a session somewhere in it, and resumes it after longer than a stall.

        An ask is lost with the node it was put to, so it is put again.
        """
        world, link = self.world, self.scenario.links[0]
        own, peer = (link.a, link.b) if self._people.random() < 0.5 else (link.b, link.a)
        self._let(ended, int(self._people.integers(_session_ns(self.scenario))))
        world.ask(own, PauseSession(peer, True))
        self._let(ended, 2 * self.scenario.policy.stall_ns)
        for _ in range(RESUMED_MAX):
            number = world.ask(own, PauseSession(peer, False))
            self._let(lambda asked=number: world.answered(asked), 5 * SECOND_NS)  # type: ignore[misc] # a lambda
            if number in world.happened.answers:
                return

    def _ask(self, link: Link) -> list[AskNumber]:
        ends = [(link.a, link.b), (link.b, link.a)]
        if self._faulty and self._people.random() < 0.2:
            chosen = ends  # proposals that cross
        else:
            chosen = [ends[int(self._people.integers(2))] if self._faulty else ends[0]]
        rounds = self.scenario.rounds
        return [self.world.ask(own, RunSession(peer, rounds)) for own, peer in chosen]

    def _liveness(self) -> None:
        """No faults any more: what is under way ends, and a new session is decided by physics."""
        world = self.world
        world.run(max(world.faults.until_ns, world.now_ns) + 1)
        self.settle()
        self.invariants.check_settled(world)
        known = len(self.invariants.sessions)
        link = self.scenario.links[0]
        number = world.ask(link.a, RunSession(link.b, self.scenario.rounds))
        self._let(lambda: number in world.happened.answers, self._bound_ns())
        answer = world.happened.answers.get(number)
        if answer is None or len(self.invariants.sessions) != known + 1:
            raise Violation(f"liveness: without faults a session runs and ends: {answer}")
        reason = str(answer.fields.get("reason", ""))
        if answer.outcome != "stored" and not decided_by_physics(reason):
            raise Violation(f"liveness: without faults only physics ends a session: {answer}")
        for name in world.nodes:
            world.take(name, KEYS_TAKEN)

    def settle(self) -> None:
        """Until nothing is under way, and nothing comes of what is still on its way."""
        world = self.world
        until_ns = world.now_ns + self._bound_ns()
        while world.now_ns < until_ns:
            self._let(lambda: world.settled, until_ns - world.now_ns)
            self._settled_ns = world.now_ns
            world.run(world.now_ns + 10 * SECOND_NS)  # what is on its way arrives
            if world.settled:
                return

    def _bound_ns(self) -> int:
        """Whatever is under way has ended by then, once faults have stopped."""
        return 4 * (_session_ns(self.scenario) + self.scenario.policy.stall_ns)

    def _let(self, done: Callable[[], bool], at_most_ns: int) -> None:
        world = self.world

        def watched() -> bool:
            if world.happened.events % 64 == 0:
                self._progress(world.happened.pairs)
            return done()

        world.run(world.now_ns + at_most_ns, watched)

    # --- what happened ----------------------------------------------------------------------------

    def _report(self) -> Report:
        world, happened = self.world, self.world.happened
        return Report(
            seed=self.seed,
            pairs=happened.pairs,
            simulated_ns=self._settled_ns,
            events=happened.events,
            trace_sha256=world.trace.sha256,
            sessions=tuple(self._session(session) for session in self.invariants.sessions),
            counts=dict(sorted(happened.counts.items())),
            refusals=dict(sorted(happened.refusals.items())),
            checked=self.invariants.checked,
            faults=kinds(world.faults),
        )

    def _session(self, session: SessionId) -> Fields:
        """How a session ended, of its receipts or of the answer to its operator."""
        for node in self.world.nodes.values():
            block = node.store.deliverable.get(session)
            if block is not None:
                said = json.loads(block.receipt)["session"]
                return {
                    "session": session,
                    "outcome": "stored",
                    "reason": "",
                    "link": said["parameters"]["link"],
                    **{name: said["run"][name] for name in ("s", "qber", "rounds")},
                    **{name: said["key"][name] for name in ("gross_bits", "net_bits")},
                }
        for answer in self.world.happened.answers.values():
            paused = answer.outcome in ("paused", "resumed")  # no word on how it ended
            if answer.fields.get("session") == session and not paused:
                return {"session": session} | answer.fields
        for node in self.world.nodes.values():
            ended = node.store.facts.get(f"ended/{session}")
            if ended is not None:
                return {"session": session, "outcome": "aborted", "reason": read_past(ended).how}
        return {"session": session, "outcome": "refused", "reason": "declined or withdrawn"}


def decided_by_physics(reason: str) -> bool:
    """Whether an abort is one that honest nodes without faults come to now and then."""
    physics = ("Bell test too weak", "reconciliation failed", "verification failed")
    return any(text in reason for text in physics)
