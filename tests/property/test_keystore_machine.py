"""The key store beside plain dictionaries, closed and opened again after every step."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.distilled import ALICE, BOB, block_of, open_store, slot_id
from tests.support.keystore_model import Model, ModelBlock

from bellhop.hal.operations import NodeName
from bellhop.node.keystore import (
    BlockState,
    Fetched,
    FetchRequest,
    KeyState,
    KeyStore,
    Taken,
    TakeRequest,
)
from bellhop.stack.core import (
    ConfirmKeys,
    Fact,
    ForgetAllocations,
    Persist,
    RecordAllocations,
    StoreKeys,
    VoidKeys,
)
from bellhop.stack.ids import KeyId, SaeId, SessionId
from bellhop.stack.messages import Allocation

CAROL = NodeName("carol")
PEERS = st.sampled_from([BOB, CAROL])
SAES = st.sampled_from([SaeId("sae-1")] * 3 + [SaeId("sae-2")])
SIZES = st.sampled_from([8, 256, 264, 520])
SOURCES = st.sampled_from(["emulated", "hardware"])
PERSISTS = st.builds(
    Persist,
    put=st.lists(
        st.builds(Fact, st.text("ab/", max_size=3), st.binary(max_size=4)), max_size=2
    ).map(tuple),
    forget=st.lists(st.text("ab/", max_size=2), max_size=1).map(tuple),
)


class KeyStoreBesideModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bellhop-")
        self.runner = asyncio.Runner()
        self.store = self.open()
        self.model = Model(ALICE)
        for peer, source in ((BOB, "emulated"), (BOB, "hardware"), (CAROL, "emulated")):
            self.keys_are_stored(8, peer, source, Persist())
            session = list(self.model.blocks)[-1]
            self.runner.run(self.store.confirm_keys(ConfirmKeys(session, Persist())))
            self.model.confirm(session)
            self.peer_tells(peer, session, (1,), 8)
            self.peer_tells(peer, session, (3, 5), 504)

    def peer_tells(
        self, peer: NodeName, session: SessionId, slots: tuple[int, ...], size_bits: int
    ) -> None:
        """Something to fetch in every run: rules are left out of a run at random."""
        key_id = slot_id(session, slots[0])
        allocation = Allocation(session, key_id, slots, size_bits, SaeId("sae-1"), SaeId("sae-2"))
        action = RecordAllocations(peer, (allocation,))
        assert self.runner.run(self.store.record_allocations(action)) == []
        assert self.model.record(peer, allocation)

    def open(self) -> KeyStore:
        return self.runner.run(open_store(Path(self.folder.name)))

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.close())
            self.runner.close()
            self.folder.cleanup()

    def drawn_block(self, data: st.DataObject, *states: BlockState) -> ModelBlock | None:
        fitting = [block for block in self.model.blocks.values() if block.state in states]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    @rule(slots=st.integers(0, 6), peer=PEERS, source=SOURCES, facts=PERSISTS)
    def keys_are_stored(self, slots: int, peer: NodeName, source: str, facts: Persist) -> None:
        block = block_of(len(self.model.blocks), slots, peer=peer, source=source)
        self.runner.run(self.store.store_keys(StoreKeys(block, facts)))
        self.model.store(block)
        self.model.persist(facts)

    @rule(data=st.data(), facts=PERSISTS)
    def keys_are_stored_again(self, data: st.DataObject, facts: Persist) -> None:
        if (block := self.drawn_block(data, *BlockState)) is not None:
            self.runner.run(self.store.store_keys(StoreKeys(block.block, facts)))
            self.model.persist(facts)

    @rule(data=st.data(), facts=PERSISTS)
    def keys_are_confirmed(self, data: st.DataObject, facts: Persist) -> None:
        states = (BlockState.HELD, BlockState.HELD, BlockState.DELIVERABLE, BlockState.SPENT)
        if (block := self.drawn_block(data, *states)) is not None:
            session = block.block.session
            self.runner.run(self.store.confirm_keys(ConfirmKeys(session, facts)))
            self.model.confirm(session)
            self.model.persist(facts)

    @rule(data=st.data())
    def keys_are_voided(self, data: st.DataObject) -> None:
        if (block := self.drawn_block(data, BlockState.HELD, BlockState.VOID)) is not None:
            self.runner.run(self.store.void_keys(VoidKeys(block.block.session, "why")))
            self.model.void(block.block.session)

    @rule(facts=PERSISTS)
    def facts_are_kept(self, facts: Persist) -> None:
        self.runner.run(self.store.persist(facts))
        self.model.persist(facts)

    @rule(
        request=st.builds(
            TakeRequest,
            peer=PEERS,
            master=SAES,
            slave=SAES,
            number=st.integers(1, 3),
            size_bits=SIZES,
            production=st.booleans(),
            source=st.none() | SOURCES,
        )
    )
    def a_master_asks(self, request: TakeRequest) -> None:
        outcome = self.runner.run(self.store.take(request))
        wanted = self.model.take(request)
        if isinstance(wanted, list):
            assert isinstance(outcome, Taken) and outcome.told.peer == request.peer
            assert list(outcome.told.allocations) == [allocation for allocation, _ in wanted]
            assert [key.key for key in outcome.keys] == [key for _, key in wanted]
        else:
            assert outcome == wanted

    @rule(data=st.data(), master=SAES, slave=SAES)
    def a_peer_tells(self, data: st.DataObject, master: SaeId, slave: SaeId) -> None:
        allocation = self.drawn_allocation(data, master, slave)
        block = self.model.blocks.get(allocation.session)
        peers = [BOB, CAROL] if block is None else [block.block.peer] * 4 + [BOB, CAROL]
        peer = data.draw(st.sampled_from(peers))
        refused = self.runner.run(
            self.store.record_allocations(RecordAllocations(peer, (allocation,)))
        )
        assert (refused == []) is self.model.record(peer, allocation)

    def drawn_allocation(self, data: st.DataObject, master: SaeId, slave: SaeId) -> Allocation:
        """Most often one that could be, or has been; sometimes anything."""
        told = [
            slot.allocation
            for block in self.model.blocks.values()
            for slot in block.slots.values()
            if slot.allocation is not None
        ]
        if told and data.draw(st.integers(0, 3)) == 0:
            return replace(data.draw(st.sampled_from(told)), slave=slave)
        sessions = list(self.model.blocks)
        session = data.draw(st.sampled_from([*sessions[:3] * 3, *sessions, SessionId("unknown")]))
        slots = data.draw(
            st.sampled_from([(1,), (3,), (5,), (1, 3), (3, 5), (1, 3, 5)])
            | st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple)
        )
        fitting = [256 * len(slots), 256 * len(slots) - 8]
        size_bits = data.draw(st.sampled_from([*fitting, *fitting, 256, 13]))
        named = slots[0] if data.draw(st.integers(0, 9)) else 2
        key_id = KeyId("none") if session == "unknown" else slot_id(session, named)
        return Allocation(session, key_id, slots, size_bits, master, slave)

    @rule(data=st.data(), master=SAES, slave=SAES, production=st.booleans())
    def any_slave_asks(
        self, data: st.DataObject, master: SaeId, slave: SaeId, production: bool
    ) -> None:
        every = [s.key_id for b in self.model.blocks.values() for s in b.slots.values()]
        one_of = st.sampled_from([*every, KeyId("unknown")])
        key_ids = data.draw(st.lists(one_of, min_size=1, max_size=2, unique=True))
        self.fetch(FetchRequest(master, slave, tuple(key_ids), production))

    @rule(data=st.data(), production=st.integers(0, 3))
    def the_right_slave_asks(self, data: st.DataObject, production: int) -> None:
        ready = [
            slot.allocation
            for block in self.model.blocks.values()
            for slot in block.slots.values()
            if slot.allocation is not None and slot.state is KeyState.ALLOCATED
        ]
        if ready:
            first = data.draw(st.sampled_from(ready))
            parties = (first.master, first.slave)
            alike = [each for each in ready if (each.master, each.slave) == parties]
            key_ids = tuple(each.key_id for each in alike[: data.draw(st.integers(1, 3))])
            self.fetch(FetchRequest(first.master, first.slave, key_ids, production == 0))

    def fetch(self, request: FetchRequest) -> None:
        outcome = self.runner.run(self.store.fetch(request))
        wanted = self.model.fetch(request)
        if isinstance(wanted, list):
            assert isinstance(outcome, Fetched)
            assert [(key.key_id, key.key) for key in outcome.keys] == wanted
        else:
            assert outcome == wanted

    @rule(data=st.data(), peer=PEERS)
    def a_peer_has_recorded(self, data: st.DataObject, peer: NodeName) -> None:
        waiting = [a.key_id for allocations in self.model.outbox.values() for a in allocations]
        key_ids = tuple(key_id for key_id in waiting if data.draw(st.booleans()))
        self.runner.run(self.store.forget_allocations(ForgetAllocations(peer, key_ids)))
        self.model.forget(peer, key_ids)

    @invariant()
    def the_store_opened_again_is_as_the_model(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.store.close())
            self.store = self.open()
            self.runner.run(self.compare())

    async def compare(self) -> None:
        model, store = self.model, self.store
        facts = {fact.name: fact.payload for fact in await store.load_facts()}
        assert facts == model.facts
        summaries = {summary.session: summary.state for summary in await store.blocks()}
        assert summaries == {session: block.state for session, block in model.blocks.items()}
        for peer in (BOB, CAROL):
            assert await store.outbox(peer) == model.outbox.get(peer, [])
            for size_bits in (256, 520):
                stock = await store.stock(peer, size_bits)
                assert stock.keys == len(model.available(peer, size_bits, False, None))
        for block in model.blocks.values():
            for slot in block.slots.values():
                known = await store.key_record(slot.key_id)
                if slot.joined:
                    assert known is None
                    continue
                assert known is not None and known.state is slot.state
                assert (known.master, known.slave) == model.parties(slot)
        assert all(times == 1 for times in model.handed_out.values())


TestKeyStoreBesideModel = KeyStoreBesideModel.TestCase
TestKeyStoreBesideModel.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
