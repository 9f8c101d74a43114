"""The reconciliation code of a block: an irregular quasi-cyclic LDPC code, built from integers.

Rules
  Both ends build the code from the same design, compare `Code.digest` under authentication, and
  only then use it. Construction is integer arithmetic from a pinned generator (splitmix64), so
  it is the same on every platform.
  The code has exactly as many checks as the design says; nothing is punctured. What leaks is
  `leak_bits(steps)`, all of them, never an entropy times an efficiency.
  Which checks a step splits, and how, is fixed by the design and part of the digest.

Theory
  A base matrix of `columns` by `rows` is lifted by circulants of size `lifting`: an edge of
  shift s joins lane j of its check to lane (j + s) mod lifting of its column. Columns stand in
  increasing degree; the shares of the degrees were optimised by density evolution on the binary
  symmetric channel with concentrated check degrees (Richardson, Shokrollahi, Urbanke, IEEE Trans.
  Inf. Theory 47, 619 (2001)), the stability factor held at 0.82 of its bound.
  Every edge draws its check socket at random among those that remain; columns of degree 2 among
  fewer (`CHAIN_SOCKETS`). Drawing the least loaded check instead (progressive edge growth) is
  another ensemble and costs 1.5-3 % of the syndrome.

  More syndrome on request: each step splits `step_rows` base rows into halves. The parity of one
  half, with the row's own that is known, gives the other's: `lifting` bits a row, and the code
  that is left is again an LDPC code with no bit told twice. `paired_rows` base rows have twice the
  degree of the others and are split first, so that check degrees are concentrated where they matter
  most, at the design's own error rates.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.degrees import (
    Shares,
    bhattacharyya,
    choose_shares,
    dispersion,
    effective_error_probability,
    efficiency,
    entropy,
)

LIFTINGS = (512, 256, 128, 64, 32, 16, 8)
"""Circulant sizes; powers of two, so that lanes wrap with a mask."""

ROWS_MIN = 128
"""A lifting is used if it leaves this many base rows; fewer are too dense for degree 40."""

ROUNDS_MIN = 1_000
"""Smallest block, for tests. Short blocks at 1 % converge to wrong words now and then, which
only verification sees."""

ROUNDS_MAX = 16_000_000

MARGIN = 1.0
"""Standard deviations of the information density that blocks leak on average beyond the mean need,
because steps and estimates are coarse; a round number near what blocks of 2e4 to 1.2e6 leaked."""

SHORT_LOSS = 6.0
"""Bits by sqrt(v) n^(1/3) added for finite length: the shift of the threshold of iterative decoding
goes as n^(-2/3) (Amraoui, Montanari, Richardson, Urbanke, IEEE Trans. Inf. Theory 55, 473 (2009)).
The factor is a choice, not a fit, made for codes without steps. It adds
0.2 % to the syndrome at 1.5e6."""

MIXTURE_LOSS = 0.35
UNEVENNESS_MIN = 0.02
"""Efficiency lost by how far, beyond that, a mixture's Bhattacharyya parameter falls below that of
the symmetric channel of equal entropy. Fitted to one code each of eight mixtures of 1.2e6 bits, by
what they needed beyond the mean of their classes' efficiencies: 5.6 % for 10 % of the bits at 15 %
among others at 0.3 % (the parameter 19 % lower), 3.6 % at 14 %, 2.7 % at 7.7 %, 2.9 % at 6.5 %,
0.5 % for 5 % at 17 % among 1.8 % (2.6 % lower), nothing to 0.3 % at 0.7, 2.9 and 4.2 %. The rule is
off by at most 1.3 %."""

STEPS_MAX = 32
"""Steps of extra syndrome that a design allows; a block that needs more is abandoned."""

STEP_SHARE = 120
"""A step reveals one in this many of the checks of the design's own budget, rounded up to rows."""

REACH_SHARE = 1.1
REACH_DEVIATIONS = 5.0
"""All steps together reach this far beyond the need of the design's error rates: the rates may be
higher by a tenth, and the errors of one block more than their mean.  In short blocks that asks for
longer steps: with steps of one in 120, 12 % of blocks of 20,000 bits at 1 % needed more than 32."""

BELOW_SHARE = 12
"""The base syndrome is this many steps short of the design's budget, so that fewer errors leak
less: down to 0.9 of the design's error rates. Calibration on 10,000 key rounds leaves an error rate
of 2 % uncertain by 7 %, of 1 % by 10 %."""

