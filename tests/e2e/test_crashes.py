"""`kill -9` of every process at every stage: both stores agree, nothing is drawn or spent twice.

One network lives through all of it, so that a mask or a key that a crash leaves behind would be
met again in a later session.  A test that fails gets the next one a fresh network.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet
from tests.support.crashing import WORKER, CrashableProcesses, Entry
from tests.support.processes import EMULATOR, NODES
from tests.support.small_session import ROUNDS, SLOTS, diqkd, lay_out_small

from bellhop.hal.errors import BellhopError
from bellhop.node.config import load_config
from bellhop.node.etsi_client import DeliveredKey, EtsiClient, load_profile
from bellhop.node.loopback import running
from bellhop.node.session_client import Progress, run_session

pytestmark = pytest.mark.e2e

ALICE, BOB = NODES
DEATH_S = 20.0
SLOT = SLOTS // 3
"""A slot in the middle of the rounds, and the first block that is attempted for it."""

OF_LOST_OUTCOMES = ("by bob: reconciliation failed", "by bob: Bell test below the threshold")
"""Why a session that lost outcomes may end without a key."""

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


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Networks]:
    with ExitStack() as closing:
        yield Networks(tmp_path_factory.mktemp("c"), closing)


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


def name_of(crash: Crash) -> str:
    victims = "" if not crash.victims else f" kills {' and '.join(crash.victims)}"
    return f"{crash.looker} {crash.point}{victims}".replace(" ", "-").replace("/", "-")


def names_of(crashes: Iterable[Crash]) -> str:
    return "-and-".join(map(name_of, crashes))


def rare(crash: Crash) -> ParameterSet:
    """A point much like another one: for the campaign."""
    return pytest.param(crash, marks=pytest.mark.campaign)


# --- during a session -----------------------------------------------------------------------------

IN_THE_ROUNDS = [
    Crash(ALICE, f"after Order Attempt {SLOT}"),
    rare(Crash(BOB, f"after Persist link/{SLOT}")),
    Crash(ALICE, f"after Order Attempt {SLOT}", (EMULATOR,)),
    Crash(ALICE, f"after Persist drawn/{SLOT}"),
    Crash(ALICE, f"before Reported Measured {SLOT}"),
    rare(Crash(BOB, f"after Persist drawn/{SLOT}")),
    Crash(BOB, f"before Reported Measured {SLOT}"),
    Crash(ALICE, f"after Persist drawn/{SLOT}", (EMULATOR,)),
    rare(Crash(BOB, f"after Persist drawn/{SLOT}", (EMULATOR,))),
    Crash(ALICE, f"before Tell TestRounds {SLOT}"),
    rare(Crash(BOB, f"before Heard TestRounds {SLOT}")),
    rare(Crash(BOB, f"before Tell SlotDone {SLOT}")),
    Crash(BOB, f"after Persist drawn/{SLOT}", (EMULATOR, ALICE, BOB)),
]

FROM_THE_LAST_ROUND_ON = [
    Crash(ALICE, "before Tell Tagged transcript_a"),
    rare(Crash(BOB, "before Tell Tagged transcript_b")),
    rare(Crash(BOB, "after Heard Tagged inputs_a", (ALICE,))),
    rare(Crash(ALICE, "after Persist said/syndrome")),
    Crash(BOB, "inside decode"),
    Crash(BOB, "inside decode", ("worker",)),
    rare(Crash(BOB, "before Tell Decoded")),
    rare(Crash(ALICE, "before Tell Tagged verification")),
    Crash(BOB, "after Heard Tagged verification", (ALICE,)),
    Crash(BOB, "before Tell Tagged decision"),
    Crash(ALICE, "before Tell Tagged amplification"),
    rare(Crash(ALICE, "inside amplify")),
    rare(Crash(ALICE, "before StoreKeys")),
    Crash(ALICE, "after StoreKeys"),
    Crash(BOB, "after StoreKeys"),
    Crash(ALICE, "after StoreKeys", (BOB, ALICE)),
    rare(Crash(ALICE, "before ConfirmKeys")),
    rare(Crash(BOB, "before ConfirmKeys")),
    Crash(ALICE, "after ConfirmKeys"),
    rare(Crash(BOB, "after ConfirmKeys")),
]

BEFORE_THE_FIRST_ROUND = [
    Crash(ALICE, "after Persist parameters"),
    rare(Crash(BOB, "after Persist parameters")),
]


@pytest.mark.parametrize("crash", IN_THE_ROUNDS, ids=name_of)
def test_a_crash_in_the_rounds_costs_outcomes_and_nothing_else(
    networks: Networks, crash: Crash
) -> None:
    network = networks.take()
    before = agreed_blocks(network)
    end = session_with(network, crash)
    new = agreed_blocks(network).keys() - before.keys()
    assert end is None or (end["outcome"] == "stored") == bool(new), end
    assert new or end is None or str(end["reason"]).startswith(OF_LOST_OUTCOMES), end
    assert (deliver_all(network) > 0) == bool(new)
    check_journals(network)
    networks.current = network


@pytest.mark.campaign
@pytest.mark.parametrize(
    "crashes",
    [
        (Crash(ALICE, f"after Persist drawn/{SLOT}"), Crash(BOB, "inside decode")),
        (
            Crash(BOB, f"after Persist drawn/{SLOT}", (EMULATOR,)),
            Crash(ALICE, "before Tell Tagged transcript_a", (BOB, ALICE)),
        ),
    ],
    ids=names_of,
)
def test_a_session_is_taken_up_more_than_once(
    networks: Networks, crashes: tuple[Crash, ...]
) -> None:
    network = networks.take()
    before = agreed_blocks(network)
    session_with(network, *crashes)
    new = agreed_blocks(network).keys() - before.keys()
    assert (deliver_all(network) > 0) == bool(new)
    check_journals(network)
    networks.current = network


@pytest.mark.parametrize("crash", BEFORE_THE_FIRST_ROUND + FROM_THE_LAST_ROUND_ON, ids=name_of)
def test_a_crash_outside_the_rounds_costs_nothing(networks: Networks, crash: Crash) -> None:
    network = networks.take()
    before = agreed_blocks(network)
    end = session_with(network, crash)
    new = agreed_blocks(network).keys() - before.keys()
    assert len(new) == 1 and (end is None or end["outcome"] == "stored"), end
    assert deliver_all(network) > 0
    assert agreed_blocks(network)[new.pop()] == "spent"
    check_journals(network)
    networks.current = network


@pytest.mark.parametrize(
    "crashes",
    [
        (Crash(ALICE, "after Persist drawn/2"),),
        (Crash(ALICE, "after Persist drawn/2", (EMULATOR,)), Crash(BOB, "after Persist ended/")),
    ],
    ids=names_of,
)
def test_a_session_that_lost_too_much_leaves_nothing(
    networks: Networks, crashes: tuple[Crash, ...]
) -> None:
    """A fifth of the outcomes is lost: the session aborts at both ends, whoever dies then too."""
    network = networks.take()
    before = agreed_blocks(network)
    in_few_blocks = diqkd(ROUNDS // 5)
    propose_with(network, diqkd(), in_few_blocks)
    end = session_with(network, *crashes)
    assert end is None or end["outcome"] == "aborted", end
    assert agreed_blocks(network) == before
    assert deliver_all(network) == 0
    propose_with(network, in_few_blocks, diqkd())
    check_journals(network)
    networks.current = network


def propose_with(network: CrashableProcesses, old: str, new: str) -> None:
    """Change the sections of alice's file and start her anew."""
    file = network.layout.node(ALICE)
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    assert network.stop(ALICE) == 0
    network.start(ALICE)
    network.wait_ready()


