"""Nature as a core: orders and the time in, reports out."""

import numpy as np
import pytest
from tests.support.stopwatch import starts_ns

from bellhop.hal import states
from bellhop.hal.correlations import to_state
from bellhop.hal.emulator import ledger
from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Delivery, Nature, links_of
from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    Attempt,
    BellState,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    NodeName,
    Ready,
    Release,
    RequestId,
    Side,
    Source,
)
from bellhop.hal.preset import load_preset
from bellhop.hal.runs import BLOCKS_PER_REQUEST_MAX
from bellhop.hal.statistics import chsh_estimate, framed, signalling

ALICE, BOB, CAROL = NodeName("alice"), NodeName("bob"), NodeName("carol")
FIBRE = LinkName("fibre")
REQUEST = RequestId("00" * 16)
FAST = Clock(fast=True)
SECOND_NS = 10**9


def make(seed: int = 1, clock: Clock = FAST, overrides: dict[str, float] | None = None) -> Nature:
    """Oxford's links; without reloads, which come by chance, unless asked for."""
    preset = load_preset("oxford", {"device.reload_ns": 0.0} | (overrides or {}))
    nodes = {"fibre": ("alice", "bob"), "second": ("bob", "carol")}
    return Nature(links_of(nodes, preset), np.random.default_rng(seed), clock)


def herald(nature: Nature, rounds: int, block: int = 0, now_ns: int = 0) -> Heralded:
    order = Attempt(FIBRE, REQUEST, block, rounds)
    assert nature.step(now_ns, ALICE, order) == []
    first, second = nature.step(now_ns, BOB, order)
    assert {first.node, second.node} == {ALICE, BOB}
    assert isinstance(first.report, Heralded)
    assert first.report is second.report
    return first.report


