"""How sessions end: what reasons say first, the word each is counted under, what is remembered."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Action, Fact, Persist
from bellhop.stack.ids import SessionId

ABORTED_MAX = 4_096
"""Ids of aborted sessions remembered."""

STORED_MAX = 65_536
"""Ids of sessions remembered that left a key: apart, so that no peer drives them out by aborts."""

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


class Pasts:
    """The sessions of a node that are over, as far as they are remembered; the oldest first."""

    def __init__(self, facts: Mapping[str, bytes]) -> None:
        self._of = {
            SessionId(name.removeprefix(ENDED)): read_past(payload)
            for name, payload in facts.items()
            if name.startswith(ENDED)
        }

    def __contains__(self, session: SessionId) -> bool:
        return session in self._of

    def __getitem__(self, session: SessionId) -> Past:
        return self._of[session]

    def __len__(self) -> int:
        return len(self._of)

    def with_peer(self, session: SessionId, peer: NodeName) -> bool:
        """Whether this one was with `peer`, as far as that is remembered."""
        return session in self._of and self._of[session].concerns(peer)

    def remember(self, session: SessionId, past: Past) -> list[Action]:
        """Keep the id of a session that has ended, and let go of the oldest beyond the bound."""
        self._of[session] = past
        stored = past.how == "stored"
        alike = [id_ for id_, other in self._of.items() if (other.how == "stored") == stored]
        if len(alike) <= (STORED_MAX if stored else ABORTED_MAX):
            return []
        del self._of[alike[0]]
        return [Persist((), (f"{ENDED}{alike[0]}",))]