SPLIT_SHARES = ((0.01, 5), (0.02, 3))
"""Of those, by error rate, the steps that split rows of equal degree below the design's budget; the
others split paired rows. Rows are of equal degree between the two."""

CHAIN_SOCKETS = 8
CHAIN_SOCKETS_DENSE = 6
CHAINS_DENSE = 3.5
"""Sockets that each check (each half of a paired row) offers to columns of degree 2; fewer where
it has more than `CHAINS_DENSE` of their edges (four at 1 %, three at 2 %, two at 5 %). All random,
the ends of such a column meet as many others on average as a check has edges; drawn from 8 it is
an eighth less, and there are many times fewer words of low weight. The threshold did not move by
what single codes show (0.3 %); drawing them evenly (3 of 3, 2 of 2) cost 0.5 to 1.5 %. At 1 % some
of the codes with 8 needed 2 to 4 % more than others, in a part of their checks; three of those
needed 1 to 4 % less with 6, on other errors."""

SPLIT_LOSSES = ((0.01, 0.18), (0.02, 0.15))
PAIRED_LOSSES = ((0.01, 0.40), (0.02, 0.25))
"""Efficiency lost by the share of rows that are too many or missing where degrees are equal, by
error rate: rounded means of what ten codes of 1.2e6 bits needed at 0.9 and 1.1 of the design's
error rates (1, 2 and 5 %; single codes differ by 0.5 % of the syndrome)."""

SPLIT_STREAM = 0x53504C4954524F57
"""Added to the seed of the draws that split rows, so that they repeat no draw of the matrix."""

DIGEST_LABEL = b"bellhop qc-ldpc 3"


@dataclass(frozen=True, slots=True)
class CodeDesign:
    """What determines a code, all integers; equal designs give equal codes."""

    rounds: int
    syndrome_bits: int
    seed: int
    lifting: int
    table: str
    degrees: tuple[tuple[int, int], ...]  # (degree, base columns), degrees increasing
    paired_rows: int = 0  # base rows of twice the degree, the first
    step_rows: int = 1  # base rows that a step splits
    steps_max: int = 0

    @property
    def step_bits(self) -> int:
        """Bits that a step reveals more."""
        return self.step_rows * self.lifting

    def split_rows(self, steps: int) -> int:
        """Base rows that the first `steps` steps split; ValueError if there are not so many."""
        if not 0 <= steps <= self.steps_max:
            raise ValueError(f"{steps} steps are not within 0..{self.steps_max}")
        return steps * self.step_rows

    def leak_bits(self, steps: int) -> int:
        """Bits revealed by the base syndrome and the first `steps` steps."""
        return self.syndrome_bits + self.split_rows(steps) * self.lifting

    @property
    def columns(self) -> int:
        return sum(count for _, count in self.degrees)

    @property
    def rows(self) -> int:
        return self.syndrome_bits // self.lifting

    @property
    def base_edges(self) -> int:
        return sum(degree * count for degree, count in self.degrees)


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """A base matrix by rows: edges `row_start[r]` to `row_start[r + 1]` belong to check row r.

    `row_middle[r]` is where a step splits the row. `edge_column` and `edge_shift` have one entry an
    edge, columns increasing within a half and no column twice in a row; `column_degree` has one a
    base column.
    """

    design: CodeDesign
    row_start: NDArray[np.int64] = field(repr=False)
    row_middle: NDArray[np.int64] = field(repr=False)
    edge_column: NDArray[np.int64] = field(repr=False)
    edge_shift: NDArray[np.int64] = field(repr=False)
    column_degree: NDArray[np.int64] = field(repr=False)
    digest: bytes


def needed_bits(rounds: int, classes: Sequence[tuple[float, float]]) -> float:
    """Syndrome bits at which half of the blocks with exactly these error rates decode.

    `classes` holds (count or weight, error probability); weights are normalised. With the
    classes' places known to both ends the entropies add: n sum w f(Q) h(Q) + 6 n^(1/3)
    sqrt(sum w v(Q)), f being the efficiency of a symmetric channel, and beside it what the degree
    tables lose on a mixture.
    """
    total = sum(weight for weight, _ in classes)
    mean = sum(weight * entropy(q) for weight, q in classes) / total
    if mean == 0.0:
        return 0.0
    single = effective_error_probability(mean)
    unevenness = 1 - bhattacharyya(classes) / bhattacharyya(((1, single),))
    own = sum(weight * efficiency(q) * entropy(q) for weight, q in classes) / total
    asymptotic = own + MIXTURE_LOSS * max(unevenness - UNEVENNESS_MIN, 0.0) * mean
    return rounds * asymptotic + SHORT_LOSS * math.cbrt(rounds) * math.sqrt(
        mean_dispersion(classes)
    )


