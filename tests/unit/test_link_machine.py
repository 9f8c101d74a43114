"""Blocks of one request: two ends by hand, void and retried, lost and told again, and nonsense."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from bellhop.hal.operations import Attempt, Heralded, LinkName, MemoryLost, NodeName, RequestId
from bellhop.stack.codec import join
from bellhop.stack.core import Action, Note, Order, Persist, Refuse, Tell
from bellhop.stack.link.block import herald_digest
from bellhop.stack.link.machine import (
    HERALD_LATE_NS,
    RETRIES_MAX,
    BlockExchange,
    Delivery,
    LinkFailed,
    MeasureDirectly,
    PairsReady,
)
from bellhop.stack.link.slots import Slots
from bellhop.stack.messages import BlockHeralded

LINK, REQUEST = LinkName("fibre"), RequestId("ab" * 16)
ROUNDS, BLOCK_ROUNDS, WINDOW = 23, 5, 2
SLOTS = 5
NOW_NS = 7
A, B = NodeName("a"), NodeName("b")


def request(peer: NodeName) -> MeasureDirectly:
    return MeasureDirectly(LINK, peer, REQUEST, ROUNDS, BLOCK_ROUNDS, WINDOW)


def exchange(facts: dict[str, bytes] | None = None, *, away: bool = False) -> BlockExchange:
    return BlockExchange(request(B), facts or {}, device_away=away)


def attempts(actions: list[Action]) -> list[int]:
    operations = [a.operation for a in actions if isinstance(a, Order)]
    return [o.block for o in operations if isinstance(o, Attempt)]


def told(actions: list[Action]) -> list[BlockHeralded]:
    messages = [a.message for a in actions if isinstance(a, Tell)]
    return [m for m in messages if isinstance(m, BlockHeralded)]


def refusals(actions: list[Action]) -> list[str]:
    return [a.reason for a in actions if isinstance(a, Refuse)]


def herald(block: int, first: int = 0, pattern: int = 3) -> Heralded:
    rounds = request(B).slot_rounds(block % SLOTS)
    numbers = np.arange(first, first + rounds, dtype=np.int64)
    patterns = np.full(rounds, pattern, np.uint8)
    return Heralded(LINK, REQUEST, block, numbers, patterns, 0, 1)


def lost(block: int) -> MemoryLost:
    return MemoryLost(LINK, REQUEST, block, "attempt", "cut")


def word(block: int, digest: bytes | None = None) -> BlockHeralded:
    """The peer's word of a block that it saw as `herald` gives it."""
    report = herald(block)
    seen = herald_digest(report.attempts, report.patterns) if digest is None else digest
    return BlockHeralded(LINK, REQUEST, block, seen)


# --- the request ----------------------------------------------------------------------------------


def test_slots_cover_all_rounds_once() -> None:
    one = request(B)
    assert one.slots == SLOTS
    spans = [one.span(slot) for slot in range(SLOTS)]
    assert [s.stop - s.start for s in spans] == [5, 5, 5, 5, 3]
    assert [k for s in spans for k in range(s.start, s.stop)] == list(range(ROUNDS))


def test_digests_differ_with_attempts_patterns_and_their_border() -> None:
    a, p = np.arange(4, dtype=np.int64), np.zeros(4, np.uint8)
    digests = {
        herald_digest(a, p),
        herald_digest(a + 1, p),
        herald_digest(a, p + 1),
        herald_digest(a[:3], p),
        herald_digest(a[:0], np.zeros(36, np.uint8)),
    }
    assert len(digests) == 5


# --- a good block ---------------------------------------------------------------------------------


def test_a_window_is_ordered_and_moves_when_a_slot_is_finished() -> None:
    one = exchange()
    assert attempts(one.fill()) == [0, 1]
    assert one.fill() == []
    assert attempts(one.finish([1])) == [2]
    assert attempts(one.finish([0])) == [3]


def test_what_was_seen_is_persisted_before_it_is_told() -> None:
    one = exchange()
    one.fill()
    actions, deliveries = one.heralded(herald(0))
    assert [type(a) for a in actions] == [Persist, Tell] and deliveries == []
    persist = actions[0]
    assert isinstance(persist, Persist) and persist.put[0].name == f"link/{REQUEST}/0/0"
    assert told(actions) == [word(0)]


