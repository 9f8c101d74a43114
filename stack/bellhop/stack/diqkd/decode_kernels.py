"""Compiled loops of the reconciliation code: placing edges, syndromes, sum-product sweeps.

Importing this module loads numba and compiles, or loads from numba's cache; only worker processes
and one-shot commands do so. Inner loops run over the lanes of one circulant with unit stride and
touch few arrays, so that the compiler vectorises them; a rotation is two such runs.
"""

from collections.abc import Callable
from typing import TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

BALL_CHECKS = 1024
"""Lifted checks that are explored around each edge a column already has."""

WIDE_BALL_CHECKS = 49_152
"""The same around a column of degree 2, but at most half of all lifted checks: a cycle of such
columns is a word of its length. With 1,024 checks there were cycles of 8 in blocks of 1.2e6."""

DRAWS_MAX = 64
"""Draws of socket and shift for one edge before a check inside the ball is accepted."""

BASE_BALL_SHARE = 8
"""A column of degree 2 avoids one in this many base rows, those nearest to its first."""

_U1 = np.uint64(0x9E3779B97F4A7C15)
_U2 = np.uint64(0xBF58476D1CE4E5B9)
_U3 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)
_ONE = np.float32(1.0)

_Kernel = TypeVar("_Kernel", bound=Callable[..., object])
_Floats = NDArray[np.float32]
_Bits = NDArray[np.uint8]
_Integers = NDArray[np.int64]


def _kernel(signature: str) -> Callable[[_Kernel], _Kernel]:
    """Compile for one signature, from numba's cache if it is there.

    Only contraction is allowed of fast arithmetic: reordering would let infinities in. Division
    follows numpy, because a check for zero keeps the loop from being vectorised.
    """
    compiled = numba.njit(signature, cache=True, error_model="numpy", fastmath={"contract"})
    return cast("Callable[[_Kernel], _Kernel]", compiled)


# --- construction -------------------------------------------------------------------------------


@_kernel("int64(uint64, uint64, int64)")
def draw_below(seed: np.uint64, index: np.uint64, bound: int) -> int:
    """Draw `index` of the splitmix64 stream of `seed` (Steele, Lea, Flood 2014), below `bound`."""
    z = seed + index * _U1
    z = (z ^ (z >> _S30)) * _U2
    z = (z ^ (z >> _S27)) * _U3
    z = z ^ (z >> _S31)
    return np.int64(((z >> _S32) * np.uint64(bound)) >> _S32)  # type: ignore[return-value]


@_kernel(
    "void(int64, int64, int64, int64, int64[:,::1], int64[:,::1], int64[::1], int64[::1],"
    " int64[::1], int64[::1], int64[::1], int32[::1], int64[::1])"
)
def mark_ball(
    row: int,
    lane: int,
    mark: int,
    lifting: int,
    row_columns: _Integers,
    row_shifts: _Integers,
    row_fill: _Integers,
    column_start: _Integers,
    column_fill: _Integers,
    edge_row: _Integers,
    edge_shift: _Integers,
    marks: NDArray[np.int32],
    queue: _Integers,
) -> None:
    """Mark the lifted checks nearest to (row, lane), breadth first, at most `queue.size`.

    Lifting 1 explores the base matrix itself.
    """
    mask = lifting - 1
    marks[row * lifting + lane] = mark
    queue[0] = row * lifting + lane
    head, tail = 0, 1
    while head < tail:
        check_row, check_lane = queue[head] // lifting, queue[head] & mask
        head += 1
        for i in range(row_fill[check_row]):
            column = row_columns[check_row, i]
            bit_lane = (check_lane + row_shifts[check_row, i]) & mask
            for e in range(column_start[column], column_start[column] + column_fill[column]):
                found = edge_row[e] * lifting + ((bit_lane - edge_shift[e]) & mask)
                if marks[found] != mark:
                    if tail == queue.size:
                        return
                    marks[found] = mark
                    queue[tail] = found
                    tail += 1


