"""How sessions end: what reasons say first, the word each is counted under, what is remembered."""

from dataclasses import dataclass, field

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Fact
from bellhop.stack.ids import SessionId

STALLED = "stalled: the peer or the device gave nothing new: see the logs of both nodes, run again"
LINK_CHANGED = "link changed: it has another device now: calibrate it, run another session"

ABORT_KINDS = {
    "Bell test": "bell_test",
    "stalled": "stalled",
    "paused too long": "paused",
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


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of a session that is over.

    `peer`: with whom it was, who alone hears how it ended; None if a version remembered it that
    did not keep that.
    """

    how: str
    peer: NodeName | None = None

    def fact(self, session: SessionId) -> Fact:
        assert self.peer is not None, "only what others have written has none"
        return Fact(f"{ENDED}{session}", f"{self.how}\0{self.peer}".encode())

    def concerns(self, peer: NodeName) -> bool:
        return self.peer is None or self.peer == peer


ENDED = "ended/"


def read_past(payload: bytes) -> Past:
    """As `Past.fact` wrote it; no reason has a zero character (`reason_told`)."""
    how, _, peer = payload.decode().partition("\0")
    return Past(how, NodeName(peer) if peer else None)
