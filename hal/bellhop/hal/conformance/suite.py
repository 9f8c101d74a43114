"""The suite: every check on connections of its own, and a report that can be acted on."""

import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bellhop.hal.conformance import checks, statistical_checks
from bellhop.hal.conformance.bench import (
    STATISTICS_ROUNDS,
    Bench,
    Connect,
    Interrupted,
    NotApplicable,
    NotConforming,
    NotRun,
    Way,
    attach,
)
from bellhop.hal.conformance.statistics import Sample
from bellhop.hal.errors import HardwareError
from bellhop.hal.operations import LinkName, Side

INTERRUPTED_LOOK_AT = (
    "the log of the service that was lost or stalled, and of what is behind it: whether this check"
    " would pass was not seen"
)

Outcome = Literal["passed", "failed", "not applicable", "not run"]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: what is expected, and where to look if something else is seen."""

    title: str
    expected: str
    look_at: str
    run: Callable[[Bench], Awaitable[None]]

    @property
    def name(self) -> str:
        return self.run.__name__

    async def __call__(self, bench: Bench) -> None:
        """Raises NotConforming or NotApplicable."""
        await self.run(bench)


CHECKS: tuple[Check, ...] = (
    Check(
        "Ready comes first",
        "each end says Ready first, with one port on the link: sides A and B, at least 2 and 3"
        " settings, both emulated or neither",
        "whether the services run where they should, the names in the certificates and of the link,"
        " and what `Laboratory.open` returns",
        checks.ready_comes_first,
    ),
    Check(
        "No herald is a measurement",
        "pairs that are heralded before a setting acts at either end; a link that ends at a"
        " detector says that it has none",
        "`herald_is_measurement` of the ports",
        checks.no_herald_is_a_measurement,
    ),
    Check(
        "Heralds and outcomes come in blocks",
        "one herald and one outcome for each round ordered, the same heralds at both ends",
        "the station's messages to the two ends: do both take the same clicks for the same block?",
        checks.heralds_and_outcomes_come_in_blocks,
    ),
    Check(
        "Attempts and times rise",
        "attempt numbers that rise from 0 over all blocks of a request, and times that do not fall",
        "the attempt counter (is it set back between blocks?) and the device's clock",
        checks.attempts_and_times_rise,
    ),
    Check(
        "Rounds are answered",
        "an outcome for at least half of the rounds; a round without one reads 0, not answered",
        "the detection's thresholds and time windows",
        checks.most_rounds_are_answered,
    ),
    Check(
        "Orders given ahead are carried out",
        "blocks ordered in different sequences at the two ends are all heralded, each once, when"
        " there is room",
        "the station's bookkeeping of offers, see `bellhop.hal.rendezvous`",
        checks.orders_given_ahead_are_all_carried_out,
    ),
    Check(
        "Nothing comes unasked",
        "one report for each order, and none that nobody asked for",
        "repeated messages of the controller, and events left over from runs before",
        checks.nothing_comes_unasked,
    ),
    Check(
        "A block is measured once",
        "a second measurement, and a second attempt of the same block, are lost with a reason",
        "how the service remembers which blocks are spent",
        checks.a_block_is_measured_once,
    ),
    Check(
        "What is not heralded is not measured",
        "the measurement of a block that was not heralded is lost with a reason",
        "what the device measures if it holds no pair",
        checks.what_is_not_heralded_is_not_measured,
    ),
    Check(
        "Settings fit the block and the port",
        "settings of a wrong number or beyond the port's are lost, and spend nothing",
        "the number of settings in `open`, and where orders are checked",
        checks.settings_fit_the_block_and_the_port,
    ),
    Check(
        "Both ends order the same",
        "a block that the ends order with different rounds is lost at both",
        "the station's bookkeeping: it must compare the rounds of the two orders",
        checks.both_ends_order_the_same,
    ),
    Check(
        "Blocks longer than the device are refused",
        "an attempt of more rounds than the port's rounds_max is lost with a reason",
        "`pairs_held_max`, and where orders are checked",
        checks.blocks_longer_than_the_device_are_refused,
    ),
    Check(
        "An unknown link is refused",
        "an attempt on a link that the device has not is lost with a reason",
        "where orders are checked",
        checks.an_unknown_link_is_refused,
    ),
    Check(
        "A released request is given up at one end",
        "after a release that end measures nothing of it, and the other end still can",
        "`release`: it must leave the other end's halves alone",
        checks.a_released_request_is_given_up_at_one_end,
    ),
    Check(
        "What is released makes room",
        "blocks are heralded after others of the same size were released unmeasured",
        "`release`: it must free the pairs, and end attempts under way",
        checks.what_is_released_makes_room,
    ),
    Check(
        "After a reconnection nothing is under way",
        "Ready again, and nothing that was ordered before is heralded or can be measured",
        "what the service gives up when a connection ends",
        checks.after_a_reconnection_nothing_is_under_way,
    ),
    Check(
        "A second stream ends the first",
        "a node that connects again is served, and its earlier stream ends",
        "how streams are kept by the name in the certificate",
        checks.a_second_stream_ends_the_first,
    ),
    Check(
        "Outcomes do not signal",
        "outcomes of either end do not depend on the other end's settings, within 5 standard"
        " deviations",
        "cables, shared lasers and shared code: does one end's setting reach the other?",
        statistical_checks.outcomes_do_not_signal,
    ),
    Check(
        "Rounds are independent",
        "outcomes do not depend on the round's place or on the round before, within 5 standard"
        " deviations",
        "state preparation between rounds, memory in the detection, drift during the run",
        statistical_checks.rounds_are_independent,
    ),
    Check(
        "Outcomes violate the Bell inequality",
        "S above 2 by 5 standard deviations and within 2 sqrt 2, whichever end is measured first",
        "the fidelity of the pairs, the angles of the settings, and which setting has which number",
        statistical_checks.outcomes_violate_chsh,
    ),
    Check(
        "Each pattern announces its state",
        "the rounds of each announced Bell state alone fit that state",
        "the table from click patterns to Bell states, and flips made twice: outcomes are reported"
        " as they are",
        statistical_checks.each_pattern_announces_its_state,
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a check.  `seen`: what was wrong, or why it was not run.

    `look_at`: where to look, if the check failed for another reason than what it is about.
    """

    check: Check
    outcome: Outcome
    seen: str = ""
    look_at: str = ""
    attached: bool = True


