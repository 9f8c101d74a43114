"""How sessions end without a key: what reasons say first, and the word each is counted under."""

from dataclasses import dataclass, field

STALLED = "stalled: the peer or the device gave nothing new: see the logs of both nodes, run again"
LINK_CHANGED = "link changed: it has another device now: calibrate it, run another session"

ABORT_KINDS = {
    "Bell test": "bell_test",
    "stalled": "stalled",
    "link": "link",
    "authentication": "authentication",
    "reconciliation": "reconciliation",
    "verification": "verification",
    "calibration failed": "calibration",
    "computation": "computation",
    "given up": "operator",
    "by ": "peer",
}
"""How the reasons of aborts begin, and the word each is counted under."""


def abort_kind(reason: str) -> str:
    """The word that a reason is counted under."""
    kinds = (kind for begins, kind in ABORT_KINDS.items() if reason.startswith(begins))
    return next(kinds, "other")


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over at this end: what passes to the node."""

    outcome: str  # "stored" or "aborted"
    reason: str = ""
    fields: dict[str, str | int | float] = field(default_factory=dict)
