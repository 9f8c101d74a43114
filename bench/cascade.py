"""Cascade, to compare with: the original protocol with its parities counted for both parties.

Brassard and Salvail, Eurocrypt 93: four passes, blocks of 0.73 / Q bits and twice as many in each
further pass, a random permutation a pass, binary search for one error in every block whose parities
differ, and back into the blocks of earlier passes that a correction makes odd. In a
device-independent session what Bob says is about Alice's string no less than what she says: every
parity is told by one and answered by the other, and both count. What does not get either said by
inference (the parity of a second half) is not said.
"""

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint8]
Integers = NDArray[np.int64]
PASSES = 4


def reconcile_by_cascade(
    alice: Bits, bob: Bits, error_probability: float, seed: int
) -> tuple[Bits, int, int]:
    """Bob's corrected bits, bits said by both parties, and messages (searches go in parallel)."""
    rng = np.random.default_rng(seed)
    errors = alice ^ bob
    n, size = errors.size, max(2, round(0.73 / error_probability))
    orders: list[Integers] = []
    places: list[Integers] = []
    sizes: list[int] = []
    parities = messages = 0
    for number in range(PASSES):
        order = np.arange(n) if number == 0 else rng.permutation(n)
        place = np.empty(n, dtype=np.int64)
        place[order] = np.arange(n)
        orders.append(order)
        places.append(place)
        sizes.append(min(size << number, n))
        parities += -(-n // sizes[-1])
        messages += 2
        while odd := _smallest_odd(errors, orders, sizes):
            level, blocks = odd
            found, said, rounds = _search(errors, orders[level], sizes[level], blocks)
            errors[found] ^= 1
            parities += said
            messages += 2 * rounds
    return alice ^ errors, 2 * parities, messages


def _smallest_odd(
    errors: Bits, orders: list[Integers], sizes: list[int]
) -> tuple[int, Integers] | None:
    """The blocks with odd parity of the earliest pass that has any."""
    for level, (order, size) in enumerate(zip(orders, sizes, strict=True)):
        starts = np.arange(0, order.size, size)
        odd = np.flatnonzero(np.add.reduceat(errors[order].astype(np.int64), starts) & 1)
        if odd.size:
            return level, odd
    return None


def _search(
    errors: Bits, order: Integers, size: int, blocks: Integers
) -> tuple[Integers, int, int]:
    """One error of each odd block by halving; its place, parities said, rounds of questions."""
    counted = np.concatenate([[0], np.cumsum(errors[order].astype(np.int64))])
    low, high = blocks * size, np.minimum((blocks + 1) * size, order.size)
    said = rounds = 0
    while np.any(high - low > 1):
        open_ = high - low > 1
        said += int(np.count_nonzero(open_))
        rounds += 1
        middle = (low + high) // 2
        odd = ((counted[middle] - counted[low]) & 1).astype(bool)
        high = np.where(open_ & odd, middle, high)
        low = np.where(open_ & ~odd, middle, low)
    return order[low], said, rounds