@pytest.mark.parametrize("first", ["own", "peer"])
def test_equal_reports_deliver_once(first: str) -> None:
    one = exchange()
    one.fill()
    if first == "own":
        one.heralded(herald(0))
        actions, deliveries = one.told(NOW_NS, word(0))
        assert actions == []
    else:
        actions, deliveries = one.told(NOW_NS, word(0))
        assert (actions, deliveries) == ([], [])
        _, deliveries = one.heralded(herald(0))
    (ready,) = deliveries
    assert isinstance(ready, PairsReady) and (ready.slot, ready.block) == (0, 0)
    assert ready.patterns.tolist() == [3] * 5
    assert one.told(NOW_NS, word(0)) == ([], [])
    assert one.heralded(herald(0)) == ([], [])


# --- a void block ---------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", [b"", bytes(32)])
def test_other_or_no_reports_make_a_block_void(digest: bytes) -> None:
    one = exchange()
    one.fill()
    one.heralded(herald(0))
    actions, deliveries = one.told(NOW_NS, word(0, digest))
    assert deliveries == []
    assert [a.name for a in actions if isinstance(a, Note)] == ["block_void"]
    assert attempts(actions) == [SLOTS], "the slot's next block"


def test_a_block_lost_here_is_void_whatever_the_peer_saw() -> None:
    one = exchange()
    one.fill()
    actions, _ = one.lost(lost(0))
    assert [m.digest for m in told(actions)] == [b""]
    actions, deliveries = one.told(NOW_NS, word(0))
    assert deliveries == [] and attempts(actions) == [SLOTS]


def test_a_report_never_changes() -> None:
    one = exchange()
    one.fill()
    one.lost(lost(0))
    assert one.heralded(herald(0)) == ([], []), "it said it had lost it"
    one.told(NOW_NS, word(1))
    actions, deliveries = one.told(NOW_NS, word(1, bytes(32)))
    assert refusals(actions) == ["link_digest"] and deliveries == []


def test_too_many_void_blocks_in_a_row_fail_the_link() -> None:
    one = exchange()
    block, failures = 0, []
    one.fill()
    for retry in range(RETRIES_MAX + 1):
        block = retry * SLOTS
        one.lost(lost(block))
        actions, deliveries = one.told(NOW_NS, word(block, b""))
        failures += deliveries
        expected = [block + SLOTS] if retry < RETRIES_MAX else []
        assert attempts(actions) == expected
    assert failures == [LinkFailed("9 blocks in a row were lost")]


def test_blocks_of_a_slot_are_voided_in_their_order() -> None:
    """The peer, a block ahead, speaks of the next before its word of this one comes again."""
    one = exchange()
    one.fill()
    one.lost(lost(0))
    actions, _ = one.told(NOW_NS, word(SLOTS))
    assert attempts(actions) == [SLOTS]
    one.lost(lost(SLOTS))  # the second block is void already, the first not known to be
    actions, deliveries = one.told(NOW_NS, word(0))
    assert deliveries == []
    assert len([a for a in actions if isinstance(a, Note)]) == 2
    assert attempts(actions) == [2 * SLOTS]


def test_word_of_a_block_settled_long_ago_changes_nothing() -> None:
    one = exchange()
    one.fill()
    one.lost(lost(0))
    one.told(NOW_NS, word(0))
    assert one.told(NOW_NS, word(0)) == ([], [])


# --- a herald that does not come here -------------------------------------------------------------


def test_a_word_that_comes_again_says_no_more_than_the_first() -> None:
    """A duplicate, or told again to an end whose device is slow: the block is good."""
    one = exchange()
    one.fill()
    for _ in range(3):
        assert one.told(NOW_NS, word(0)) == ([], [])
    assert one.told(NOW_NS + HERALD_LATE_NS, word(0)) == ([], [])
    _, (ready,) = one.heralded(herald(0))
    assert isinstance(ready, PairsReady) and ready.block == 0


