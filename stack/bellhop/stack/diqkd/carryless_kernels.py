"""The processor's carry-less multiplication, compiled: short correlations of 64-bit words.

Words are polynomials over GF(2), bit k the coefficient of x^k; a product of two has 127
coefficients and is kept in two words. Importing this module loads numba; `width()` says how many
products one instruction of this processor gives, 0 where there is none (PCLMULQDQ and its wide
forms are x86's). Asked of numba's own target, because a compiler that is told to use an
instruction that its target lacks ends the process.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.registry import cpu_target
from numba.extending import intrinsic
from numpy.typing import NDArray

Words = NDArray[np.uint64]
Correlate = Callable[[Words, Words, Words], None]

LEAF_WORDS: Final = 16
"""Words of a shortest string: as many as the widest instruction serves twice over."""

_FEATURES: Final = ((4, {"vpclmulqdq", "avx512f"}), (2, {"vpclmulqdq", "avx2"}), (1, {"pclmul"}))
_INSTRUCTIONS: Final = {
    1: "llvm.x86.pclmulqdq",
    2: "llvm.x86.pclmulqdq.256",
    4: "llvm.x86.pclmulqdq.512",
}
# Which halves of its operands' 128-bit lanes the instruction multiplies.
_EVEN_BY_EVEN: Final = 0x00
_ODD_BY_EVEN: Final = 0x01
_WORD: Final = ir.IntType(64)
_WORD_BYTES: Final = 8
_ROW_BYTES: Final = tuple(
    _WORD_BYTES * words for words in (2 * LEAF_WORDS, LEAF_WORDS, 2 * LEAF_WORDS)
)
_SIGNATURE: Final = "void(uint64[:, ::1], uint64[:, ::1], uint64[:, ::1])"


def width() -> int:
    """Products an instruction: 4, 2, 1, or 0 where this processor (or numba's target) has none."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return 0
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    present = {name[1:] for name in features.split(",") if name.startswith("+")}
    return next((lanes for lanes, needed in _FEATURES if needed <= present), 0)


def correlator(lanes: int) -> Correlate:
    """The kernel `correlate(windows, strings, sums)` for one width of the instruction.

    Shapes (c, 2 w), (c, w) and (c, 2 w), w = `LEAF_WORDS`. To the sums is added, for every c and
    every i < w, the double word sum_m windows[c, i + m] strings[c, m]: first those of even i,
    then those of odd i, low word before high. Not cached: `correlate` is.
    """
    add_leaves = _leaf_adder(lanes)

    @numba.njit(_SIGNATURE)
    def compiled(windows: Words, strings: Words, sums: Words) -> None:
        add_leaves(windows.ctypes.data, strings.ctypes.data, sums.ctypes.data, len(strings))

    return cast("Correlate", compiled)


def _leaf_adder(lanes: int) -> Any:
    """An intrinsic of numba: the addresses of windows, strings and sums, and their number."""

    @intrinsic
    def add_leaves(_: Any, windows: Any, strings: Any, sums: Any, count: Any) -> tuple[Any, Any]:
        def generate(context: Any, builder: Any, __: Any, arguments: Any) -> Any:
            *addresses, number = arguments
            with cgutils.for_range(builder, number) as loop:
                rows = [
                    builder.add(address, builder.mul(loop.index, ir.Constant(_WORD, row_bytes)))
                    for address, row_bytes in zip(addresses, _ROW_BYTES, strict=True)
                ]
                _emit_leaf(builder, lanes, *rows)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.intp), generate

    return add_leaves


def _emit_leaf(builder: Any, lanes: int, window: Any, string: Any, total: Any) -> None:
    """Two wide sums a round, held in registers: the products of even words and of odd ones."""
    row = 2 * lanes
    vector, index = ir.VectorType(_WORD, row), ir.IntType(32)
    multiply = builder.module.declare_intrinsic(
        _INSTRUCTIONS[lanes], (), ir.FunctionType(vector, [vector, vector, ir.IntType(8)])
    )

    def place(address: Any, words: int, kind: Any) -> Any:
        at = builder.add(address, ir.Constant(_WORD, _WORD_BYTES * words))
        return builder.inttoptr(at, kind.as_pointer())

    def spread(word: Any) -> Any:
        undefined = ir.Constant(vector, ir.Undefined)
        one = builder.insert_element(undefined, word, ir.Constant(index, 0))
        everywhere = ir.Constant(ir.VectorType(index, row), [0] * row)
        return builder.shuffle_vector(one, one, everywhere)

    for first in range(0, LEAF_WORDS, row):
        places = [place(total, first + odd * LEAF_WORDS, vector) for odd in (0, 1)]
        sums = [builder.load(at, align=_WORD_BYTES) for at in places]
        for m in range(LEAF_WORDS):
            many = builder.load(place(window, first + m, vector), align=_WORD_BYTES)
            one = spread(builder.load(place(string, m, _WORD), align=_WORD_BYTES))
            for odd, halves in enumerate((_EVEN_BY_EVEN, _ODD_BY_EVEN)):
                product = builder.call(multiply, [many, one, ir.Constant(ir.IntType(8), halves)])
                sums[odd] = builder.xor(sums[odd], product)
        for at, value in zip(places, sums, strict=True):
            builder.store(value, at, align=_WORD_BYTES)


_add_leaves = _leaf_adder(width())


@numba.njit(cache=True)
def _correlate(windows: Words, strings: Words, sums: Words) -> None:
    _add_leaves(windows.ctypes.data, strings.ctypes.data, sums.ctypes.data, len(strings))


def correlate(windows: Words, strings: Words, sums: Words) -> None:
    """`correlator(width())`, compiled at the first call or read from numba's cache.

    The cache is numba's own, kept for each processor model and its features apart.
    """
    assert windows.shape == sums.shape == (len(strings), 2 * LEAF_WORDS)
    assert strings.shape == (len(strings), LEAF_WORDS)
    assert windows.dtype == strings.dtype == sums.dtype == np.uint64
    assert all(part.flags.c_contiguous for part in (windows, strings, sums))
    _correlate(windows, strings, sums)
