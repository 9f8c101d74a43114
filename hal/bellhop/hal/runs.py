"""Sets of block numbers as runs: of a million blocks made in order, a device remembers a few."""

from bisect import bisect_right

BLOCKS_PER_REQUEST_MAX = 1 << 26
"""Block numbers stay below this: four million slots, each with its retries, fit."""

RUNS_MAX = 16_384
"""Runs remembered of one request: blocks come nearly in their order, so they are few.  Whoever
leaves more gaps than that is refused."""


class Runs:
    """Numbers, as the runs of neighbours they make."""

    __slots__ = ("_starts", "_stops")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def __len__(self) -> int:
        """How many runs there are."""
        return len(self._starts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._starts, number) - 1
        return at >= 0 and number < self._stops[at]

    def add(self, number: int) -> None:
        if number in self:
            return
        at = bisect_right(self._starts, number)
        joins_lower = at > 0 and self._stops[at - 1] == number
        joins_upper = at < len(self._starts) and self._starts[at] == number + 1
        if joins_lower and joins_upper:
            self._stops[at - 1] = self._stops.pop(at)
            del self._starts[at]
        elif joins_lower:
            self._stops[at - 1] = number + 1
        elif joins_upper:
            self._starts[at] = number
        else:
            self._starts.insert(at, number)
            self._stops.insert(at, number + 1)

    def scattered(self, number: int) -> bool:
        """Whether another number would make more runs than are remembered."""
        neighbours = number - 1 in self or number + 1 in self or number in self
        return len(self) >= RUNS_MAX and not neighbours


class Reasons:
    """One of a few reasons for each of many numbers."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: dict[str, Runs] = {}

    def __contains__(self, number: int) -> bool:
        return any(number in runs for runs in self._runs.values())

    def get(self, number: int) -> str | None:
        return next((reason for reason, runs in self._runs.items() if number in runs), None)

    def __setitem__(self, number: int, reason: str) -> None:
        self._runs.setdefault(reason, Runs()).add(number)