def mean_dispersion(classes: Sequence[tuple[float, float]]) -> float:
    """Variance of the information density of a bit, bits squared, on average over the classes."""
    total = sum(weight for weight, _ in classes)
    return sum(weight * dispersion(q) for weight, q in classes) / total


def mean_error_probability(classes: Sequence[tuple[float, float]]) -> float:
    """The error probability of the symmetric channel with the same mean entropy."""
    total = sum(weight for weight, _ in classes)
    return effective_error_probability(sum(weight * entropy(q) for weight, q in classes) / total)


def needed_leak_bits(design: CodeDesign, classes: Sequence[tuple[float, float]]) -> float:
    """Bits, base and steps, at which half of the blocks of these error rates decode."""
    needed = needed_bits(design.rounds, classes)
    off = needed / ((design.rows + design.paired_rows) * design.lifting) - 1
    losses = PAIRED_LOSSES if off < 0 else SPLIT_LOSSES
    return needed * (1 + _interpolate(mean_error_probability(classes), losses) * abs(off))


def _interpolate(place: float, points: tuple[tuple[float, float], ...]) -> float:
    return float(np.interp(place, [x for x, _ in points], [y for _, y in points]))


def expected_leak_bits(rounds: int, classes: Sequence[tuple[float, float]]) -> float:
    """Mean syndrome bits of a block at the design's error rates, extra steps included."""
    needed = needed_bits(rounds, classes)
    return needed * (1 + 1 / STEP_SHARE) + MARGIN * math.sqrt(rounds * mean_dispersion(classes))


