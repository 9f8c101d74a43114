"""The key store as the daemon uses it: every call durable when it returns, many in one commit.

Rules.  One thread works on the file.  Calls that arrive while it commits wait, and are committed
together next (group commit): the disk's commits a second no longer bound the deliveries a second.
Order is kept: a call that was made first is done first.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, cast

from bellhop.hal.errors import KeyStoreError
from bellhop.hal.operations import NodeName
from bellhop.node.keystore import allocations, blocks, delivery
from bellhop.node.keystore.database import Database, Done, Failed, Work
from bellhop.node.keystore.delivery import FetchRequest, TakeRequest
from bellhop.node.keystore.records import (
    BlockSummary,
    FetchOutcome,
    KeyRecord,
    NotYetAllocated,
    RefusedAllocation,
    Stock,
    TakeOutcome,
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
from bellhop.stack.ids import KeyId, SessionId
from bellhop.stack.messages import Allocation

T = TypeVar("T")

BATCH_MAX: Final = 1024
"""Most works in one transaction."""

ERASE_AFTER_S: Final = 1.0
"""After the last delivery, how long the write-ahead log may keep what was erased from the tables.

Truncating it costs as much as some commits, so a run of deliveries is paid for once."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    work: Work[object]
    answer: asyncio.Future[object] = field(repr=False)


