"""What a node's shell has seen: one place that turns it into log records and figures."""

import logging
import time

from bellhop.hal.watched import DeviceFault
from bellhop.node.metrics import Metrics
from bellhop.node.observe import Allowance, Fields, Value, note
from bellhop.stack.core import Note

DETAIL_CHARACTERS_MAX = 300

CORE_REFUSALS = (
    "accept_of_another_proposal",
    "accept_unexpected",
    "allocation",
    "calibration_length",
    "calibration_settings",
    "calibration_unexpected",
    "counts_impossible",
    "counts_length",
    "counts_missing",
    "counts_of_other_rounds",
    "decoded_unexpected",
    "endorsement_malformed",
    "endorsement_missing",
    "endorsement_of_another",
    "endorsement_of_other_figures",
    "endorsement_unexpected",
    "endorsement_unsigned",
    "extra_syndrome_beyond_the_design",
    "extra_syndrome_changed",
    "extra_syndrome_length",
    "extra_syndrome_too_late",
    "extra_syndrome_unexpected",
    "link_block",
    "link_digest",
    "link_window",
    "mask_unknown",
    "mask_used_before",
    "peer_unknown",
    "pool_worn",
    "position_length",
    "proposal_malformed",
    "session_unknown",
    "slot_done_unexpected",
    "stage_changed",
    "stage_malformed",
    "stage_not_theirs",
    "steps_beyond_the_design",
    "steps_differ",
    "steps_too_late",
    "steps_unexpected",
    "tag_wrong",
    "tests_changed",
    "tests_length",
    "tests_unexpected",
    "tests_window",
)
"""The reasons of a core's `Refuse` that have a series of their own; any other counts as other."""


class Witness:
    """Writes the log and counts.  Nothing it is told may be a secret."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self._passed_s: float | None = None
        self._allowances: dict[tuple[str, str], Allowance] = {}

    def note(self, name: str, fields: Fields | None = None, level: int = logging.INFO) -> None:
        """Something happened that concerns whoever reads the log."""
        note(name, fields, level)

    def noted(self, action: Note) -> None:
        """A core's note, and the figures that it tells of."""
        fields, level = action.fields, logging.INFO
        if action.name in ("session_stored", "session_aborted"):
            self._passed_s = None
        match action.name:
            case "session_stored":
                bits = (int(fields.get(name, 0)) for name in ("gross_bits", "net_bits"))
                self.metrics.session_keyed(*bits)
                self.metrics.scored(float(fields.get("s", 0)), float(fields.get("qber", 0)))
            case "session_aborted":
                self.metrics.session_aborted(str(fields.get("kind", "")))
            case "calibrated":
                s, qber = (float(fields.get(name, 0)) for name in ("s", "qber"))
                drifts = int(fields.get("drifts", 0))
                self.metrics.calibrated(str(fields.get("peer", "")), s, qber, drifts)
            case "calibration_drift":
                fields = {**fields, "who_must_act": "the operators of both nodes"}
                level = logging.WARNING
            case "session_held":
                since_s = int(fields.get("since_ns", 0)) / 1e9
                self.metrics.session_held(str(fields.get("peer", "")), since_s)
                level = logging.WARNING
            case "session_goes_on":
                self.metrics.session_held(str(fields.get("peer", "")), 0.0)
            case "device_gone":
                fields = {**fields, "who_must_act": "the operator of the memory"}
                level = logging.WARNING
            case "proposal_declined":
                labels = (str(fields.get("peer", "")), action.name)
                more = self._allowances.setdefault(labels, Allowance()).take()
                if more is None:
                    return
                fields = {**fields, **more}
            case "stage_said" | "stage_heard":
                self._stage_passed(str(fields.get("stage", "")))
            case _:
                pass
        note(action.name, fields, level)

    def _stage_passed(self, stage: str) -> None:
        """What a stage took, since the one before it; the first of a session is not known."""
        now_s = time.monotonic()
        if self._passed_s is not None:
            self.metrics.stage_took(stage, now_s - self._passed_s)
        self._passed_s = now_s

    def refused(
        self, peer: str, reason: str, detail: str = "", who: str = "the operator of the peer"
    ) -> None:
        """Something that `peer` did is refused; `reason` is a word of a fixed list.

        All are counted.  Of many alike in a short time some are not logged, and the next that is
        says how many: a peer must not fill the disk, nor hide one refusal behind others.
        """
        labels = self.metrics.refused(peer, reason)
        more = self._allowances.setdefault(labels, Allowance()).take()
        if more is None:
            return
        fields: dict[str, Value] = {"peer": peer, "reason": str(reason), "who_must_act": who}
        if detail:
            fields["detail"] = detail[:DETAIL_CHARACTERS_MAX]
        fields |= more
        note("refused", fields, logging.WARNING)

    def refused_http(self, reason: str, detail: str) -> None:
        """A client of one of the HTTP ends left in mid request, or sent what is no HTTP."""
        self.refused("", reason, detail, "the operator of the application")

    def device_fault(self, fault: DeviceFault) -> None:
        """The memory did what no memory may; `fault` names it."""
        self.refused("", str(fault.fault), fault.message, fault.who_must_act)

    def connected(self, peer: str, connected: bool, why: str = "") -> None:
        """The stream with `peer` is up, or down again."""
        self.metrics.peer_connected(peer, connected)
        fields: dict[str, Value] = {"peer": peer}
        if why:
            fields["why"] = why[:DETAIL_CHARACTERS_MAX]
        note("peer_joined" if connected else "peer_lost", fields)
