"""How old each half of a pair is when it is kept or measured: the one place where that is decided.

A half's age counts from its own emission.  What is the same for every pair of a link is in `Ages`:
the way of the light and back, the transfer to a memory qubit, and for side B of a midpoint scheme
the announcement from side A.  What differs from pair to pair comes on top, as `Waits` with their
probabilities and, for pairs that were drawn, one by one:

* With several modes, a half waits until all modes of its attempt are through, before its transfer.
* In a repeater node the first half waits for the second, and the node swaps when both are ready.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bellhop.hal import heralding
from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import Side
from bellhop.hal.preset import Preset
from bellhop.hal.sampling import Draw
from bellhop.hal.schedule import Schedule, announcement_ns, herald_wait_ns

Times = NDArray[np.float64]

MODE_GROUPS = 256
"""Of more modes than this, neighbours are taken together at their mean wait.  It costs the mean
coherence at most (span / 256 / coherence time)^2 / 8 of itself."""

ROWS_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True, eq=False)
class Waits:
    """What side A's and side B's halves wait beside what every pair waits, (w,) each, in ns, and
    how likely it is: `shares` sum to 1."""

    a_ns: Times
    b_ns: Times
    shares: Times

    def __len__(self) -> int:
        return len(self.shares)

    def of(self, side: Side) -> Times:
        return self.a_ns if side is Side.A else self.b_ns

    def parts(self, times: int) -> Iterator[Self]:
        """In parts small enough that so many times the rows fit in memory."""
        step = max(1, ROWS_AT_ONCE // max(1, times))
        for begun in range(0, len(self), step):
            rows = slice(begun, begun + step)
            yield replace(
                self, a_ns=self.a_ns[rows], b_ns=self.b_ns[rows], shares=self.shares[rows]
            )


NO_WAITS = Waits(np.zeros(1), np.zeros(1), np.ones(1))


@dataclass(frozen=True, slots=True, eq=False)
class Ages:
    """Of a link's pairs, in ns; `waits` come on top of all three.

    `herald_wait_ns`: when the herald is known at that side, and a transfer begins.
    `kept_from_ns`: when it is done, so that the half is ready to be kept; time of storage counts
    from here.  A half is transferred whether or not it is kept.
    `measured_ns`: when the half is measured as early as the protocol lets it.  At side B of a
    midpoint scheme that is when side A's announcement of test rounds has come, which left when side
    A knew the herald: the light has then gone twice the whole way.  Detectors measure at once.
    `before_transfer`: the waits are for the herald, not for what comes after it.
    """

    herald_wait_ns: dict[Side, float]
    kept_from_ns: dict[Side, float]
    measured_ns: dict[Side, float]
    waits: Waits = NO_WAITS
    before_transfer: bool = False

    @classmethod
    def of(cls, preset: Preset, schedule: Schedule) -> Self:
        """Raises ConfigError for a repeater node with several modes."""
        scheme = preset.station.scheme
        herald_ns = {side: herald_wait_ns(preset, side) for side in Side}
        kept_ns = {side: herald_ns[side] + _transfer_ns(preset, side) for side in Side}
        measured_ns = dict(kept_ns)
        if scheme in ("single-photon", "two-photon"):
            measured_ns[Side.B] = max(2.0 * announcement_ns(preset), kept_ns[Side.B])
        if scheme == "repeater-node":
            waits = _of_a_node(preset, schedule, kept_ns)
            return cls(herald_ns, kept_ns, measured_ns, waits)
        if schedule.modes == 1:
            return cls(herald_ns, kept_ns, measured_ns)
        waits = _of_modes(preset, schedule)
        return cls(herald_ns, kept_ns, measured_ns, waits, before_transfer=True)

    def drawn(
        self, draw: Draw, schedule: Schedule, before: int
    ) -> tuple[Times | None, Times | None]:
        """What the halves of drawn pairs wait, (n,) by side; None where pairs do not differ.
        `before`: the number of the draw's first attempt."""
        if draw.waits is not None and draw.first is not None:
            ended = draw.attempts + before
            since_ns = schedule.start_ns(ended) - schedule.start_ns(ended - draw.waits)
            a, b = (_swapped(self.kept_from_ns, first, since_ns) for first in Side)
            by_a = draw.first == 0
            return np.where(by_a, a[0], b[0]), np.where(by_a, a[1], b[1])
        if draw.modes is not None:
            waited_ns = _after(schedule).take(draw.modes)
            return waited_ns, waited_ns if self.waits.b_ns.any() else None
        return None, None


def _transfer_ns(preset: Preset, side: Side) -> float:
    if preset.station.scheme == "direct" and side is Side.B:
        return 0.0
    device = preset.device.of(side)
    return 0.0 if device.communication is None else device.transfer_ns.value


def _after(schedule: Schedule) -> Times:
    """From each mode's emission to the last one's, (modes,)."""
    offsets_ns = np.array(schedule.mode_offsets_ns)
    return np.asarray(offsets_ns[-1] - offsets_ns, dtype=np.float64)


def _of_modes(preset: Preset, schedule: Schedule) -> Waits:
    """An attempt heralds its first success, so that early modes have more than their share."""
    shares = heralding.mode_shares(preset, schedule.modes)
    begun = np.linspace(0, schedule.modes, min(schedule.modes, MODE_GROUPS) + 1).astype(np.intp)
    grouped = np.add.reduceat(shares, begun[:-1])
    weighted = np.add.reduceat(shares * _after(schedule), begun[:-1])
    waited_ns = np.divide(weighted, grouped, out=np.zeros_like(grouped), where=grouped > 0.0)
    at_b = 0.0 if preset.station.scheme == "direct" else 1.0
    return Waits(waited_ns, waited_ns * at_b, grouped)


def _of_a_node(preset: Preset, schedule: Schedule, ready_ns: dict[Side, float]) -> Waits:
    """Raises ConfigError if its memories emit in several modes."""
    if schedule.modes > 1:
        devices = (preset.device.a, preset.device.b)
        several = "bins" if min(device.bins.value for device in devices) > 1 else "ions"
        raise ConfigError(
            f"device.{several} is 1 at one end at least: a repeater node's memories have one mode,"
            " as what a half waits for others of its attempt is not modelled there",
            f"device.{several}",
        )
    rows = []
    for first in Side:
        shares = heralding.wait_shares(preset, schedule.modes, first)
        since_ns, phases = schedule.between_ns(np.arange(len(shares)))
        waited = _swapped(ready_ns, first, since_ns)
        rows.append([column.ravel() for column in (*waited, phases * shares)])
    a_ns, b_ns, shares = (np.concatenate(column) for column in zip(*rows, strict=True))
    met = shares > 0.0
    return Waits(a_ns[met], b_ns[met], shares[met])


def _swapped(
    ready_ns: dict[Side, float], first: Side, since_ns: NDArray[np.int64]
) -> tuple[Times, Times]:
    """What both halves wait in a repeater node beyond being ready, if the attempt that gave the
    second one began `since_ns` after that which gave the first.  The node swaps when both are."""
    second = first.other
    age_ns = np.maximum(since_ns + ready_ns[second], ready_ns[first])
    waited_ns = {first: age_ns - ready_ns[first], second: age_ns - since_ns - ready_ns[second]}
    return waited_ns[Side.A], waited_ns[Side.B]
