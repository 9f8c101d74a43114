"""What a run is expected to show, and the key that it would give: for plans, before anything ran.

Uses kappa as `renyi` and `filtered` compute it, which is not certified: no session takes its key
from here.
"""

import math
from types import MappingProxyType

from bellhop.stack.diqkd.bounds import filtered, renyi
from bellhop.stack.diqkd.bounds.asymptotic import flipped
from bellhop.stack.diqkd.bounds.chsh import binary_entropy, winning_probability
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI, CertifiedDesign, Design
from bellhop.stack.diqkd.bounds.library import FilteredBound, RenyiBound, Shown, designed_bound

TAG_BITS = 64
BINS = 1024
"""Defaults for what is said beside the syndrome: a verification tag, and one of so many values."""

KAPPA = MappingProxyType({RENYI: renyi.kappa, FILTERED: filtered.kappa})
"""kappa of a design by the bound's name."""


def shannon_bits(design: Design, rounds: int, s: float, qber: float) -> float:
    """The least that error correction can say on average: h(Q + p - 2 p Q) for each key round and
    h of the losing probability for each test round."""
    tests = design.test_probability * rounds
    of_tests = tests * binary_entropy(1.0 - winning_probability(s))
    return (rounds - tests) * binary_entropy(flipped(qber, design.flip_probability)) + of_tests


def expected_shown(
    design: Design,
    rounds: int,
    s: float,
    qber: float,
    efficiency: float,
    tag_bits: float = TAG_BITS,
    bins: float = BINS,
) -> Shown:
    """The run that a link with the CHSH value `s` and error rate `qber` gives on average.

    Error correction says `efficiency` times Shannon's limit; the announced counts take one of
    `bins` values.
    """
    tests = design.test_probability * rounds
    lost = tests * (1.0 - winning_probability(s))
    said = efficiency * shannon_bits(design, rounds, s, qber) + tag_bits + math.log2(bins)
    return Shown(rounds, round(tests), round(lost), said)


def uncertified(
    bound: str, design: Design, epsilon_privacy: float, adaptive: bool = True
) -> RenyiBound | FilteredBound:
    """A bound with kappa as computed here.  For plans; ValueError for a bound without designs."""
    if bound not in KAPPA:
        raise ValueError(f"{bound} has no designs of this kind")
    kappa = KAPPA[bound](design, adaptive)
    certified = CertifiedDesign("uncertified", bound, design, adaptive, kappa, (0, 0.0, 0.0))
    return designed_bound(certified, epsilon_privacy)
