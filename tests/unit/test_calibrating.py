"""Calibrations between two cores: what they find, keep, publish and refuse."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.two_cores import ALICE, BOB, LINK, OTHER, POLICY, TwoCores

from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import NodeName
from bellhop.stack.core import Action, Answer, Asked, CalibrateLink, Note, PeerSaid, Refuse, Tell
from bellhop.stack.diqkd.calibrate import Calibrations
from bellhop.stack.diqkd.device_use import read_use
from bellhop.stack.ids import AskNumber
from bellhop.stack.messages import CalibrationData, CalibrationResult

ROUNDS = 20_000


def met(seed: int = 1) -> TwoCores:
    table = TwoCores(seed)
    table.meet()
    return table


def asked(table: TwoCores, name: NodeName = ALICE, rounds: int = ROUNDS) -> list[Action]:
    return table.feed(name, Asked(AskNumber(99), CalibrateLink(OTHER[name], rounds)))


def answer(table: TwoCores) -> Answer:
    return next(one for one in table.actions if isinstance(one, Answer) and one.number == 99)


def kept(table: TwoCores, name: NodeName) -> Calibrations:
    return Calibrations(table.store[name].facts)


@pytest.mark.parametrize("asker", [ALICE, BOB])
def test_both_ends_find_what_nature_has(asker: NodeName) -> None:
    table = met()
    asked(table, asker)
    table.settle()
    found = answer(table)
    assert found.outcome == "calibrated"
    of_alice, of_bob = (kept(table, name).last(LINK.name) for name in (ALICE, BOB))
    assert of_alice is not None and of_bob is not None
    assert of_alice.counts == of_bob.counts
    exact = Experiment(LINK.preset)
    counts = of_alice.counts
    assert counts.total == ROUNDS
    assert abs(counts.s - exact.chsh()) < 4 * counts.s_error
    assert abs(counts.qber - exact.qber()) <= 4 * counts.qber_error
    assert found.fields["s"] == counts.s and found.fields["rounds"] == ROUNDS
