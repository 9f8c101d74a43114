"""What a node's shell has seen: one place that turns it into log records and figures."""

import logging

from bellhop.node.metrics import Metrics
from bellhop.node.observe import Value, note
from bellhop.stack.core import Note

DETAIL_CHARACTERS_MAX = 300


class Witness:
    """Writes the log and counts.  Nothing it is told may be a secret."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics

    def note(self, name: str, level: int = logging.INFO, **fields: Value) -> None:
        """Something happened that concerns whoever reads the log."""
        note(name, fields, level)

    def noted(self, action: Note) -> None:
        """A core's note."""
        note(action.name, action.fields)

    def refused(
        self, peer: str, reason: str, detail: str = "", who: str = "the operator of the peer"
    ) -> None:
        """Something that `peer` did is refused; `reason` is a word of a fixed list."""
        self.metrics.refused(peer, reason)
        fields: dict[str, Value] = {"peer": peer, "reason": str(reason), "who_must_act": who}
        if detail:
            fields["detail"] = detail[:DETAIL_CHARACTERS_MAX]
        note("refused", fields, logging.WARNING)

    def connected(self, peer: str, connected: bool, why: str = "") -> None:
        """The stream with `peer` is up, or down again."""
        self.metrics.peer_connected(peer, connected)
        fields: dict[str, Value] = {"peer": peer}
        if why:
            fields["why"] = why[:DETAIL_CHARACTERS_MAX]
        note("peer_joined" if connected else "peer_lost", fields)