def design_code(rounds: int, classes: Sequence[tuple[float, float]], seed: int) -> CodeDesign:
    """The code for a block of `rounds` bits in classes of (count or weight, error probability).

    Padding to whole columns is known zero bits and carries no information. Raises ValueError for
    a block this construction does not serve.
    """
    _check_request(rounds, classes, seed)
    needed = needed_bits(rounds, classes)
    lifting = next((z for z in LIFTINGS if needed >= ROWS_MIN * z), LIFTINGS[-1])
    columns = -(-rounds // lifting)
    designed = math.ceil(needed / lifting)
    if not 8 <= designed < columns:
        raise ValueError(f"no code: {designed} check rows for {columns} columns")
    split = _interpolate(mean_error_probability(classes), SPLIT_SHARES)
    concentrated = designed - math.floor(designed * split / STEP_SHARE)
    paired_rows = math.floor(designed * (BELOW_SHARE - split) / STEP_SHARE)
    rows = concentrated - paired_rows
    step_rows = max(-(-designed // STEP_SHARE), _reach(needed, rounds, classes, rows, lifting))
    fewer = [(weight, q * concentrated / designed) for weight, q in classes]
    table, shares = choose_shares(concentrated / columns, fewer)
    return CodeDesign(
        rounds=rounds,
        syndrome_bits=rows * lifting,
        seed=seed,
        lifting=lifting,
        table=table,
        degrees=_allot(shares, columns, degree_max=rows // 2),
        paired_rows=paired_rows,
        step_rows=step_rows,
        steps_max=min(STEPS_MAX, rows // step_rows, (columns - rows) // step_rows),
    )


def _reach(
    needed: float, rounds: int, classes: Sequence[tuple[float, float]], rows: int, lifting: int
) -> int:
    """Rows that each of `STEPS_MAX` steps has to reveal beyond these to reach far enough."""
    reach = REACH_SHARE * needed + REACH_DEVIATIONS * math.sqrt(rounds * mean_dispersion(classes))
    return math.ceil((reach / lifting - rows) / STEPS_MAX)


def build_code(design: CodeDesign) -> Code:
    """The code of a design; the same bytes at both ends. Raises ValueError if it cannot exist."""
    from bellhop.stack.diqkd.decode_kernels import place_edges  # loads numba

    rows, columns, edges = design.rows, design.columns, design.base_edges
    degree = np.repeat(
        np.array([d for d, _ in design.degrees], dtype=np.int64),
        np.array([count for _, count in design.degrees], dtype=np.int64),
    )
    column_start = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(degree)])
    checks = rows + design.paired_rows
    sockets = np.arange(edges, dtype=np.int64) % checks
    sockets[sockets >= rows] -= rows  # degrees differ by at most one, or two in paired rows
    edge_row = np.zeros(edges, dtype=np.int64)
    chains = 2 * sum(count for d, count in design.degrees if d == 2)
    offered = CHAIN_SOCKETS if chains <= CHAINS_DENSE * checks else CHAIN_SOCKETS_DENSE
    reserved = max(0, edges - max(chains, offered * checks))
    shift = np.zeros(edges, dtype=np.int64)
    if not place_edges(
        column_start,
        sockets,
        reserved,
        rows,
        design.lifting,
        np.uint64(design.seed),
        edge_row,
        shift,
    ):
        raise ValueError("no code: a column found no free check row")
    column = np.repeat(np.arange(columns, dtype=np.int64), degree)
    order, row_start, row_middle = _split_rows(edge_row, column, rows, design.seed)
    edge_column, edge_shift = column[order], shift[order]
    digest = _digest(design, row_start, row_middle, edge_column, edge_shift)
    return Code(design, row_start, row_middle, edge_column, edge_shift, degree, digest)


def _split_rows(
    edge_row: NDArray[np.int64], edge_column: NDArray[np.int64], rows: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """An order of the edges by row, random half and column; where rows and second halves start."""
    keys = _splitmix64(seed ^ SPLIT_STREAM, edge_row.size)
    shuffled = np.lexsort((keys, edge_row))
    row_start = np.searchsorted(edge_row[shuffled], np.arange(rows + 1)).astype(np.int64)
    row_middle = (row_start[:-1] + row_start[1:] + 1) // 2
    half = np.empty(edge_row.size, dtype=np.int64)
    half[shuffled] = np.arange(edge_row.size) >= row_middle[edge_row[shuffled]]
    return np.lexsort((edge_column, half, edge_row)), row_start, row_middle


def _splitmix64(seed: int, count: int) -> NDArray[np.uint64]:
    """The first `count` words of the stream of a seed (Steele, Lea, Flood 2014)."""
    z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _check_request(rounds: int, classes: Sequence[tuple[float, float]], seed: int) -> None:
    if not ROUNDS_MIN <= rounds <= ROUNDS_MAX:
        raise ValueError(f"rounds {rounds} outside {ROUNDS_MIN}..{ROUNDS_MAX}")
    if not 0 <= seed < 1 << 64:
        raise ValueError("the seed of a code is an unsigned 64-bit integer")
    if not classes or any(not (w >= 0 and math.isfinite(w)) for w, _ in classes):
        raise ValueError("classes need finite weights of at least zero")
    if not sum(weight for weight, _ in classes) > 0:
        raise ValueError("the weights of the classes sum to zero")
    if any(not 0 <= q <= 0.5 for _, q in classes):
        raise ValueError("an error probability lies outside 0..1/2")


def _allot(shares: Shares, columns: int, degree_max: int) -> tuple[tuple[int, int], ...]:
    """Whole columns by degree: cumulative shares rounded down, so that no float decides."""
    total = sum(share for _, share in shares)
    counts: dict[int, int] = {}
    before = share_sum = 0
    for degree, share in shares:
        share_sum += share
        after = share_sum * columns // total
        capped = min(degree, degree_max)  # short blocks only
        counts[capped] = counts.get(capped, 0) + after - before
        before = after
    return tuple((degree, count) for degree, count in sorted(counts.items()) if count)


def _digest(design: CodeDesign, *matrix: NDArray[np.int64]) -> bytes:
    """SHA-256 over the label, the sizes and the matrix as little-endian 64-bit integers."""
    sizes = (
        *(design.rounds, design.syndrome_bits, design.lifting, design.columns, design.rows),
        *(design.paired_rows, design.step_rows, design.steps_max),
    )
    hashed = hashlib.sha256(DIGEST_LABEL)
    hashed.update(np.array(sizes, dtype="<i8").tobytes())
    for part in matrix:
        hashed.update(part.astype("<i8").tobytes())
    return hashed.digest()