def settings_of(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.array(values, dtype=np.uint8)


def only(deliveries: list[Delivery]) -> Delivery:
    (delivery,) = deliveries
    return delivery


def lost(deliveries: list[Delivery], node: NodeName) -> MemoryLost:
    delivery = only(deliveries)
    assert delivery.node == node
    assert isinstance(delivery.report, MemoryLost)
    return delivery.report


def measure(
    nature: Nature,
    node: NodeName,
    settings: np.ndarray[tuple[int], np.dtype[np.uint8]],
    block: int = 0,
    now_ns: int = 0,
) -> Measured:
    deliveries = nature.step(now_ns, node, Measure(FIBRE, REQUEST, block, settings))
    report = only(deliveries).report
    assert isinstance(report, Measured)
    return report


def test_a_node_is_told_its_ports_when_it_attaches() -> None:
    nature = make()
    ready = only(nature.attach(0, BOB)).report
    assert isinstance(ready, Ready)
    assert [(p.link, p.side, p.peer, p.settings) for p in ready.ports] == [
        ("fibre", Side.B, "alice", 3),
        ("second", Side.A, "carol", 2),
    ]
    assert all(port.source is Source.EMULATED for port in ready.ports)
    assert any("fast clock" in text for text in ready.ports[0].idealisations)
    assert nature.nodes == {"alice", "bob", "carol"}


def test_heralds_rise_over_blocks_and_follow_the_duty_cycle() -> None:
    nature = make()
    first = herald(nature, 1_000)
    second = herald(nature, 1_000, block=1)
    assert first.attempts.dtype == np.int64
    assert np.all(np.diff(np.concatenate([first.attempts, second.attempts])) > 0)
    assert set(first.patterns) == {BellState.PSI_PLUS, BellState.PSI_MINUS}
    # 500 attempts of 1 us, then 300 us of cooling.
    cycle, within = divmod(int(first.attempts[-1]), 500)
    assert first.ended_ns - first.begun_ns == cycle * 800_000 + (within + 1) * 1_000
    assert second.begun_ns == first.ended_ns


def test_attempts_succeed_with_the_published_probability() -> None:
    rounds = BLOCK_ROUNDS_MAX
    attempts = herald(make(), rounds).attempts
    # A negative binomial variable: relative standard deviation 1 / sqrt(rounds).
    assert rounds / (int(attempts[-1]) + 1) == pytest.approx(1.6e-4, rel=5.0 / np.sqrt(rounds))


def test_mismatched_rounds_are_lost_at_both_ends() -> None:
    nature = make()
    nature.step(0, ALICE, Attempt(FIBRE, REQUEST, 0, 10))
    deliveries = nature.step(0, BOB, Attempt(FIBRE, REQUEST, 0, 11))
    assert [d.node for d in deliveries] == [BOB, ALICE]
    for delivery in deliveries:
        assert isinstance(delivery.report, MemoryLost)
        assert delivery.report.reason == "the ends ordered 10 and 11 rounds"
    assert herald(nature, 5).attempts.shape == (5,)


@pytest.mark.parametrize("rounds", [0, -1, BLOCK_ROUNDS_MAX + 1])
def test_blocks_have_bounds(rounds: int) -> None:
    assert "rounds" in lost(make().step(0, ALICE, Attempt(FIBRE, REQUEST, 0, rounds)), ALICE).reason


def test_everything_a_node_can_make_nature_hold_is_bounded() -> None:
    nature = make()
    limit = BLOCKS_PER_REQUEST_MAX
    for block in (-1, limit):
        refused = lost(nature.step(0, ALICE, Attempt(FIBRE, REQUEST, block, 1)), ALICE)
        assert "below" in refused.reason
    for number in range(ledger.REQUESTS_OPEN_MAX):
        request = RequestId(f"{number:032x}")
        assert nature.step(0, ALICE, Attempt(FIBRE, request, 0, 1)) == []
    refused = lost(nature.step(0, ALICE, Attempt(FIBRE, RequestId("f" * 32), 0, 1)), ALICE)
    assert "too many open requests" in refused.reason
    pending = ledger.ORDERS_PENDING_MAX - ledger.REQUESTS_OPEN_MAX
    for block in range(1, 1 + pending):
        assert nature.step(0, ALICE, Attempt(FIBRE, REQUEST, block, 1)) == []
    refused = lost(nature.step(0, ALICE, Attempt(FIBRE, REQUEST, 1 + pending, 1)), ALICE)
    assert "the other end has not given" in refused.reason


def test_memories_are_finite_and_free_again_when_measured() -> None:
    nature = make()
    for block in range(ledger.BLOCKS_HELD_MAX):
        herald(nature, 1, block)
    order = Attempt(FIBRE, REQUEST, ledger.BLOCKS_HELD_MAX, 1)
    nature.step(0, ALICE, order)
    refused = [delivery.report for delivery in nature.step(0, BOB, order)]
    assert all(isinstance(r, MemoryLost) and "no memory is free" in r.reason for r in refused)
    assert len(refused) == 2
    measure(nature, ALICE, settings_of(0))
    measure(nature, BOB, settings_of(0))
    herald(nature, 1, ledger.BLOCKS_HELD_MAX)


def test_rounds_held_are_bounded_too() -> None:
    nature = make()
    blocks = ledger.ROUNDS_HELD_MAX // BLOCK_ROUNDS_MAX
    for block in range(blocks):
        herald(nature, BLOCK_ROUNDS_MAX, block)
    order = Attempt(FIBRE, REQUEST, blocks, 1)
    nature.step(0, ALICE, order)
    assert len(nature.step(0, BOB, order)) == 2
    assert blocks < ledger.BLOCKS_HELD_MAX


def test_orders_are_not_given_twice() -> None:
    nature = make()
    order = Attempt(FIBRE, REQUEST, 0, 4)
    assert nature.step(0, ALICE, order) == []
    assert lost(nature.step(0, ALICE, order), ALICE).reason == "already ordered"
    nature.step(0, BOB, order)
    for node in (ALICE, BOB):
        assert "already heralded" in lost(nature.step(0, node, order), node).reason


def test_a_block_is_measured_once_at_each_end() -> None:
    nature = make()
    herald(nature, 3)
    for node in (ALICE, BOB):
        measure(nature, node, settings_of(0, 0, 1))
        again = Measure(FIBRE, REQUEST, 0, settings_of(0, 0, 0))
        refused = lost(nature.step(0, node, again), node)
        assert (refused.operation, refused.reason) == ("measure", "already measured")


def test_wrong_measurements_are_refused_and_spend_nothing() -> None:
    nature = make()
    unknown = Measure(FIBRE, REQUEST, 0, settings_of(0))
    assert lost(nature.step(0, ALICE, unknown), ALICE).reason == "not heralded"
    herald(nature, 2)
    wrong = {
        "rounds": settings_of(0),
        "no such setting": settings_of(0, 2),
    }
    for reason, settings in wrong.items():
        refused = lost(nature.step(0, ALICE, Measure(FIBRE, REQUEST, 0, settings)), ALICE)
        assert reason in refused.reason
    measure(nature, ALICE, settings_of(0, 1))
    measure(nature, BOB, settings_of(2, 2))


def test_links_of_others_do_not_exist() -> None:
    nature = make()
    for link in (FIBRE, LinkName("nowhere")):
        order = Attempt(link, REQUEST, 0, 1)
        assert "no such link" in lost(nature.step(0, CAROL, order), CAROL).reason
        assert nature.step(0, CAROL, Release(link, REQUEST)) == []


def test_release_frees_one_end_and_leaves_the_other_its_halves() -> None:
    nature = make()
    herald(nature, 2)
    assert nature.step(0, ALICE, Release(FIBRE, REQUEST)) == []
    order = Measure(FIBRE, REQUEST, 0, settings_of(0, 0))
    assert lost(nature.step(0, ALICE, order), ALICE).reason == "released at this end"
    measure(nature, BOB, settings_of(2, 2))
    assert nature.step(0, BOB, Release(FIBRE, REQUEST)) == []
    # Both gave it up: it is forgotten, and a request of that name is a new one.
    assert lost(nature.step(0, BOB, order), BOB).reason == "not heralded"
    assert int(herald(nature, 1).attempts[0]) >= 0


def test_heralds_are_due_when_the_experiment_would_make_them() -> None:
    nature = make(clock=Clock(scale=10.0, origin_ns=7))
    order = Attempt(FIBRE, REQUEST, 0, 100)
    nature.step(7, ALICE, order)
    delivery = nature.step(7, BOB, order)[0]
    assert isinstance(delivery.report, Heralded)
    assert delivery.due_ns - 7 == pytest.approx(delivery.report.ended_ns / 10, abs=1)
    early = Measure(FIBRE, REQUEST, 0, np.zeros(100, dtype=np.uint8))
    assert lost(nature.step(delivery.due_ns - 2, ALICE, early), ALICE).reason == "not heralded"
    assert nature.current(delivery)
    measure(nature, ALICE, early.settings, now_ns=delivery.due_ns)


def test_a_fast_clock_reports_at_once_with_emulated_times() -> None:
    nature = make()
    order = Attempt(FIBRE, REQUEST, 0, 10_000)
    nature.step(5, ALICE, order)
    delivery = nature.step(5, BOB, order)[0]
    assert isinstance(delivery.report, Heralded)
    assert delivery.due_ns == 5
    assert delivery.report.ended_ns == pytest.approx(100 * SECOND_NS, rel=0.06)


def test_giving_up_while_attempting_is_told_to_the_other_end() -> None:
    nature = make(clock=Clock())
    order = Attempt(FIBRE, REQUEST, 0, 100)
    nature.step(0, ALICE, order)
    waiting = nature.step(0, BOB, order)
    report = lost(nature.step(1, ALICE, Release(FIBRE, REQUEST)), BOB)
    assert (report.operation, report.block) == ("attempt", 0)
    assert not any(nature.current(delivery) for delivery in waiting)
    # The link is free for others at once.
    other = Attempt(FIBRE, RequestId("1" * 32), 0, 1)
    nature.step(2, ALICE, other)
    following = nature.step(2, BOB, other)[0].report
    assert isinstance(following, Heralded)
    assert following.begun_ns == 2


PAUSES = {
    "device.attempts_on_ns": 500_000.0,
    "device.cooling_ns": 300_000.0,
    "device.calibration_every_ns": 2_100_000.0,
    "device.calibration_ns": 1_000_000.0,
}
PERIOD_NS = 1_000


def test_attempts_that_were_never_made_are_not_counted() -> None:
    """Nor told: what a cancelled block would have taken is not there to be known."""
    drifting = {"fibre.polarisation_diffusion_rad2_per_s": 0.1}
    nature = make(clock=Clock(), overrides=drifting | PAUSES)
    starts = starts_ns(PERIOD_NS, PAUSES, 2_000_000)

    def ordered(block: int, rounds: int, now_ns: int) -> Heralded:
        order = Attempt(FIBRE, REQUEST, block, rounds)
        nature.step(now_ns, ALICE, order)
        report = nature.step(now_ns, BOB, order)[0].report
        assert isinstance(report, Heralded)
        return report

    made, now_ns = 0, 0
    for block in range(0, 18, 3):
        begun_ns = ordered(block, 10_000, now_ns).begun_ns
        assert ordered(block + 1, 10_000, now_ns).attempts[-1] > 50_000_000
        elapsed_ns = 40_000_000 + block * 1_234_567
        released_ns = begun_ns + elapsed_ns
        assert len(nature.step(released_ns, ALICE, Release(FIBRE, REQUEST))) == 2
        following = ordered(block + 2, 20, released_ns)
        made = int(np.count_nonzero(starts - starts[made] < elapsed_ns))
        last = int(following.attempts[-1])
        # The next herald is 6,250 attempts away on average.
        assert made <= following.attempts[0] < made + 20 * 6_250
        # Cooling and calibrations go on from there, too.
        took_ns = starts[last] + PERIOD_NS - starts[made]
        assert following.ended_ns - following.begun_ns == took_ns
        made, now_ns = last + 1, following.ended_ns


def test_a_block_of_another_request_stays_where_it_is() -> None:
    """It was to follow the one that is given up, and its attempts are drawn."""
    nature = make(clock=Clock(), overrides=PAUSES)
    other = RequestId("1" * 32)
    queued = []
    for request in (REQUEST, other):
        order = Attempt(FIBRE, request, 0, 100)
        nature.step(0, ALICE, order)
        queued.append(nature.step(0, BOB, order)[0])
    nature.step(1_000_000, ALICE, Release(FIBRE, REQUEST))
    assert [nature.current(delivery) for delivery in queued] == [False, True]
    cancelled, kept = (delivery.report for delivery in queued)
    assert isinstance(cancelled, Heralded) and isinstance(kept, Heralded)
    order = Attempt(FIBRE, other, 1, 20)
    nature.step(2_000_000, ALICE, order)
    following = nature.step(2_000_000, BOB, order)[0].report
    assert isinstance(following, Heralded)
    assert following.attempts[0] > kept.attempts[-1]
    # The link's attempts are those of the request, after what the block given up was to take.
    skipped = int(cancelled.attempts[-1]) + 1
    first, last = (
        skipped + int(attempt) for attempt in (kept.attempts[-1], following.attempts[-1])
    )
    starts = starts_ns(PERIOD_NS, PAUSES, last + 1)
    assert following.begun_ns == kept.ended_ns + starts[first + 1] - starts[first] - PERIOD_NS
    assert following.ended_ns - following.begun_ns == starts[last] + PERIOD_NS - starts[first + 1]


def test_a_node_that_is_gone_loses_its_halves_and_orders_but_not_its_peers() -> None:
    nature = make(clock=Clock())
    order = Attempt(FIBRE, REQUEST, 0, 50)
    nature.step(0, ALICE, order)
    waiting = nature.step(0, BOB, order)
    nature.step(0, ALICE, Attempt(FIBRE, REQUEST, 1, 50))
    now_ns = waiting[0].due_ns
    assert nature.forget(now_ns, ALICE) == []
    current = {delivery.node: nature.current(delivery) for delivery in waiting}
    assert current == {ALICE: False, BOB: True}
    settings = np.full(50, 2, dtype=np.uint8)
    gone = Measure(FIBRE, REQUEST, 0, settings)
    assert "connection ended" in lost(nature.step(now_ns, ALICE, gone), ALICE).reason
    assert measure(nature, BOB, settings, now_ns=now_ns).outcomes.shape == (50,)
    # Its order of block 1 is void: Bob's alone starts nothing.
    assert nature.step(now_ns, BOB, Attempt(FIBRE, REQUEST, 1, 50)) == []


def test_nodes_that_come_and_go_do_not_fill_nature_up() -> None:
    nature = make()
    for number in range(3 * ledger.REQUESTS_OPEN_MAX):
        order = Attempt(FIBRE, RequestId(f"{number:032x}"), 0, 1)
        assert nature.step(0, ALICE, order) == []
        assert len(nature.step(0, BOB, order)) == 2
        nature.forget(0, ALICE)
        nature.step(0, BOB, Release(FIBRE, order.request))


def test_the_half_of_a_lost_peer_is_still_quantum_mechanically_right() -> None:
    rounds = BLOCK_ROUNDS_MAX
    nature = make()
    patterns = herald(nature, rounds).patterns
    nature.forget(0, ALICE)
    outcomes = measure(nature, BOB, np.full(rounds, 2, dtype=np.uint8)).outcomes
    preset = load_preset("oxford")
    assert preset.state is not None
    for bell_state in (BellState.PSI_PLUS, BellState.PSI_MINUS):
        among = patterns == bell_state
        # <Z> of Bob's half, reversed by the image under Y, seen with the readout's contrast.
        contrast = 1.0 - 2.0 * preset.device.b.readout_error.value
        ones = (1.0 + contrast * preset.state.bloch_b.value[2]) / 2.0
        sigma = 0.5 / np.sqrt(among.sum())
        assert outcomes[among].mean() == pytest.approx(ones, abs=5 * sigma)


@pytest.mark.parametrize("clock", [FAST, Clock(), Clock(scale=100.0)])
@pytest.mark.parametrize("delay_seconds", [0, 10])
def test_halves_age_by_the_announcement_and_not_by_the_host(
    clock: Clock, delay_seconds: int
) -> None:
    """Side A's half ages for 2 x 10 km until its herald is back.  Side B's photon leaves 30 km
    before it meets side A's, and the announcement comes 10 km and then 40 km after that: 98 and
    392 us of light, after which XX is down by exp(-490 / 800), and ZZ as it was."""
    rounds = BLOCK_ROUNDS_MAX
    coherence_ns = 8e5
    overrides = {
        "fibre.a.length_m": 1e4,
        "fibre.b.length_m": 3e4,
        "device.memory.coherence_ns": coherence_ns,
    }
    nature = make(clock=clock, overrides=overrides)
    patterns = herald(nature, rounds).patterns
    now_ns = 1_000_000 * SECOND_NS
    x = (np.arange(rounds) % 2).astype(np.uint8)
    y = np.where(x == 1, 0, 2).astype(np.uint8)
    a = measure(nature, ALICE, x, now_ns=now_ns).outcomes
    b = measure(nature, BOB, y, now_ns=now_ns + delay_seconds * SECOND_NS).outcomes
    experiment = Experiment(load_preset("oxford"))
    angles_a, angles_b = experiment.angles[Side.A], experiment.angles[Side.B]
    for bell_state, fresh in zip(
        experiment.announced, to_state(experiment.correlations), strict=True
    ):
        aged = states.dephase(fresh, 2e4 / 0.2041, coherence_ns, "exponential", Side.A)
        aged = states.dephase(aged, 8e4 / 0.2041, coherence_ns, "exponential", Side.B)
        for x_setting, y_setting in ((0, 2), (1, 0)):
            among = (x == x_setting) & (patterns == bell_state)
            expected = states.error_rate(
                aged, angles_a[x_setting], angles_b[y_setting], 0.002, 0.002
            )
            sigma = np.sqrt(0.25 / among.sum())
            assert (a ^ b)[among].mean() == pytest.approx(float(expected), abs=5 * sigma)


@pytest.mark.parametrize("order", [(ALICE, BOB), (BOB, ALICE)])
def test_no_signalling_chsh_and_qber_in_either_order(order: tuple[NodeName, NodeName]) -> None:
    """Sixteen blocks, a million rounds: five standard deviations everywhere, for each herald."""
    nature = make(seed=11)
    chance = np.random.default_rng(12)
    gathered: dict[str, list[np.ndarray[tuple[int], np.dtype[np.uint8]]]] = {
        name: [] for name in ("pattern", "x", "y", "a", "b")
    }
    for block in range(16):
        patterns = herald(nature, BLOCK_ROUNDS_MAX, block).patterns
        settings = {
            ALICE: chance.integers(0, 2, BLOCK_ROUNDS_MAX, dtype=np.uint8),
            BOB: chance.integers(0, 3, BLOCK_ROUNDS_MAX, dtype=np.uint8),
        }
        outcomes = {node: measure(nature, node, settings[node], block).outcomes for node in order}
        columns = (patterns, settings[ALICE], settings[BOB], outcomes[ALICE], outcomes[BOB])
        for name, column in zip(gathered, columns, strict=True):
            gathered[name].append(column)
    pattern, x, y, raw_a, raw_b = (np.concatenate(gathered[name]) for name in gathered)
    assert signalling(pattern, x, raw_a, y) < 5.0
    assert signalling(pattern, y, raw_b, x) < 5.0
    a, b = framed(pattern, x, raw_a, raw_b)
    for bell_state in (BellState.PSI_PLUS, BellState.PSI_MINUS):
        test = (pattern == bell_state) & (y < 2)
        value, error = chsh_estimate(x[test], y[test], a[test], b[test])
        # Patterns differ in fidelity by at most 0.003 from the mean, hence in S by about 0.008.
        assert value == pytest.approx(2.677, abs=5 * error + 0.008)
        key = (pattern == bell_state) & (x == 0) & (y == 2)
        qber = float((a ^ b)[key].mean())
        assert qber == pytest.approx(0.0144, abs=5 * np.sqrt(0.0144 / key.sum()))
    value, error = chsh_estimate(x[y < 2], y[y < 2], a[y < 2], b[y < 2])
    assert value == pytest.approx(2.677, abs=5 * error)


def test_links_do_not_disturb_one_another() -> None:
    """What happens on one link moves no draw on another."""
    quiet, busy = make(seed=3), make(seed=3)
    elsewhere = Attempt(LinkName("second"), REQUEST, 0, 100)
    busy.step(0, BOB, elsewhere)
    busy.step(0, CAROL, elsewhere)
    assert np.array_equal(herald(quiet, 50).attempts, herald(busy, 50).attempts)
