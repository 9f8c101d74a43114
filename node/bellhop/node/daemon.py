"""A node put together from its configuration, from its start to its last breath.

Rules.  Whatever could hand out a key or say a word starts after the store is open and the core is
restored, and stops before the store is closed.  A bug or a failing disk ends the process: a
supervisor starts it anew, and the store says where it was.
"""

import asyncio
import logging
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from bellhop.hal.errors import BellhopError, ConfigError, KeyStoreError
from bellhop.hal.operations import NodeName
from bellhop.hal.watched import Watched
from bellhop.node.assembly import (
    CoreOf,
    Identities,
    etsi_settings,
    memory_client,
    node_core,
    open_chance,
    open_store,
    read_identities,
    restore,
)
from bellhop.node.chance import OsRng
from bellhop.node.clock import RealClock
from bellhop.node.compiled import worker_environment
from bellhop.node.compute import Workers
from bellhop.node.config import NodeConfig
from bellhop.node.config_values import Address
from bellhop.node.control import STOP_S, start_control
from bellhop.node.device_chance import DeviceRng
from bellhop.node.driver import CoreFailed, Driver, Ends
from bellhop.node.errors import meaning_of
from bellhop.node.etsi014 import Sae, make_app
from bellhop.node.files import write_port_file
from bellhop.node.frames import raised_in
from bellhop.node.http_server import make_runner
from bellhop.node.identity import node_identity
from bellhop.node.keystore import KeyStore
from bellhop.node.metrics import Metrics, start_metrics
from bellhop.node.peers import Peers
from bellhop.node.process import forbid_dumps, notify_supervisor
from bellhop.node.tasks import Tasks
from bellhop.node.tls import Credentials, server_context
from bellhop.node.witness import Witness
from bellhop.stack.core import Answer, Ask, KeysTaken
from bellhop.stack.ids import KeyId, SaeId, SessionId

DRAIN_S = 3.0
"""What a stopping node gives to requests that are under way."""

EXIT_BUG = 70
EXIT_DISK = 74
"""As in sysexits.h: EX_SOFTWARE and EX_IOERR."""


