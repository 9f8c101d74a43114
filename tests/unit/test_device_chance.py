"""A hardware generator: its health tests, and that nothing is drawn from one that failed."""

import fcntl
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from bellhop.hal.errors import ConfigError
from bellhop.node.device_chance import AHEAD_BYTES_MAX, CHUNK_BYTES, START_UP_BYTES, DeviceRng
from bellhop.node.noise_tests import (
    ALPHA_BITS,
    CHUNKS_KEPT,
    WINDOW,
    NoiseTests,
    RandomnessFailed,
    ReplayTest,
    proportion_cutoff,
    repetition_cutoff,
)

Samples = NDArray[np.uint8]


def uniform(count: int, seed: int = 1) -> Samples:
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)


# The tests of SP 800-90B


@pytest.mark.parametrize("bits", [0.5, 1.0, 2.0, 4.3, 7.0, 7.9, 8.0])
def test_the_cut_offs_are_those_of_the_standard(bits: float) -> None:
    assert repetition_cutoff(bits) == 1 + math.ceil(30 / bits)
    alpha, share = 2.0**-ALPHA_BITS, 2.0**-bits
    assert proportion_cutoff(bits) == 1 + binom.ppf(1 - alpha, WINDOW, share)
    assert binom.sf(proportion_cutoff(bits) - 1, WINDOW, share) <= alpha
    assert binom.sf(proportion_cutoff(bits) - 2, WINDOW, share) > alpha


def fails(pieces: list[Samples], bits: float) -> str:
    """Which test fails: the first word of its name, or none."""
    tests = NoiseTests(bits)
    try:
        for piece in pieces:
            tests.check(piece)
    except RandomnessFailed as error:
        return error.message.rpartition("(")[2].split()[0]
    return ""


def repetition_by_the_letter(samples: Samples, bits: float) -> bool:
    """4.4.1, step by step."""
    cutoff = repetition_cutoff(bits)
    last, run = int(samples[0]), 1
    for sample in samples[1:].tolist():
        run = run + 1 if sample == last else 1
        last = sample
        if run >= cutoff:
            return True
    return False


def proportion_by_the_letter(samples: Samples, bits: float) -> bool:
    """4.4.2, step by step."""
    cutoff = proportion_cutoff(bits)
    for start in range(0, samples.size, WINDOW):
        first, count = samples[start], 1
        for sample in samples[start + 1 : start + WINDOW].tolist():
            count += sample == first
            if count >= cutoff:
                return True
    return False


@pytest.mark.parametrize("seed", range(30))
def test_they_fail_what_the_standard_fails(seed: int) -> None:
    """Sources from stuck to uniform, cut into pieces that runs go across."""
    generator = np.random.default_rng(seed)
    bits = float(generator.uniform(1, 8))
    stuck = generator.random(8 * WINDOW) < generator.choice([0.0, 0.1, 0.5, 0.9])
    samples = np.where(stuck, 7, uniform(8 * WINDOW, seed)).astype(np.uint8)
    failed = fails(np.split(samples, 4), bits)
    expected = {
        "repetition": repetition_by_the_letter(samples, bits),
        "adaptive": proportion_by_the_letter(samples, bits),
    }
    assert expected[failed] if failed else not any(expected.values())


def test_a_run_is_seen_across_pieces() -> None:
    cutoff = repetition_cutoff(8.0)
    pieces = [uniform(WINDOW), uniform(WINDOW, 2)]
    pieces[0][-2:], pieces[1][: cutoff - 2] = 9, 9
    pieces[0][-3], pieces[1][cutoff - 2] = 1, 1
    assert fails(pieces, 8.0) == "repetition"
    pieces[1][0] = 8
    assert fails(pieces, 8.0) == ""


def test_a_uniform_source_passes() -> None:
    assert fails([uniform(2**22)], 7.0) == ""


def test_a_bias_that_repeats_nothing_is_seen() -> None:
    samples = uniform(WINDOW)
    samples[::16] = samples[0]
    assert fails([samples], 7.0) == "adaptive"