@_kernel(
    "UniTuple(int64, 3)(uint64, uint64, int64, int64, int64, int64, int64, int64[::1], int64[::1],"
    " int64[::1], int32[::1], int32[::1])"
)
def draw_edge(
    seed: np.uint64,
    edge: np.uint64,
    column: int,
    reserved: int,
    left: int,
    lifting: int,
    room: int,
    sockets: _Integers,
    row_fill: _Integers,
    taken: _Integers,
    marks: NDArray[np.int32],
    base_marks: NDArray[np.int32],
) -> tuple[int, int, int]:
    """A (socket, row, shift) outside the balls of the column if `DRAWS_MAX` draws find one.

    Sockets are drawn from `reserved` to `left`.
    Row -1: none serves at all. A row twice in one column is never taken: when all draws met such
    rows, the next row that has room serves, one socket more than its share.
    """
    rows, start, shift = row_fill.size, 0, 0
    socket, row = left - 1, -1
    for attempt in range(DRAWS_MAX):
        index = edge * np.uint64(2 * DRAWS_MAX) + np.uint64(2 * attempt)
        candidate = reserved + draw_below(seed, index, left - reserved)
        shift = draw_below(seed, index + np.uint64(1), lifting)
        start = sockets[candidate]
        if taken[start] == column or row_fill[start] == room:
            continue
        socket, row = candidate, start
        near = marks[row * lifting + ((-shift) & (lifting - 1))] == column
        if not near and base_marks[row] != column:
            break
    step = 1
    while row < 0 and step < rows:
        other = (start + step) % rows
        if taken[other] != column and row_fill[other] < room:
            row = other
        step += 1
    return socket, row, shift


