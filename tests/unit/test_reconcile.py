"""Syndromes and the decoder, against a slow twin and on blocks with known errors."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from bellhop.stack.diqkd.code import Code, build_code, design_code
from bellhop.stack.diqkd.decode_kernels import sweep_long, sweep_short
from bellhop.stack.diqkd.reconcile import (
    COLUMN_LLR_MAX,
    MESSAGE_LLR_MAX,
    Decoded,
    decode,
    extra_syndrome,
    message_limits,
    refined_rows,
    syndrome,
)

GAMMA = 13 / 256
OXFORD = ((1 - GAMMA, 0.018), (GAMMA, 0.17))
Bits = NDArray[np.uint8]
Sweep = Callable[..., None]


def parity_checks(code: Code, row_start: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """For each lifted check the places of its bits, in the order of rounds, from the definition."""
    columns, lifting = code.design.columns, code.design.lifting
    checks = []
    for row in range(row_start.size - 1):
        edges = slice(row_start[row], row_start[row + 1])
        for lane in range(lifting):
            bit_lane = (lane + code.edge_shift[edges]) % lifting
            checks.append(bit_lane * columns + code.edge_column[edges])
    return checks


def twin_sweep(
    code: Code, wanted: Bits, llr: NDArray[np.float64], messages: list[NDArray[np.float64]]
) -> None:
    """One layered iteration, one check at a time, log-likelihood ratios in double precision."""
    for number, places in enumerate(parity_checks(code, code.row_start)):
        degree = code.column_degree[places % code.design.columns]
        limit = np.minimum(MESSAGE_LLR_MAX, COLUMN_LLR_MAX / degree)
        without = llr[places] - messages[number]
        tanh = np.tanh(without / 2)
        product = np.array([np.prod(np.delete(tanh, k)) for k in range(tanh.size)])
        product *= 1 - 2 * int(wanted[number])
        new = 2 * np.arctanh(np.clip(product, -1 + 1e-15, 1 - 1e-15))
        messages[number] = np.clip(new, -limit, limit)
        llr[places] = without + messages[number]


def block(code: Code, seed: int, *, factor: float = 1.0) -> tuple[Bits, Bits, NDArray[np.float32]]:
    """Alice's bits, Bob's, and priors: errors drawn at `factor` times the design's rates."""
    rng = np.random.default_rng(seed)
    n = code.design.rounds
    probability = np.where(rng.random(n) < GAMMA, 0.17, 0.018).astype(np.float32)
    errors = (rng.random(n) < factor * probability).astype(np.uint8)
    alice = rng.integers(0, 2, n, dtype=np.uint8)
    return alice, alice ^ errors, probability


def reconciled(
    code: Code, alice: Bits, bob: Bits, probability: NDArray[np.float32]
) -> tuple[Decoded, list[int]]:
    """What comes of it when Alice gives Bob whatever he asks for, and his requests."""
    told, requests = syndrome(code, alice), [0]
    decoded = decode(code, bob, told, probability)
    while not decoded.converged and decoded.wanted_steps is not None:
        requests.append(decoded.wanted_steps)
        extra = requests[-1], extra_syndrome(code, alice, requests[-1])
        decoded = decode(code, bob, told, probability, extra)
    return decoded, requests


@pytest.fixture(scope="module")
def tiny() -> Code:
    return build_code(design_code(1_507, OXFORD, 5))


@pytest.fixture(scope="module")
def short() -> Code:
    return build_code(design_code(30_011, OXFORD, 5))


def test_syndrome_equals_the_definition(tiny: Code) -> None:
    n = tiny.design.rounds
    bits = np.random.default_rng(1).integers(0, 2, n, dtype=np.uint8)
    padded = np.zeros(tiny.design.columns * tiny.design.lifting, dtype=np.uint8)
    padded[:n] = bits
    expected = [
        np.bitwise_xor.reduce(padded[places]) for places in parity_checks(tiny, tiny.row_start)
    ]
    assert syndrome(tiny, bits).tolist() == expected


