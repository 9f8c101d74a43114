"""A laboratory to start from: one of two traps, driven over a line protocol of its own.

`bellhop.hal.examples.optical_table` pretends to be the experiment; here is what a laboratory
writes.  deploy/example-laboratory.toml serves it, docs/laboratory.md walks through it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import msgspec

from bellhop.hal.door import require_address
from bellhop.hal.errors import ConfigError
from bellhop.hal.laboratory import Herald, Laboratory, LaboratoryError, LabPort
from bellhop.hal.operations import (
    Attempt,
    BellState,
    LinkName,
    NodeName,
    RequestId,
    Side,
    Source,
)

LINE_BYTES_MAX = 1_000_000


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`table`: HOST:PORT of the experiment.  `ions`: pairs that this trap holds at once."""

    table: str
    link: str
    side: Side
    peer: str
    ions: int = 8


class Trap(Laboratory):
    """One trap."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._numbers = 0
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    def from_options(cls, node: NodeName, options: Mapping[str, object]) -> Self:
        """See `Laboratory`.  Two nodes may share the table, so `node` does not matter here."""
        try:
            taken = msgspec.convert(dict(options), Options)
        except msgspec.ValidationError as error:
            raise ConfigError(f"laboratory.options: {error}", "laboratory.options") from error
        require_address("laboratory.options.table", taken.table, port_min=1)
        return cls(taken)

    async def open(self) -> tuple[LabPort, ...]:
        host, _, port = self._options.table.rpartition(":")
        try:
            reader, self._writer = await asyncio.open_connection(
                host, int(port), limit=LINE_BYTES_MAX
            )
        except OSError as error:
            raise LaboratoryError(
                f"no optical table at {self._options.table}: {error.strerror or error}"
            ) from error
        self._listening = asyncio.ensure_future(self._listen(reader))
        side = self._options.side
        port_of_link = LabPort(
            link=LinkName(self._options.link),
            side=side,
            peer=NodeName(self._options.peer),
            settings=2 if side is Side.A else 3,
            description="a pretended trap, Werner pairs of visibility 0.95",
            idealisations=("heralds come at once, with the times they would have had",),
            pairs_held_max=self._options.ions,
            source=Source.EMULATED,
        )
        return (port_of_link,)

    async def synchronise(self, order: Attempt) -> int:
        return int(await self._ask("offer", order.link, order.request, order.block, order.rounds))

    async def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
        block = (order.link, order.request, order.block)
        for number, announces, at_ns in await self._ask("attempt", *block, order.rounds):
            yield Herald(number, BellState(announces), at_ns)

    async def measure(
        self, link: LinkName, request: RequestId, block: int, round_index: int, setting: int
    ) -> int | None:
        shown = {"round": round_index, "setting": setting}
        return int(await self._ask("measure", link, request, block, **shown))

    async def release(self, link: LinkName, request: RequestId) -> None:
        await self._ask("release", link, request)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()

    async def _ask(
        self, what: str, link: str, request: str, block: int = 0, rounds: int = 0, **more: int
    ) -> Any:
        """One order and its answer; taken back if this is cancelled."""
        if self._writer is None or self._listening is None or self._listening.done():
            raise LaboratoryError("the optical table is gone: start it, then this service")
        self._numbers = number = self._numbers + 1
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        order = {"id": number, "do": what, "side": self._options.side.value, "link": link}
        order |= {"request": request, "block": block, "rounds": rounds, **more}
        self._say(order)
        try:
            return await answer
        except asyncio.CancelledError:
            self._say({"cancel": number})
            raise
        finally:
            del self._answers[number]

    def _say(self, line: Mapping[str, object]) -> None:
        assert self._writer is not None, "opened before"
        self._writer.write(json.dumps(line).encode() + b"\n")

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hand answers to whom they are due; what is no answer ends the connection."""
        why = "the optical table is gone"
        try:
            while line := await reader.readline():
                said = json.loads(line)
                answer = self._answers.get(said["id"])
                if answer is None or answer.done():
                    continue
                if "error" in said:
                    answer.set_exception(LaboratoryError(str(said["error"])))
                else:
                    answer.set_result(said["answer"])
        except (ValueError, TypeError, KeyError, OSError) as error:
            why = f"the optical table said what is no answer ({type(error).__name__})"
        finally:
            for answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(LaboratoryError(why))
