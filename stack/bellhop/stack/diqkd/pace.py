"""How often a peer may have something done for it, whatever it says."""


class Pace:
    """At most `burst` at once, and one more for each `every_ns` that passes."""

    __slots__ = ("_burst", "_every_ns", "_left", "_since_ns")

    def __init__(self, every_ns: int, burst: int = 1) -> None:
        assert every_ns > 0 and burst > 0
        self._every_ns = every_ns
        self._burst = burst
        self._left = burst
        self._since_ns = 0  # up to when what came back is counted in `_left`

    def take(self, now_ns: int) -> bool:
        """Whether it is done once more.  A clock that is set back delays nothing for long."""
        self._since_ns = min(self._since_ns, now_ns)
        earned = (now_ns - self._since_ns) // self._every_ns
        if self._left + earned >= self._burst:
            self._left, self._since_ns = self._burst, now_ns
        else:
            self._left += earned
            self._since_ns += earned * self._every_ns
        if self._left == 0:
            return False
        self._left -= 1
        return True
