"""The reconciliation code: its design, its matrix, and that both ends build the same."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from bellhop.stack.diqkd.code import (
    STEPS_MAX,
    Code,
    CodeDesign,
    build_code,
    design_code,
    expected_leak_bits,
    needed_bits,
)
from bellhop.stack.diqkd.decode_kernels import draw_below
from bellhop.stack.diqkd.degrees import (
    DEGREE_TABLES,
    STABILITY,
    bhattacharyya,
    blend,
    choose_shares,
    effective_error_probability,
    entropy,
    stability,
)

GAMMA = 13 / 256
OXFORD = ((1 - GAMMA, 0.018), (GAMMA, 0.17))
SMALL = CodeDesign(
    rounds=3_990,
    syndrome_bits=1_024,
    seed=20_220_727,
    lifting=16,
    table="fixed",
    degrees=((2, 65), (3, 105), (8, 60), (20, 20)),
    paired_rows=4,
    step_rows=2,
    steps_max=20,
)


def row_of_edge(code: Code) -> list[int]:
    return np.repeat(np.arange(code.design.rows), np.diff(code.row_start)).tolist()


def test_generator_is_splitmix64() -> None:
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    seed = np.uint64(1234567)
    for index, value in enumerate(published, start=1):
        assert draw_below(seed, np.uint64(index), 1 << 31) == value >> 33


def test_small_code_is_pinned() -> None:
    digest = build_code(SMALL).digest
    assert digest.hex() == "78a5a250d526e854cb141c4a3acd36e2795adc1cb15df15b564844f10e471ca7"


def test_same_design_same_code_other_seed_other_code() -> None:
    design = design_code(20_000, OXFORD, 7)
    assert build_code(design).digest == build_code(design).digest
    assert build_code(design).digest != build_code(design_code(20_000, OXFORD, 8)).digest


def test_every_column_has_its_degree_and_no_row_twice() -> None:
    code = build_code(design_code(20_000, OXFORD, 7))
    pairs = list(zip(row_of_edge(code), code.edge_column.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs) == code.design.base_edges
    assert np.array_equal(np.bincount(code.edge_column), code.column_degree)
    assert np.all((code.edge_shift >= 0) & (code.edge_shift < code.design.lifting))


def test_check_degrees_are_concentrated_and_paired_rows_twice_as_dense() -> None:
    code = build_code(design_code(1_500_000, OXFORD, 7))
    design = code.design
    degrees = np.diff(code.row_start).astype(np.float64)
    mean = design.base_edges / (design.rows + design.paired_rows)
    degrees[: design.paired_rows] /= 2
    assert np.abs(degrees - mean).max() < 3
    assert np.mean(np.abs(degrees - mean) < 1) > 0.95


def test_halves_of_a_row_share_its_edges_evenly() -> None:
    code = build_code(design_code(60_000, OXFORD, 7))
    first = code.row_middle - code.row_start[:-1]
    second = code.row_start[1:] - code.row_middle
    assert np.all((first == second) | (first == second + 1))
    for starts, ends in (
        (code.row_start[:-1], code.row_middle),
        (code.row_middle, code.row_start[1:]),
    ):
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            assert np.all(np.diff(code.edge_column[start:end]) > 0)


@pytest.mark.parametrize("rounds", [1_000, 20_000, 300_000, 1_200_000])
def test_leak_is_the_base_and_its_steps(rounds: int) -> None:
    design = design_code(rounds, OXFORD, 1)
    assert 0 < design.steps_max <= STEPS_MAX
    leaks = [design.leak_bits(steps) for steps in range(design.steps_max + 1)]
    assert leaks[0] == design.syndrome_bits
    assert [b - a for a, b in pairwise(leaks)] == [design.step_bits] * design.steps_max
    assert leaks[-1] < rounds
    assert leaks[0] < expected_leak_bits(rounds, OXFORD) < leaks[-1]
    for steps in (-1, design.steps_max + 1):
        with pytest.raises(ValueError, match="steps"):
            design.leak_bits(steps)


def test_columns_of_degree_two_close_no_short_base_cycle() -> None:
    code = build_code(design_code(1_500_000, OXFORD, 7))
    ends: dict[int, set[int]] = {}
    for row, column in zip(row_of_edge(code), code.edge_column.tolist(), strict=True):
        if code.column_degree[column] == 2:
            ends.setdefault(column, set()).add(row)
    pairs = [tuple(sorted(rows)) for rows in ends.values()]
    assert len(set(pairs)) == len(pairs)
    joined = set(pairs)
    neighbours: dict[int, set[int]] = {}
    for a, b in pairs:
        neighbours.setdefault(a, set()).add(b)
        neighbours.setdefault(b, set()).add(a)
    assert not any(neighbours[a] & neighbours[b] for a, b in joined)


def test_columns_of_low_degree_close_no_lifted_four_cycle() -> None:
    code = build_code(design_code(200_000, OXFORD, 7))
    mask = code.design.lifting - 1
    edges: dict[int, list[tuple[int, int]]] = {}
    for row, column, shift in zip(
        row_of_edge(code), code.edge_column.tolist(), code.edge_shift.tolist(), strict=True
    ):
        if code.column_degree[column] <= 3:
            edges.setdefault(column, []).append((row, shift))
    seen: set[tuple[int, int, int]] = set()
    for column_edges in edges.values():
        for i, (row, shift) in enumerate(column_edges):
            for other, turn in column_edges[:i]:
                key = (other, row, (shift - turn) & mask)
                assert key not in seen
                seen.add(key)


def test_oxford_block_leaks_less_than_the_published_syndrome() -> None:
    design = design_code(1_500_000, OXFORD, 7)
    limit = 1_500_000 * sum(weight * entropy(q) for weight, q in OXFORD)
    assert design.lifting == 512
    assert design.syndrome_bits % 512 == 0
    assert design.syndrome_bits < limit < design.leak_bits(12)
    assert 1.04 < expected_leak_bits(1_500_000, OXFORD) / limit < 1.07


@pytest.mark.parametrize("rounds", [20_000, 100_000, 1_200_000, 4_000_000])
def test_syndrome_grows_with_error_and_stays_above_entropy(rounds: int) -> None:
    errors = [0.005, 0.01, 0.013, 0.02, 0.024, 0.03, 0.05, 0.07, 0.08, 0.11]
    base = [design_code(rounds, ((1, q),), 1).syndrome_bits for q in errors]
    assert all(lower < upper for lower, upper in pairwise(base))
    bits = [expected_leak_bits(rounds, ((1, q),)) for q in errors]
    assert all(lower < upper for lower, upper in pairwise(bits))
    assert all(m > rounds * entropy(q) for m, q in zip(bits, errors, strict=True))


def test_syndrome_grows_with_rounds_and_efficiency_improves() -> None:
    sizes = [20_000, 60_000, 200_000, 600_000, 1_500_000, 4_000_000]
    designs = [design_code(n, OXFORD, 1) for n in sizes]
    rates = [expected_leak_bits(n, OXFORD) / n for n in sizes]
    assert all(upper < lower for lower, upper in pairwise(rates))
    assert all(d.columns * d.lifting - d.rounds < d.lifting for d in designs)
    assert all(d.columns == -(-d.rounds // d.lifting) for d in designs)


def test_counts_and_weights_mean_the_same() -> None:
    counts = ((1_423_828, 0.018), (76_172, 0.17))
    weights = ((1_423_828 / 1_500_000, 0.018), (76_172 / 1_500_000, 0.17))
    assert design_code(1_500_000, counts, 3) == design_code(1_500_000, weights, 3)


def test_blend_keeps_the_stability_factor() -> None:
    for classes in (OXFORD, ((1.0, 0.025),), ((1.0, 0.04),)):
        rate = needed_bits(1_500_000, classes) / 1_500_000
        factor = stability(choose_shares(rate, classes)[1], rate, classes)
        assert STABILITY - 0.01 < factor <= STABILITY


def test_blend_ends_are_the_tables() -> None:
    lower, upper = DEGREE_TABLES[1], DEGREE_TABLES[2]
    for step, table in ((0, lower), (1000, upper)):
        shares = blend(lower, upper, step)
        scale = sum(s for _, s in shares) // sum(s for _, s in table.shares)
        assert shares == tuple((degree, share * scale) for degree, share in table.shares)


def test_effective_error_probability_inverts_entropy() -> None:
    for q in (0.001, 0.018, 0.17, 0.5):
        assert effective_error_probability(entropy(q)) == pytest.approx(q, abs=1e-7)
    single = effective_error_probability(sum(w * entropy(q) for w, q in OXFORD))
    assert bhattacharyya(OXFORD) < bhattacharyya(((1, single),))


@pytest.mark.parametrize(
    ("rounds", "classes", "seed"),
    [
        (10, OXFORD, 1),
        (1 << 30, OXFORD, 1),
        (20_000, OXFORD, -1),
        (20_000, (), 1),
        (20_000, ((0.0, 0.02),), 1),
        (20_000, ((1.0, 0.6),), 1),
        (20_000, ((1.0, float("nan")),), 1),
        (20_000, ((1.0, 0.0),), 1),
        (20_000, ((1.0, 0.45),), 1),
    ],
)
def test_impossible_designs_are_refused(
    rounds: int, classes: tuple[tuple[float, float], ...], seed: int
) -> None:
    with pytest.raises(ValueError, match=r"rounds|seed|classes|weights|probability|no code"):
        design_code(rounds, classes, seed)


def test_design_alone_loads_no_compiler() -> None:
    script = "import sys, bellhop.stack.diqkd.code; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