@pytest.mark.parametrize("steps", [0, 1, 7, 15])
def test_base_and_extra_are_the_syndrome_of_the_split_code(tiny: Code, steps: int) -> None:
    """By a dense matrix: the split rows' first halves are told, the second halves follow."""
    design = tiny.design
    size = design.columns * design.lifting
    bits = np.random.default_rng(2).integers(0, 2, design.rounds, dtype=np.uint8)
    padded = np.zeros(size, dtype=np.int64)
    padded[: design.rounds] = bits
    dense = np.zeros(((design.rows + steps * design.step_rows) * design.lifting, size), np.int64)
    for check, places in enumerate(parity_checks(tiny, refined_rows(tiny, steps))):
        dense[check, places] = 1
    refined = (dense @ padded % 2).reshape(-1, design.lifting)
    base = syndrome(tiny, bits).reshape(design.rows, design.lifting)
    extra = extra_syndrome(tiny, bits, steps).reshape(-1, design.lifting)
    split = steps * design.step_rows
    assert extra.shape == (split, design.lifting)
    assert np.array_equal(refined[: 2 * split : 2], extra)
    assert np.array_equal(refined[1 : 2 * split : 2], extra ^ base[:split])
    assert np.array_equal(refined[2 * split :], base[split:])


def test_every_step_repeats_those_before_it(tiny: Code) -> None:
    bits = np.random.default_rng(3).integers(0, 2, tiny.design.rounds, dtype=np.uint8)
    whole = extra_syndrome(tiny, bits, tiny.design.steps_max)
    for steps in range(tiny.design.steps_max + 1):
        part = extra_syndrome(tiny, bits, steps)
        assert part.size == tiny.design.leak_bits(steps) - tiny.design.syndrome_bits
        assert np.array_equal(part, whole[: part.size])


@pytest.mark.parametrize("sweep", [sweep_long, sweep_short])
def test_sweeps_equal_the_slow_twin(tiny: Code, sweep: Sweep) -> None:
    design = tiny.design
    alice, bob, probability = block(tiny, 2, factor=0.8)
    wanted = syndrome(tiny, alice ^ bob)
    size = design.columns * design.lifting
    llr = np.full(size, 40.0)  # padding: all but certain
    llr[: design.rounds] = np.log((1 - probability) / probability.astype(np.float64))
    twin_messages = [np.zeros(places.size) for places in parity_checks(tiny, tiny.row_start)]
    lanes = llr.reshape(design.lifting, design.columns).T
    ratio = np.ascontiguousarray(np.exp(-lanes)).astype(np.float32)
    messages = np.zeros((design.base_edges, design.lifting), dtype=np.float32)
    for _ in range(3):
        twin_sweep(tiny, wanted, llr, twin_messages)
        sweep(
            tiny.row_start,
            tiny.edge_column,
            tiny.edge_shift,
            message_limits(tiny),
            wanted.reshape(design.rows, -1),
            ratio,
            messages,
        )
        found = -np.log(ratio.T.reshape(-1)[: design.rounds].astype(np.float64))
        assert np.allclose(found, llr[: design.rounds], rtol=5e-3, atol=5e-2)


@pytest.mark.parametrize("factor", [0.0, 0.6, 0.85, 1.0, 1.2])
def test_blocks_near_the_design_are_corrected(short: Code, factor: float) -> None:
    for seed in range(5):
        alice, bob, probability = block(short, seed, factor=factor)
        decoded, requests = reconciled(short, alice, bob, probability)
        assert decoded.converged
        assert decoded.wanted_steps is None
        assert np.array_equal(decoded.bits, alice)
        assert all(lower < upper for lower, upper in pairwise(requests))
        assert (decoded.iterations == 0) == (factor == 0.0)


def test_more_errors_ask_for_more_steps(short: Code) -> None:
    asked = []
    for factor in (0.9, 1.0, 1.1, 1.2, 1.3):
        alice, bob, probability = block(short, 3, factor=factor)
        asked.append(decode(short, bob, syndrome(short, alice), probability).wanted_steps or 0)
    assert all(lower < upper for lower, upper in pairwise(asked))


def test_too_few_steps_are_not_decoded(short: Code) -> None:
    """The first request is a function of the base syndrome alone, whatever is given."""
    alice, bob, probability = block(short, 3, factor=1.2)
    told = syndrome(short, alice)
    first = decode(short, bob, told, probability)
    assert first.wanted_steps is not None
    less = first.wanted_steps - 1
    again = decode(short, bob, told, probability, (less, extra_syndrome(short, alice, less)))
    assert (again.converged, again.iterations) == (False, 0)
    assert again.wanted_steps == first.wanted_steps