# The generator


class Pipe:
    """A named pipe, its writing end open."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "generator"
        os.mkfifo(self.path)
        self._file = os.open(self.path, os.O_RDWR)  # Waits for no reader.
        fcntl.fcntl(self._file, fcntl.F_SETPIPE_SZ, 2**17)

    def give(self, content: bytes) -> None:
        """Must fit into the pipe; nothing is waited for."""
        assert os.write(self._file, content) == len(content)

    def end(self) -> None:
        os.close(self._file)
        self._file = -1


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    made = Pipe(tmp_path)
    yield made
    if made._file >= 0:
        made.end()


@contextmanager
def opened(
    path: Path, bits: float = 7.0, mix_os: bool = False, seconds: float = 10.0
) -> Iterator[DeviceRng]:
    rng = DeviceRng(path, bits, mix_os, seconds, seconds)
    try:
        yield rng
    finally:
        rng.close()


def test_draws_are_the_bytes_after_those_of_the_start_up_test(pipe: Pipe) -> None:
    content = uniform(START_UP_BYTES + 3 * CHUNK_BYTES).tobytes()
    pipe.give(content)
    with opened(pipe.path) as rng:
        first, none = rng.draw(5), rng.draw(0)
        rest = rng.child("settings").draw(3 * CHUNK_BYTES - 5)
        assert rng.status()["read_bytes"] == len(content)
    assert none == b"" and first + rest == content[START_UP_BYTES:]
    assert rng.source == f"the device {pipe.path}"


def test_mixed_draws_are_an_exclusive_or(pipe: Pipe) -> None:
    content, system = uniform(START_UP_BYTES + CHUNK_BYTES).tobytes(), uniform(64, 3).tobytes()
    pipe.give(content)
    rng = DeviceRng(pipe.path, 7.0, True, system=lambda count: system[:count])
    drawn = rng.draw(64)
    rng.close()
    mixed = bytes(a ^ b for a, b in zip(content[START_UP_BYTES:], system, strict=False))
    assert drawn == mixed
    assert rng.source == f"the device {pipe.path}, exclusive or the operating system's generator"


def test_a_character_device_is_read_ahead_and_no_further() -> None:
    with opened(Path("/dev/urandom"), bits=6.0) as rng:
        assert len(rng.draw(3 * AHEAD_BYTES_MAX)) == 3 * AHEAD_BYTES_MAX
        assert int(rng.status()["ahead_bytes"]) <= AHEAD_BYTES_MAX
        assert rng.status()["failure"] == ""


def test_a_stuck_generator_does_not_start() -> None:
    with pytest.raises(RandomnessFailed, match="repeats itself") as caught:
        DeviceRng(Path("/dev/zero"), 7.0, True)
    assert caught.value.who_must_act == "whoever runs the random number generator of this node"


@pytest.mark.parametrize("mix_os", [True, False])
def test_a_generator_that_sticks_later_gives_nothing_more(pipe: Pipe, mix_os: bool) -> None:
    """Nor what it gave before; and nothing else takes its place."""
    pipe.give(uniform(START_UP_BYTES + 2 * CHUNK_BYTES).tobytes())
    with opened(pipe.path, mix_os=mix_os) as rng:
        assert len(rng.draw(CHUNK_BYTES)) == CHUNK_BYTES
        pipe.give(bytes(CHUNK_BYTES))
        with pytest.raises(RandomnessFailed, match="repeats itself"):
            rng.draw(3 * CHUNK_BYTES)
        for _ in range(2):
            with pytest.raises(RandomnessFailed, match="repeats itself"):
                rng.draw(1)
        assert "repeats itself" in str(rng.status()["failure"])


def counter(count: int) -> Samples:
    return np.arange(count).astype(np.uint8)


@pytest.mark.parametrize("period", [256, 1_000, CHUNK_BYTES, 5 * CHUNK_BYTES])
def test_a_source_that_says_the_same_again_fails(period: int) -> None:
    """None of which the tests of the standard see."""
    content = counter(period) if period == 256 else uniform(period)
    common = math.lcm(period, CHUNK_BYTES)
    chunks = np.split(np.resize(content, common + CHUNK_BYTES), common // CHUNK_BYTES + 1)
    assert fails(chunks, 8.0) == ""
    replay = ReplayTest()
    for chunk in chunks[:-1]:
        replay.check(chunk.tobytes())
    with pytest.raises(RandomnessFailed, match="the same 4096 bytes again"):
        replay.check(chunks[-1].tobytes())


def test_a_generator_that_repeats_a_chunk_does_not_serve(pipe: Pipe) -> None:
    """The start-up test is part of what it may not say again; whether the second chunk is read
    before or after the generator counts as open is the thread's affair."""
    pipe.give(np.tile(uniform(START_UP_BYTES), 2).tobytes())
    with pytest.raises(RandomnessFailed, match="replay test"), opened(pipe.path) as rng:
        rng.draw(1)


