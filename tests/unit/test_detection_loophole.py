"""Links heralded by the measurement itself certify nothing: no session is had on one."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.asked_cores import answers, met, own_plan, proposed, said
from tests.support.cores import port, told
from tests.support.two_cores import ALICE, BOB, LINK

from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Nature, links_of
from bellhop.hal.memory_wire import report_from_wire, report_to_wire
from bellhop.hal.operations import NodeName, Ready, Side
from bellhop.hal.preset import load_preset
from bellhop.stack.core import Reported, StoreKeys
from bellhop.stack.diqkd.parameters import decode_parameters
from bellhop.stack.messages import Abort, Accept, Propose
from bellhop.stack.ports import loophole
from bellhop.v1 import memory_pb2

WORDS = "detection loophole"


def direct(name: NodeName) -> Reported:
    """The device says that its herald is its measurement."""
    side = {ALICE: Side.A, BOB: Side.B}[name]
    return Reported(Ready((replace(port(side), herald_is_measurement=True),)))


def test_a_session_on_such_a_link_is_refused_and_the_text_says_why() -> None:
    two = met()
    two.feed(ALICE, direct(ALICE))
    two.ask(ALICE)
    outcome, reason = answers(two.actions)[1]
    assert outcome == "refused"
    assert WORDS in str(reason) and LINK.name in str(reason)


def test_a_proposal_for_such_a_link_is_declined() -> None:
    two = met()
    two.feed(BOB, direct(BOB))
    session = decode_parameters(own_plan()).session
    actions = said(two, BOB, Propose(session, own_plan()))
    (abort,) = [message for message in told(actions) if isinstance(message, Abort)]
    assert WORDS in abort.reason
    assert not any(isinstance(message, Accept) for message in told(actions))


def test_a_device_that_says_so_after_the_proposal_left_gets_no_session() -> None:
    two = proposed()
    two.hear(BOB)
    two.feed(ALICE, direct(ALICE))
    two.hear(ALICE)
    assert answers(two.actions)[1][0] == "refused"
    assert two.core[ALICE].snapshot()["sessions"] == []
    two.go_on()
    assert not any(isinstance(action, StoreKeys) for action in two.actions)


def test_it_is_told_on_the_wire_and_silence_means_as_before() -> None:
    ready = Ready((replace(port(), herald_is_measurement=True),))
    message = report_to_wire(ready)
    assert report_from_wire(message) == ready
    # A service of before the field: its bytes are those of one that says no.
    message.ready.ports[0].ClearField("herald_is_measurement")
    old = report_from_wire(memory_pb2.MemoryReport.FromString(message.SerializeToString()))
    assert old == Ready((port(),))
    assert loophole(port()) is None


@pytest.mark.parametrize(
    ("preset", "heralded_first"),
    [("oxford", True), ("liu-10km", True), ("cui-12km", False), ("innsbruck-50km", False)],
)
def test_the_emulator_says_which_of_its_links_these_are(preset: str, heralded_first: bool) -> None:
    links = links_of({"fibre": ("alice", "bob")}, load_preset(preset, {}))
    nature = Nature(links, np.random.default_rng(1), Clock(fast=True))
    for name in (ALICE, BOB):
        (delivery,) = nature.attach(0, name)
        assert isinstance(delivery.report, Ready)
        (one,) = delivery.report.ports
        assert (loophole(one) is None) == heralded_first
