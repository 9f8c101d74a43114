"""A set of slots that fills up from its low end, at a cost that no number of slots changes."""

import numpy as np
from numpy.typing import NDArray


class Slots:
    """Slots out of `size`, a byte each.

    `first`: the lowest slot that is not in the set, `size` if all are.  `end`: one above the
    highest that is.  So whatever is half done lies between the two, and nobody scans the rest.
    """

    __slots__ = ("_flags", "count", "end", "first", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.first = self.end = self.count = 0
        self._flags = bytearray(size)

    def __contains__(self, slot: int) -> bool:
        return 0 <= slot < self.size and bool(self._flags[slot])

    def __repr__(self) -> str:
        return f"Slots({self.count} of {self.size}, first without {self.first})"

    def add(self, slot: int) -> None:
        """Once or again.  Raises IndexError for a slot that is none."""
        self.add_run(slot, slot + 1)

    def add_run(self, start: int, stop: int) -> None:
        """All slots from `start` to before `stop`."""
        if not 0 <= start <= stop <= self.size:
            raise IndexError(f"slots {start} to {stop} of {self.size}")
        self.count += self._flags.count(0, start, stop)
        if stop == start + 1:
            self._flags[start] = 1
        else:
            self._flags[start:stop] = b"\1" * (stop - start)
        self.end = max(self.end, stop if stop > start else 0)
        if start <= self.first < stop:
            following = self._flags.find(0, stop)
            self.first = self.size if following < 0 else following

    def any(self) -> bool:
        return self.count > 0

    def all(self) -> bool:
        return self.count == self.size

    def flags(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether each slot from `start` to before `stop` is in the set; a copy."""
        part = np.frombuffer(self._flags[max(start, 0) : max(stop, 0)], np.uint8)
        return part.astype(np.bool_)
