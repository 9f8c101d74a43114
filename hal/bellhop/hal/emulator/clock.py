"""How an emulator's time runs against its host's."""

from dataclasses import dataclass

SCALE_MAX = 1_000.0
"""No clock runs faster: 64-bit nanoseconds then last for three months of real time."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Emulated time is `scale` times the host's since `origin_ns`.

    With `fast` nothing waits: reports are due at once, and carry the emulated times at which the
    experiment would have made them.
    """

    scale: float = 1.0
    fast: bool = False
    origin_ns: int = 0

    @property
    def real(self) -> bool:
        return self.scale == 1.0 and not self.fast

    def emulated_ns(self, now_ns: int) -> int:
        return round((now_ns - self.origin_ns) * self.scale)

    def due_ns(self, now_ns: int, emulated_ns: int) -> int:
        """When, on the host's clock, what happens at `emulated_ns` is reported."""
        if self.fast:
            return now_ns
        return max(now_ns, self.origin_ns + round(emulated_ns / self.scale))

    @property
    def idealisation(self) -> str:
        """What this clock leaves out of the experiment, for the receipt."""
        if self.fast:
            return "fast clock: heralds are reported at once, with the times they would have had"
        if self.scale != 1.0:
            return f"emulated clock runs at {self.scale:g} times real time"
        return ""
