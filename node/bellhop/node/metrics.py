"""The figures of a node for Prometheus, and the HTTP end where they are read.

Labels come from fixed lists, so that nobody can make the number of series grow: what is not on a
list counts as "other".
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from bellhop.hal.errors import ConfigError
from bellhop.node.config_values import Address
from bellhop.node.files import write_port_file
from bellhop.node.http_server import CLIENT_LEFT, MALFORMED_HTTP, Refuse, make_runner, only_noted
from bellhop.node.observe import REFUSAL_REASONS

OTHER = "other"
OUTCOMES = ("key", "abort", "failed")
STAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """One node's figures in a registry of their own.

    `peers` are the configured names; `abort_reasons`, `refusal_reasons` and `stages` are every word
    that may become a label.
    """

    def __init__(
        self,
        peers: Iterable[str],
        abort_reasons: Iterable[str],
        refusal_reasons: Iterable[str],
        stages: Iterable[str],
    ) -> None:
        self.registry = CollectorRegistry()
        self._peers = frozenset(peers)
        self._abort_reasons = frozenset(abort_reasons)
        self._refusal_reasons = frozenset(
            (*refusal_reasons, *REFUSAL_REASONS, CLIENT_LEFT, MALFORMED_HTTP)
        )
        self._stages = frozenset(stages)
        self._pairs = self._counter("pairs_heralded", "Heralded pairs reported by the memory")
        self._blocks = self._counter("blocks_measured", "Blocks of rounds measured")
        self._sessions = self._counter("sessions", "Sessions that ended", "outcome")
        self._aborts = self._counter("session_aborts", "Sessions aborted", "reason")
        self._s = self._gauge("session_chsh_s", "CHSH value S of the last scored session")
        self._qber = self._gauge("session_qber", "Error rate of the last session's key basis")
        self._link_s = self._gauge("link_chsh_s", "CHSH value S at the last calibration", "peer")
        self._link_qber = self._gauge("link_qber", "Error rate at the last calibration", "peer")
        self._drifts = self._gauge(
            "link_drifts", "Figures that had drifted at the last calibration", "peer"
        )
        self._held = self._gauge(
            "session_held_since_seconds", "Since when a session waits paused or deviceless", "peer"
        )
        self._bits = self._counter("key_bits", "Secret bits distilled, gross and net", "kind")
        self._keys = self._gauge("keys", "Keys held, by state", "state")
        self._delivered = self._counter("keys_delivered", "Keys delivered to applications")
        self._masks = self._gauge("pool_masks_left", "One-time masks left", "peer")
        self._connected = self._gauge("peer_connected", "1 while the peer's stream is up", "peer")
        self._refusals = self._counter("refusals", "What was refused", "peer", "reason")
        self._stage_seconds = Histogram(
            "bellhop_stage_seconds",
            "Time spent in a stage of a session",
            ("stage",),
            buckets=STAGE_BUCKETS_S,
            registry=self.registry,
        )
        for outcome in OUTCOMES:  # a series that is there from the start can be alerted on
            self._sessions.labels(outcome)
        for peer in self._peers:
            self._connected.labels(peer)
            self._held.labels(peer)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"bellhop_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"bellhop_{name}", text, labels, registry=self.registry)

    def heralded(self, pairs: int) -> None:
        """`pairs` more were heralded."""
        self._pairs.inc(pairs)

    def block_measured(self) -> None:
        """One more block has its outcomes."""
        self._blocks.inc()

    def session_keyed(self, gross_bits: int, net_bits: int) -> None:
        """A session ended in a key.  A net balance below zero counts as no net bits."""
        self._sessions.labels("key").inc()
        self._bits.labels("gross").inc(gross_bits)
        self._bits.labels("net").inc(max(net_bits, 0))

    def session_aborted(self, reason: str) -> None:
        """A session ended without a key, as an outcome."""
        self._sessions.labels("abort").inc()
        self._aborts.labels(_listed(reason, self._abort_reasons)).inc()

    def scored(self, s: float, qber: float) -> None:
        """What the last session that could be scored showed."""
        self._s.set(s)
        self._qber.set(qber)

    def calibrated(self, peer: str, s: float, qber: float, drifts: int) -> None:
        """What the last calibration of the link to `peer` showed."""
        label = _listed(peer, self._peers)
        self._link_s.labels(label).set(s)
        self._link_qber.labels(label).set(qber)
        self._drifts.labels(label).set(drifts)

    def session_held(self, peer: str, since_s: float) -> None:
        """Since when, in seconds of the node's clock, the session with `peer` gets no new rounds,
        as an end is paused or has no device; 0: it does."""
        self._held.labels(_listed(peer, self._peers)).set(since_s)

    def keys_held(self, stored: int, deliverable: int) -> None:
        """How many keys lie in the store, and how many of them may be handed out."""
        self._keys.labels("stored").set(stored)
        self._keys.labels("deliverable").set(deliverable)

    def keys_delivered(self, count: int) -> None:
        """`count` more keys went to applications."""
        self._delivered.inc(count)

    def masks_left(self, peer: str, count: int) -> None:
        """What remains of the pool shared with `peer`."""
        self._masks.labels(_listed(peer, self._peers)).set(count)

    def peer_connected(self, peer: str, connected: bool) -> None:
        """Whether the stream with `peer` is up."""
        if peer in self._peers:
            self._connected.labels(peer).set(int(connected))

    def refused(self, peer: str, reason: str) -> tuple[str, str]:
        """Something of `peer` was refused; a peer that is not configured counts as "other".

        Returns the labels of its series, of which there are only so many.
        """
        labels = (_listed(peer, self._peers), _listed(reason, self._refusal_reasons))
        self._refusals.labels(*labels).inc()
        return labels

    def stage_took(self, stage: str, seconds: float) -> None:
        """A stage of a session ended."""
        self._stage_seconds.labels(_listed(stage, self._stages)).observe(seconds)

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)


def _listed(word: str, words: frozenset[str]) -> str:
    return word if word in words else OTHER


@dataclass(frozen=True, slots=True)
class MetricsServer:
    """The running HTTP end; `address` is where it really listens."""

    address: Address
    runner: web.AppRunner

    async def close(self) -> None:
        """Stop listening."""
        await self.runner.cleanup()


async def start_metrics(
    metrics: Metrics,
    listen: Address,
    port_file: Path | None = None,
    refuse: Refuse = only_noted,
    refresh: Callable[[], Awaitable[None]] | None = None,
) -> MetricsServer:
    """Serve `metrics` at http://LISTEN/metrics.  Raises ConfigError if the address is not free.

    `refresh` sets the figures that are states, before each answer.
    """

    async def answer(_request: web.Request) -> web.Response:
        if refresh is not None:
            await refresh()
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = make_runner(application, refuse)
    await runner.setup()
    try:
        await web.TCPSite(runner, listen.host, listen.port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(
            f"cannot listen on {listen} ({error.strerror}); choose another address",
            field="observe.metrics_listen",
        ) from error
    host, port = runner.addresses[0][:2]
    if port_file:
        write_port_file(port_file, host, port)
    shown = f"[{host}]" if ":" in host else host
    return MetricsServer(Address(f"{shown}:{port}"), runner)