@_kernel("boolean(int64[::1], int64[::1], int64, int64, int64, uint64, int64[::1], int64[::1])")
def place_edges(
    column_start: _Integers,
    sockets: _Integers,
    reserved: int,
    rows: int,
    lifting: int,
    seed: np.uint64,
    edge_row: _Integers,
    edge_shift: _Integers,
) -> bool:
    """Give each edge a random remaining socket and a random shift; false if a column cannot.

    `sockets` names a row for each edge and is used up; columns of degree 2, which come first, draw
    from those at its end, from `reserved` on. Lifted checks around a column's earlier
    edges are avoided, because they close short cycles. Columns of degree 2 also avoid base rows:
    two short base cycles that share a row make a word of low weight whatever their shifts, once
    round the one, round the other, and both back (shifts commute).
    """
    columns, edges = column_start.size - 1, sockets.size
    room = 2 * (edges // rows + 1) + 16
    row_columns = np.zeros((rows, room), dtype=np.int64)
    row_shifts = np.zeros((rows, room), dtype=np.int64)
    row_fill = np.zeros(rows, dtype=np.int64)
    column_fill = np.zeros(columns, dtype=np.int64)
    taken = np.full(rows, -1, dtype=np.int64)  # the last column that a row has an edge of
    marks = np.full(rows * lifting, -1, dtype=np.int32)
    base_marks = np.full(rows, -1, dtype=np.int32)
    queue = np.zeros(BALL_CHECKS, dtype=np.int64)
    base_queue = np.zeros(max(rows // BASE_BALL_SHARE, 1), dtype=np.int64)
    wide_queue = np.zeros(min(rows * lifting // 2, WIDE_BALL_CHECKS), dtype=np.int64)
    for column in range(columns):
        first, last = column_start[column], column_start[column + 1] - 1
        for e in range(first, last + 1):
            left = edges - e
            socket, row, shift = draw_edge(
                seed, np.uint64(e), column, reserved if last - first == 1 else 0, left, lifting,
                room, sockets, row_fill, taken, marks, base_marks,
            )  # fmt: skip
            if row < 0:
                return False
            sockets[socket] = sockets[left - 1]
            taken[row] = column
            edge_row[e], edge_shift[e] = row, shift
            row_columns[row, row_fill[row]] = column
            row_shifts[row, row_fill[row]] = shift
            row_fill[row] += 1
            column_fill[column] += 1
            if e < last:
                mark_ball(
                    row, (-shift) & (lifting - 1), column, lifting, row_columns, row_shifts,
                    row_fill, column_start, column_fill, edge_row, edge_shift, marks,
                    wide_queue if last - first == 1 else queue,
                )  # fmt: skip
            if last - first == 1 and e == first:
                mark_ball(
                    row, 0, column, 1, row_columns, row_shifts,
                    row_fill, column_start, column_fill, edge_row, edge_shift, base_marks,
                    base_queue,
                )  # fmt: skip
    return True


# --- syndromes ----------------------------------------------------------------------------------


@_kernel("void(uint8[::1], uint8[::1])")
def _add_bits(total: _Bits, bits: _Bits) -> None:
    for j in range(total.size):
        total[j] ^= bits[j]


@_kernel("void(int64[::1], int64[::1], int64[::1], uint8[:,::1], uint8[:,::1])")
def add_syndrome(
    row_start: _Integers, edge_column: _Integers, edge_shift: _Integers, bits: _Bits, out: _Bits
) -> None:
    """Add the syndrome of `bits` (columns, lifting) to `out` (rows, lifting), modulo two."""
    lifting = bits.shape[1]
    for row in range(row_start.size - 1):
        for e in range(row_start[row], row_start[row + 1]):
            shift = edge_shift[e]
            column = bits[edge_column[e]]
            _add_bits(out[row, : lifting - shift], column[shift:])
            _add_bits(out[row, lifting - shift :], column[:shift])


@_kernel("void(int16[::1], uint8[::1])")
def _count_bits(total: NDArray[np.int16], bits: _Bits) -> None:
    for j in range(total.size):
        total[j] += np.int16(bits[j])


@_kernel("void(int64[::1], int64[::1], int64[::1], uint8[:,::1], int16[:,::1])")
def add_counts(
    row_start: _Integers,
    edge_column: _Integers,
    edge_shift: _Integers,
    bits: _Bits,
    out: NDArray[np.int16],
) -> None:
    """Add to `out` (rows, lifting) how many of each check's `bits` (columns, lifting) are one."""
    lifting = bits.shape[1]
    for row in range(row_start.size - 1):
        for e in range(row_start[row], row_start[row + 1]):
            shift = edge_shift[e]
            column = bits[edge_column[e]]
            _count_bits(out[row, : lifting - shift], column[shift:])
            _count_bits(out[row, lifting - shift :], column[:shift])


# --- sum-product --------------------------------------------------------------------------------
# Of an edge: x = tanh(LLR / 2) of the message check to bit, r = P(1) / P(0) of the bit.
# Without the edge's own message the bit has u = r (1 + x) / (1 - x); its tanh is
# t = (1 - u) / (1 + u) = ((1 - x) - b) / ((1 - x) + b) with b = r (1 + x). The new message is
# x' = s prod t over the other edges, s = 1 - 2 syndrome, clamped; then r = u (1 - x') / (1 + x').


@_kernel("void(float32[::1], float32[::1], float32[::1])")
def _read(ratio: _Floats, message: _Floats, turned: _Floats) -> None:
    for j in range(ratio.size):
        a = _ONE - message[j]
        b = ratio[j] * (_ONE + message[j])
        turned[j] = (a - b) / (a + b)


@_kernel("void(float32[::1], float32[::1], float32[::1])")
def _multiply(left: _Floats, right: _Floats, product: _Floats) -> None:
    for j in range(left.size):
        product[j] = left[j] * right[j]


@_kernel("void(float32[::1], float32[::1], float32[::1], float32)")
def _combine(others: _Floats, suffix: _Floats, turned: _Floats, limit: np.float32) -> None:
    """New messages into `others`, and one more factor into `suffix`."""
    for j in range(others.size):
        x = others[j] * suffix[j]
        others[j] = min(max(x, -limit), limit)
        suffix[j] *= turned[j]


@_kernel("void(float32[::1], float32[::1], float32[::1])")
def _write(ratio: _Floats, message: _Floats, new: _Floats) -> None:
    for j in range(ratio.size):
        x, old = new[j], message[j]
        ratio[j] *= ((_ONE + old) * (_ONE - x)) / ((_ONE - old) * (_ONE + x))
        message[j] = x


_SWEEP = (
    "void(int64[::1], int64[::1], int64[::1], float32[::1], uint8[:,::1],"
    " float32[:,::1], float32[:,::1])"
)


@_kernel(_SWEEP)
def sweep_long(
    row_start: _Integers,
    edge_column: _Integers,
    edge_shift: _Integers,
    edge_limit: _Floats,
    syndrome: _Bits,
    ratio: _Floats,
    messages: _Floats,
) -> None:
    """One layered iteration: each base row in turn reads its bits and rewrites them.

    `ratio` (columns, lifting) and `messages` (edges, lifting) are updated in place.
    """
    lifting = ratio.shape[1]
    degree_max = 0
    for row in range(row_start.size - 1):
        degree_max = max(degree_max, row_start[row + 1] - row_start[row])
    turned = np.empty((degree_max, lifting), dtype=np.float32)
    others = np.empty((degree_max + 1, lifting), dtype=np.float32)
    suffix = np.empty(lifting, dtype=np.float32)
    for row in range(row_start.size - 1):
        first, degree = row_start[row], row_start[row + 1] - row_start[row]
        for j in range(lifting):
            others[0, j] = _ONE - np.float32(2.0) * np.float32(syndrome[row, j])
            suffix[j] = _ONE
        for k in range(degree):
            shift, turn = edge_shift[first + k], lifting - edge_shift[first + k]
            bit, message = ratio[edge_column[first + k]], messages[first + k]
            _read(bit[shift:], message[:turn], turned[k, :turn])
            _read(bit[:shift], message[turn:], turned[k, turn:])
            _multiply(others[k], turned[k], others[k + 1])
        for k in range(degree - 1, -1, -1):
            shift, turn = edge_shift[first + k], lifting - edge_shift[first + k]
            bit, message = ratio[edge_column[first + k]], messages[first + k]
            _combine(others[k], suffix, turned[k], edge_limit[first + k])
            _write(bit[shift:], message[:turn], others[k, :turn])
            _write(bit[:shift], message[turn:], others[k, turn:])


@_kernel("void(float32[:,::1], float32[:,::1], float32[::1])")
def _multiply_others(turned: _Floats, others: _Floats, limit: _Floats) -> None:
    """New messages of a row into `others`, whose first line holds the signs of its checks."""
    degree, lifting = turned.shape
    suffix = np.ones(lifting, dtype=np.float32)
    for k in range(degree):
        for j in range(lifting):
            others[k + 1, j] = others[k, j] * turned[k, j]
    for k in range(degree - 1, -1, -1):
        for j in range(lifting):
            x = others[k, j] * suffix[j]
            others[k, j] = min(max(x, -limit[k]), limit[k])
            suffix[j] *= turned[k, j]


@_kernel(_SWEEP)
def sweep_short(
    row_start: _Integers,
    edge_column: _Integers,
    edge_shift: _Integers,
    edge_limit: _Floats,
    syndrome: _Bits,
    ratio: _Floats,
    messages: _Floats,
) -> None:
    """The same for small circulants: a row's bits are rotated into one run, and all done at once.

    At lifting 16 this takes a quarter of the time; from 256 on the copies cost more than they save.
    """
    lifting = ratio.shape[1]
    degree_max = 0
    for row in range(row_start.size - 1):
        degree_max = max(degree_max, row_start[row + 1] - row_start[row])
    bits = np.empty((degree_max, lifting), dtype=np.float32)
    turned = np.empty((degree_max, lifting), dtype=np.float32)
    others = np.empty((degree_max + 1, lifting), dtype=np.float32)
    for row in range(row_start.size - 1):
        first, last = row_start[row], row_start[row + 1]
        degree, message = last - first, messages[first:last].reshape(-1)
        for j in range(lifting):
            others[0, j] = _ONE - np.float32(2.0) * np.float32(syndrome[row, j])
        for k in range(degree):
            column, shift = edge_column[first + k], edge_shift[first + k]
            for j in range(lifting - shift):
                bits[k, j] = ratio[column, j + shift]
            for j in range(shift):
                bits[k, lifting - shift + j] = ratio[column, j]
        _read(bits[:degree].reshape(-1), message, turned[:degree].reshape(-1))
        _multiply_others(turned[:degree], others, edge_limit[first:last])
        _write(bits[:degree].reshape(-1), message, others[:degree].reshape(-1))
        for k in range(degree):
            column, shift = edge_column[first + k], edge_shift[first + k]
            for j in range(lifting - shift):
                ratio[column, j + shift] = bits[k, j]
            for j in range(shift):
                ratio[column, j] = bits[k, lifting - shift + j]