def test_a_herald_that_the_peer_has_had_for_long_is_lost_here() -> None:
    one = exchange()
    one.fill()
    one.told(NOW_NS, word(0))
    one.told(NOW_NS + HERALD_LATE_NS // 2, word(0))  # the time runs from the first word
    assert one.overdue(NOW_NS + HERALD_LATE_NS - 1) == ([], [])
    actions, deliveries = one.overdue(NOW_NS + HERALD_LATE_NS)
    assert [type(a) for a in actions[:2]] == [Persist, Tell] and deliveries == []
    assert [m.digest for m in told(actions)] == [b""] and attempts(actions) == [SLOTS]
    assert one.heralded(herald(0)) == ([], []), "it said it had lost it"
    assert one.overdue(NOW_NS + 9 * HERALD_LATE_NS) == ([], [])


def test_only_what_the_peer_has_and_we_have_not_is_late() -> None:
    """An attempt may take any time, and what the peer has lost never comes."""
    one = exchange()
    one.fill()
    one.heralded(herald(0))
    assert one.overdue(9 * HERALD_LATE_NS) == ([], []), "the other block is under way"
    one.told(9 * HERALD_LATE_NS, word(0))
    assert one.overdue(99 * HERALD_LATE_NS) == ([], [])


# --- restarts -------------------------------------------------------------------------------------


def slots(*members: int) -> Slots:
    made = Slots(SLOTS)
    for slot in members:
        made.add(slot)
    return made


def facts(actions: list[Action]) -> dict[str, bytes]:
    return {f.name: f.payload for a in actions if isinstance(a, Persist) for f in a.put}


def test_what_was_told_holds_after_a_restart() -> None:
    one = exchange()
    one.fill()
    seen, _ = one.heralded(herald(0))
    gone, _ = one.lost(lost(1))
    again = exchange(facts(seen) | facts(gone))
    assert attempts(again.fill()) == []
    assert [m.digest for m in told(again.retell(range(SLOTS)))] == [word(0).digest, b""]
    assert again.heralded(herald(0, first=7)) == ([], [])
    _, (ready,) = again.told(NOW_NS, word(0))
    assert isinstance(ready, PairsReady) and ready.patterns.tolist() == [3] * 5


def test_a_slot_delivered_before_a_restart_is_not_delivered_again() -> None:
    one = exchange()
    one.fill()
    seen, _ = one.heralded(herald(0))
    again = exchange(facts(seen))
    again.resume([0], Slots(SLOTS))
    assert again.told(NOW_NS, word(0)) == ([], [])


def test_finished_slots_leave_the_window_after_a_restart() -> None:
    again = exchange()
    again.resume([], slots(0, 1, 3))
    assert attempts(again.fill()) == [2, 4]


def test_only_what_is_asked_for_is_told_again() -> None:
    one = exchange()
    one.fill()
    one.heralded(herald(0))
    one.heralded(herald(1))
    assert [m.block for m in told(one.retell([1, 4]))] == [1]
    assert one.retell([]) == []


def test_a_device_that_is_away_is_ordered_when_it_is_back() -> None:
    one = exchange(away=True)
    assert one.fill() == []
    assert attempts(one.device_back()) == [0, 1]
    one.heralded(herald(0))
    assert attempts(one.device_back()) == [1]


def test_facts_of_another_request_are_not_ours() -> None:
    other = {f"link/{'cd' * 16}/0/0": join(bytes(32), b"\0" * 5)}
    assert attempts(exchange(other).fill()) == [0, 1]


# --- nonsense -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 2, -1, 10**12])
def test_a_report_of_what_was_not_ordered_is_passed_over(block: int) -> None:
    one = exchange()
    assert one.heralded(herald(block)) == ([], [])
    assert one.lost(lost(block)) == ([], [])


@pytest.mark.parametrize("what", ["rounds", "attempts", "patterns", "shape"])
def test_a_herald_that_cannot_be_counts_as_lost(what: str) -> None:
    one = exchange()
    one.fill()
    report = herald(0)
    nonsense = {
        "rounds": herald(4),
        "attempts": replace(report, attempts=report.attempts[:4]),
        "patterns": replace(report, patterns=report.patterns + np.uint8(1)),
        "shape": replace(
            report, attempts=report.attempts.reshape(5, 1), patterns=report.patterns.reshape(5, 1)
        ),
    }[what]
    actions, deliveries = one.heralded(replace(nonsense, block=0))
    assert [m.digest for m in told(actions)] == [b""] and deliveries == []


@pytest.mark.parametrize("block", [-1, -SLOTS, SLOTS * (RETRIES_MAX + 1), 10**9])
def test_a_peer_cannot_name_a_block_that_cannot_be(block: int) -> None:
    one = exchange()
    actions, deliveries = one.told(NOW_NS, BlockHeralded(LINK, REQUEST, block, bytes(32)))
    assert refusals(actions) == ["link_block"] and attempts(actions) == [] and deliveries == []


@pytest.mark.parametrize(
    "message",
    [word(0, b"x"), word(0, bytes(33)), replace(word(0), link=LinkName("other"))],
)
def test_a_malformed_word_is_refused(message: BlockHeralded) -> None:
    actions, _ = exchange().told(NOW_NS, message)
    assert refusals(actions) == ["link_block"]


def test_a_peer_cannot_have_blocks_ordered_far_ahead() -> None:
    one = exchange()
    one.fill()
    ahead = [2 * SLOTS, 3 * SLOTS + 1, RETRIES_MAX * SLOTS, SLOTS, SLOTS + 4]
    for block in ahead:
        actions, _ = one.told(NOW_NS, word(block))
        assert refusals(actions) == ["link_window"] and attempts(actions) == []


# --- two ends, any order --------------------------------------------------------------------------


@dataclass
class End:
    """One end, with what its device and its peer still have to say to it."""

    exchange: BlockExchange
    reports: list[Heralded | MemoryLost] = field(default_factory=list)
    mail: list[BlockHeralded] = field(default_factory=list)
    ordered: set[int] = field(default_factory=set)
    agreed: dict[int, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)


class Ends:
    """Two ends of a link that loses a block in five here or there, and three words in ten."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.ends = [End(BlockExchange(request(peer), {}, device_away=False)) for peer in (B, A)]
        for k in (0, 1):
            self.perform(k, self.ends[k].exchange.fill(), [])

    def perform(self, k: int, actions: list[Action], deliveries: list[Delivery]) -> None:
        own, peer = self.ends[k], self.ends[1 - k]
        assert not refusals(actions), refusals(actions)
        for block in attempts(actions):
            own.ordered.add(block)
            if block in peer.ordered:
                self.attempt(block)
        peer.mail += [m for m in told(actions) if self.chance.random() < 0.7]
        for delivery in deliveries:
            assert isinstance(delivery, PairsReady), delivery
            assert delivery.slot not in own.agreed
            own.agreed[delivery.slot] = delivery.block

    def attempt(self, block: int) -> None:
        for end in self.ends:
            gone = self.chance.random() < 0.2
            end.reports.append(lost(block) if gone else herald(block, first=block * 9))

    def happen(self) -> None:
        k = int(self.chance.integers(2))
        end = self.ends[k]
        match int(self.chance.integers(4)):
            case 0 if end.reports:
                report = end.reports.pop(int(self.chance.integers(len(end.reports))))
                if isinstance(report, Heralded):
                    self.perform(k, *end.exchange.heralded(report))
                else:
                    self.perform(k, *end.exchange.lost(report))
            case 1 if end.mail:
                self.perform(k, *end.exchange.told(NOW_NS, end.mail.pop(0)))
            case 2 if not end.mail and not end.reports:
                lacking = [slot for slot in range(SLOTS) if slot not in end.agreed]
                self.perform(1 - k, self.ends[1 - k].exchange.retell(lacking), [])
            case 3:
                self.finish(k)

    def finish(self, k: int) -> None:
        both = self.ends[0].agreed.keys() & self.ends[1].agreed.keys()
        for slot in sorted(both - self.ends[k].finished)[:1]:
            self.ends[k].finished.add(slot)
            self.perform(k, self.ends[k].exchange.finish([slot]), [])


@pytest.mark.parametrize("seed", range(30))
def test_two_ends_agree_on_the_same_blocks_whatever_is_lost(seed: int) -> None:
    both = Ends(seed)
    for _ in range(4000):
        both.happen()
    assert both.ends[0].agreed == both.ends[1].agreed
    assert set(both.ends[0].agreed) == set(range(SLOTS))
