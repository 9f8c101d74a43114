"""A node's core against hostile peers and broken devices: it refuses, it never raises."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.asked_cores import (
    CAROL,
    OTHER_ID,
    answers,
    met,
    own_plan,
    proposal_id,
    reasons,
    running,
    said,
    session_of,
)
from tests.support.cores import LINK, POLICY, facts_of, kinds, plan, told, with_other
from tests.support.two_cores import ALICE, BOB, OTHER

from bellhop.hal.operations import (
    Heralded,
    LinkName,
    Measured,
    MemoryLost,
    Port,
    Ready,
    RequestId,
    Side,
    Source,
)
from bellhop.node.chance import SeededRng
from bellhop.node.sim.identities import simulated_identity
from bellhop.stack.core import (
    Compute,
    ComputeFailed,
    Event,
    PeerJoined,
    PeerSaid,
    Persist,
    Reported,
    StoreKeys,
    Tick,
    VoidKeys,
)
from bellhop.stack.diqkd.desk import HELD_MAX
from bellhop.stack.diqkd.pool import FORGERIES_MAX, Pool
from bellhop.stack.ids import JobNumber, SessionId
from bellhop.stack.messages import (
    REASON_CHARACTERS_MAX,
    Abort,
    Accept,
    AllocationsRecorded,
    BlockHeralded,
    BlockStored,
    Decoded,
    KeysAllocated,
    Message,
    Position,
    Propose,
    SlotDone,
    Stage,
    Tagged,
    TestRounds,
)
from bellhop.stack.node import NodeCore, NodeSettings, Restored
from bellhop.stack.ports import PORTS_MAX

# --- hostile proposals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [b"", b"{", b"\xff" * 100, b"[" * 9000, with_other(plan(), steps_max=1 << 70)],
)
def test_a_malformed_proposal_is_refused_and_answered(parameters: bytes) -> None:
    two = met()
    actions = said(two, BOB, Propose(plan().session, parameters))
    assert reasons(actions) == ["proposal_malformed"]
    assert told(actions) == [Abort(plan().session, "the proposal is not understood")]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"session": OTHER_ID}, "id is malformed"),
        ({"link": "other"}, "link other does not lead"),
        ({"link": "\ud800" * 256}, "link ???"),
        ({"link": "x\n" * 128}, "link x?x?"),
        ({"alice": "bob", "bob": "alice"}, "other roles"),
        ({"alice": "carol"}, "other roles"),
        ({"pool": "0" * 32}, "the authentication pools differ"),
        ({"pool": ""}, "the authentication pools differ"),
        ({"rounds": 10}, "4096|rounds 10 outside|code"),
        ({"qber_design": 1e-320}, "error rate"),
        ({"epsilon": 0.99}, "epsilon"),
        ({"steps_max": 33}, "steps of extra syndrome"),
        ({"purpose": "\n"}, "sessions for ?"),
    ],
)
def test_what_a_node_would_not_have_is_declined(changes: dict[str, object], why: str) -> None:
    two = met()
    proposal = Propose(plan().session, with_other(plan(), **changes))
    actions = said(two, BOB, proposal)
    (message,) = told(actions)
    assert isinstance(message, Abort) and message.reason.isprintable()
    assert any(part in message.reason for part in why.split("|")), message.reason
    assert len(message.reason) <= REASON_CHARACTERS_MAX
    assert two.core[BOB].idle and not facts_of(actions)


@pytest.mark.parametrize("session", ["ABCDEF0123456789" * 2, "0" * 31, "../" * 10 + "00"])
def test_an_id_that_is_none_is_declined(session: str) -> None:
    two = met()
    id_ = SessionId(session)
    actions = said(two, BOB, Propose(id_, replace(plan(), session=id_).encode()))
    assert [m.reason for m in told(actions) if isinstance(m, Abort)] == [
        "the session's id is malformed"
    ]


def test_a_good_proposal_by_hand_is_agreed_to() -> None:
    two = met()
    actions = said(two, BOB, Propose(plan().session, own_plan()))
    assert next(type(m) for m in told(actions)) is Accept


def test_a_peer_that_leaves_sessions_unconfirmed_gets_no_other() -> None:
    two = met()
    for _ in range(HELD_MAX):
        two.now_ns += 10**9
        two.ask(BOB)
        while not two.core[BOB].idle:  # Bob takes the keys, and his word of it is always lost
            two.go_on(until=lambda: any(isinstance(m, BlockStored) for m in two.mail[ALICE]))
            two.mail[ALICE].clear()
    assert len(two.core[ALICE].snapshot()["held"]) == HELD_MAX
    assert f"keys of {HELD_MAX} sessions" in str(answers(two.ask(ALICE)))
    proposal = Propose(plan().session, own_plan())
    assert "not confirmed" in str(told(said(two, ALICE, proposal)))
    two.pass_time(2.0)
    two.settle()
    assert two.core[ALICE].snapshot()["held"] == []
    assert two.keys(ALICE) == two.keys(BOB)


# --- strangers and nonsense -----------------------------------------------------------------------

ABOUT: list[Message] = [
    Propose(OTHER_ID, b"{}"),
    Accept(OTHER_ID, b""),
    Abort(OTHER_ID, "x"),
    BlockStored(OTHER_ID, False),
    Decoded(OTHER_ID),
    SlotDone(OTHER_ID, 0),
    TestRounds(OTHER_ID, 0, np.zeros(3, np.bool_)),
    BlockHeralded(LINK.name, RequestId(OTHER_ID), 0, b""),
    Position(OTHER_ID, 0, np.zeros(3, np.bool_)),
    Tagged(OTHER_ID, Stage.SYNDROME, b"", "b", 0, b""),
    KeysAllocated(()),
    AllocationsRecorded(()),
]


@pytest.mark.parametrize("message", ABOUT, ids=lambda m: type(m).__name__)
def test_a_stranger_is_refused_whatever_he_says(message: Message) -> None:
    two = met()
    actions = two.feed(ALICE, PeerSaid(CAROL, message))
    assert reasons(actions) == ["peer_unknown"] and kinds(actions) == ["Refuse"]
    assert reasons(two.feed(ALICE, PeerJoined(CAROL))) == ["peer_unknown"]


@pytest.mark.parametrize("message", ABOUT, ids=lambda m: type(m).__name__)
def test_a_peer_has_no_say_in_a_session_with_another(message: Message) -> None:
    settings = NodeSettings(ALICE, (BOB, CAROL), POLICY)
    two = running()
    id_ = session_of(two, ALICE)
    core = NodeCore(settings, SeededRng(1), two.store[ALICE].restored(), simulated_identity(ALICE))
    core.step(0, Tick())
    named = (
        replace(message, request=RequestId(id_))
        if isinstance(message, BlockHeralded)
        else replace(message, session=id_)
        if not isinstance(message, KeysAllocated | AllocationsRecorded)
        else message
    )
    before = core.snapshot()["sessions"]
    actions = core.step(0, PeerSaid(CAROL, named))
    assert core.snapshot()["sessions"] == before
    assert not [a for a in actions if isinstance(a, Persist | StoreKeys | VoidKeys)]


def test_a_worn_pool_begins_no_session() -> None:
    two = met()
    for name in (ALICE, BOB):
        pool = two.core[name]._desk.pools[OTHER[name]]
        for _ in range(FORGERIES_MAX):
            pool.refused()
    assert "too many wrong tags" in str(answers(two.ask(ALICE)))
    declined = told(said(two, BOB, Propose(plan().session, own_plan())))
    assert "too many wrong tags" in str(declined)
    assert two.core[ALICE].snapshot()["peers"][BOB]["forgeries"] == FORGERIES_MAX


# --- the device -----------------------------------------------------------------------------------

NO_BITS = np.zeros(0, np.uint8)


def nonsense(request: RequestId, link: LinkName = LINK.name) -> list[Event]:
    """Reports of blocks nobody ordered, of no rounds, of too many, of patterns that are none."""
    events: list[Event] = []
    for block in (-1, 0, 1, 2, 3, 50, 10**15):
        for rounds in (0, 1, 8_000):
            attempts = np.zeros(rounds, np.int64)
            bits = np.full(rounds, 255, np.uint8)
            answered = np.ones(max(rounds - 1, 0), np.bool_)
            events += [
                Reported(Heralded(link, request, block, attempts, bits, 5, 3)),
                Reported(Heralded(link, request, block, attempts[:3], bits, 5, 3)),
                Reported(Measured(link, request, block, bits, answered)),
                Reported(Measured(link, request, block, NO_BITS, answered)),
            ]
        events += [
            Reported(MemoryLost(link, request, block, operation, "x" * 5000))
            for operation in ("attempt", "measure", "dance", "")
        ]
    return events


def test_no_report_of_a_broken_device_raises_or_is_believed() -> None:
    two = running()
    id_ = session_of(two, ALICE)
    for name in (ALICE, BOB):
        two.reports[name].clear()
        two.jobs[name].clear()
        for event in nonsense(RequestId("ff" * 16)) + nonsense(RequestId(id_), LinkName("other")):
            assert two.feed(name, event) == []
        for event in nonsense(RequestId(id_)):
            two.feed(name, event)
        assert not two.core[name]._desk.sessions[id_].record.outcomes.any()
    for _ in range(60):
        two.go_on()
        two.pass_time(3.0)
    assert two.core[ALICE].idle and two.core[BOB].idle


def test_ports_without_end_are_bounded() -> None:
    two = met()
    for life in range(3):
        ports = tuple(
            Port(LinkName(f"{life} {k}"), Side.A, BOB, 2, Source.EMULATED, "")
            for k in range(PORTS_MAX)
        )
        two.feed(ALICE, Reported(Ready(ports)))
    assert len(two.core[ALICE].snapshot()["ports"]) == PORTS_MAX
    assert len([n for n in two.store[ALICE].facts if n.startswith("port/")]) == PORTS_MAX


def test_a_session_on_a_port_that_is_another_one_ends_before_the_port_is_remembered() -> None:
    two = running()
    (known,) = two.core[ALICE]._desk.ports.values()
    actions = two.feed(ALICE, Reported(Ready((replace(known, source=Source.HARDWARE),))))
    names = [fact.name for fact in facts_of(actions)]
    assert names == [f"ended/{proposal_id(two)}", f"port/{LINK.name}"]
    assert two.core[ALICE].idle


def test_results_of_jobs_nobody_waits_for_change_nothing() -> None:
    two = met()
    assert two.feed(ALICE, ComputeFailed(JobNumber(77), "x")) == []
    two.ask(ALICE)
    (job,) = [a for a in two.actions if isinstance(a, Compute)]
    two.feed(ALICE, ComputeFailed(job.job, "x"))
    assert two.feed(ALICE, ComputeFailed(job.job, "x")) == []


def test_a_node_without_anything_wants_no_tick() -> None:
    settings = NodeSettings(ALICE, (BOB,), POLICY)
    core = NodeCore(settings, SeededRng(1), Restored(), simulated_identity(ALICE))
    assert core.step(5, Tick()) == [] and core.next_deadline() is None and core.idle
    assert core.snapshot()["peers"][BOB]["pool_provisioned"] is False


def test_a_snapshot_holds_no_secret() -> None:
    two = running()
    two.settle()
    shown = repr(two.core[ALICE].snapshot())
    secrets = [payload for name, payload in two.store[ALICE].facts.items() if "pool/" in name]
    assert all(secret.hex() not in shown for secret in secrets if len(secret) > 8)
    assert all(key.hex() not in shown for key in two.keys(ALICE).values())
    assert Pool.summary(two.store[ALICE].facts, BOB)["forgeries"] == 0
