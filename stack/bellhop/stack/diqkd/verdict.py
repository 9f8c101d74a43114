"""Whether what a run has shown makes a key; if not, what was seen, what was needed, what to do."""

import math

from bellhop.stack.diqkd.parameters import KEY_BITS_MIN, Parameters, key_bits_of
from bellhop.stack.diqkd.rounds import Score

S_QUANTUM = 2 * math.sqrt(2)


def verdict(parameters: Parameters, counts: Score, steps: int) -> str | None:
    """Why the session ends without a key, or None."""
    p, tests = parameters, counts.tests
    if _pays(p, tests, counts.losses, steps):
        return None
    seen = f"S = {counts.s:.3f} +- {s_error(counts):.3f}"
    enough = _most_losses(p, tests, counts.losses, steps)
    if p.losses_max is not None and enough is not None:
        limit = f"the threshold of this session, fixed beforehand, is {_s(enough, tests):.3f}"
        return f"Bell test too weak: {seen}, {limit}; realign, or plan with a lower s_design"
    if enough is None or _s(enough, tests) > S_QUANTUM:
        errors = f"{counts.qber:.2%} of errors"
        return f"Bell test too weak: {seen}, and no S pays for {errors}; {_REMEDY}"
    needed = f"this design needs about {_s(enough, tests):.3f} at {counts.qber:.2%} of errors"
    return f"Bell test too weak: {seen}, {needed}; {_REMEDY}"


_REMEDY = "realign, or plan with more rounds"


def s_error(counts: Score) -> float:
    """Standard deviation of the CHSH value, from the counts."""
    if not counts.tests:
        return math.inf
    w = 1 - counts.losses / counts.tests
    return 8 * math.sqrt(w * (1 - w) / counts.tests)


def _pays(p: Parameters, tests: int, losses: int, steps: int) -> bool:
    return key_bits_of(p, tests, losses, steps) >= KEY_BITS_MIN


def _most_losses(p: Parameters, tests: int, too_many: int, steps: int) -> int | None:
    """Most lost tests with which the key would have been long enough; None if even 0 is too many.

    Fewer losses make a longer key by every bound, as long as fewer than half of the tests are lost.
    """
    if not _pays(p, tests, 0, steps):
        return None
    enough = 0
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if _pays(p, tests, middle, steps):
            enough = middle
        else:
            too_many = middle
    return enough


def _s(losses: int, tests: int) -> float:
    return 8 * (1 - losses / tests) - 4
