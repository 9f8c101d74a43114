"""What every device must keep to, seen from both ends of one link: its outcomes."""

import numpy as np

from bellhop.hal.conformance.bench import Bench, require
from bellhop.hal.conformance.statistics import chsh_of, dependence, key_errors_of
from bellhop.hal.operations import BellState, Side
from bellhop.hal.statistics import signalling

SIGMAS = 5.0
"""Standard deviations beyond which chance is no explanation."""

LOCAL_BOUND = 2.0
"""Clauser, Horne, Shimony, Holt, Phys. Rev. Lett. 23, 880 (1969)."""

TSIRELSON_BOUND = 2.0 * 2.0**0.5
"""B. S. Tsirelson, Lett. Math. Phys. 4, 93 (1980)."""

ERROR_RATE_MAX = 0.25
"""More errors than this in the key settings are no herald of the announced state."""


async def outcomes_do_not_signal(bench: Bench) -> None:
    """Neither end's outcomes depend on the other's settings, whichever is measured first."""
    for first in bench.ends:
        sample = await bench.sample(first)
        for side, other in ((Side.A, Side.B), (Side.B, Side.A)):
            excess = signalling(
                sample.patterns, sample.settings[side], sample.outcomes[side],
                sample.settings[other],
            )  # fmt: skip
            require(
                excess < SIGMAS,
                f"outcomes of side {side.name} depend on settings of side {other.name}, by"
                f" {excess:.1f} standard deviations ({first.name} is measured first)",
            )


async def rounds_are_independent(bench: Bench) -> None:
    for first in bench.ends:
        sample = await bench.sample(first)
        for side in Side:
            excess, what = dependence(sample, side)
            require(
                excess < SIGMAS,
                f"outcomes of side {side.name} depend on {what}, by {excess:.1f} standard"
                " deviations",
            )


async def outcomes_violate_chsh(bench: Bench) -> None:
    """S above 2 and not above 2 sqrt 2, in either order of measurement."""
    for first in bench.ends:
        value, error = chsh_of(await bench.sample(first))
        seen = f"S is {value:.3f} with error {error:.3f} ({first.name} is measured first)"
        unsure = ", above 2 but not surely: take more rounds" if value > LOCAL_BOUND else ""
        require(value - SIGMAS * error > LOCAL_BOUND, f"{seen}{unsure}")
        require(value - SIGMAS * error < TSIRELSON_BOUND, f"{seen}: beyond quantum mechanics")


async def each_pattern_announces_its_state(bench: Bench) -> None:
    """No pattern alone is at odds with the Bell state that it announces."""
    for first in bench.ends:
        sample = await bench.sample(first)
        for number in np.unique(sample.patterns):
            pattern = BellState(int(number))
            value, error = chsh_of(sample, pattern)
            rate, rate_error = key_errors_of(sample, pattern)
            rounds = int(np.count_nonzero(sample.patterns == pattern))
            told = f"the {rounds} heralds of {pattern.name} alone"
            require(
                value + SIGMAS * error > LOCAL_BOUND,
                f"{told} give S = {value:.3f} with error {error:.3f}: they lie",
            )
            require(
                rate - SIGMAS * rate_error < ERROR_RATE_MAX,
                f"{told} have an error rate of {rate:.3f} in the key settings: they lie",
            )
