"""Reconciliation over random blocks: linear syndromes, and a decoder that never raises."""

from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bellhop.stack.diqkd.code import Code, build_code, design_code
from bellhop.stack.diqkd.reconcile import decode, extra_syndrome, syndrome

seeds = st.integers(0, 2**32 - 1)


@cache
def code_of(rounds: int, error_percent: int) -> Code:
    return build_code(design_code(rounds, ((1.0, error_percent / 100),), rounds))


codes = st.builds(code_of, st.sampled_from([1_000, 2_049, 5_003]), st.sampled_from([2, 5, 8]))


@given(codes, seeds)
@settings(max_examples=50, deadline=None)
def test_syndrome_is_linear(code: Code, seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, peer = rng.integers(0, 2, (2, code.design.rounds), dtype=np.uint8)
    assert np.array_equal(syndrome(code, own) ^ syndrome(code, peer), syndrome(code, own ^ peer))


@given(codes, seeds, st.floats(0, 0.5))
@settings(max_examples=50, deadline=None)
def test_any_syndrome_and_prior_give_an_outcome(code: Code, seed: int, prior: float) -> None:
    rng = np.random.default_rng(seed)
    n, m = code.design.rounds, code.design.syndrome_bits
    own, told = rng.integers(0, 2, n, dtype=np.uint8), rng.integers(0, 2, m, dtype=np.uint8)
    decoded = decode(code, own, told, np.full(n, prior, dtype=np.float32))
    assert decoded.bits.shape == (n,)
    assert decoded.bits.max() <= 1
    assert decoded.converged == np.array_equal(syndrome(code, decoded.bits), told)


@given(codes, seeds, st.floats(0, 0.01))
@settings(max_examples=50, deadline=None)
def test_converged_means_the_peers_syndrome(code: Code, seed: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    n = code.design.rounds
    peer = rng.integers(0, 2, n, dtype=np.uint8)
    own = peer ^ (rng.random(n) < error).astype(np.uint8)
    told = syndrome(code, peer)
    decoded = decode(code, own, told, np.full(n, 0.02, dtype=np.float32))
    assert decoded.converged == np.array_equal(syndrome(code, decoded.bits), told)


@given(codes, seeds, st.floats(0, 0.3))
@settings(max_examples=30, deadline=None)
def test_asking_ends_and_never_goes_back(code: Code, seed: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    n, steps_max = code.design.rounds, code.design.steps_max
    peer = rng.integers(0, 2, n, dtype=np.uint8)
    own = peer ^ (rng.random(n) < error).astype(np.uint8)
    prior, told, steps = np.full(n, 0.04, dtype=np.float32), syndrome(code, peer), 0
    decoded = decode(code, own, told, prior)
    while decoded.wanted_steps is not None:
        assert not decoded.converged
        assert steps < decoded.wanted_steps <= steps_max
        steps = decoded.wanted_steps
        extra = steps, extra_syndrome(code, peer, steps)
        decoded = decode(code, own, told, prior, extra)
    if decoded.converged:
        assert np.array_equal(syndrome(code, decoded.bits), told)
        given_bits = extra_syndrome(code, peer, steps)
        assert np.array_equal(extra_syndrome(code, decoded.bits, steps), given_bits)
