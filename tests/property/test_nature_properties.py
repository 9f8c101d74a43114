"""Nature under any orders, and devices that see one setting at a time."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bellhop.hal import memory_wire
from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.nature import Nature, links_of
from bellhop.hal.errors import HardwareError
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    Attempt,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    NodeName,
    Operation,
    Release,
    RequestId,
)
from bellhop.hal.preset import load_preset
from bellhop.hal.runs import BLOCKS_PER_REQUEST_MAX
from bellhop.v1 import memory_pb2

ALICE, BOB = NodeName("alice"), NodeName("bob")
FIBRE = LinkName("fibre")
OXFORD = load_preset("oxford", {"device.b.no_answer_probability": 0.1})
ROUNDS = 24

names = st.sampled_from([FIBRE, LinkName("other")])
requests = st.sampled_from([RequestId("0" * 32), RequestId("1" * 32)])
blocks = st.sampled_from([0, 1, 2, BLOCKS_PER_REQUEST_MAX])
chosen = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(
    lambda values: np.array(values, dtype=np.uint8)
)
operations = st.one_of(
    st.builds(Attempt, names, requests, blocks, st.integers(0, 4)),
    st.builds(Measure, names, requests, blocks, chosen),
    st.builds(Release, names, requests),
)
two_settings = st.lists(st.integers(0, 1), min_size=ROUNDS, max_size=ROUNDS)
three_settings = st.lists(st.integers(0, 2), min_size=ROUNDS, max_size=ROUNDS)


def make(seed: int, clock: Clock) -> Nature:
    return Nature(links_of({"fibre": ("alice", "bob")}, OXFORD), np.random.default_rng(seed), clock)


def answers(
    seed: int, order: tuple[NodeName, ...], settings: dict[NodeName, Any]
) -> list[Measured]:
    """One block, measured at both ends in this order."""
    nature = make(seed, Clock(fast=True))
    attempt = Attempt(FIBRE, RequestId("0" * 32), 0, ROUNDS)
    nature.step(0, ALICE, attempt)
    nature.step(0, BOB, attempt)
    found = []
    for node in order:
        measure = Measure(FIBRE, attempt.request, 0, np.array(settings[node], dtype=np.uint8))
        (delivery,) = nature.step(0, node, measure)
        assert isinstance(delivery.report, Measured)
        found.append(delivery.report)
    return found


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    a=two_settings,
    b=three_settings,
    changed_a=two_settings,
    changed_b=three_settings,
    kept=st.integers(0, ROUNDS),
    alice_first=st.booleans(),
)
def test_an_outcome_does_not_depend_on_later_settings(
    seed: int,
    a: list[int],
    b: list[int],
    changed_a: list[int],
    changed_b: list[int],
    kept: int,
    alice_first: bool,
) -> None:
    """The same chance, other settings from round `kept` on: outcomes before stay as they were."""
    order = (ALICE, BOB) if alice_first else (BOB, ALICE)
    one = answers(seed, order, {ALICE: a, BOB: b})
    other = answers(
        seed, order, {ALICE: a[:kept] + changed_a[kept:], BOB: b[:kept] + changed_b[kept:]}
    )
    for before, after in zip(one, other, strict=True):
        assert np.array_equal(before.outcomes[:kept], after.outcomes[:kept])
        assert np.array_equal(before.answered, after.answered)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), a=two_settings, b=three_settings, changed=three_settings)
def test_who_is_measured_first_does_not_depend_on_what_the_other_will_be_asked(
    seed: int, a: list[int], b: list[int], changed: list[int]
) -> None:
    one = answers(seed, (ALICE, BOB), {ALICE: a, BOB: b})
    other = answers(seed, (ALICE, BOB), {ALICE: a, BOB: changed})
    assert np.array_equal(one[0].outcomes, other[0].outcomes)


steps = st.tuples(
    st.sampled_from([ALICE, BOB]),
    st.one_of(operations, st.just("forget"), st.just("attach")),
    st.integers(0, 10**8),
)


@settings(max_examples=150, deadline=None)
@given(script=st.lists(steps, max_size=40), clock=st.sampled_from([Clock(), Clock(fast=True)]))
def test_any_orders_at_any_time_are_answered_and_measured_once(
    script: list[tuple[NodeName, Operation | str, int]], clock: Clock
) -> None:
    nature = make(0, clock)
    now_ns = 0
    measured: set[tuple[NodeName, RequestId, int, int]] = set()
    heralds: dict[tuple[RequestId, int], int] = {}
    for node, order, wait_ns in script:
        now_ns += wait_ns
        if isinstance(order, str):
            deliveries = getattr(nature, order)(now_ns, node)
        else:
            deliveries = nature.step(now_ns, node, order)
        for delivery in deliveries:
            assert delivery.due_ns >= now_ns
            report = delivery.report
            if isinstance(report, Heralded) and delivery.node == ALICE:
                key = (report.request, report.block)
                heralds[key] = heralds.get(key, 0) + 1
            if isinstance(report, Measured):
                # A request that both ends gave up is forgotten: its next life is another pair.
                life = heralds[report.request, report.block]
                entry = (delivery.node, report.request, report.block, life)
                assert entry not in measured
                measured.add(entry)
            if isinstance(report, MemoryLost):
                assert report.reason


@settings(deadline=None)
@given(operation=operations)
def test_operations_survive_the_wire(operation: Operation) -> None:
    try:
        message = memory_wire.operation_to_wire(operation)
    except HardwareError:
        assert isinstance(operation, Attempt)
        assert not 1 <= operation.rounds <= BLOCK_ROUNDS_MAX
        return
    read = memory_pb2.MemoryOperation.FromString(message.SerializeToString())
    found = memory_wire.operation_from_wire(read)
    if isinstance(operation, Measure):
        assert isinstance(found, Measure)
        assert np.array_equal(found.settings, operation.settings)
        assert (found.link, found.request, found.block) == (
            operation.link,
            operation.request,
            operation.block,
        )
    else:
        assert found == operation


@settings(deadline=None)
@given(data=st.data(), rounds=st.integers(1, 40))
def test_reports_survive_the_wire(data: st.DataObject, rounds: int) -> None:
    def column(top: int) -> Any:
        return data.draw(st.lists(st.integers(0, top), min_size=rounds, max_size=rounds))

    attempts = np.cumsum(np.array(column(2**40), dtype=np.int64) + 1)
    patterns = np.array(column(3), dtype=np.uint8)
    answered = np.array(column(1), dtype=np.bool_)
    outcomes = np.array(column(1), dtype=np.uint8) & answered
    heralded = Heralded(FIBRE, RequestId("a" * 32), 3, attempts, patterns, 5, 9)
    message = memory_wire.report_to_wire(heralded).SerializeToString()
    found = memory_wire.report_from_wire(memory_pb2.MemoryReport.FromString(message))
    assert isinstance(found, Heralded)
    assert np.array_equal(found.attempts, attempts)
    assert np.array_equal(found.patterns, patterns)
    assert (found.block, found.begun_ns, found.ended_ns) == (3, 5, 9)
    measured = Measured(FIBRE, RequestId("a" * 32), 3, outcomes, answered)
    message = memory_wire.report_to_wire(measured).SerializeToString()
    read = memory_wire.report_from_wire(memory_pb2.MemoryReport.FromString(message))
    assert isinstance(read, Measured)
    assert np.array_equal(read.outcomes, outcomes)
    assert np.array_equal(read.answered, answered)


@settings(deadline=None)
@given(
    rounds=st.integers(0, 70_000),
    attempts=st.binary(max_size=64),
    patterns=st.binary(max_size=8),
    outcomes=st.binary(max_size=4),
    answered=st.binary(max_size=4),
    text=st.text(max_size=40),
)
def test_nonsense_on_the_wire_is_a_report_or_a_hardware_error(
    rounds: int, attempts: bytes, patterns: bytes, outcomes: bytes, answered: bytes, text: str
) -> None:
    request = "a" * 32
    heralded = memory_pb2.HeraldedReport(
        link=text, request=request, rounds=rounds, attempts=attempts, patterns=patterns
    )
    measured = memory_pb2.MeasuredReport(
        link="l", request=request, rounds=rounds, outcomes=outcomes, answered=answered
    )
    lost = memory_pb2.LostReport(link="l", request=text, operation=text, reason=text)
    reports = (
        memory_pb2.MemoryReport(heralded=heralded),
        memory_pb2.MemoryReport(measured=measured),
        memory_pb2.MemoryReport(lost=lost),
        memory_pb2.MemoryReport(),
    )
    for message in reports:
        try:
            report = memory_wire.report_from_wire(message)
        except HardwareError:
            continue
        if isinstance(report, Heralded):
            assert len(report.attempts) == len(report.patterns) == rounds
            assert np.all(np.diff(report.attempts) > 0)
        if isinstance(report, Measured):
            assert len(report.outcomes) == len(report.answered) == rounds