# --- during delivery ------------------------------------------------------------------------------


def stocked(networks: Networks) -> CrashableProcesses:
    """A network where alice has keys to hand out."""
    network = networks.take()
    if settle(network)[ALICE]["keys"]["stock"][BOB]["keys"] < 2:
        end = session_with(network)
        assert end is not None and end["outcome"] == "stored", end
        settle(network)
    return network


def enc_key(network: CrashableProcesses) -> dict[str, bytes] | None:
    """One key for sae-alice to share with sae-bob; None if no answer came."""

    async def ask() -> dict[str, bytes]:
        async with client(network, ALICE) as alice:
            return plain(await alice.enc_keys("sae-bob", 1))

    return answer_of(ask())


def dec_keys(network: CrashableProcesses, key_ids: Iterable[str]) -> dict[str, bytes] | None:
    """Those keys for sae-bob; None if no answer came, or a refusal."""

    async def ask() -> dict[str, bytes]:
        async with client(network, BOB) as bob:
            return plain(await bob.dec_keys("sae-alice", list(key_ids)))

    return answer_of(ask())


def answer_of(asked: Coroutine[Any, Any, dict[str, bytes]]) -> dict[str, bytes] | None:
    try:
        return asyncio.run(asked)
    except BellhopError:
        return None


def handed_at(network: CrashableProcesses, name: str) -> set[str]:
    return {entry.what for entry in network.journal(name).entries() if entry.kind == "handed"}


@pytest.mark.parametrize(
    "crash",
    [
        Crash(ALICE, "before Take"),
        Crash(ALICE, "after Take"),
        Crash(ALICE, "before Tell KeysAllocated"),
        Crash(BOB, "after RecordAllocations"),
    ],
    ids=name_of,
)
def test_a_key_is_gone_when_it_was_handed_out_whether_or_not_it_arrived(
    networks: Networks, crash: Crash
) -> None:
    network = stocked(networks)
    before = handed_at(network, ALICE)
    crash.set(network)
    got = enc_key(network)
    revive_at_last(network, *crash.dead)
    settle(network)
    gone = handed_at(network, ALICE) - before
    assert len(gone) == (crash.point != "before Take")
    assert got is None or got.keys() == gone
    if crash.point in {"before Take", "after Take"}:
        assert got is None
    again = enc_key(network)
    assert again is not None and not again.keys() & gone
    for_bob = dec_keys(network, [*again, *gone])  # he learns of the lost one too, though not of use
    assert for_bob is not None and for_bob.items() >= again.items()
    assert got is None or for_bob.items() >= got.items()
    agreed_blocks(network)
    check_journals(network)
    networks.current = network


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_key_whose_answer_was_lost_at_its_slave_is_not_given_again(
    networks: Networks, when: str
) -> None:
    network = stocked(networks)
    given = enc_key(network)
    assert given is not None
    crash = Crash(BOB, f"{when} Fetch")
    crash.set(network)
    assert dec_keys(network, given) is None
    revive_at_last(network, *crash.dead)
    settle(network)
    assert dec_keys(network, given) == (given if when == "before" else None)
    assert dec_keys(network, given) is None
    agreed_blocks(network)
    check_journals(network)
    networks.current = network