def test_chunks_are_remembered_for_a_while() -> None:
    replay = ReplayTest()
    for number in range(CHUNKS_KEPT + 1):
        replay.check(number.to_bytes(4, "big"))
    replay.check(bytes(4))  # the first is forgotten
    with pytest.raises(RandomnessFailed):
        replay.check((2).to_bytes(4, "big"))


def test_a_biased_generator_does_not_start(pipe: Pipe) -> None:
    biased = uniform(START_UP_BYTES)
    biased[::4] = 42
    pipe.give(biased.tobytes())
    with pytest.raises(RandomnessFailed, match="biased"):
        DeviceRng(pipe.path, 7.0, True)


def test_a_generator_that_ends_gives_nothing_more(pipe: Pipe) -> None:
    pipe.give(uniform(START_UP_BYTES + CHUNK_BYTES + 100).tobytes())
    with opened(pipe.path) as rng:
        assert rng.draw(1)
        pipe.end()
        with pytest.raises(RandomnessFailed, match="ended"):
            rng.draw(2 * CHUNK_BYTES)


def test_a_short_read_is_never_filled_up(pipe: Pipe) -> None:
    pipe.give(uniform(START_UP_BYTES + CHUNK_BYTES - 1).tobytes())
    rng = DeviceRng(pipe.path, 7.0, True, draw_seconds=0.05)
    with pytest.raises(RandomnessFailed, match=r"too slow: it gave 0 of 1 bytes in 0.05 s"):
        rng.draw(1)
    rng.close()


def test_a_silent_generator_does_not_start(pipe: Pipe) -> None:
    pipe.give(uniform(START_UP_BYTES - 1).tobytes())
    with pytest.raises(RandomnessFailed, match=r"did not give 4096 bytes in 0.05 s"):
        DeviceRng(pipe.path, 7.0, True, start_seconds=0.05)


def test_a_pipe_that_nobody_writes_to_is_waited_for_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "generator"
    os.mkfifo(path)
    with pytest.raises(RandomnessFailed, match="did not give"):
        DeviceRng(path, 7.0, True, start_seconds=0.05)


def test_a_closed_generator_gives_nothing(tmp_path: Path) -> None:
    with opened(Path("/dev/urandom")) as rng:
        assert rng.draw(1)
    with pytest.raises(RandomnessFailed, match="closed"):
        rng.draw(1)


def test_what_is_no_generator_is_the_operators_mistake(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_bytes(uniform(2 * START_UP_BYTES).tobytes())
    for path, why in ((file, "same settings again"), (tmp_path, "neither"), (tmp_path / "x", "No")):
        with pytest.raises(ConfigError, match=why) as caught:
            DeviceRng(path, 7.0, True)
        assert caught.value.field == "randomness.path" and str(path) in caught.value.message
    with pytest.raises(RandomnessFailed, match="ended"):
        DeviceRng(Path("/dev/null"), 7.0, True)
