"""Information reconciliation in one message: Alice's syndrome, Bob's sum-product decoder.

Rules
  One way only. Alice sends the syndrome of her bits, `syndrome_bits` of leakage, all counted. In a
  device-independent session parities of Bob's would be leakage too.
  A matching syndrome is not equality: `converged` says that the syndrome matches, and only the
  verification hash, keyed after decoding, says that the bits agree.

Theory
  Bob decodes the error pattern, whose syndrome is the sum of both syndromes, by layered
  sum-product with a prior for each bit; the classes of a block (generation rounds, test rounds)
  differ only there. Messages are clamped, posteriors never: a clamped posterior no longer equals
  its prior times its messages, and dividing a message out of it then leaves nonsense.
"""

import math
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bellhop.stack.diqkd.code import Code, CodeDesign, needed_leak_bits
from bellhop.stack.diqkd.decode_kernels import add_syndrome, sweep_long, sweep_short
from bellhop.stack.diqkd.estimate import Estimate, estimate

_Scalar = TypeVar("_Scalar", bound=np.generic)

ITERATIONS_MAX = 200
"""Sweeps before more syndrome is asked for; blocks of 1.2e6 took 35 to 101."""

STALLS = ((24, 0.96), (10, 0.88))
"""A decoder that has not brought the unsatisfied checks below this share of their least number in
so many sweeps is given more syndrome; short blocks, long ones. Blocks of 1.2e6 that decoded late
went faster than that, those that failed stayed at a level; a short one leaves it now and then."""

FIRST_REQUEST = 1.006
FIRST_DEVIATIONS = 0.7
"""What is asked for at first, over what half of the blocks need, and standard deviations of the
entropy that is estimated: a failure costs half a second, more syndrome costs key."""

LONG_ROUNDS = 200_000
"""From here on blocks are long: their decoders hardly stay at a level and then leave it."""

STRIDE_SHORT = 2
STRIDE_SHARE = 100
"""After a failure short blocks ask for two steps more, long ones for at least one part in this many
of the base syndrome: with less the second attempt was slow or failed too."""

MESSAGE_LLR_MAX = 15.2
"""Largest log-likelihood ratio of a message whose tanh a float32 still tells from one."""

COLUMN_LLR_MAX = 76.0
"""Largest sum of a column's messages, so that its likelihood ratio stays a normal float32."""

SHORT_LIFTING_MAX = 128
"""Largest circulants whose rows are copied before they are worked on."""

PROBABILITY_MIN = 1e-4
"""Smallest prior that is not certainty, for the same reason."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """Bob's estimate of Alice's bits, and whether its syndrome is hers. Not yet verified.

    If it is not, `wanted_steps` is the number of steps in all that he should ask for next; None is
    to give up.
    """

    bits: NDArray[np.uint8] = field(repr=False)
    converged: bool
    iterations: int
    wanted_steps: int | None


def syndrome(code: Code, bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The base syndrome, shape (m,), of bits of shape (n,); one byte a bit, 0 or 1."""
    _check_bits("bits", bits, code.design.rounds)
    out = np.zeros((code.design.rows, code.design.lifting), dtype=np.uint8)
    add_syndrome(code.row_start, code.edge_column, code.edge_shift, _lanes(code, bits), out)
    return out.reshape(-1)


def extra_syndrome(code: Code, bits: NDArray[np.uint8], steps: int) -> NDArray[np.uint8]:
    """The bits that the first `steps` steps reveal: parities of the first halves of split rows.

    Those of fewer steps are a prefix of those of more. Raises ValueError beyond the design.
    """
    _check_bits("bits", bits, code.design.rounds)
    split = code.design.split_rows(steps)
    halves = np.stack([code.row_start[:split], code.row_middle[:split]], axis=1)
    out = np.zeros((split, code.design.lifting), dtype=np.uint8)
    lanes = _lanes(code, bits)
    for row, (first, last) in enumerate(halves.tolist()):
        edges = (code.edge_column[first:last], code.edge_shift[first:last])
        ends = np.array([0, last - first], dtype=np.int64)
        add_syndrome(ends, *edges, lanes, out[row : row + 1])
    return out.reshape(-1)


def decode(
    code: Code,
    own_bits: NDArray[np.uint8],
    peer_syndrome: NDArray[np.uint8],
    error_probability: NDArray[np.float32],
    extra: tuple[int, NDArray[np.uint8]] | None = None,
) -> Decoded:
    """The peer's bits from one's own, the peer's syndrome and P(bits differ) of each bit.

    Shapes (n,), (m,) and (n,); `extra` holds a number of steps and what they reveal.
    Probabilities lie in [0, 1/2]; 0 is certainty. Not converging is an outcome, not an error;
    input of the wrong shape or range raises ValueError.
    """
    design = code.design
    n, steps = design.rounds, extra[0] if extra else 0
    _check_bits("own bits", own_bits, n)
    _check_bits("peer syndrome", peer_syndrome, design.syndrome_bits)
    if extra:
        _check_bits("extra syndrome", extra[1], design.split_rows(steps) * design.lifting)
    if error_probability.shape != (n,):
        raise ValueError(f"error probability has shape {error_probability.shape}, not ({n},)")
    if not (error_probability.min() >= 0 and error_probability.max() <= 0.5):
        raise ValueError("an error probability lies outside 0..1/2")
    parities = (syndrome(code, own_bits) ^ peer_syndrome).reshape(design.rows, -1)
    estimated = estimate(code, parities, _lanes(code, error_probability))
    first = _first_steps(design, estimated)
    if first is None or steps < first:
        return Decoded(own_bits, False, 0, first)
    if extra:
        halves = (extra_syndrome(code, own_bits, steps) ^ extra[1]).reshape(-1, design.lifting)
        parities = _interleave(halves, parities)
    errors, converged, iterations = _find_errors(code, steps, parities, estimated.error_probability)
    found = np.ascontiguousarray(errors.T).reshape(-1)[:n]
    more: int | None = min(steps + _stride(design), design.steps_max)
    if converged or more == steps:
        more = None
    return Decoded(own_bits ^ found, converged, iterations, more)


