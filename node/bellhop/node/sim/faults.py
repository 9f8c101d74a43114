"""What goes wrong in a simulation, and how often."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities an event, bounded in time: after `until_ns` nothing goes wrong any more.

    `message_loss` a message; `crash` an action performed (the node stops right after it, so
    between any two steps of an order that matters); `device_loss` a report; `break_` a message
    (the stream between the nodes breaks and comes back).  Times in nanoseconds.
    """

    message_loss: float = 0.0
    message_delay_ns: int = 50_000
    message_jitter_ns: int = 0
    crash: float = 0.0
    crashes_max: int = 8
    restart_ns: int = 3_000_000_000
    device_loss: float = 0.0
    device_restart_ns: int = 1_000_000_000
    stream_break: float = 0.0
    until_ns: int = 1 << 62
