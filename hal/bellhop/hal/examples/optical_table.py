"""A pretended experiment: two traps and the station between them, as a process of its own.

    python -m bellhop.hal.examples.optical_table 127.0.0.1:7700 [VISIBILITY]

It stands for what a laboratory has already: something that fires lasers, sees clicks and reads out
ions.  It speaks lines of JSON over TCP: {"id", "do", ...} is answered by {"id", "answer"} or
{"id", "error"}; {"cancel": id} takes back what was not answered yet.  Outcomes follow Born's rule
for Werner pairs, one round at a time.
"""

import asyncio
import json
import math
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bellhop.hal import states
from bellhop.hal.laboratory import LaboratoryError
from bellhop.hal.operations import Attempt, BellState, LinkName, RequestId, Side
from bellhop.hal.rendezvous import Rendezvous

ANGLES = {Side.A: (0.0, math.pi / 2), Side.B: (math.pi / 4, -math.pi / 4, 0.0)}
ANNOUNCED = (BellState.PSI_PLUS, BellState.PSI_MINUS)
SUCCESS_PROBABILITY = 1e-3
PERIOD_NS = 1_000
LINE_BYTES_MAX = 1_000_000

Ids = tuple[str, str, int]


@dataclass(slots=True)
class Pair:
    """A heralded pair; `first`: setting and outcome of the half that was `measured` first."""

    attempt: int
    announces: BellState
    at_ns: int
    first: tuple[int, int] | None = None
    measured: set[Side] = field(default_factory=set)


@dataclass(slots=True)
class Run:
    """One request: its attempts so far, its blocks, and the ends that have not released it."""

    attempts: int = 0
    blocks: dict[int, list[Pair]] = field(default_factory=dict)
    given_up: set[Side] = field(default_factory=set)


class OpticalTable:
    """Both traps and the station.  `visibility`: of the Werner pairs."""

    def __init__(self, generator: np.random.Generator, visibility: float = 0.95) -> None:
        self._generator = generator
        self._rendezvous = Rendezvous()
        self._runs: dict[tuple[str, str], Run] = {}
        self._now_ns = 0
        pair = states.werner(visibility)
        self._tables = {
            announced: [
                [states.joint_probabilities(states.announced_as(pair, announced), a, b)
                 for b in ANGLES[Side.B]]
                for a in ANGLES[Side.A]
            ]
            for announced in ANNOUNCED
        }  # fmt: skip

    async def offer(self, side: Side, ids: Ids, rounds: int) -> int:
        link, request, block = ids
        order = Attempt(LinkName(link), RequestId(request), block, rounds)
        await self._rendezvous.offer(side, order)
        return self._now_ns

    def attempt(self, side: Side, ids: Ids, rounds: int) -> list[tuple[int, int, int]]:
        """What the station saw; the end that asks second is told the same."""
        link, request, block = ids
        run = self._runs.setdefault((link, request), Run())
        if block not in run.blocks:
            if run.given_up - {side}:
                raise LaboratoryError("the other end gave the request up")
            run.blocks[block] = [self._herald(run) for _ in range(rounds)]
        pairs = run.blocks[block]
        return [(pair.attempt, int(pair.announces), pair.at_ns) for pair in pairs]

    def _herald(self, run: Run) -> Pair:
        tried = int(self._generator.geometric(SUCCESS_PROBABILITY))
        run.attempts += tried
        self._now_ns += tried * PERIOD_NS
        announces = ANNOUNCED[int(self._generator.integers(len(ANNOUNCED)))]
        return Pair(run.attempts - 1, announces, self._now_ns)

    def measure(self, side: Side, ids: Ids, index: int, setting: int) -> int:
        """Born's rule; the half that is measured second is in the state the first left it in."""
        link, request, block = ids
        run = self._runs.get((link, request), Run())
        if not 0 <= index < len(run.blocks.get(block, ())):
            raise LaboratoryError("no such pair is held")
        pair = run.blocks[block][index]
        if side in pair.measured:
            raise LaboratoryError("this half was measured already")
        pair.measured.add(side)
        tables = self._tables[pair.announces]
        if pair.first is None:
            table = tables[setting][0] if side is Side.A else tables[0][setting].T
            one = float(table[1].sum())
        else:
            theirs, outcome = pair.first
            table = tables[setting][theirs] if side is Side.A else tables[theirs][setting].T
            one = float(table[1, outcome] / table[:, outcome].sum())
        answer = int(self._generator.random() < one)
        pair.first = pair.first or (setting, answer)
        return answer

    def release(self, side: Side, link: str, request: str) -> None:
        run = self._runs.setdefault((link, request), Run())
        run.given_up.add(side)
        if len(run.given_up) == len(Side):
            del self._runs[link, request]

    async def obey(self, order: dict[str, Any]) -> Any:
        """One order of a trap's controller."""
        side = Side(order["side"])
        ids: Ids = (order["link"], order["request"], order.get("block", 0))
        match order["do"]:
            case "offer":
                return await self.offer(side, ids, order["rounds"])
            case "attempt":
                return self.attempt(side, ids, order["rounds"])
            case "measure":
                return self.measure(side, ids, order["round"], order["setting"])
            case "release":
                return self.release(side, *ids[:2])
            case other:
                raise LaboratoryError(f"the table does not know how to {other}")


async def attend(
    table: OpticalTable, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve one trap's controller until it is gone."""
    under_way: dict[int, asyncio.Task[None]] = {}

    async def answer(order: dict[str, Any]) -> None:
        number = int(order["id"])
        try:
            reply = {"id": number, "answer": await table.obey(order)}
        except LaboratoryError as error:
            reply = {"id": number, "error": error.message}
        except (LookupError, TypeError, ValueError) as error:
            reply = {"id": number, "error": f"an order that cannot be: {type(error).__name__}"}
        writer.write(json.dumps(reply).encode() + b"\n")
        under_way.pop(number, None)

    try:
        while line := await reader.readline():
            order = json.loads(line)
            if "cancel" in order:
                if task := under_way.pop(order["cancel"], None):
                    task.cancel()
            else:
                under_way[order["id"]] = asyncio.ensure_future(answer(order))
    except (LookupError, TypeError, ValueError, OSError) as error:
        sys.stderr.write(f"a controller said what is no order: {type(error).__name__}\n")
    finally:
        for task in under_way.values():
            task.cancel()
        writer.close()


async def run_table(
    listen: str, table: OpticalTable, on_listening: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Serve both controllers at HOST:PORT until `stop` is set."""
    host, _, port = listen.rpartition(":")
    attending: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(attend(table, reader, writer))
        attending.add(task)
        task.add_done_callback(attending.discard)

    server = await asyncio.start_server(take, host, int(port), limit=LINE_BYTES_MAX)
    on_listening(f"{host}:{server.sockets[0].getsockname()[1]}")
    await stop.wait()
    server.close()
    for task in list(attending):
        task.cancel()
    await asyncio.gather(*attending, return_exceptions=True)


def main() -> None:
    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        listen, *visibility = sys.argv[1:]
        table = OpticalTable(np.random.default_rng(), *(float(value) for value in visibility))
        await run_table(listen, table, say, stop)

    def say(address: str) -> None:
        sys.stdout.write(f"{address}\n")
        sys.stdout.flush()

    asyncio.run(until_signalled())


if __name__ == "__main__":
    main()
