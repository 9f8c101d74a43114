"""A session planned from what its link is expected to give: design, leak, key, and its chances.

Everything here is expectation for honest devices.  No security rests on it: a session computes its
key's length from what was announced, whatever was planned.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bellhop.stack.diqkd.bounds.asymptotic import flipped
from bellhop.stack.diqkd.bounds.chsh import binary_entropy
from bellhop.stack.diqkd.bounds.design import RENYI, CertifiedDesign
from bellhop.stack.diqkd.bounds.designs import certified_designs
from bellhop.stack.diqkd.bounds.library import FilteredBound, RenyiBound, Shown, designed_bound
from bellhop.stack.diqkd.code import STEPS_MAX, expected_leak_bits
from bellhop.stack.diqkd.parameters import (
    KEY_BITS_MIN,
    SPENT_BITS,
    Classes,
    classes_of,
    count_bits,
    hash_error,
)
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS

EFFICIENCY = 1.06
"""Of a code, over Shannon's limit: to choose between designs, not to plan a key with."""

SessionBound = RenyiBound | FilteredBound


@dataclass(frozen=True, slots=True)
class PlannedSession:
    """What a run of `rounds` rounds on a link with CHSH value `s` and error rate `qber` is worth.

    `leak_bits`: everything said about Alice's string, `syndrome_bits` of it by the code, both in
    the mean.  `tests`, `losses`: mean counts.  `key_bits`: the key they leave, at most 0 if none.
    """

    rounds: int
    s: float
    qber: float
    epsilon: float
    certified: CertifiedDesign
    bound: SessionBound
    classes: Classes
    syndrome_bits: float
    leak_bits: float
    tests: int
    losses: int
    key_bits: int

    @property
    def net_bits(self) -> int:
        """The key less the tags that it pays for and the key of its key ids."""
        return self.key_bits - SPENT_BITS

    @property
    def keyed(self) -> bool:
        """Whether the mean run leaves a key that is worth its session."""
        return self.key_bits >= KEY_BITS_MIN

    def left(self, tests: int, losses: int) -> int:
        """Key bits that these counts leave, at the mean leak."""
        return self.bound.key_bits(Shown(self.rounds, tests, losses, self.leak_bits))


def plan(
    rounds: int,
    s: float,
    qber: float,
    *,
    bound: str = RENYI,
    epsilon: float = 1e-10,
    designs: Sequence[CertifiedDesign] | None = None,
) -> PlannedSession | str:
    """The session with the best certified design for this link, or why there is none.

    Tests are announced round by round, so designs are those whose Eve may act between rounds.
    `epsilon`: soundness error of the whole session; privacy amplification gets what verification
    and tags leave of it.  `designs` to choose from, else all that are shipped.
    """
    if hash_error(rounds) >= epsilon:
        return f"epsilon = {epsilon:g} does not exceed what the tags of {rounds:,} rounds take"
    known = certified_designs() if designs is None else designs
    guesses = [
        planned(one, rounds, s, qber, epsilon, _guessed_bits)
        for one in known
        if one.bound == bound and one.adaptive
    ]
    if not guesses:
        return f"no design is certified for the bound {bound}"
    best = max(guesses, key=lambda guess: guess.key_bits)
    return planned(best.certified, rounds, s, qber, epsilon)


def planned(
    certified: CertifiedDesign,
    rounds: int,
    s: float,
    qber: float,
    epsilon: float,
    syndrome_bits: Callable[[int, Classes], float] = expected_leak_bits,
) -> PlannedSession:
    """The session with this design; `syndrome_bits` says what a code of these classes says."""
    design = certified.design
    errors = flipped(qber, design.flip_probability)
    classes = classes_of(Fraction(design.test_probability), s, errors)
    syndrome = syndrome_bits(rounds, classes)
    leak = syndrome + announced_bits(rounds)
    bound = designed_bound(certified, epsilon - hash_error(rounds))
    (_, _), (test, losing) = classes
    tests = round(test * rounds)
    losses = round(test * rounds * losing)
    key = bound.key_bits(Shown(rounds, tests, losses, leak))
    return PlannedSession(
        rounds, s, qber, epsilon, certified, bound, classes, syndrome, leak, tests, losses, key
    )


def announced_bits(rounds: int) -> int:
    """What is said beside the syndrome: the requests for more of it, the verification tag, and two
    counts by their range."""
    return STEPS_MAX + VERIFICATION_TAG_BITS + count_bits(rounds)


def shannon_bits(rounds: int, classes: Classes) -> float:
    """The least that any code says, in the limit of long blocks."""
    return rounds * sum(share * binary_entropy(error) for share, error in classes)


def _guessed_bits(rounds: int, classes: Classes) -> float:
    return EFFICIENCY * shannon_bits(rounds, classes)
