"""`kill -9` of every process at every stage: both stores agree, nothing is drawn or spent twice.

One network lives through all of it, so that a mask or a key that a crash leaves behind would be
met again in a later session.  A test that fails gets the next one a fresh network.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet
from tests.support.crashing import CrashableProcesses
from tests.support.processes import EMULATOR
from tests.support.small_session import ROUNDS, SLOTS, diqkd
from tests.support.surviving import (
    ALICE,
    BOB,
    Crash,
    Networks,
    agreed_blocks,
    check_journals,
    client,
    deliver_all,
    plain,
    revive_at_last,
    session_with,
    settle,
)

from bellhop.hal.errors import BellhopError

pytestmark = pytest.mark.e2e

SLOT = SLOTS // 3
"""A slot in the middle of the rounds, and the first block that is attempted for it."""

PAGE = 2
"""A page among many: slots of 500 rounds make pages of eight."""

OF_LOST_OUTCOMES = ("by bob: reconciliation failed", "by bob: Bell test too weak")
"""Why a session that lost outcomes may end without a key."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Networks]:
    with ExitStack() as closing:
        yield Networks(tmp_path_factory.mktemp("c"), closing)


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
    Crash(ALICE, f"before Persist pages/{PAGE}"),
    rare(Crash(BOB, f"before Persist pages/{PAGE}")),
    rare(Crash(ALICE, f"after Persist pages/{PAGE}")),
    Crash(BOB, f"after Persist pages/{PAGE}", (ALICE, BOB)),
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
