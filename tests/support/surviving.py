"""What a test does to a network whose processes are killed, and what must hold afterwards."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from tests.support.crashing import WORKER, CrashableProcesses, Entry
from tests.support.processes import NODES
from tests.support.small_session import ROUNDS, lay_out_small

from bellhop.hal.errors import BellhopError
from bellhop.node.config import load_config
from bellhop.node.etsi_client import DeliveredKey, EtsiClient, load_profile
from bellhop.node.loopback import running
from bellhop.node.session_client import Progress, run_session

ALICE, BOB = NODES
DEATH_S = 20.0
ONCE = {"measured", "drawn", "handed"}
"""What is not done a second time, not even in the same way."""

OTHER = {ALICE: BOB, BOB: ALICE}


@dataclass(slots=True)
class Networks:
    """The network that lives now; a new one after a test that did not conclude."""

    folder: Path
    closing: ExitStack = field(default_factory=ExitStack)
    made: int = 0
    current: CrashableProcesses | None = None

    def take(self) -> CrashableProcesses:
        network, self.current = self.current, None
        if network is None:
            self.closing.close()
            self.made += 1
            layout = lay_out_small(self.folder / f"net{self.made}")
            network = CrashableProcesses(layout)
            self.closing.enter_context(running(network))
        return network


@dataclass(frozen=True, slots=True)
class Crash:
    """Who is killed when `looker` comes to `point`: itself, unless `victims` says otherwise."""

    looker: str
    point: str
    victims: tuple[str, ...] = ()

    def set(self, network: CrashableProcesses) -> None:
        pids = [network.running[name].pid for name in self.victims if name != "worker"]
        pids += [WORKER] * ("worker" in self.victims)
        network.fuse(self.looker).set(self.point, pids)

    @property
    def dead(self) -> list[str]:
        """The processes that have to be started again; a node starts its worker itself."""
        return [name for name in self.victims or (self.looker,) if name != "worker"]


def session_with(network: CrashableProcesses, *crashes: Crash) -> dict[str, Any] | None:
    """Run a session through crashes; whoever dies is started again.

    Returns how it ended; None if alice died, for then nobody is left to say.
    """
    for crash in crashes:
        crash.set(network)
    dead = [name for crash in crashes for name in crash.dead]

    def revive(_: Progress) -> None:
        for name in list(dead):
            if network.running[name].poll() is not None:
                dead.remove(name)
                network.await_death(name, DEATH_S)
                network.start(name)

    socket, end = load_config(network.layout.node(ALICE)).control_socket, None
    try:
        end = run_session(socket, BOB, ROUNDS, revive)
    except BellhopError:
        assert any(ALICE in crash.dead for crash in crashes), "nobody else ends the operator's call"
    revive_at_last(network, *dead)
    for crash in crashes:
        assert network.fuse(crash.looker).burnt, f"{crash.point} was never come to"
    return end


def revive_at_last(network: CrashableProcesses, *names: str) -> None:
    for name in names:
        network.await_death(name, DEATH_S)
        network.start(name)


# --- what holds afterwards ------------------------------------------------------------------------


def settle(network: CrashableProcesses) -> dict[str, dict[str, Any]]:
    """Wait until no session and no word is under way; alice first, who alone proposes."""
    network.wait_ready()
    return {name: network.wait_for(name, _is_settled) for name in NODES}


def _is_settled(status: dict[str, Any]) -> bool:
    core = status["core"]
    told = all(p["joined"] and not p["allocations_waiting"] for p in core["peers"].values())
    return told and bool(core["device_ready"]) and not core["sessions"] and not core["held"]


def blocks(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {block["session"]: block for block in status["keys"]["blocks"]}


def agreed_blocks(network: CrashableProcesses) -> dict[str, str]:
    """The blocks that both nodes have, by session, and their state; all else must be alike too."""
    alice, bob = (blocks(status) for status in settle(network).values())
    assert alice.keys() == bob.keys()
    for session, ours in alice.items():
        theirs = bob[session]
        assert ours["state"] == theirs["state"] and ours["state"] in {"deliverable", "spent"}
        for here, there in ((ours, theirs), (theirs, ours)):
            assert here["own_slots"] == there["peer_slots"]
            handed = here["own_slots"] - here["own_free"]
            assert handed == there["peer_slots"] - there["peer_free"], "the peer knows of each"
    return {session: str(block["state"]) for session, block in alice.items()}


def check_journals(network: CrashableProcesses) -> None:
    """What no crash may bring about, over all lives of both nodes and all sessions."""
    journals = {name: network.journal(name).entries() for name in NODES}
    for name, entries in journals.items():
        times = Counter((entry.kind, entry.what) for entry in entries)
        digests = Counter((kind, what) for kind, what, _ in {e[:3] for e in map(astuple, entries)})
        for (kind, what), count in digests.items():
            assert count == 1, f"{name} {kind} {what} in {count} ways"
        for (kind, what), count in times.items():
            assert count == 1 or kind not in ONCE, f"{name} {kind} {what} {count} times"
    check_storing(journals)


def check_storing(journals: dict[str, list[Entry]]) -> None:
    """A session's block is the same at both ends, told when stored, released when both have it."""
    first: dict[str, dict[tuple[str, str], Entry]] = {name: {} for name in NODES}
    for name, entries in journals.items():
        for entry in entries:
            first[name].setdefault((entry.kind, entry.what), entry)
    for name, ours in first.items():
        theirs = first[OTHER[name]]
        for (kind, session), entry in ours.items():
            if kind in {"confirmed", "stored told"}:
                assert ours["stored", session].at_ns < entry.at_ns, f"{name} {kind} too early"
            if kind == "confirmed":
                assert theirs["stored", session].at_ns < entry.at_ns, f"{name} {kind} too early"
                assert theirs["stored", session].digest == ours["stored", session].digest


def deliver_all(network: CrashableProcesses) -> int:
    """Hand out every key of both nodes at both ends; returns how many came, all of them alike."""
    return sum(asyncio.run(_deliver_all(network, name)) for name in NODES)


async def _deliver_all(network: CrashableProcesses, master: str) -> int:
    async with client(network, master) as ours, client(network, OTHER[master]) as theirs:
        stock = (await ours.status(f"sae-{OTHER[master]}")).stored_key_count
        if not stock:
            return 0
        given = await ours.enc_keys(f"sae-{OTHER[master]}", stock)
        fetched = await theirs.dec_keys(f"sae-{master}", [key.key_id for key in given])
    assert plain(given) == plain(fetched)
    return len(given)


def client(network: CrashableProcesses, node: str) -> EtsiClient:
    return EtsiClient(load_profile(network.layout.application(node)))


def plain(keys: Sequence[DeliveredKey]) -> dict[str, bytes]:
    return {key.key_id: bytes(key.key) for key in keys}
