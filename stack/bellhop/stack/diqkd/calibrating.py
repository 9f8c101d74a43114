"""A session that measures its link and makes no key: the rounds of any session, then the counts.

Rules
  1. Half of the rounds are tests, so that S and the error rate are both known well.
  2. After the last round Alice says her settings and outcomes, in the frame of Phi+; Bob counts.
  3. Bob persists the calibration, then tells the counts; Alice persists them when she hears them.
     Whoever has ended says the counts again to a peer that has not heard them.
  4. Whatever was measured here never makes a key, and what was said counts as published.
"""

from typing import Any

import numpy as np

from bellhop.hal.operations import LinkName, NodeName, Release
from bellhop.stack.core import Action, Note, Order, Persist, Refuse, Tell
from bellhop.stack.diqkd.agreement import block_checks
from bellhop.stack.diqkd.bounds.design import EAT
from bellhop.stack.diqkd.bounds.eat import EatChoice
from bellhop.stack.diqkd.calibrate import (
    CALIBRATED,
    ROUNDS_MIN,
    Calibration,
    Calibrations,
    Compared,
    Counts,
    Fields,
    count,
    counts_objection,
    drift,
    published_bits,
)
from bellhop.stack.diqkd.code import CodeDesign
from bellhop.stack.diqkd.device_use import DeviceUse
from bellhop.stack.diqkd.endings import Ended, Past
from bellhop.stack.diqkd.parameters import (
    CALIBRATION,
    PROTOCOL,
    EatDesign,
    Parameters,
    SessionPolicy,
)
from bellhop.stack.diqkd.rounds import flip_alice, flip_bob
from bellhop.stack.diqkd.session import Session, SessionMessage
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import (
    CALIBRATION_ROUNDS_MAX,
    CalibrationData,
    CalibrationResult,
    Decoded,
    Position,
    SyndromeExtra,
    SyndromeWanted,
    Tagged,
)

TEST_PROBABILITY = 0.5