class KeyStore:
    """Keys, facts and allocations of one node.  Made by `open`, ended by `close`.

    Every method raises KeyStoreError if the disk fails, and from then on always; `failure` says so
    to whoever has to stop the daemon.
    """

    def __init__(self, database: Database, executor: ThreadPoolExecutor) -> None:
        self._database = database
        self._executor = executor
        self._waiting: list[_Waiting] = []
        self._committing: asyncio.Task[None] | None = None
        self._erasing: asyncio.TimerHandle | None = None
        self._recorded = asyncio.Event()
        self._failure: asyncio.Future[KeyStoreError] = asyncio.get_running_loop().create_future()
        self._closed = False

    @classmethod
    async def open(
        cls, state_dir: Path, kek: bytes, node: NodeName, now_ns: Callable[[], int]
    ) -> Self:
        """Open the store of `node` in `state_dir`, or make it; `now_ns`: Unix time.

        Raises ConfigError if another process has it or it is another node's, KeyStoreError if it
        is damaged, newer, or sealed under another key-encryption key.
        """
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keystore")
        loop = asyncio.get_running_loop()
        try:
            database = await loop.run_in_executor(
                executor, partial(Database, state_dir, kek, node, now_ns)
            )
        except BaseException:
            executor.shutdown(wait=False)
            raise
        return cls(database, executor)

    async def close(self) -> None:
        """Finish what waits, empty the log, give the folder free.  Twice is once."""
        if self._closed:
            return
        self._closed = True
        if self._committing is not None:
            await self._committing
        if self._erasing is not None:
            self._erasing.cancel()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._database.close)
        finally:
            self._executor.shutdown(wait=False)
            self._failure.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def failure(self) -> KeyStoreError:
        """Returns when the store has failed: the daemon must stop."""
        return await asyncio.shield(self._failure)

    # --- facts and blocks -----------------------------------------------------------------------

    async def persist(self, facts: Persist) -> None:
        """Forget, then put, all or nothing."""
        await self._do(partial(blocks.persist, facts=facts))

    async def load_facts(self, prefix: str = "") -> list[Fact]:
        """The facts whose name begins with `prefix`, by name."""
        return await self._do(partial(blocks.load_facts, prefix=prefix))

    async def store_keys(self, action: StoreKeys) -> None:
        """Hold a block back, with its facts; the same block again is no harm."""
        await self._do(partial(blocks.store_keys, action=action))

    async def confirm_keys(self, action: ConfirmKeys) -> None:
        """Make a held block deliverable, with its facts; again is no harm."""
        await self._do(partial(blocks.confirm_keys, action=action))

    async def void_keys(self, action: VoidKeys) -> None:
        """Erase a held block; again, or if there is none, is no harm."""
        await self._do(partial(blocks.void_keys, action=action))

    async def blocks(self) -> list[BlockSummary]:
        """The latest blocks, at most `BLOCKS_SHOWN_MAX`, the oldest of them first."""
        return await self._do(blocks.summaries)

    async def held_sessions(self, peer: NodeName | None = None) -> list[SessionId]:
        """Sessions whose blocks are not confirmed, with one peer or all."""
        return await self._do(partial(blocks.held_sessions, peer=peer))

    async def receipt(self, name: KeyId | SessionId) -> str | None:
        """The receipt (JSON text) of a session or of a key's block; it outlives the keys."""
        return await self._do(partial(blocks.receipt, name=name))

    async def key_record(self, key_id: KeyId) -> KeyRecord | None:
        """Who was handed a key when; it outlives the key."""
        return await self._do(partial(blocks.key_record, key_id=key_id))

    # --- deliveries -----------------------------------------------------------------------------

    async def stock(self, peer: NodeName, size_bits: int, production: bool = False) -> Stock:
        """What this node can hand to masters towards `peer` now, in keys of `size_bits`."""
        return await self._do(
            partial(delivery.stock, peer=peer, size_bits=size_bits, production=production)
        )

    async def take(self, request: TakeRequest) -> TakeOutcome:
        """Hand keys to their master: erased here, recorded and in the outbox when this returns."""
        return await self._do(partial(delivery.take, request=request))

    async def fetch(self, request: FetchRequest, wait_s: float = 0.0) -> FetchOutcome:
        """Hand keys to their slave: erased here when this returns.

        Waits up to `wait_s` for the peer's word on keys that it may have handed out.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + wait_s
        while True:
            recorded = self._recorded  # before the look, so that no word is missed between
            outcome = await self._do(partial(delivery.fetch, request=request))
            if not isinstance(outcome, NotYetAllocated):
                return outcome
            try:
                async with asyncio.timeout_at(give_up):
                    await recorded.wait()
            except TimeoutError:
                return outcome

    async def record_allocations(self, action: RecordAllocations) -> list[RefusedAllocation]:
        """Record what a peer handed out; returns what cannot be.  Again is no harm."""
        refused = await self._do(partial(allocations.record_allocations, action=action))
        self._recorded.set()
        self._recorded = asyncio.Event()
        return refused

    async def outbox(self, peer: NodeName) -> list[Allocation]:
        """What was handed out here and the peer has not recorded, in order."""
        return await self._do(partial(allocations.outbox, peer=peer))

    async def forget_allocations(self, action: ForgetAllocations) -> None:
        """The peer has recorded these."""
        await self._do(partial(allocations.forget_allocations, action=action))

    # --- group commit ---------------------------------------------------------------------------

    async def _do(self, work: Work[T]) -> T:
        assert not self._closed, "a closed store is not used"
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[object] = loop.create_future()
        self._waiting.append(_Waiting(work, answer))
        if self._committing is None:
            self._committing = loop.create_task(self._commit_waiting())
        return cast(T, await answer)

    async def _commit_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
            # who has gone away before the start takes no key with him
            await self._commit([each for each in batch if not each.answer.cancelled()])
        self._committing = None
        self._erase_soon()

    async def _commit(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        works = [each.work for each in batch]
        outcomes: list[Done | Failed]
        try:
            outcomes = await loop.run_in_executor(
                self._executor, self._database.run_together, works
            )
        except KeyStoreError as error:
            if not self._failure.done():
                self._failure.set_result(error)
            outcomes = [Failed(KeyStoreError(error.message, **error.fields)) for _ in batch]
        for each, outcome in zip(batch, outcomes, strict=True):
            if each.answer.cancelled():
                continue
            if isinstance(outcome, Done):
                each.answer.set_result(outcome.result)
            else:
                each.answer.set_exception(outcome.error)

    def _erase_soon(self) -> None:
        if self._database.burns_in_log and self._erasing is None and not self._failure.done():
            loop = asyncio.get_running_loop()
            self._erasing = loop.call_later(ERASE_AFTER_S, self._erase)

    def _erase(self) -> None:
        self._erasing = None
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        erased = loop.run_in_executor(self._executor, self._database.checkpoint)
        erased.add_done_callback(self._erased)

    def _erased(self, erased: asyncio.Future[None]) -> None:
        error = erased.exception()
        if isinstance(error, KeyStoreError) and not self._failure.done():
            self._failure.set_result(error)
