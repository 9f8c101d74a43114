"""Bytes into the memory service's decoders: an operation or a report, or a HardwareError."""

import numpy as np
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal.errors import HardwareError
from bellhop.hal.memory_wire import (
    operation_from_wire,
    operation_to_wire,
    refusal_of,
    report_from_wire,
    report_to_wire,
)
from bellhop.hal.operations import BLOCK_ROUNDS_MAX
from bellhop.v1 import memory_pb2 as pb

NUMBER_MAX = 2**32 - 1


def operation_or_refusal(data: bytes) -> bool:
    """Whether the bytes are an operation; what was let in can be sent on, and is itself again."""
    try:
        message = pb.MemoryOperation.FromString(data)
    except DecodeError:
        return False
    try:
        operation = operation_from_wire(message)
    except HardwareError as error:
        lost = refusal_of(message, error.message)
        if lost is not None:
            report_to_wire(lost)  # the answer to it can be written, whatever its names are
        return False
    again = operation_to_wire(operation)
    assert operation_to_wire(operation_from_wire(again)) == again
    return True


def report_or_refusal(data: bytes) -> bool:
    try:
        message = pb.MemoryReport.FromString(data)
    except DecodeError:
        return False
    try:
        report = report_from_wire(message)
    except HardwareError as error:
        assert error.message
        return False
    again = report_to_wire(report)
    assert report_to_wire(report_from_wire(again)) == again
    return True


@given(st.binary(max_size=500))
def test_random_bytes(data: bytes) -> None:
    operation_or_refusal(data)
    report_or_refusal(data)


# --- almost right ---------------------------------------------------------------------------------

_names = st.one_of(st.just("fibre"), st.text(max_size=300))
_requests = st.one_of(st.just("0f" * 16), st.text(max_size=40))
_counts = st.one_of(st.integers(0, 20), st.integers(0, NUMBER_MAX), st.just(BLOCK_ROUNDS_MAX))
_times = st.integers(-(2**63), 2**63 - 1)
_heads = {"link": _names, "request": _requests, "block": _counts}


def _packed(bits: int) -> st.SearchStrategy[bytes]:
    return st.one_of(st.binary(max_size=40), st.integers(0, 80).map(lambda n: bytes(n * bits // 8)))


_attempts = st.one_of(
    st.binary(max_size=80),
    st.integers(0, 20).map(lambda n: np.arange(n, dtype="<i8").tobytes()),
    st.lists(_times, max_size=10).map(lambda v: np.array(v, "<i8").tobytes()),
)
_ports = st.builds(
    pb.MemoryPort,
    link=_names,
    side=st.integers(0, 4),
    peer=_names,
    settings=st.integers(0, 20),
    source=st.integers(0, 4),
    description=st.text(max_size=300),
    idealisations=st.lists(st.text(max_size=20), max_size=20),
    rounds_max=_counts,
    herald_is_measurement=st.booleans(),
)
_reports = st.one_of(
    st.builds(pb.ReadyReport, ports=st.lists(_ports, max_size=4)).map(
        lambda ready: pb.MemoryReport(ready=ready)
    ),
    st.builds(
        pb.HeraldedReport,
        **_heads,
        rounds=_counts,
        attempts=_attempts,
        patterns=_packed(2),
        begun_ns=_times,
        ended_ns=_times,
    ).map(lambda heralded: pb.MemoryReport(heralded=heralded)),
    st.builds(
        pb.MeasuredReport, **_heads, rounds=_counts, outcomes=_packed(1), answered=_packed(1)
    ).map(lambda measured: pb.MemoryReport(measured=measured)),
    st.builds(
        pb.LostReport,
        **_heads,
        operation=st.one_of(st.sampled_from(["attempt", "measure"]), st.text(max_size=9)),
        reason=st.text(max_size=400),
    ).map(lambda lost: pb.MemoryReport(lost=lost)),
)
_operations = st.one_of(
    st.builds(pb.AttemptOperation, **_heads, rounds=_counts).map(
        lambda attempt: pb.MemoryOperation(attempt=attempt)
    ),
    st.builds(pb.MeasureOperation, **_heads, rounds=_counts, settings=_packed(4)).map(
        lambda measure: pb.MemoryOperation(measure=measure)
    ),
    st.builds(pb.ReleaseOperation, link=_names, request=_requests).map(
        lambda release: pb.MemoryOperation(release=release)
    ),
)


@given(_reports)
def test_reports_that_are_almost_right(report: pb.MemoryReport) -> None:
    report_or_refusal(report.SerializeToString())


@given(_operations)
def test_operations_that_are_almost_right(operation: pb.MemoryOperation) -> None:
    operation_or_refusal(operation.SerializeToString())


@given(st.one_of(_reports, _operations), st.data())
def test_mutated_messages(
    message: pb.MemoryReport | pb.MemoryOperation, data: st.DataObject
) -> None:
    mutated = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(mutated)))
        if data.draw(st.booleans()) and place < len(mutated):
            mutated[place] ^= data.draw(st.integers(1, 255))
        else:
            mutated[place : place + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    report_or_refusal(bytes(mutated))
    operation_or_refusal(bytes(mutated))


def test_what_is_right_is_taken() -> None:
    """So that the tests above do not pass because everything is refused."""
    attempts = np.arange(9, dtype="<i8").tobytes()
    heralded = pb.HeraldedReport(
        link="fibre", request="0f" * 16, rounds=9, attempts=attempts, patterns=bytes(3)
    )
    assert report_or_refusal(pb.MemoryReport(heralded=heralded).SerializeToString())
    attempt = pb.AttemptOperation(link="fibre", request="0f" * 16, rounds=9)
    assert operation_or_refusal(pb.MemoryOperation(attempt=attempt).SerializeToString())