def _stride(design: CodeDesign) -> int:
    """The steps that are asked for after a failure."""
    if design.rounds < LONG_ROUNDS:
        return STRIDE_SHORT
    return -(-design.rows // (STRIDE_SHARE * design.step_rows))


def _first_steps(design: CodeDesign, estimated: Estimate) -> int | None:
    """The steps that a block of the estimated error rates needs, or None: more than there are."""
    if not estimated.classes:
        return 0  # all bits are known
    needed = FIRST_REQUEST * needed_leak_bits(design, estimated.classes)
    missing = needed + FIRST_DEVIATIONS * estimated.entropy_deviation - design.syndrome_bits
    steps = max(0, math.ceil(missing / design.step_bits))
    return steps if steps <= design.steps_max else None


def _interleave(halves: NDArray[np.uint8], parities: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Parities of the refined rows: both halves of those that are split, then the others."""
    split = len(halves)
    pairs = np.stack([halves, parities[:split] ^ halves], axis=1)
    return np.concatenate([pairs.reshape(2 * split, -1), parities[split:]])


def refined_rows(code: Code, steps: int) -> NDArray[np.int64]:
    """Where rows start once `steps` steps have split some."""
    split = code.design.split_rows(steps)
    pairs = np.stack([code.row_start[:split], code.row_middle[:split]], axis=1)
    return np.concatenate([pairs.reshape(-1), code.row_start[split:]])


def _find_errors(
    code: Code, steps: int, wanted: NDArray[np.uint8], prior: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], bool, int]:
    """The error pattern (columns, lifting) of parities (refined rows, lifting)."""
    prior = prior.copy()
    prior[(prior > 0) & (prior < PROBABILITY_MIN)] = PROBABILITY_MIN
    ratio = prior / (1 - prior)
    messages = np.zeros((code.edge_column.size, code.design.lifting), dtype=np.float32)
    limit = message_limits(code)
    sweep = sweep_short if code.design.lifting <= SHORT_LIFTING_MAX else sweep_long
    graph = (refined_rows(code, steps), code.edge_column, code.edge_shift)
    stall = STALLS[code.design.rounds >= LONG_ROUNDS]
    unsatisfied: list[int] = []
    for iteration in range(ITERATIONS_MAX + 1):
        errors = (ratio > 1).astype(np.uint8)
        residue = wanted.copy()
        add_syndrome(*graph, errors, residue)
        unsatisfied.append(int(np.count_nonzero(residue)))
        if unsatisfied[-1] == 0:
            return errors, True, iteration
        if iteration == ITERATIONS_MAX or _stalled(unsatisfied, *stall):
            return errors, False, iteration
        sweep(*graph, limit, wanted, ratio, messages)
    raise AssertionError("the last iteration returns")


def _stalled(unsatisfied: list[int], sweeps: int, share: float) -> bool:
    """Whether the last sweeps have hardly satisfied more checks than those before them."""
    if len(unsatisfied) <= sweeps:
        return False
    return min(unsatisfied[-sweeps:]) > share * min(unsatisfied[:-sweeps])


def message_limits(code: Code) -> NDArray[np.float32]:
    """Largest |tanh(LLR / 2)| of a message on each base edge, shape (base edges,)."""
    llr = np.minimum(MESSAGE_LLR_MAX, COLUMN_LLR_MAX / code.column_degree)
    limits: NDArray[np.float32] = np.tanh(llr / 2).astype(np.float32)[code.edge_column]
    return limits


def _lanes(code: Code, values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Values (n,) as (columns, lifting), padded with zeros.

    Bit i stands in column i mod columns: neighbours in time fall into columns of all degrees, so
    that a drift of the error rate over the block is spread evenly over the code.
    """
    columns, lifting = code.design.columns, code.design.lifting
    padded = np.zeros(columns * lifting, dtype=values.dtype)
    padded[: values.size] = values
    return np.ascontiguousarray(padded.reshape(lifting, columns).T)


def _check_bits(name: str, bits: NDArray[np.uint8], size: int) -> None:
    if bits.shape != (size,) or bits.dtype != np.uint8:
        raise ValueError(f"{name}: {bits.dtype} of shape {bits.shape}, not uint8 of ({size},)")
    if bits.max() > 1:
        raise ValueError(f"{name}: a value other than 0 and 1")
