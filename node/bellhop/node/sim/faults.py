"""What goes wrong in a simulation, and how often."""

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities an event, between `from_ns` and `until_ns`; outside nothing goes wrong.

    `message_loss`, `message_duplicate`, `stream_break` a message (a broken stream comes back);
    `crash` an action performed (the node stops right after it, so between any two steps of an order
    that matters); `device_loss` a report (the emulator dies with all it held); `job_failure` a job.
    `crash_at`: actions performed, counted over all nodes, after which their node stops for certain.
    A message takes `message_delay_ns` and up to `message_jitter_ns` more: messages overtake.
    """

    message_loss: float = 0.0
    message_duplicate: float = 0.0
    message_delay_ns: int = 50_000
    message_jitter_ns: int = 0
    crash: float = 0.0
    crash_at: tuple[int, ...] = ()
    crashes_max: int = 8
    restart_ns: int = 3_000_000_000
    device_loss: float = 0.0
    device_restart_ns: int = 1_000_000_000
    stream_break: float = 0.0
    job_failure: float = 0.0
    from_ns: int = 0
    until_ns: int = 1 << 62

    def on_at(self, now_ns: int) -> bool:
        return self.from_ns <= now_ns <= self.until_ns


NO_FAULTS = Faults()


def swarm_faults(seed: int, session_ns: int, sessions: int) -> Faults:
    """Some kinds of faults, at some rates, for a run of sessions of `session_ns` without faults.

    A run with every kind of fault at once explores little, for each hides the others: so each kind
    is on in half of the runs (Groce et al., "Swarm testing", ISSTA 2012).  Faults begin at once, or
    late, so that the short stages after a session's rounds are struck too.
    """
    chance = np.random.default_rng([seed, 7])

    def rate(low: float, high: float) -> float:
        on, where = chance.random() < 0.5, chance.random()
        return float(low * (high / low) ** where) if on else 0.0

    from_ns = int(chance.random() * session_ns) if chance.random() < 0.5 else 0
    return Faults(
        message_loss=rate(0.003, 0.3),
        message_duplicate=rate(0.01, 0.3),
        message_delay_ns=int(rate(50_000, 200_000_000)) or 50_000,
        message_jitter_ns=int(rate(10_000, 1_000_000_000)),
        crash=rate(0.0002, 0.02),
        restart_ns=int(chance.integers(1_000_000, 5_000_000_000)),
        device_loss=rate(0.0002, 0.01),
        device_restart_ns=int(chance.integers(1_000_000, 3_000_000_000)),
        stream_break=rate(0.0005, 0.05),
        job_failure=rate(0.01, 0.1),
        from_ns=from_ns,
        until_ns=from_ns + 4 * sessions * session_ns,
    )


def kinds(faults: Faults) -> dict[str, float | int]:
    """The kinds that are on, with their rates."""
    rates = ("loss", "duplicate", "crash", "break", "failure", "jitter_ns")
    values = asdict(faults)
    return {name: values[name] for name in values if name.endswith(rates) and values[name]}