def run_node(config: NodeConfig, metrics: Metrics, core_of: CoreOf = node_core) -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit code of the process."""
    forbid_dumps()
    witness = Witness(metrics)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.set_exception_handler(lambda _, context: _note_unseen(witness, context))
        await Daemon(config, witness, core_of).serve(stop)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(until_signalled())
    except BellhopError as error:
        witness.note(
            "failed",
            {
                "error": type(error).__name__,
                "message": error.message,
                "who_must_act": error.who_must_act,
            },
            logging.ERROR,
        )
        return EXIT_DISK if isinstance(error, KeyStoreError) else meaning_of(error).exit_code
    except Exception as error:  # noqa: BLE001 - the top of the process
        witness.note("bug", _described(error), logging.CRITICAL)
        return EXIT_BUG
    return 0


def _described(error: Exception) -> dict[str, str]:
    """Where a bug is.  Its text is left out: it may show what it was about."""
    cause = error.__cause__ if isinstance(error, CoreFailed) and error.__cause__ else error
    trace = str(error.trace) if isinstance(error, CoreFailed) else ""
    return {"error": type(cause).__name__, "frames": raised_in(cause), "trace": trace}


def _note_unseen(witness: Witness, context: dict[str, Any]) -> None:
    """An error that nobody waited for.  The loop's own words would show the error's text."""
    error = context.get("exception")
    fields = {"what": str(context.get("message", ""))}
    if isinstance(error, BaseException):
        fields |= {"error": type(error).__name__, "frames": raised_in(error)}
    witness.note("unseen_error", fields, logging.ERROR)


class Daemon:
    """One running node."""

    def __init__(self, config: NodeConfig, witness: Witness, core_of: CoreOf) -> None:
        self._config = config
        self._core_of = core_of
        self._clock = RealClock()
        self._witness = witness
        self._started_ns = self._clock.now_ns()
        self._crash: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._tasks = Tasks(self._crashed)
        self._listening: dict[str, str] = {}
        self._chance: OsRng | DeviceRng
        self._store: KeyStore
        self._driver: Driver
        self._peers: Peers
        self._workers: Workers

    async def serve(self, stop: asyncio.Event) -> None:
        """Run until `stop`.  Raises ConfigError, KeyStoreError, or CoreFailed for our own bugs."""
        identities = read_identities(self._config)
        async with AsyncExitStack() as closing:
            await self._start(identities, closing)
            self._witness.note("ready", {"node": self._config.node.name, **self._listening})
            notify_supervisor("READY=1")
            stop_or_crash: list[asyncio.Future[Any]] = [
                asyncio.ensure_future(stop.wait()),
                self._crash,
            ]
            await asyncio.wait(stop_or_crash, return_when=asyncio.FIRST_COMPLETED)
            stop_or_crash[0].cancel()
            notify_supervisor("STOPPING=1")
        if self._crash.done():
            raise self._crash.result()
        self._witness.note("stopped", {"node": self._config.node.name})

    # --- starting; closed in the opposite order ---------------------------------------------------

    async def _start(self, identities: Identities, closing: AsyncExitStack) -> None:
        config = self._config
        self._chance = await asyncio.to_thread(open_chance, config)
        closing.callback(self._chance.close)
        self._store = await open_store(config, self._clock)
        closing.push_async_callback(self._store.close)
        restored = await restore(self._store, [NodeName(peer.name) for peer in config.peer])
        identity = node_identity(identities.node)
        core = self._core_of(config, restored, self._chance, identity)
        self._driver = Driver(core, self._clock, self._witness, config.node.state_dir)
        self._workers = Workers(
            config.compute.workers,
            config.compute.memory_limit_bytes,
            self._witness,
            self._driver.deliver,
            self._crashed,
            environment=worker_environment(config.node.state_dir),
        )
        closing.push_async_callback(self._workers.close)
        memory = Watched(memory_client(config, identities.node), self._witness.device_fault)
        self._peers = Peers(
            NodeName(config.node.name),
            {NodeName(peer.name): peer.address for peer in config.peer},
            identities.node,
            self._clock,
            self._witness,
            self._driver.deliver,
            self._crashed,
        )
        self._tasks.spawn(self._watch_store())
        self._tasks.spawn(self._driver.run(Ends(self._store, self._peers, memory, self._workers)))
        closing.push_async_callback(self._tasks.close)
        self._tasks.spawn(self._driver.read_reports(memory))
        self._tasks.spawn(self._driver.give_orders(memory))
        closing.push_async_callback(memory.close)
        address = await self._peers.start(config.peers.listen)
        closing.push_async_callback(self._peers.close)
        self._listens("peers", address, config.peers.port_file, closing)
        await self._start_etsi(identities.kme, closing)
        await self._start_metrics(closing)
        control = await start_control(self, config.control_socket)
        closing.push_async_callback(control.stop, STOP_S)

    async def _start_etsi(self, kme: Credentials, closing: AsyncExitStack) -> None:
        etsi = self._config.etsi
        saes = {SaeId(sae.id): Sae(NodeName(sae.node), sae.kme) for sae in self._config.sae}
        refuse = self._witness.refused_http
        app = make_app(etsi_settings(self._config), self._store, saes, self._taken, refuse)
        runner = make_runner(app, refuse)
        await runner.setup()
        closing.push_async_callback(self._drain, runner)
        context = server_context(kme, etsi.tls_min)
        try:
            site = web.TCPSite(runner, etsi.listen.host, etsi.listen.port, ssl_context=context)
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {etsi.listen} ({error.strerror})", field="etsi.listen"
            ) from error
        port = runner.addresses[0][1]
        address = Address(f"{etsi.listen.rpartition(':')[0]}:{port}")
        self._listens("etsi", address, etsi.port_file, closing)

    async def _start_metrics(self, closing: AsyncExitStack) -> None:
        observe = self._config.observe
        if observe.metrics_listen:
            server = await start_metrics(
                self._witness.metrics,
                observe.metrics_listen,
                observe.metrics_port_file,
                self._witness.refused_http,
                self._refresh_metrics,
            )
            closing.push_async_callback(server.close)
            self._listens("metrics", server.address, None, closing)

    async def _refresh_metrics(self) -> None:
        """Figures that are states are looked up when somebody asks for them."""
        metrics = self._witness.metrics
        for peer, about in self._driver.snapshot().get("peers", {}).items():
            metrics.masks_left(peer, about["masks_left"])
        blocks = await self._store.blocks()
        stored = sum(block.own_free + block.peer_free for block in blocks)
        ready = sum(block.own_free for block in blocks if block.state == "deliverable")
        metrics.keys_held(stored, ready)

    def _listens(
        self, name: str, address: Address, port_file: Path | None, closing: AsyncExitStack
    ) -> None:
        self._listening[name] = address
        if port_file is not None:
            write_port_file(port_file, address.host, address.port)
            closing.callback(port_file.unlink, missing_ok=True)

    async def _drain(self, runner: web.AppRunner) -> None:
        try:
            async with asyncio.timeout(DRAIN_S):
                await runner.cleanup()
        except TimeoutError:
            self._witness.note("not_drained", {"within_s": DRAIN_S}, logging.WARNING)

    # --- running ----------------------------------------------------------------------------------

    def _crashed(self, error: BaseException) -> None:
        if not self._crash.done():
            self._crash.set_result(error)

    async def _watch_store(self) -> None:
        raise await self._store.failure()

    def _taken(self, event: KeysTaken) -> None:
        self._witness.metrics.keys_delivered(len(event.allocations))
        self._tasks.spawn(self._driver.deliver(event))

    # --- what the control service asks ------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        return self._driver.snapshot()

    async def ask(self, ask: Ask) -> Answer:
        return await self._driver.ask(ask)

    async def receipt(self, name: KeyId | SessionId) -> str | None:
        return await self._store.receipt(name)

    async def status(self) -> dict[str, Any]:
        """Everything an operator may see, of calibrations the last; no secrets."""
        core = self._driver.snapshot()
        known = core.get("calibrations", {})
        core = core | {"calibrations": {link: every[-1:] for link, every in known.items()}}
        now_ns = self._clock.now_ns()
        return {
            "node": self._config.node.name,
            "production": self._config.node.production,
            "clock": self._clock.kind.value,
            "now_ns": now_ns,
            "running_ns": now_ns - self._started_ns,
            "source": sorted({port["source"] for port in core.get("ports", {}).values()}),
            "randomness": self._chance.status(),
            "listening": dict(self._listening),
            "connections": self._peers.status(),
            "workers": len(self._workers.pids()),
            "core": core,
            "keys": await self.keys_status(),
        }

    async def keys_status(self) -> dict[str, Any]:
        """What is in stock towards each peer, and the latest blocks."""
        size_bits = self._config.etsi.key_size_bits
        stock = {}
        for peer in self._config.peer:
            held = await self._store.stock(
                NodeName(peer.name), size_bits, self._config.node.production
            )
            stock[peer.name] = {
                "keys": held.keys,
                "key_size_bits": size_bits,
                "sources": list(held.sources),
            }
        return {"stock": stock, "blocks": [plain(block) for block in await self._store.blocks()]}


def plain(record: Any) -> dict[str, Any]:
    """A slotted record as a plain dictionary."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}