@dataclass(frozen=True, slots=True)
class Device:
    """What is tested: how to connect to either end of one link."""

    link: LinkName
    a: Way | Connect
    b: Way | Connect


async def run_suite(
    device: Device,
    generator: np.random.Generator,
    *,
    wait_seconds: float = 30.0,
    rounds: int = STATISTICS_ROUNDS,
    begin: Callable[[Check], None] = lambda _: None,
    chosen: Sequence[Check] = CHECKS,
) -> list[Verdict]:
    """Run the checks one after the other; `begin` hears of each before it runs.

    `wait_seconds`: a report that takes longer has stalled.  If the ends do not become ready, for
    the first check or a later one, nothing else is run.
    """
    samples: dict[Side, Sample | None] = {}
    verdicts: list[Verdict] = []
    for check in chosen:
        if verdicts and not verdicts[-1].attached:
            verdicts.append(Verdict(check, "not run", "the ends are not ready", attached=False))
            continue
        begin(check)
        verdicts.append(await _judge(device, check, generator, wait_seconds, rounds, samples))
    return verdicts


async def _judge(
    device: Device,
    check: Check,
    generator: np.random.Generator,
    wait_seconds: float,
    rounds: int,
    samples: dict[Side, Sample | None],
) -> Verdict:
    bench: Bench | None = None

    def failed(seen: str, look_at: str = "") -> Verdict:
        return Verdict(check, "failed", seen, look_at, attached=bench is not None)

    try:
        bench = await attach(device.a, device.b, device.link, generator, wait_seconds)
        bench.statistics_rounds, bench.samples = rounds, samples
        try:
            await check(bench)
        finally:
            await bench.close()
    except NotApplicable as error:
        return Verdict(check, "not applicable", str(error))
    except NotRun as error:
        return Verdict(check, "not run", str(error))
    except Interrupted as error:
        return failed(error.message, "" if bench is None else INTERRUPTED_LOOK_AT)
    except HardwareError as error:
        return failed(error.message)
    except TimeoutError:
        seen = "stalled: the check did not come to its end in time"
        return failed(seen, INTERRUPTED_LOOK_AT)
    except Exception as error:  # noqa: BLE001 - whatever a device's own code raises is what it did
        where = traceback.extract_tb(error.__traceback__)[-1]
        seen = f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"
        return failed(seen, "the device's code, or what it is made of: it raised")
    return Verdict(check, "passed")


__all__ = ["CHECKS", "Check", "Device", "NotConforming", "Outcome", "Verdict", "run_suite"]
