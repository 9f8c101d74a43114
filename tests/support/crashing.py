"""A node that ends by `kill -9` at one named point of its work, and a journal of what it did.

The node is the real one; nothing in it knows of this.  Its driver, its workers and its store are
replaced by ones that do the same and look, before and after whatever they do, at a file that may
name the point where somebody is to be killed.

    before|after Order Measure 7        and Attempt, Release; Tell Tagged syndrome, Tell Accept, ...
    before|after Persist drawn/7        any fact, without the session's id and the page of a slot:
                                        link/7, pages/0, said/syndrome
    before|after StoreKeys              and the other actions
    before|after Heard Decoded          a message of the peer
    before|after Reported Measured 7    a report of the memory
    before|after Take, Fetch            keys handed out by ETSI 014; after: committed, not answered
    inside decode                       a job, in its worker's hands
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bellhop.hal.operations import Attempt, Heralded, Measure, Measured, MemoryLost, Report
from bellhop.node import assembly, daemon
from bellhop.node.compute import Workers
from bellhop.node.driver import Driver, Ends
from bellhop.node.keystore import Fetched, KeyStore, Taken
from bellhop.node.keystore.delivery import FetchRequest, TakeRequest
from bellhop.node.keystore.records import DeliveredKey, FetchOutcome, TakeOutcome
from bellhop.node.loopback import EMULATOR, Processes
from bellhop.node.worker import Done, Failed
from bellhop.stack.codec import join
from bellhop.stack.core import (
    Action,
    Compute,
    ConfirmKeys,
    Event,
    Job,
    Order,
    PeerSaid,
    Persist,
    Reported,
    StoreKeys,
    Tell,
)
from bellhop.stack.messages import BlockHeralded, BlockStored, Message, SlotDone, Tagged, TestRounds

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-P", "-c", "from tests.support.crashing import main; main()")

_SESSION = re.compile("(?:session/|(link/|ended/|pool/[^/]+/batch/))[0-9a-f]{32}/?")
"""What names the session in a fact's name; what stays of it is the group."""

_PAGE = re.compile("^(link|drawn|outcomes)/[0-9]+/([0-9]+)$")
"""A fact of a slot names the page that it will be part of: of no interest here."""

WORKER = 0
"""In the place of a process id: the worker process that has the job."""


# --- what is done, in words -----------------------------------------------------------------------


def words_of_message(message: Message) -> str:
    match message:
        case Tagged(stage=stage):
            return f"Tagged {stage.value}"
        case TestRounds(slot=slot) | SlotDone(slot=slot):
            return f"{type(message).__name__} {slot}"
        case BlockHeralded(block=block):
            return f"BlockHeralded {block}"
        case _:
            return type(message).__name__


def words_of_action(action: Action) -> list[str]:
    match action:
        case Order(Attempt(block=block) | Measure(block=block)):
            return [f"Order {type(action.operation).__name__} {block}"]
        case Order():
            return ["Order Release"]
        case Tell(_, message):
            return [f"Tell {words_of_message(message)}"]
        case Persist():
            return _words_of_facts(action)
        case StoreKeys(persist=persist) | ConfirmKeys(persist=persist):
            return [type(action).__name__, *_words_of_facts(persist)]
        case Compute(work=work):
            return [f"Compute {work.name}"]
        case _:
            return [type(action).__name__]


def _words_of_facts(persist: Persist) -> list[str]:
    names = (_SESSION.sub(r"\1", fact.name) for fact in persist.put)
    return ["Persist " + _PAGE.sub(r"\1/\2", name) for name in names]


def words_of_event(event: Event) -> list[str]:
    match event:
        case PeerSaid(_, message):
            return [f"Heard {words_of_message(message)}"]
        case Reported(report):
            return [_words_of_report(report)]
        case _:
            return [type(event).__name__]


def _words_of_report(report: Report) -> str:
    match report:
        case Heralded(block=block) | Measured(block=block) | MemoryLost(block=block):
            return f"Reported {type(report).__name__} {block}"
        case _:
            return f"Reported {type(report).__name__}"


