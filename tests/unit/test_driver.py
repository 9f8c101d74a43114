"""The loop around a core: order, durability before words, timers, answers, and how it fails."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.jobs import Add, Devour, Die, Examine, Fail
from tests.support.waiting import until

from bellhop.hal.errors import KeyStoreError
from bellhop.hal.operations import (
    DeviceGone,
    LinkName,
    NodeName,
    Operation,
    Ready,
    Release,
    Report,
    RequestId,
)
from bellhop.node.clock import RealClock
from bellhop.node.compute import Workers
from bellhop.node.driver import CoreFailed, Driver, Ends
from bellhop.node.keystore import RefusedAllocation
from bellhop.node.metrics import Metrics
from bellhop.node.witness import Witness
from bellhop.stack.core import (
    AbortSession,
    Action,
    Answer,
    Asked,
    Compute,
    Computed,
    ComputeFailed,
    ConfirmKeys,
    DistilledBlock,
    Event,
    Fact,
    ForgetAllocations,
    Job,
    Order,
    PeerJoined,
    PeerSaid,
    Persist,
    RecordAllocations,
    Reported,
    StoreKeys,
    Tell,
    Tick,
    VoidKeys,
)
from bellhop.stack.ids import JobNumber, SessionId
from bellhop.stack.messages import Message, SlotDone

BOB = NodeName("bob")
SESSION = SessionId("ab" * 16)
RELEASE = Release(LinkName("link"), RequestId("cd" * 16))
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _workers_find_the_jobs_of_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


@dataclass
class EchoCore:
    """Persists, then says back, what a peer said; `rules` answer other events."""

    rules: Callable[[int, Event], list[Action]] = lambda _now, _event: []
    deadline: int | None = None
    seen: list[Event] = field(default_factory=list)

    def step(self, now_ns: int, event: Event) -> list[Action]:
        self.seen.append(event)
        if isinstance(event, PeerSaid):
            fact = Fact(f"echo/{len(self.seen)}", b"heard")
            return [Persist(put=(fact,)), Tell(event.peer, event.message)]
        return self.rules(now_ns, event)

    def next_deadline(self) -> int | None:
        return self.deadline

    def snapshot(self) -> dict[str, Any]:
        return {"seen": len(self.seen)}


@dataclass
class Record:
    """Real ends that write down what reached them, in order.  Each durable call takes a while."""

    log: list[object] = field(default_factory=list)
    broken: bool = False
    grew: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def _durable(self, action: object) -> None:
        if self.broken:
            raise KeyStoreError("the disk is full")
        await asyncio.to_thread(lambda: None)
        await self.add(("durable", action))

    async def add(self, entry: object) -> None:
        self.log.append(entry)
        async with self.grew:
            self.grew.notify_all()

    async def persist(self, facts: Persist) -> None:
        await self._durable(facts)

    async def store_keys(self, action: StoreKeys) -> None:
        await self._durable(action)

    async def confirm_keys(self, action: ConfirmKeys) -> None:
        await self._durable(action)

    async def void_keys(self, action: VoidKeys) -> None:
        await self._durable(action)

    async def record_allocations(self, action: RecordAllocations) -> list[RefusedAllocation]:
        await self._durable(action)
        return []

    async def forget_allocations(self, action: ForgetAllocations) -> None:
        await self._durable(action)

    def tell(self, peer: NodeName, message: Message) -> None:
        self.log.append(("told", peer, message))


class TwoEndedMemory:
    """A memory whose reports the test gives and whose orders it sees."""

    def __init__(self) -> None:
        self.orders: asyncio.Queue[Operation] = asyncio.Queue()
        self.to_report: asyncio.Queue[Report | None] = asyncio.Queue()

    async def submit(self, operation: Operation) -> None:
        await self.orders.put(operation)

    async def reports(self) -> AsyncIterator[Report]:
        while (report := await self.to_report.get()) is not None:
            yield report

    async def close(self) -> None:
        await self.to_report.put(None)


@dataclass
class Shell:
    driver: Driver
    record: Record
    memory: TwoEndedMemory
    workers: Workers
    running: "asyncio.Task[None]"

    async def until(self, count: int) -> None:
        """Wait until `count` entries are in the record."""
        async with asyncio.timeout(PATIENCE_S), self.record.grew:
            await self.record.grew.wait_for(lambda: len(self.record.log) >= count)


@contextlib.asynccontextmanager
async def shell(core: EchoCore, folder: Path, workers: int = 1) -> AsyncIterator[Shell]:
    witness = Witness(Metrics([BOB], [], [], []))
    driver = Driver(core, RealClock(), witness, folder)
    record, memory = Record(), TwoEndedMemory()
    crashes: list[BaseException] = []
    pool = Workers(workers, 2**30, witness, driver.deliver, crashes.append)
    tasks = [
        asyncio.ensure_future(work)
        for work in (
            driver.run(Ends(record, record, memory, pool)),
            driver.read_reports(memory),
            driver.give_orders(memory),
        )
    ]
    try:
        yield Shell(driver, record, memory, pool, tasks[0])
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pool.close()
        assert not crashes


async def test_durable_before_told_in_list_order(tmp_path: Path) -> None:
    block = DistilledBlock(SESSION, BOB, "emulated", "{}", ())
    store, told = StoreKeys(block, Persist()), Tell(BOB, SlotDone(SESSION, 1))
    void, confirm = VoidKeys(SESSION, "test"), ConfirmKeys(SESSION, Persist())
    core = EchoCore(lambda _now, _event: [told, store, told, confirm, void, told])
    async with shell(core, tmp_path) as node:
        await node.driver.deliver(PeerJoined(BOB))
        await node.until(5)
        entry = ("told", BOB, told.message)
        durable = [("durable", action) for action in (store, confirm, void)]
        assert node.record.log[:5] == [entry, durable[0], entry, durable[1], durable[2]]


async def test_one_event_at_a_time_while_the_disk_works(tmp_path: Path) -> None:
    messages = [SlotDone(SESSION, slot) for slot in range(50)]
    core = EchoCore()
    async with shell(core, tmp_path) as node:
        for message in messages:
            await node.driver.deliver(PeerSaid(BOB, message))
        await node.until(99)  # what is told wakes nobody: the last word follows the last record
    for k, message in enumerate(messages[:49]):
        durable, told = node.record.log[2 * k : 2 * k + 2]
        assert durable == ("durable", Persist(put=(Fact(f"echo/{k + 1}", b"heard"),)))
        assert told == ("told", BOB, message)


async def test_a_tick_comes_at_its_deadline_and_not_before(tmp_path: Path) -> None:
    core = EchoCore(deadline=RealClock().now_ns() + 50_000_000)
    ticked: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def tick(now_ns: int, event: Event) -> list[Action]:
        assert event == Tick() and core.deadline is not None and now_ns >= core.deadline
        core.deadline = None
        ticked.set_result(now_ns)
        return []

    core.rules = tick
    async with shell(core, tmp_path):
        await asyncio.wait_for(ticked, PATIENCE_S)


async def test_a_deadline_in_the_past_keeps_no_event_out(tmp_path: Path) -> None:
    core = EchoCore(deadline=1)
    async with shell(core, tmp_path) as node:
        await node.driver.deliver(PeerSaid(BOB, SlotDone(SESSION, 1)))
        await node.until(1)
        assert Tick() in core.seen


async def test_an_operator_is_answered(tmp_path: Path) -> None:
    def answer(_now: int, event: Event) -> list[Action]:
        assert isinstance(event, Asked)
        return [Answer(event.number, "aborted", {"peer": event.ask.peer})]

    async with shell(EchoCore(answer), tmp_path) as node:
        answers = await asyncio.gather(*[node.driver.ask(AbortSession(BOB)) for _ in range(9)])
        assert {(each.outcome, each.fields["peer"]) for each in answers} == {("aborted", BOB)}
        assert len({each.number for each in answers}) == 9


async def test_orders_reach_the_device_they_were_meant_for_alone(tmp_path: Path) -> None:
    """An order that is queued when the device goes is void, and not given to the next one."""

    def rules(_now: int, event: Event) -> list[Action]:
        gone = event == Reported(DeviceGone("cable"))
        return [] if gone else [Order(RELEASE), Order(RELEASE)]

    async with shell(EchoCore(rules), tmp_path) as node:
        node.memory.orders = asyncio.Queue(1)  # a device that takes one order and then waits
        await node.memory.to_report.put(Ready(()))
        await node.memory.to_report.put(DeviceGone("cable"))
        await node.memory.to_report.put(Ready(()))
        async with asyncio.timeout(PATIENCE_S):
            given = [await node.memory.orders.get() for _ in range(3)]
        assert given == [RELEASE] * 3


async def computed(job: Job, folder: Path) -> tuple[Event, Shell]:
    """What a core hears of `job`."""
    heard: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    def rules(_now: int, event: Event) -> list[Action]:
        if isinstance(event, Computed | ComputeFailed):
            heard.set_result(event)
            return []
        return [Compute(JobNumber(7), job)]

    async with shell(EchoCore(rules), folder) as node:
        await node.driver.deliver(PeerJoined(BOB))
        return await asyncio.wait_for(heard, PATIENCE_S), node


async def test_a_job_is_computed_in_another_process(tmp_path: Path) -> None:
    event, node = await computed(Add(2, 3), tmp_path)
    assert event == Computed(JobNumber(7), 5)
    assert node.workers.pids() == []


async def test_a_failed_job_says_what_and_where_and_no_value(tmp_path: Path) -> None:
    event, _ = await computed(Fail(), tmp_path)
    assert isinstance(event, ComputeFailed)
    assert re.fullmatch(r"ValueError in jobs\.py:\d+", event.why)


async def test_a_job_is_tried_again_when_its_worker_was_killed(tmp_path: Path) -> None:
    event, _ = await computed(Die(tmp_path / "marker"), tmp_path)
    assert event == Computed(JobNumber(7), "second")


async def test_a_job_that_kills_every_worker_fails(tmp_path: Path) -> None:
    event, _ = await computed(Die(None), tmp_path)
    assert event == ComputeFailed(JobNumber(7), "worker died")


async def test_a_worker_has_a_ceiling_of_memory(tmp_path: Path) -> None:
    event, _ = await computed(Devour(), tmp_path)
    assert isinstance(event, ComputeFailed) and event.why.startswith("MemoryError")


async def test_a_worker_cannot_be_dumped(tmp_path: Path) -> None:
    event, _ = await computed(Examine(), tmp_path)
    assert isinstance(event, Computed) and isinstance(event.result, tuple)
    core_limit, dumpable, parent, _arguments = event.result
    assert (core_limit, dumpable, parent) == ((0, 0), 0, os.getpid())


async def test_idle_workers_end(tmp_path: Path) -> None:
    heard: asyncio.Queue[Event] = asyncio.Queue()
    witness = Witness(Metrics([], [], [], []))
    crashes: list[BaseException] = []
    workers = Workers(2, 2**30, witness, heard.put, crashes.append, idle_s=0.0)
    try:
        for number in range(3):
            await workers.submit(Compute(JobNumber(number), Add(number, 1)))
        async with asyncio.timeout(PATIENCE_S):
            results = [await heard.get() for _ in range(3)]
        assert {event.result for event in results if isinstance(event, Computed)} == {1, 2, 3}
        await until(lambda: not workers.pids())
    finally:
        await workers.close()
    assert not crashes


async def test_a_bug_of_a_core_leaves_a_trace_without_contents(tmp_path: Path) -> None:
    def fail(_now: int, event: Event) -> list[Action]:
        raise RuntimeError("secret 0xdeadbeef")

    async with shell(EchoCore(fail), tmp_path) as node:
        await node.driver.deliver(PeerSaid(BOB, SlotDone(SESSION, 77)))
        await node.driver.deliver(PeerJoined(BOB))
        with pytest.raises(CoreFailed) as caught:
            await asyncio.wait_for(node.running, PATIENCE_S)
    path = caught.value.trace
    assert path.parent == tmp_path
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    assert "deadbeef" not in text
    document = json.loads(text)
    assert (document["error"], document["event"]) == ("RuntimeError", "PeerJoined")
    assert [step[1:] for step in document["steps"]] == [["PeerSaid(SlotDone)", ["Persist", "Tell"]]]


async def test_a_failing_disk_ends_the_loop_before_the_next_word(tmp_path: Path) -> None:
    async with shell(EchoCore(), tmp_path) as node:
        node.record.broken = True
        await node.driver.deliver(PeerSaid(BOB, SlotDone(SESSION, 1)))
        with pytest.raises(KeyStoreError):
            await asyncio.wait_for(node.running, PATIENCE_S)
        assert node.record.log == []
