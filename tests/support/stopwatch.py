"""When attempts start, one after the other: two clocks that are read before each."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray


def _starts(period_ns: int, pauses: dict[str, float]) -> Iterator[int]:
    on_ns, cooling_ns = (int(pauses[f"device.{n}"]) for n in ("attempts_on_ns", "cooling_ns"))
    every_ns = int(pauses["device.calibration_every_ns"])
    calibration_ns = int(pauses["device.calibration_ns"])
    now_ns = worked_ns = in_turn_ns = calibrated_ns = 0
    while True:
        if in_turn_ns + period_ns > on_ns:
            rest_ns = on_ns - in_turn_ns + cooling_ns
            now_ns, worked_ns, in_turn_ns = now_ns + rest_ns, worked_ns + rest_ns, 0
        while worked_ns >= calibrated_ns + every_ns:
            now_ns, calibrated_ns = now_ns + calibration_ns, calibrated_ns + every_ns
        yield now_ns
        now_ns, worked_ns = now_ns + period_ns, worked_ns + period_ns
        in_turn_ns += period_ns


def starts_ns(period_ns: int, pauses: dict[str, float], attempts: int) -> NDArray[np.int64]:
    """Of so many attempts; `pauses` are the figures of a preset, all four of them."""
    return np.fromiter(islice(_starts(period_ns, pauses), attempts), dtype=np.int64, count=attempts)