@pytest.mark.parametrize(("rounds", "error"), [(20_000, 0.03), (60_000, 0.08), (45_000, 0.011)])
def test_plain_channels_of_other_sizes(rounds: int, error: float) -> None:
    code = build_code(design_code(rounds, ((1.0, error),), 9))
    rng = np.random.default_rng(3)
    errors = (rng.random(rounds) < error).astype(np.uint8)
    own = rng.integers(0, 2, rounds, dtype=np.uint8)
    prior = np.full(rounds, error, dtype=np.float32)
    decoded, _ = reconciled(code, own ^ errors, own, prior)
    assert decoded.converged
    assert np.array_equal(decoded.bits, own ^ errors)


def test_known_bits_are_never_flipped(short: Code) -> None:
    alice, bob, probability = block(short, 4, factor=0.9)
    known = np.arange(0, short.design.rounds, 3)
    bob[known] = alice[known]
    probability[known] = 0
    probability[1::7] = np.maximum(probability[1::7] / 1000, 1e-6)
    decoded, _ = reconciled(short, alice, bob, probability)
    assert np.array_equal(decoded.bits[known], alice[known])


def test_hopeless_noise_is_an_outcome(short: Code) -> None:
    alice, bob, probability = block(short, 6, factor=3.5)
    decoded, requests = reconciled(short, alice, bob, probability)
    assert not decoded.converged
    assert decoded.wanted_steps is None
    assert all(lower < upper <= short.design.steps_max for lower, upper in pairwise(requests))
    assert decoded.bits.shape == alice.shape


def test_after_the_last_step_nothing_is_asked(short: Code) -> None:
    """The base syndrome promises a block like the design's; what comes after it fits nothing."""
    alice, bob, probability = block(short, 7)
    last = short.design.steps_max
    noise = np.random.default_rng(1).integers(0, 2, alice.size, dtype=np.uint8)
    extra = last, extra_syndrome(short, noise, last)
    decoded = decode(short, bob, syndrome(short, alice), probability, extra)
    assert not decoded.converged
    assert decoded.iterations > 0
    assert decoded.wanted_steps is None
    assert decoded.bits.shape == alice.shape
    assert decoded.bits.max() <= 1


def test_input_is_left_alone_and_repr_keeps_quiet(short: Code) -> None:
    alice, bob, probability = block(short, 7, factor=1.2)
    probability[0] = 1e-7
    copies = bob.copy(), probability.copy()
    decoded = decode(short, bob, syndrome(short, alice), probability)
    assert np.array_equal(bob, copies[0])
    assert np.array_equal(probability, copies[1])
    shown = f"converged=False, iterations=0, wanted_steps={decoded.wanted_steps}"
    assert repr(decoded) == f"Decoded({shown})"


def test_wrong_input_is_named(short: Code) -> None:
    alice, bob, probability = block(short, 8)
    told = syndrome(short, alice)
    with pytest.raises(ValueError, match="bits: uint8 of shape"):
        syndrome(short, alice[:-1])
    with pytest.raises(ValueError, match="own bits"):
        decode(short, bob[1:], told, probability)
    with pytest.raises(ValueError, match="own bits: int64"):
        decode(short, bob.astype(np.int64), told, probability)
    with pytest.raises(ValueError, match="peer syndrome"):
        decode(short, bob, told[1:], probability)
    with pytest.raises(ValueError, match="peer syndrome: a value other"):
        decode(short, bob, told + np.uint8(2), probability)
    for steps in (-1, short.design.steps_max + 1):
        with pytest.raises(ValueError, match="steps are not within"):
            extra_syndrome(short, alice, steps)
        with pytest.raises(ValueError, match="steps are not within"):
            decode(short, bob, told, probability, (steps, told))
    with pytest.raises(ValueError, match="extra syndrome"):
        decode(short, bob, told, probability, (2, extra_syndrome(short, alice, 1)))
    with pytest.raises(ValueError, match="error probability has shape"):
        decode(short, bob, told, probability[1:])
    for wrong in (-0.1, 0.6, float("nan")):
        probability[5] = wrong
        with pytest.raises(ValueError, match="outside"):
            decode(short, bob, told, probability)
