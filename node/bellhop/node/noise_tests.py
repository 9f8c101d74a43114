"""Continuous health tests of a source of random bytes: NIST SP 800-90B, section 4.4.

Rules
  Repetition count (4.4.1): C equal samples in a row fail, C = 1 + ceil(-log2(alpha) / H).
  Adaptive proportion (4.4.2): a window of W = 512 samples in which the first one comes C times
  fails, C = 1 + critbinom(W, 2**-H, 1 - alpha).
  A sample is a byte, H the min-entropy that is claimed of it, in bits.  alpha = 2**-30 bounds the
  chance that a source as good as claimed fails, for each sample and about each window: an ideal
  one of which 8 bits are claimed fails once in about 4 GB, of which 7 are claimed once in a TB.

  Replay (ours; 4.5 allows others beside them): a chunk equal to one of the last CHUNKS_KEPT fails.
  Both tests above pass a counter, and a buffer that is handed out again and again.

They see a source that broke, not one that was made to cheat, nor one a little worse than claimed: a
bit of eight that is stuck, where 8 bits a byte are claimed, may pass for a megabyte.
"""

import hashlib
import math
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.errors import HardwareError

ALPHA_BITS = 30
"""-log2(alpha); the standard recommends 20 to 40."""

WINDOW = 512
"""Samples of a window, for samples of more than one bit."""

START_UP_SAMPLES = 1_024
"""The least that must pass before the first sample is used (4.3, item 10)."""


CHUNKS_KEPT = 1_024
"""Chunks that are remembered, by digests.  A source of period P bytes repeats one after
lcm(P, chunk) bytes."""


class RandomnessFailed(HardwareError):
    """The node's source of randomness failed: nothing is drawn in its place."""

    who_must_act = "whoever runs the random number generator of this node"


def repetition_cutoff(entropy_bits: float) -> int:
    """So many equal samples in a row fail, for `entropy_bits` of min-entropy a sample."""
    return 1 + math.ceil(ALPHA_BITS / entropy_bits)


def proportion_cutoff(entropy_bits: float) -> int:
    """So many samples equal to the first of a window fail; more than WINDOW never do."""
    share = 2.0**-entropy_bits
    tail = 0.0
    for count in range(WINDOW, 0, -1):
        tail += _binomial(count, share)
        if tail > 2.0**-ALPHA_BITS:
            return 1 + count
    raise AssertionError("some count is not too rare")


class NoiseTests:
    """Both tests over samples that come in pieces of whole windows."""

    def __init__(self, entropy_bits: float) -> None:
        self._repetitions = repetition_cutoff(entropy_bits)
        self._proportion = proportion_cutoff(entropy_bits)
        self._last = -1
        self._run = 0

    def check(self, samples: NDArray[np.uint8]) -> None:
        """Raises RandomnessFailed.  The error tells no sample."""
        assert samples.size % WINDOW == 0 and samples.size, "windows are whole"
        run = self._longest_run(samples)
        if run >= self._repetitions:
            raise RandomnessFailed(
                f"the random number generator repeats itself: {run} equal bytes in a row, of which"
                f" {self._repetitions} are too many (repetition count test, SP 800-90B)"
            )
        windows = samples.reshape(-1, WINDOW)
        most = int(np.count_nonzero(windows == windows[:, :1], axis=1).max())
        if most >= self._proportion:
            raise RandomnessFailed(
                f"the random number generator is biased: {most} of {WINDOW} bytes are the same, of"
                f" which {self._proportion} are too many (adaptive proportion test, SP 800-90B)"
            )

    def _longest_run(self, samples: NDArray[np.uint8]) -> int:
        """The longest run of equal samples, begun in the piece before or not.

        Equal neighbours are few in what may pass, so work is done on their places alone.
        """
        places = np.flatnonzero(samples[1:] == samples[:-1])
        ends = np.flatnonzero(np.diff(places) != 1) + 1
        runs = np.diff(ends, prepend=0, append=places.size) + 1  # one, if there are no places
        first = int(runs[0]) if places.size and places[0] == 0 else 1
        last = int(runs[-1]) if places.size and places[-1] == samples.size - 2 else 1
        if samples[0] == self._last:
            last += self._run if last == samples.size else 0
            first += self._run
        self._last, self._run = int(samples[-1]), last
        return max(int(runs.max()), first, last)


class ReplayTest:
    """Remembers chunks.  One as long as a page does not come twice by chance."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def check(self, chunk: bytes) -> None:
        """Raises RandomnessFailed.  The error tells no sample."""
        digest = hashlib.blake2b(chunk, digest_size=16).digest()
        if digest in self._seen:
            raise RandomnessFailed(
                f"the random number generator repeats itself: it gave the same {len(chunk)} bytes"
                " again (replay test)"
            )
        self._seen[digest] = None
        if len(self._seen) > CHUNKS_KEPT:
            self._seen.popitem(last=False)


def _binomial(count: int, share: float) -> float:
    """The probability of `count` among WINDOW."""
    if share >= 1.0:
        return float(count == WINDOW)
    logarithm = (
        math.lgamma(WINDOW + 1)
        - math.lgamma(count + 1)
        - math.lgamma(WINDOW - count + 1)
        + count * math.log(share)
        + (WINDOW - count) * math.log1p(-share)
    )
    return math.exp(logarithm)
