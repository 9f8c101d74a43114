"""The conformance suite: it passes a sound device, and names what is wrong with an unsound one."""

import re

import numpy as np
import pytest
from tests.support import faulty_devices as faulty
from tests.support.faulty_devices import FIBRE, NODES, Fault, Faulty, network

from bellhop.hal.conformance import CHECKS, Device, Verdict, run_suite
from bellhop.hal.hardware import Hardware
from bellhop.hal.operations import Side

WAIT_SECONDS = 10.0
STALLED_SECONDS = 0.3
"""For devices that stall; others must not, however busy this machine is."""
BY_NAME = {check.name: check for check in CHECKS}


def broken(kind: type[Fault]) -> Device:
    """Both ends of an emulated link, with the same fault at either end."""
    embedded = network()
    latest: dict[Side, Fault] = {}

    def connect(side: Side, number: int) -> Hardware:
        fault = latest[side] = kind(side, np.random.default_rng(number))
        other = latest.get(Side.B if side is Side.A else Side.A)
        if other is not None:
            fault.other, other.other = other, fault
        return Faulty(embedded.memory(NODES[side]), fault)

    return Device(FIBRE, lambda: connect(Side.A, 1), lambda: connect(Side.B, 2))


async def verdict_on(kind: type[Fault], name: str, wait_seconds: float = WAIT_SECONDS) -> Verdict:
    chosen = [BY_NAME[name]]
    generator = np.random.default_rng(3)
    (verdict,) = await run_suite(broken(kind), generator, wait_seconds=wait_seconds, chosen=chosen)
    return verdict


async def test_the_emulator_in_this_process_passes() -> None:
    embedded = network()
    device = Device(
        FIBRE,
        lambda: embedded.memory(NODES[Side.A]),
        lambda: embedded.memory(NODES[Side.B]),
    )
    begun: list[str] = []
    verdicts = await run_suite(
        device,
        np.random.default_rng(2),
        wait_seconds=WAIT_SECONDS,
        begin=lambda c: begun.append(c.name),
    )
    assert {v.check.name: v.seen for v in verdicts if v.outcome in ("failed", "not run")} == {}
    assert begun == [check.name for check in CHECKS]


async def test_a_device_without_a_fault_passes_through_the_wrapper() -> None:
    """What finds the faults below is not the wrapper that plants them."""
    for check in CHECKS:
        verdict = await verdict_on(Fault, check.name)
        assert verdict.outcome in ("passed", "not applicable"), verdict.seen


PLANTED: list[tuple[type[Fault], str, str]] = [
    (faulty.NotReady, "ready_comes_first", "first report is DeviceGone, and must be Ready"),
    (faulty.SaysAtOneEndThatItDetects, "ready_comes_first", "is false at side A, true at side B"),
    (faulty.StallsInMeasurements, "heralds_and_outcomes_come_in_blocks", "stalled"),
    (faulty.StallsInHeralds, "heralds_and_outcomes_come_in_blocks", "side B stalled"),
    (faulty.SaysTwice, "nothing_comes_unasked", "duplicate"),
    (faulty.SaysTwiceLater, "a_block_is_measured_once", "Measured, where MemoryLost was due"),
    (faulty.NeverOrdered, "nothing_comes_unasked", "never ordered"),
    (faulty.OutcomesOfTwo, "heralds_and_outcomes_come_in_blocks", "impossible.*no bit"),
    (faulty.TooFewOutcomes, "heralds_and_outcomes_come_in_blocks", "impossible.*63 rounds"),
    (faulty.TooManyHeralds, "heralds_and_outcomes_come_in_blocks", "impossible.*65 rounds"),
    (faulty.OutcomesUnanswered, "most_rounds_are_answered", "impossible.*did not answer"),
    (faulty.HardlyAnswers, "most_rounds_are_answered", "answered 8 of 64 rounds"),
    (faulty.AttemptsFall, "attempts_and_times_rise", "out of order.*do not rise"),
    (faulty.AttemptsBeginAnew, "attempts_and_times_rise", "out of order.*begins with attempt 0"),
    (faulty.TimeRunsBack, "attempts_and_times_rise", "impossible.*ended at"),
    (faulty.BlocksOutOfOrder, "orders_given_ahead_are_all_carried_out", "out of order"),
    (faulty.LosesForNoReason, "an_unknown_link_is_refused", "without a reason"),
    (faulty.SilentlyRefuses, "both_ends_order_the_same", "stalled"),
    (faulty.OutlivesItsStream, "a_second_stream_ends_the_first", "stalled.*DeviceGone"),
    (faulty.KeepsWhatIsReleased, "a_released_request_is_given_up_at_one_end", "said Measured"),
    (faulty.MeasuresNothing, "what_is_not_heralded_is_not_measured", "said Measured"),
    (faulty.TakesAnySetting, "settings_fit_the_block_and_the_port", "said Measured"),
    (faulty.LiesAboutHeralds, "each_pattern_announces_its_state", "PSI_MINUS alone.*they lie"),
    (faulty.LiesAtOneEnd, "heralds_and_outcomes_come_in_blocks", "disagree on the patterns"),
    (faulty.Noisy, "outcomes_violate_chsh", "S is"),
    (faulty.Remembers, "rounds_are_independent", "its own outcome in the round before"),
    (faulty.Signals, "outcomes_do_not_signal", "depend on settings of side"),
    (faulty.BeyondQuantum, "outcomes_violate_chsh", "beyond quantum mechanics"),
]


@pytest.mark.parametrize(
    ("kind", "name", "words"), PLANTED, ids=lambda one: getattr(one, "__name__", "")
)
async def test_a_planted_fault_is_found_and_named(kind: type[Fault], name: str, words: str) -> None:
    wait_seconds = STALLED_SECONDS if "stalled" in words else WAIT_SECONDS
    verdict = await verdict_on(kind, name, wait_seconds)
    assert verdict.outcome == "failed"
    assert re.search(words, verdict.seen), verdict.seen


async def test_a_link_that_ends_at_a_detector_certifies_nothing_and_the_suite_says_so() -> None:
    embedded = network(preset="cui-12km")
    device = Device(
        FIBRE,
        lambda: embedded.memory(NODES[Side.A]),
        lambda: embedded.memory(NODES[Side.B]),
    )
    chosen = [BY_NAME[n] for n in ("ready_comes_first", "no_herald_is_a_measurement")]
    ready, loophole = await run_suite(device, np.random.default_rng(2), chosen=chosen)
    assert ready.outcome == "passed", ready.seen
    assert loophole.outcome == "not applicable" and "detection loophole" in loophole.seen


async def test_what_is_not_ready_is_not_tested_further() -> None:
    verdicts = await run_suite(
        broken(faulty.NotReady), np.random.default_rng(3), wait_seconds=WAIT_SECONDS
    )
    assert verdicts[0].outcome == "failed"
    assert {verdict.outcome for verdict in verdicts[1:]} == {"not run"}


async def test_every_failure_says_where_to_look() -> None:
    assert len({check.title for check in CHECKS}) == len({check.name for check in CHECKS})
    assert all(check.expected and check.look_at for check in CHECKS)
