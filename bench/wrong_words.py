"""How likely a block ends in a wrong word: the words that columns of degree 2 make, counted.

In the graph whose vertices are the lifted checks and whose edges are the columns of degree 2 a
cycle of w columns is a word of weight w: adding it to the errors leaves every parity as it is.
A decoder takes it for the truth if at least half of its places are in error, weighed by how
likely errors are there. `count_cycles` finds all of them up to a length in an actual code, after
its steps, and `wrong_word_probability` adds up the probabilities: for these words the union bound
of a decoder of maximum likelihood. It leaves out words with columns of higher degree, which in
long blocks are rarer by the number of checks, in short ones not; longer cycles are extrapolated
from the branching of the graph.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numba
import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.code import Code
from bellhop.stack.diqkd.reconcile import refined_rows

Integers = NDArray[np.int64]

WALKS_MAX = 100_000
"""Walks from one check that are held at once; they set how long cycles are counted."""

WEIGHT_MAX = 40
TAIL_MAX = 400


@numba.njit(cache=True)
def _walks(  # type: ignore[no-untyped-def]
    starts, ends, turns, names, lifting, root, length, places, firsts, lasts
):
    """All walks of `length` from lane 0 of a base row that never turn back; their number."""
    count = 0
    at = np.zeros(length + 1, dtype=np.int64)
    lane = np.zeros(length + 1, dtype=np.int64)
    step = np.zeros(length + 1, dtype=np.int64)
    name = np.full(length + 1, -1, dtype=np.int64)
    at[0], step[0] = root, starts[root]
    depth = 0
    while depth >= 0:
        if depth == length:
            places[count] = at[depth] * lifting + lane[depth]
            firsts[count], lasts[count] = name[1], name[depth]
            count += 1
            depth -= 1
            continue
        edge = step[depth]
        if edge == starts[at[depth] + 1]:
            depth -= 1
            continue
        step[depth] += 1
        if names[edge] == name[depth]:
            continue
        depth += 1
        name[depth] = names[edge]
        at[depth] = ends[edge]
        lane[depth] = (lane[depth - 1] + turns[edge]) & (lifting - 1)
        step[depth] = starts[at[depth]]
    return count


@numba.njit(cache=True)
def _meetings(  # type: ignore[no-untyped-def]
    order, places, firsts, lasts, other_order, other_places, other_firsts, other_lasts
):
    """Pairs of walks, one of each kind, that end alike and share neither first nor last column."""
    found, low = 0, 0
    for i in order:
        place = places[i]
        while low < other_order.size and other_places[other_order[low]] < place:
            low += 1
        k = low
        while k < other_order.size and other_places[other_order[k]] == place:
            j = other_order[k]
            found += firsts[i] != other_firsts[j] and lasts[i] != other_lasts[j]
            k += 1
    return found


def _degree_two_graph(code: Code, steps: int) -> tuple[Integers, Integers, Integers, Integers]:
    """Where the edges of each row start, the rows they lead to, lanes they add, their columns."""
    row_start = refined_rows(code, steps)
    row = np.repeat(np.arange(row_start.size - 1), np.diff(row_start))
    picked = np.flatnonzero(code.column_degree[code.edge_column] == 2)
    picked = picked[np.argsort(code.edge_column[picked], kind="stable")]
    one, two = picked[0::2], picked[1::2]
    source, target = np.concatenate([one, two]), np.concatenate([two, one])
    order = np.argsort(row[source], kind="stable")
    source, target = source[order], target[order]
    starts = np.searchsorted(row[source], np.arange(row_start.size))
    turns = (code.edge_shift[source] - code.edge_shift[target]) % code.design.lifting
    return starts.astype(np.int64), row[target], turns, code.edge_column[source]


def branching(code: Code, steps: int) -> float:
    """Mean number of further columns of degree 2 at the end of one."""
    degree = np.diff(_degree_two_graph(code, steps)[0])
    return float((degree * (degree - 1)).sum() / max(degree.sum(), 1))


def count_cycles(code: Code, steps: int) -> dict[int, float]:
    """The number of cycles of columns of degree 2 by their length, for every length looked at.

    They are closed walks that never turn back, over twice their length; a walk that passes a column
    twice is counted too.
    """
    starts, ends, turns, names = _degree_two_graph(code, steps)
    lifting, growth = code.design.lifting, max(branching(code, steps), 1.05)
    widest = int(np.diff(starts).max())
    reach = min(WEIGHT_MAX // 2, int(math.log(WALKS_MAX / 16 / widest) / math.log(growth)) + 1)
    closed = dict.fromkeys(range(2, 2 * reach + 1), 0)
    room = [np.zeros((2, WALKS_MAX * 4), dtype=np.int64) for _ in range(3)]
    for root in range(starts.size - 1):
        before: tuple[Integers, ...] | None = None
        for length in range(1, reach + 1):
            slot = length % 2
            walks = tuple(part[slot] for part in room)
            count = _walks(starts, ends, turns, names, lifting, root, length, *walks)
            walks = tuple(part[:count] for part in walks)
            now = (np.argsort(walks[0]), *walks)
            if before is not None:
                closed[2 * length - 1] += _meetings(*now, *before)
            closed[2 * length] += _meetings(*now, *now)
            before = now
    return {weight: lifting * walks / (2 * weight) for weight, walks in closed.items()}


def confusion_probability(weight: int, classes: Sequence[tuple[float, float]]) -> float:
    """That a word of this weight, at places drawn from the classes, is as likely as the truth.

    Ties, which are broken either way, count half.
    """
    total = sum(share for share, _ in classes)
    jumps = []
    for share, q in classes:
        if share > 0 and q > 0:
            llr = math.log((1 - q) / q)
            jumps += [(llr, share / total * (1 - q)), (-llr, share / total * q)]
    sums = {0.0: 1.0}
    for _ in range(weight):
        moved = sorted(
            (round(at + jump, 9), p * chance) for at, p in sums.items() for jump, chance in jumps
        )
        sums = {at: sum(p for _, p in part) for at, part in groupby(moved, key=itemgetter(0))}
    return sum(p for at, p in sums.items() if at < -1e-6) + 0.5 * sum(
        p for at, p in sums.items() if abs(at) <= 1e-6
    )


def wrong_word_probability(
    code: Code, steps: int, classes: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Bounds for the words that were counted, and for those beyond, by extrapolation."""
    cycles = count_cycles(code, steps)
    counted = sum(
        number * confusion_probability(weight, classes)
        for weight, number in cycles.items()
        if number
    )
    last = max(cycles)
    at_last = confusion_probability(last, classes)
    ratio = math.sqrt(at_last / confusion_probability(last - 2, classes))
    branches = branching(code, steps)
    beyond = sum(
        (branches * ratio) ** more * branches**last / (2 * (last + more)) * at_last
        for more in range(1, TAIL_MAX)
    )
    return counted, beyond
