"""The operating system's generator: every byte drawn is tested, and a broken one gives none."""

from collections.abc import Callable

import numpy as np
import pytest

from bellhop.node.chance import ADVICE, PIECE_BYTES, OsRng
from bellhop.node.noise_tests import CHUNKS_KEPT, START_UP_SAMPLES, WINDOW, RandomnessFailed


class Kernel:
    """A generator that can be broken: what it gives, and how much it was asked for."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)
        self.asked: list[int] = []
        self.broken: Callable[[int], bytes] | None = None

    def __call__(self, count: int) -> bytes:
        self.asked.append(count)
        return self._rng.bytes(count) if self.broken is None else self.broken(count)


def test_a_draw_is_the_system_s_and_as_long_as_asked() -> None:
    kernel, twin = Kernel(), Kernel()
    rng = OsRng(kernel)
    twin(START_UP_SAMPLES)
    for count in (0, 1, 16, WINDOW, WINDOW + 1, 3 * PIECE_BYTES + 5):
        windows = max(1, -(-count // WINDOW))
        assert rng.draw(count) == twin(windows * WINDOW)[:count]
    assert kernel.asked == twin.asked
    assert rng.status() == {
        "source": rng.source,
        "read_bytes": sum(kernel.asked),
        "failure": "",
    }


def test_the_real_one_serves_and_its_children_are_itself() -> None:
    rng = OsRng()
    drawn = [rng.child("a", k).draw(32) for k in range(200)]
    assert len(set(drawn)) == 200
    assert len(rng.draw(1_000_000)) == 1_000_000


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (bytes, "repetition count test"),
        (lambda count: (b"\x07abcd" * count)[:count], "adaptive proportion test"),
    ],
)
def test_a_broken_generator_does_not_start(broken: Callable[[int], bytes], test: str) -> None:
    with pytest.raises(RandomnessFailed, match=test) as caught:
        OsRng(broken)
    assert caught.value.message.endswith(ADVICE)


@pytest.mark.parametrize("count", [1, 8_192, 2 * PIECE_BYTES])
def test_one_that_breaks_later_gives_nothing_more(count: int) -> None:
    """Not even once it is well again: what was drawn in between is what nobody knows."""
    kernel = Kernel()
    rng = OsRng(kernel)
    rng.draw(count)
    kernel.broken = bytes
    with pytest.raises(RandomnessFailed, match="equal bytes in a row"):
        rng.draw(count)
    kernel.broken = None
    with pytest.raises(RandomnessFailed, match="equal bytes in a row"):
        rng.draw(count)
    assert ADVICE in str(rng.status()["failure"])


def test_a_fault_in_the_last_window_of_a_long_draw_is_seen() -> None:
    kernel = Kernel()
    rng = OsRng(kernel)
    good = np.random.default_rng(2).bytes(2 * PIECE_BYTES)
    kernel.broken = lambda count: good[: count - 10] + bytes(10)
    with pytest.raises(RandomnessFailed, match="10 equal bytes in a row"):
        rng.draw(2 * PIECE_BYTES)


def test_equal_bytes_on_both_sides_of_two_draws_are_one_run() -> None:
    kernel = Kernel()
    rng = OsRng(kernel)
    good = np.random.default_rng(3).bytes(WINDOW)
    kernel.broken = lambda _: b"\1" + good[1:-4] + bytes(4)
    rng.draw(1)
    kernel.broken = lambda _: bytes(4) + good[::-1][4:-1] + b"\2"
    with pytest.raises(RandomnessFailed, match="8 equal bytes in a row"):
        rng.draw(1)


def test_a_generator_that_starts_over_is_seen() -> None:
    """As of a machine that was copied while it ran, where the kernel does not notice."""
    kernel = Kernel()
    rng = OsRng(kernel)
    again = np.random.default_rng(4).bytes(4 * WINDOW)
    kernel.broken = lambda count: again[:count]
    rng.draw(3 * WINDOW)
    kernel.broken = None
    for _ in range(CHUNKS_KEPT - 1):
        rng.draw(1)
    kernel.broken = lambda count: again[:count]
    with pytest.raises(RandomnessFailed, match="replay test"):
        rng.draw(2)