# --- the point and the journal --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fuse:
    """Where a node looks for the point at which somebody is to be killed."""

    file: Path

    def set(self, point: str, victims: Sequence[int]) -> None:
        """Kill the processes `victims`, or the node itself if there are none, at `point`, once."""
        draft = self.file.with_suffix(".draft")
        draft.write_text(json.dumps([point, list(victims)]), encoding="utf-8")
        draft.replace(self.file)

    @property
    def burnt(self) -> bool:
        return not self.file.exists()

    def victims(self, when: str, words: Sequence[str]) -> list[int] | None:
        """Whom to kill if this is the point; it is then the point no more."""
        try:
            point, victims = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if point not in {f"{when} {word}" for word in words}:
            return None
        self.file.unlink()
        return [int(pid) for pid in victims]

    def burn(self, when: str, words: Sequence[str]) -> None:
        """Kill if this is the point."""
        victims = self.victims(when, words)
        for pid in [] if victims is None else victims or [os.getpid()]:
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing done in one life of a node, when on this machine's clock."""

    kind: str
    what: str
    digest: str
    life: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Journal:
    """What a node did in all its lives; digests only."""

    file: Path

    def write(self, kind: str, what: str, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([kind, what, digest, os.getpid(), time.monotonic_ns()]) + "\n")

    def entries(self) -> list[Entry]:
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [Entry(*json.loads(line)) for line in lines]

    def act(self, action: Action) -> None:
        """An action is about to be performed."""
        match action:
            case Order(Measure(request=request, block=block, settings=settings)):
                self.write("measured", f"{request}/{block}", settings.tobytes())
            case Tell(_, Tagged(session, stage, body, batch, number, tag)):
                said = join(session.encode(), stage.value.encode(), body, tag)
                self.write("masked", f"{batch}/{number}", said)
                self.write("said", f"{session}/{stage.value}", said)
            case Tell(_, TestRounds(session, slot, tests)):
                self.write("announced", f"{session}/{slot}", tests.tobytes())
            case StoreKeys(block):
                slots = [join(s.key_id.encode(), s.issuer.encode(), s.key) for s in block.slots]
                self.write("stored", block.session, join(*slots))
            case Tell(_, BlockStored(session)):
                self.write("stored told", session, b"")
            case ConfirmKeys(session):
                self.write("confirmed", session, b"")
            case _:
                pass

    def acted(self, action: Action) -> None:
        """An action has been performed."""
        if isinstance(action, Persist):
            for fact in action.put:
                if fact.name.startswith("session/") and "/drawn/" in fact.name:
                    self.write("drawn", fact.name, fact.payload)

    def handed(self, keys: Sequence[DeliveredKey]) -> None:
        for key in keys:
            self.write("handed", key.key_id, key.key)


# --- the parts of a node that look ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Struck:
    """A job during which somebody is killed."""

    work: Job = field(repr=False)
    victims: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.work.name

    def run(self) -> object:
        for pid in self.victims or (os.getppid(),):
            os.kill(os.getpid() if pid == WORKER else pid, signal.SIGKILL)
        return self.work.run()


def replace_parts(fuse: Fuse, journal: Journal) -> None:
    """Let the daemon of this process be made of parts that look at `fuse` and keep `journal`."""

    class LookingDriver(Driver):
        async def _step(self, event: Event, ends: Ends) -> None:
            fuse.burn("before", words_of_event(event))
            await super()._step(event, ends)
            fuse.burn("after", words_of_event(event))

        async def _perform(self, action: Action, ends: Ends) -> None:
            words = words_of_action(action)
            fuse.burn("before", words)
            journal.act(action)
            await super()._perform(action, ends)
            journal.acted(action)
            fuse.burn("after", words)

    class LookingWorkers(Workers):
        async def _attempt(self, worker: Any, order: Compute) -> Done | Failed | None:
            victims = fuse.victims("inside", [order.work.name])
            if victims is not None:
                order = Compute(order.job, Struck(order.work, tuple(victims)))
            return await super()._attempt(worker, order)

    class LookingStore(KeyStore):
        async def take(self, request: TakeRequest) -> TakeOutcome:
            fuse.burn("before", ["Take"])
            outcome = await super().take(request)
            if isinstance(outcome, Taken):
                journal.handed(outcome.keys)
            fuse.burn("after", ["Take"])
            return outcome

        async def fetch(self, request: FetchRequest, wait_s: float = 0.0) -> FetchOutcome:
            fuse.burn("before", ["Fetch"])
            outcome = await super().fetch(request, wait_s)
            if isinstance(outcome, Fetched):
                journal.handed(outcome.keys)
            fuse.burn("after", ["Fetch"])
            return outcome

    setattr(daemon, "Driver", LookingDriver)  # noqa: B010 - a type checker would not have it
    setattr(daemon, "Workers", LookingWorkers)  # noqa: B010
    setattr(assembly, "KeyStore", LookingStore)  # noqa: B010


def main() -> None:
    """Arguments: a folder, the node's name, and then the command line of `bellhop`."""
    from bellhop.node.cli import main as bellhop

    folder, name, *arguments = sys.argv[1:]
    replace_parts(fuse_of(Path(folder), name), journal_of(Path(folder), name))
    bellhop(arguments)


def fuse_of(folder: Path, name: str) -> Fuse:
    return Fuse(folder / f"{name}.fuse")


def journal_of(folder: Path, name: str) -> Journal:
    return Journal(folder / f"{name}.journal")


class CrashableProcesses(Processes):
    """The processes of a network whose nodes look for the point where somebody is killed."""

    def fuse(self, name: str) -> Fuse:
        return fuse_of(self.layout.folder, name)

    def journal(self, name: str) -> Journal:
        return journal_of(self.layout.folder, name)

    def await_death(self, name: str, within_s: float) -> None:
        """Wait until a process that is to be killed is dead: it has no other reason to end."""
        code = self.running.pop(name).wait(within_s)
        assert code == -signal.SIGKILL, f"{name} ended with {code}: {self.layout.log(name)}"

    def _spawn(self, arguments: Sequence[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        if arguments[0] == EMULATOR:
            return super()._spawn(arguments, log)
        name = Path(arguments[1]).stem
        return subprocess.Popen(
            [*COMMAND, str(self.layout.folder), name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