_NO_CHOICE = EatChoice(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
_NO_DESIGN = EatDesign(TEST_PROBABILITY, 0.0, 0.0, _NO_CHOICE, 0)


def calibration_parameters(
    session: SessionId,
    link: LinkName,
    alice: NodeName,
    bob: NodeName,
    rounds: int,
    block_rounds: int,
    window: int,
) -> Parameters:
    """Those of a calibration: all that belongs to a key stands at nothing."""
    return Parameters(
        protocol=PROTOCOL,
        purpose=CALIBRATION,
        session=session,
        link=link,
        alice=alice,
        bob=bob,
        pool="",
        rounds=rounds,
        block_rounds=block_rounds,
        window=window,
        s_design=0.0,
        qber_design=0.0,
        epsilon=0.0,
        bound=EAT,
        design=_NO_DESIGN,
        code=CodeDesign(rounds, 0, 0, 1, "", ()),
        steps_max=0,
        even_at_a_loss=False,
    )


def calibration_objection(p: Parameters) -> str | None:
    """Why these are no parameters of a calibration that this node would run, or None."""
    checks = (
        (
            ROUNDS_MIN <= p.rounds <= CALIBRATION_ROUNDS_MAX,
            f"a calibration has {ROUNDS_MIN} to {CALIBRATION_ROUNDS_MAX} rounds",
        ),
        *block_checks(p),
    )
    for holds, why in checks:
        if not holds:
            return why
    usual = calibration_parameters(
        p.session, p.link, p.alice, p.bob, p.rounds, p.block_rounds, p.window
    )
    return None if p == usual else "the proposal is not that of a calibration"


def design_of(policy: SessionPolicy) -> Compared:
    """What calibrations are compared with."""
    return Compared(policy.s_design, policy.qber_design, not policy.plan_from_calibration)


def result_of(calibration: Calibration) -> CalibrationResult:
    """What Bob tells of it, and tells again."""
    counts = calibration.counts
    return CalibrationResult(calibration.session, counts.rounds, counts.unequal)


class Calibrating(Session):
    """One end of a calibration."""

    def __init__(self, *args: Any, calibrations: Calibrations, **named: Any) -> None:
        super().__init__(*args, **named)
        self._calibrations = calibrations
        self._told_ns: int | None = None

    @property
    def abortable(self) -> bool:
        return True  # nothing is lost but the rounds

    @property
    def use_after(self) -> DeviceUse:
        """Once all is measured Alice's outcomes are said, or are about to be."""
        record = self.record
        if not record.drawn.any():
            return self._use
        said = record.measured.all()
        return self._use.ended(published_bits(record.parameters.rounds) if said else 0)

    @property
    def stage(self) -> str:
        if self.record.agreed and self._measuring.all_done():
            return "counting"
        return super().stage

    # --- hooks of a session ---------------------------------------------------------------------

    def _prepare(self) -> list[Action]:
        return []

    def _finish(self, now_ns: int) -> list[Action]:
        """All rounds are done: Alice says hers, once unless they are lost on the way."""
        if not self.record.is_alice or self._told_ns is not None:
            return []
        self._told_ns = now_ns
        return [self._data()]

    def hear(self, now_ns: int, message: SessionMessage) -> list[Action]:
        if self.ended:
            return []
        match message:
            case CalibrationData():
                actions = self._hear_data(now_ns, message)
            case CalibrationResult():
                actions = self._hear_result(now_ns, message)
            case Tagged() | Decoded() | SyndromeWanted() | SyndromeExtra():
                actions = [Refuse(self.record.peer, "message_unexpected")]
            case _:
                return super().hear(now_ns, message)
        return self._after(now_ns, actions)

    def _hear_position(self, now_ns: int, message: Position) -> list[Action]:
        """A peer that asks after the last round has not heard what was said then.

        It is long: however often a peer asks, it is said again no more often than we would ask.
        """
        actions = super()._hear_position(now_ns, message)
        if self._told_ns is None or now_ns < self._told_ns + self._policy.retry_ns:
            return actions
        self._told_ns = now_ns
        return [*actions, self._data()]

    # --- the counts -----------------------------------------------------------------------------

    def _data(self) -> Tell:
        record = self.record
        bits = flip_alice(record.outcomes, record.settings, record.patterns)
        settings = record.settings.astype(np.bool_)
        return Tell(record.peer, CalibrationData(record.session, settings, bits.astype(np.bool_)))

    def _hear_data(self, now_ns: int, message: CalibrationData) -> list[Action]:
        record = self.record
        if why := self._data_objection(message):
            return [Refuse(record.peer, why)]
        outcomes, settings = (
            array.astype(np.uint8) for array in (message.outcomes, message.settings)
        )
        own = flip_bob(record.outcomes, record.patterns)
        counts = count(outcomes, own, settings, record.settings)
        if why := counts_objection(counts, record.tests, settings):
            self._measuring.failure = f"calibration failed: {why}"
            return []
        return self._end(now_ns, counts)

    def _data_objection(self, message: CalibrationData) -> str | None:
        record = self.record
        if record.is_alice or not record.measured.all():
            return "calibration_unexpected"
        rounds = record.parameters.rounds
        if not len(message.settings) == len(message.outcomes) == rounds:
            return "calibration_length"
        if (message.settings & ~record.tests).any():
            return "calibration_settings"
        return None

    def _hear_result(self, now_ns: int, message: CalibrationResult) -> list[Action]:
        record = self.record
        # That Bob has done all his rounds she may have forgotten; he counts only then.
        if not record.is_alice or not record.measured.all():
            return [Refuse(record.peer, "calibration_unexpected")]
        counts = Counts(message.rounds, message.unequal)
        if why := counts_objection(counts, record.tests, record.settings):
            self._measuring.failure = f"calibration failed: {why}"
            return [Refuse(record.peer, why)]
        return self._end(now_ns, counts)

    def _end(self, now_ns: int, counts: Counts) -> list[Action]:
        record, p = self.record, self.record.parameters
        last = self._calibrations.last(p.link)
        calibration = Calibration(record.session, now_ns, counts, self.experiment_ns)
        kept, old = self._calibrations.add(p.link, calibration)
        ended = Past(CALIBRATED, record.peer).fact(record.session)
        facts = (kept, ended, self.use_after.fact(p.link))
        about: Fields = {"peer": record.peer, "link": p.link}
        drifts = drift(counts, None if last is None else last.counts, design_of(self._policy))
        self.ended = Ended(CALIBRATED, "", about | calibration.fields() | {"drifts": len(drifts)})
        return [
            Persist(facts, (*record.prefixes, *old)),
            *([] if record.is_alice else [Tell(record.peer, result_of(calibration))]),
            Order(Release(p.link, p.request)),
            *self.holds.ended(),
            Note(CALIBRATED, dict(self.ended.fields)),
            *(Note("calibration_drift", about | one.fields()) for one in drifts),
        ]
