"""How long a run must be: for the first key, for so many bits of it, or for the most in a time."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bellhop.stack.diqkd.bounds.design import RENYI, CertifiedDesign
from bellhop.stack.diqkd.chances import no_key_probability
from bellhop.stack.diqkd.code import ROUNDS_MIN
from bellhop.stack.diqkd.parameters import KEY_BITS_MIN, ROUNDS_MAX
from bellhop.stack.diqkd.plan import PlannedSession, plan

NO_KEY_MAX = 0.01
"""The run that is called the first to make a key fails to with no more than this."""

PRECISION = 1e-3
"""To which part of itself a number of rounds is sought."""

SESSIONS_MAX = 16
"""So many sessions are tried to fill a time."""


@dataclass(frozen=True, slots=True)
class Link:
    """What is expected of a link, and what is asked of its sessions."""

    s: float
    qber: float
    bound: str = RENYI
    epsilon: float = 1e-10
    designs: Sequence[CertifiedDesign] | None = None

    def plan(self, rounds: int) -> PlannedSession | str:
        return plan(
            rounds,
            self.s,
            self.qber,
            bound=self.bound,
            epsilon=self.epsilon,
            designs=self.designs,
        )

    def net_bits(self, rounds: int) -> int:
        """What the mean run is worth; nothing if there is no such session."""
        found = self.plan(rounds)
        return 0 if isinstance(found, str) or not found.keyed else max(0, found.net_bits)


def first_key(link: Link) -> PlannedSession | None:
    """The shortest run that nets a key, and fails to with at most `NO_KEY_MAX`."""
    return _least(link, 1, sure=True)


def run_for(link: Link, net_bits: int) -> PlannedSession | None:
    """The shortest run whose mean key is worth so many bits, net; None if no session's is."""
    return _least(link, net_bits, sure=False)


def sessions_within(link: Link, rounds: int) -> tuple[int, PlannedSession] | None:
    """How many equal sessions, of how many rounds each, make the most of so many rounds.

    Longer ones give more a round, but a session has at most `ROUNDS_MAX`.
    """
    least = -(-rounds // ROUNDS_MAX)
    tried = [(count, rounds // count) for count in range(least, least + SESSIONS_MAX)]
    worth = [
        (count * link.net_bits(each), -count, each) for count, each in tried if each >= ROUNDS_MIN
    ]
    best_bits, count, each = max(worth, default=(0, 0, 0))
    if best_bits == 0:
        return None
    planned = link.plan(each)
    assert not isinstance(planned, str), "it is worth something"
    return -count, planned


def _least(link: Link, net_bits: int, *, sure: bool) -> PlannedSession | None:
    def enough(rounds: int) -> bool:
        return link.net_bits(rounds) >= net_bits

    rounds = smallest(enough, ROUNDS_MIN, ROUNDS_MAX)
    if rounds is not None and sure:
        rounds = smallest(lambda n: _is_sure(link, n), rounds, ROUNDS_MAX)
    found = None if rounds is None else link.plan(rounds)
    assert not isinstance(found, str), "it is worth something"
    return found


def _is_sure(link: Link, rounds: int) -> bool:
    found = link.plan(rounds)
    if isinstance(found, str) or not found.keyed:
        return False
    return no_key_probability(found, KEY_BITS_MIN) <= NO_KEY_MAX


def smallest(enough: Callable[[int], bool], low: int, high: int) -> int | None:
    """The least number from `low` to `high` that is enough, to `PRECISION`; None if none is.

    Tried in steps that double from a part of `low`, so that little is tried far above the answer;
    whatever is more than enough is taken to be enough as well.
    """
    if enough(low):
        return low
    step = max(1, math.ceil(low / 64))
    while low < high:
        middle = min(low + step, high)
        if enough(middle):
            return _bisected(enough, low, middle)
        low, step = middle, 2 * step
    return None


def _bisected(enough: Callable[[int], bool], low: int, high: int) -> int:
    """`low` is not enough and `high` is."""
    while high - low > max(1.0, PRECISION * high):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
