"""Nature with links that lose halves, hide what differs from pair to pair, or end at detectors."""

import numpy as np
import pytest
from numpy.typing import NDArray

from bellhop.hal.emulator import ledger
from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Nature, links_of
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    Attempt,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    NodeName,
    Ready,
    RequestId,
)
from bellhop.hal.preset import load_preset

ALICE, BOB = NodeName("alice"), NodeName("bob")
FIBRE = LinkName("fibre")
REQUEST = RequestId("00" * 16)


def make(name: str, overrides: dict[str, float] | None = None, seed: int = 1) -> Nature:
    links = links_of({"fibre": ("alice", "bob")}, load_preset(name, overrides))
    return Nature(links, np.random.default_rng(seed), Clock(fast=True))


def attempt(nature: Nature, rounds: int, block: int = 0) -> Heralded | MemoryLost:
    order = Attempt(FIBRE, REQUEST, block, rounds)
    assert nature.step(0, ALICE, order) == []
    one, two = nature.step(0, BOB, order)
    assert {one.node, two.node} == {ALICE, BOB}
    assert one.report == two.report
    assert isinstance(one.report, Heralded | MemoryLost)
    return one.report


def measure(
    nature: Nature, node: NodeName, settings: NDArray[np.uint8], block: int = 0
) -> Measured:
    (delivery,) = nature.step(0, node, Measure(FIBRE, REQUEST, block, settings))
    assert isinstance(delivery.report, Measured)
    return delivery.report


def test_a_half_that_decayed_is_a_round_without_an_answer() -> None:
    """Side B's half is 7 m of light old when it is measured, and |1> lives for 50 ns."""
    nature = make("oxford", {"device.b.memory.decay_ns": 50.0})
    rounds = 40_000
    attempt(nature, rounds)
    assert measure(nature, ALICE, np.zeros(rounds, dtype=np.uint8)).answered.all()
    measured = measure(nature, BOB, np.full(rounds, 2, dtype=np.uint8))
    gone = (1.0 - np.exp(-7.0 / 0.2041 / 50.0)) / 2.0
    # Half of the halves are |1>, but for the fitted Bloch vector's 0.004.
    assert (~measured.answered).mean() == pytest.approx(gone, abs=0.015)
    assert not measured.outcomes[~measured.answered].any()


def test_rounds_without_an_answer_read_zero() -> None:
    nature = make("oxford", {"device.a.no_answer_probability": 0.25})
    rounds = 20_000
    attempt(nature, rounds)
    measured = measure(nature, ALICE, np.zeros(rounds, dtype=np.uint8))
    sigma = np.sqrt(0.25 * 0.75 / rounds)
    assert measured.answered.mean() == pytest.approx(0.75, abs=5 * sigma)
    assert not measured.outcomes[~measured.answered].any()
    assert measured.outcomes[measured.answered].any()
    assert measure(nature, BOB, np.full(rounds, 2, dtype=np.uint8)).answered.all()


def test_hidden_variables_count_as_rounds() -> None:
    """A repeater node's pairs have two ages of four bytes, in place of two thirds of a round."""
    nature = make("innsbruck-50km")
    blocks = 0
    while isinstance(report := attempt(nature, BLOCK_ROUNDS_MAX, blocks), Heralded):
        blocks += 1
    assert "no memory is free" in report.reason
    # The last block to be let in is counted without them.
    full = ledger.ROUNDS_HELD_MAX / BLOCK_ROUNDS_MAX / (1 + 8 / ledger.ROUND_BYTES)
    assert full - 1 <= blocks <= full + 2


def test_heralds_that_would_take_centuries_are_lost_at_both_ends() -> None:
    """A herald takes nearly a day, which a preset may ask for; the second block would not end."""
    nature = make("liu-10km", {"device.preparation_ns": 9e9})
    assert isinstance(attempt(nature, BLOCK_ROUNDS_MAX), Heralded)
    report = attempt(nature, BLOCK_ROUNDS_MAX, 1)
    assert isinstance(report, MemoryLost)
    assert "292 years" in report.reason


def test_the_same_seed_draws_the_same() -> None:
    def session(seed: int) -> list[bytes]:
        nature = make("oxford", {"fibre.polarisation_diffusion_rad2_per_s": 0.1}, seed)
        found = []
        for block in range(2):
            report = attempt(nature, 500, block)
            assert isinstance(report, Heralded)
            found.append(report.attempts.tobytes())
            for node, setting in ((BOB, 2), (ALICE, 1)):
                settings = np.full(500, setting, dtype=np.uint8)
                found.append(measure(nature, node, settings, block).outcomes.tobytes())
        return found

    assert session(5) == session(5)
    assert all(one != two for one, two in zip(session(5), session(6), strict=True))


def test_drift_goes_on_from_block_to_block() -> None:
    """A phase that walks for hours and is never set back: S is there at first, then wanders."""
    nature = make("liu-10km", {"fibre.phase_diffusion_rad2_per_s": 1e-4})
    rounds, equal = 1_000, []
    for block in range(12):
        report = attempt(nature, rounds, block)
        assert isinstance(report, Heralded)
        ones = np.ones(rounds, dtype=np.uint8)
        a = measure(nature, ALICE, ones, block).outcomes
        b = measure(nature, BOB, np.zeros(rounds, dtype=np.uint8), block).outcomes
        # Psi+ and Psi- differ in the sign of XX.
        equal.append(float(np.mean(np.where(report.patterns == 1, a == b, a != b))))
    # Each block is about an hour, of 0.7 rad^2.  Restarted every block, all would be alike.
    assert max(equal) - min(equal) > 0.3


@pytest.mark.parametrize("name", ["cui-12km", "innsbruck-50km", "oxford"])
def test_a_port_says_what_its_link_leaves_out(name: str) -> None:
    (delivery,) = make(name).attach(0, ALICE)
    assert isinstance(delivery.report, Ready)
    texts = delivery.report.ports[0].idealisations
    assert any("held at once" in text for text in texts)
    # A link with memories at both ends needs no fair sampling.
    assert any("fair sampling" in text for text in texts) == (name != "oxford")
