"""The 11 km experiment, replayed between processes: 624 hours, and once stopped in its middle."""

import time
from collections.abc import Iterator

import pytest
from tests.support.long_experiments import (
    ALICE,
    BOB,
    PUBLISHED_HOURS,
    ROUNDS,
    PausedThenKilled,
    command,
    equal_keys,
    hours,
    is_over,
    lay_out,
    run,
    session_of,
    verified,
)

from bellhop.node.control_client import NodeStopped
from bellhop.node.loopback import NODES, Processes, network

pytestmark = pytest.mark.e2e

REPLAY_S = 90.0
"""On a machine that others use as well; `bench/replay.py` says what it takes on one of its own."""

END_S = 120.0


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    with network(lay_out(tmp_path_factory.mktemp("lu") / "net")) as processes:
        yield processes


def test_624_hours_are_replayed_in_seconds(link: Processes) -> None:
    begun = time.monotonic()
    end = run(link)
    for name in NODES:
        link.wait_for(name, is_over, END_S)
    took_s = time.monotonic() - begun
    assert end["outcome"] == "stored" and end["rounds"] == ROUNDS
    assert took_s < REPLAY_S
    assert abs(hours(end["experiment_ns"]) / PUBLISHED_HOURS - 1) < 0.01
    assert end["bound"] == "renyi-2405.05912" and end["net_bits"] > 150_000
    for name in NODES:
        verified(link, name, end["session"])
    assert equal_keys(link) * 256 >= end["net_bits"] - 256


def test_a_run_paused_and_killed_in_its_middle_ends_in_a_key(link: Processes) -> None:
    stop = PausedThenKilled(link, by=BOB, after_rounds=ROUNDS // 4)
    with pytest.raises(NodeStopped):
        run(link, stop.moved)
    before = stop.quiet[ALICE]
    assert ROUNDS // 4 <= before["rounds_done"] < ROUNDS
    assert before["rounds_done"] == stop.quiet[BOB]["rounds_done"]

    for name in NODES:
        link.start(name)
    link.wait_ready()
    for name in NODES:
        held = link.wait_for(name, lambda status: session_of(status)["paused_by"] == [BOB])
        assert session_of(held)["rounds_done"] == before["rounds_done"], "no outcome was in hand"

    resumed = command(link, BOB, "diqkd", "resume", "--peer", ALICE)
    assert resumed["outcome"] == "resumed" and resumed["paused_by"] == ""
    ends = [link.wait_for(name, is_over, END_S)["core"]["last_session"] for name in NODES]
    assert [end["outcome"] for end in ends] == ["stored", "stored"], ends
    assert {end["session"] for end in ends} == {before["session"]}
    for name, end in zip(NODES, ends, strict=True):
        assert abs(hours(end["experiment_ns"]) / PUBLISHED_HOURS - 1) < 0.01
        verified(link, name, end["session"])
    assert equal_keys(link) * 256 >= ends[0]["net_bits"] - 256
