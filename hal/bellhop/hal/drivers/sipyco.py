"""A laboratory whose devices stand behind a controller that speaks ARTIQ's network RPC (sipyco).

The controller is a plain object with these methods; docs/artiq.md has one that runs.  All answer at
once, as the server of sipyco makes one call at a time: what takes long is asked for again
(`offer`, `heralds`), every `poll_seconds`.  A method that cannot do what it is asked raises.

    ping() -> bool
        False if the device is not well.  Also asked after the last round of each block: answers
        have no number, and this one shows that they are in step.
    ports() -> list of dict
        What a `LabPort` says: link, side ("a" or "b"), peer, settings, description, and if they
        differ from the defaults idealisations (texts), pairs_held_max, source ("emulated").
    offer(link, request, block, rounds) -> None or int
        See `Laboratory.synchronise`.  None while the attempt is not let go, and its clock in ns
        when it is; the same again if asked again.  An attempt is let go when both ends offer it,
        one at a time on a link; then all other offers on the link are void, and those that come
        before it is over count for nothing.
    attempt(link, request, block, rounds) -> None or list of heralds
        Begin attempting.  None if `heralds` is to be asked for what comes; a controller that
        rather answers late answers all `rounds` heralds, within `attempt_seconds`.
    heralds(link, request, block, first) -> list of heralds
        Those from number `first` of the block on that have come.  A herald is (attempt, announces,
        at_ns): see `Herald`; `announces` is a number or a name of `BellState`.
    measure(link, request, block, round_index, setting) -> 0, 1 or None
        See `Laboratory.measure`.
    abandon(link, request, block)
        Give up what this end has of the block: an attempt that is under way, and its pairs.
    release(link, request)
        See `Laboratory.release`.  Also ends an attempt that is under way, and voids offers.

Texts are `str`, the rest `int`.  Lists may be tuples or numpy arrays, numbers numpy's.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Self, TypeVar

from bellhop.hal.drivers.pyon import LINE_BYTES_MAX, ControllerNonsense
from bellhop.hal.drivers.sipyco_answers import clock_of, heralds_of, outcome_of, ports_of
from bellhop.hal.drivers.sipyco_options import Options, options_from
from bellhop.hal.drivers.sipyco_rpc import ANSWER_BYTES_MAX, ControllerFailed, SipycoConnection
from bellhop.hal.errors import HardwareError
from bellhop.hal.laboratory import Herald, Laboratory, LaboratoryError, LabPort
from bellhop.hal.operations import Attempt, LinkName, NodeName, RequestId

Answer = TypeVar("Answer")
Block = tuple[LinkName, RequestId, int]

log = logging.getLogger(__name__)


class _Raised(LaboratoryError):
    """A method of the controller raised: it is there, and cannot do what it is asked."""


class SipycoLaboratory(Laboratory):
    """One target of a sipyco server is the devices of one node.

    A connection that broke is made anew with the next order.  What was under way on the old one is
    lost.
    """

    def __init__(self, node: NodeName, options: Options) -> None:
        self._node = node
        self._options = options
        self._tls = options.context()
        self._connection: SipycoConnection | None = None
        self._connecting = asyncio.Lock()
        self._ports: tuple[LabPort, ...] = ()
        self._unanswered: Block | None = None
        self._last_rounds: dict[Block, int] = {}
        self._giving_up: set[asyncio.Task[None]] = set()

    @classmethod
    def from_options(cls, node: NodeName, options: Mapping[str, object]) -> Self:
        """See `Laboratory` and `sipyco_options.Options`."""
        return cls(node, options_from(options))

    async def open(self) -> tuple[LabPort, ...]:
        """See `Laboratory`."""
        await self._connected()
        return self._ports

    async def synchronise(self, order: Attempt) -> int:
        """See `Laboratory`."""
        while True:
            answer = await self._call("offer", order.link, order.request, order.block, order.rounds)
            if answer is not None:
                return _checked(clock_of, answer)
            await asyncio.sleep(self._options.poll_seconds)

    async def attempt(self, order: Attempt) -> AsyncIterator[Herald]:
        """See `Laboratory`."""
        block = (order.link, order.request, order.block)
        told, whole = 0, False
        try:
            async with aclosing(self._heralds(order)) as heralds:
                async for herald in heralds:
                    told += 1
                    yield herald
            whole = told == order.rounds
        finally:
            # Also if the last herald was told and whoever heard it would not have it.
            if whole:
                self._last_rounds[block] = order.rounds - 1
            else:
                self._give_up(block)

    async def measure(
        self, link: LinkName, request: RequestId, block: int, round_index: int, setting: int
    ) -> int | None:
        """See `Laboratory`.  If the controller raises, there is no sure answer; if it is gone, or
        answers nonsense, the block is given up."""
        try:
            outcome = await self._outcome((link, request, block), round_index, setting)
            if round_index == self._last_rounds.get((link, request, block)):
                del self._last_rounds[link, request, block]
                await self._check_step()
        except BaseException:
            self._give_up((link, request, block))
            raise
        return outcome

    async def release(self, link: LinkName, request: RequestId) -> None:
        """See `Laboratory`."""
        for block in [block for block in self._last_rounds if block[:2] == (link, request)]:
            del self._last_rounds[block]
        await self._call("release", link, request)

    async def close(self) -> None:
        """See `Laboratory`.  The controller goes on: what it holds was released before."""
        try:
            await asyncio.gather(*self._giving_up, return_exceptions=True)
        finally:  # Also if the controller takes longer than the service waits.
            if self._connection is not None:
                self._connection.close()

    async def _outcome(self, block: Block, round_index: int, setting: int) -> int | None:
        arguments = (*block, round_index, setting)
        try:
            return _checked(outcome_of, await self._call("measure", *arguments, private=True))
        except _Raised as error:
            self._note_unanswered(block, round_index, error)
            return None

    async def _check_step(self) -> None:
        """That the answer to the last call was the answer to it, and with it all before.

        A controller whose second answer to a call is always under way when the next one is made
        has nothing unread when that is looked at.
        """
        connection, options = self._connection, self._options
        assert connection is not None, "an outcome came by it"
        try:
            # On this connection: that another one is in step says nothing of what came before it.
            well = await connection.call(options.methods.ping, seconds=options.call_seconds)
            if well is not True:
                connection.close()
                raise ControllerNonsense(
                    f"the controller at {connection.where} did not answer True to ping after the"
                    " last round of a block: its device is not well, or it answers a call twice"
                )
        except HardwareError as error:
            raise _told(error) from error

    async def _heralds(self, order: Attempt) -> AsyncGenerator[Herald, None]:
        block = (order.link, order.request, order.block)
        seconds = self._options.attempt_seconds
        answer = await self._call("attempt", *block, order.rounds, seconds=seconds)
        if answer is not None:
            for herald in _checked(heralds_of, answer):
                yield herald
            return
        told = 0
        while told < order.rounds:
            heralds = _checked(heralds_of, await self._call("heralds", *block, told))
            for herald in heralds:
                yield herald
            told += len(heralds)
            if not heralds:
                await asyncio.sleep(self._options.poll_seconds)

    async def _call(
        self, method: str, *arguments: object, seconds: float | None = None, private: bool = False
    ) -> object:
        """What the controller's `method` answers.  Raises LaboratoryError."""
        name = getattr(self._options.methods, method)
        limit = self._options.call_seconds if seconds is None else seconds
        bytes_max = LINE_BYTES_MAX if method in ("attempt", "heralds") else ANSWER_BYTES_MAX
        connection = await self._connected()
        try:
            return await connection.call(
                name, *arguments, seconds=limit, private=private, bytes_max=bytes_max
            )
        except ControllerFailed as error:
            raise _Raised(_words(error)) from error
        except HardwareError as error:
            raise _told(error) from error

    def _give_up(self, block: Block) -> None:
        """Tell the controller, and wait for nothing: it may be the one who does not answer."""
        task = asyncio.create_task(self._abandon(block))
        self._giving_up.add(task)
        task.add_done_callback(self._giving_up.discard)

    async def _abandon(self, block: Block) -> None:
        try:
            await self._call("abandon", *block)
        except LaboratoryError as error:
            log.warning("link %s, block %d: not given up: %s", block[0], block[2], error.message)

    async def _connected(self) -> SipycoConnection:
        """The connection, made anew if it broke.  Raises LaboratoryError."""
        async with self._connecting:
            if self._connection is None or self._connection.closed:
                try:
                    self._connection = await self._connect()
                except HardwareError as error:
                    raise _told(error) from error
            return self._connection

    async def _connect(self) -> SipycoConnection:
        options = self._options
        connection = await SipycoConnection.open(
            options.host, options.port, options.target, options.connect_seconds, self._tls
        )
        try:
            missing = options.methods.all() - connection.methods
            if missing:
                raise ControllerNonsense(
                    f"target {connection.target!r} of the controller at {connection.where} has no"
                    f" method {', '.join(sorted(missing))}"
                )
            await self._look_at(connection)
        except BaseException:
            connection.close()
            raise
        log.info("connected to %r at %s", connection.target, connection.where)
        return connection

    async def _look_at(self, connection: SipycoConnection) -> None:
        """The controller must be well, and its ports the ones that the node was told."""
        methods, seconds = self._options.methods, self._options.call_seconds
        if await connection.call(methods.ping, seconds=seconds) is not True:
            raise HardwareError(
                f"the controller at {connection.where} says that its device is not well"
            )
        answer = await connection.call(methods.ports, seconds=seconds, bytes_max=LINE_BYTES_MAX)
        ports = ports_of(answer, self._node)
        if self._ports and ports != self._ports:
            raise HardwareError(
                f"the controller at {connection.where} came back with other ports: start this"
                " service anew"
            )
        self._ports = ports

    def _note_unanswered(self, block: Block, round_index: int, error: HardwareError) -> None:
        """Said once a block, as every round of it may fail alike."""
        if self._unanswered != block:
            self._unanswered = block
            log.warning(
                "link %s, block %d: round %d and perhaps more are not answered: %s",
                block[0],
                block[2],
                round_index,
                error.message,
            )


def _told(error: HardwareError) -> LaboratoryError:
    """As the service reports it: with who must act."""
    if isinstance(error, LaboratoryError):
        return error
    return LaboratoryError(_words(error))


def _words(error: HardwareError) -> str:
    return f"{error.message} (who must act: {error.who_must_act})"


def _checked(reading: Callable[[object], Answer], answer: object) -> Answer:
    try:
        return reading(answer)
    except HardwareError as error:
        raise _told(error) from error
