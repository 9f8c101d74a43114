"""Real daemons and a memory service that lies, and strangers at the door of a true one."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.support.hostile import ADAM, Lab, running_lab
from tests.support.relay import OPERATE, calling, faithful

from bellhop.hal.operations import BLOCK_ROUNDS_MAX
from bellhop.hal.watched import Fault
from bellhop.node.tls import PartyKind, grpc_channel_credentials
from bellhop.v1 import memory_pb2 as pb

pytestmark = pytest.mark.e2e

UNKNOWN = "0f" * 16
EMULATORS_NAME = "emulator.emulator.bellhop"

Tell = Callable[[pb.MemoryReport], Iterable[bytes]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("n") / "net") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(lab: Lab) -> Iterator[None]:
    """After whatever the device said: the same processes, joined, and the device is back."""
    yield
    lab.memory.distort = faithful
    lab.assert_unharmed()
    blocks = lab.settled()
    assert blocks["alice"] == blocks["bob"]


def telling(lab: Lab, tell: Tell) -> None:
    """From now on alice's device says what `tell` makes of each report."""

    def pass_on(up: bool, data: bytes) -> Iterable[bytes]:
        return [data] if up else list(tell(pb.MemoryReport.FromString(data)))

    lab.memory.distort = pass_on


# --- strangers at the emulator's door -------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"), [(PartyKind.NODE, ADAM), (PartyKind.KME, "kme-alice"), (PartyKind.SAE, "eve")]
)
def test_who_is_at_no_end_of_a_link_is_refused(lab: Lab, kind: PartyKind, name: str) -> None:
    if name in (ADAM, "eve"):
        lab.issue(kind, name)
    address = lab.memory.ends.address
    credentials = grpc_channel_credentials(lab.credentials(kind, name))
    with calling(address, credentials, EMULATORS_NAME, OPERATE) as stranger:
        code, detail = stranger.end()
    assert code == "PERMISSION_DENIED" and "the operator" in detail
    record = lab.records("emulator", "log", logger="bellhop.hal.emulator.server")[-1]
    assert record["level"] == "warning"
    assert f"{kind} {name}" in record["message"] and "must" in record["message"]


# --- a device that talks nonsense -----------------------------------------------------------------


def heralded(**fields: Any) -> pb.MemoryReport:
    said = {
        "link": "alice-bob",
        "request": UNKNOWN,
        "block": 0,
        "rounds": 8,
        "attempts": np.arange(8, dtype="<i8").tobytes(),
        "patterns": b"\0\0",
    }
    return pb.MemoryReport(heralded=pb.HeraldedReport(**{**said, **fields}))


def measured(**fields: Any) -> pb.MemoryReport:
    said = {"link": "alice-bob", "request": UNKNOWN, "rounds": 8, "outcomes": b"\1"}
    return pb.MemoryReport(measured=pb.MeasuredReport(**{**said, "answered": b"\xff", **fields}))


FALLING = np.arange(8, 0, -1, dtype="<i8").tobytes()
NONSENSE: dict[str, tuple[bytes, str]] = {
    "no protobuf": (b"\xff" * 20, "no report"),
    "ready again": (pb.MemoryReport(ready=pb.ReadyReport()).SerializeToString(), "ready first"),
    "heralds that fall": (heralded(attempts=FALLING).SerializeToString(), "do not rise"),
    "an oversized block": (heralded(rounds=BLOCK_ROUNDS_MAX + 1).SerializeToString(), "rounds"),
    "outcomes of another length": (measured(outcomes=b"12").SerializeToString(), "outcomes"),
    "a longer message than any": (bytes(20 * BLOCK_ROUNDS_MAX), "RESOURCE_EXHAUSTED"),
}
"""Few of all there is: the daemon waits longer before each new try.  See the fuzz tests too."""


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_ends_the_devices_stream_alone(lab: Lab, what: str) -> None:
    """The device is gone, with the reason, and is taken again when it speaks sense."""
    said, why = NONSENSE[what]
    streams = lab.memory.streams
    lab.memory.inject(False, said)
    lab.wait("alice", lambda s: lab.memory.streams > streams and s["core"]["device_ready"])
    record = lab.records("alice", "device_gone")[-1]
    assert why in record["why"]
    assert record["who_must_act"] == "the operator of the memory"


def named(lab: Lab, fault: Fault) -> list[dict[str, Any]]:
    """What alice's log says of a fault of her device, and to whom."""
    records = lab.records("alice", "refused", reason=str(fault))
    assert all(record["who_must_act"] == "whoever runs the device" for record in records)
    return records


def test_reports_that_nobody_asked_for_are_dropped_and_named(lab: Lab) -> None:
    """Well formed, and of requests that there are not, or no more."""
    end = lab.run_session()
    assert end["outcome"] == "stored"
    streams = lab.memory.streams
    for request in (UNKNOWN, end["session"]):
        lost = pb.LostReport(link="alice-bob", request=request, operation="measure", reason="x")
        lab.memory.inject(
            False,
            heralded(request=request).SerializeToString(),
            measured(request=request).SerializeToString(),
            pb.MemoryReport(lost=lost).SerializeToString(),
        )
    assert lab.run_session()["outcome"] == "stored"  # all that was said before has been heard
    assert lab.memory.streams == streams
    assert "never made" in named(lab, Fault.NEVER_ORDERED)[0]["detail"]


def test_a_report_said_twice_counts_once_and_is_named(lab: Lab) -> None:
    telling(lab, lambda report: [report.SerializeToString()] * 2)
    assert lab.run_session()["outcome"] == "stored"
    assert "reported before" in named(lab, Fault.DUPLICATE)[0]["detail"]


def test_outcomes_of_another_length_count_as_lost(lab: Lab) -> None:
    """The rounds of that block count as 0, so the strings differ or the Bell test fails."""
    changed: list[str] = []

    def shorten(report: pb.MemoryReport) -> list[bytes]:
        if report.WhichOneof("report") == "measured":
            changed.append(report.measured.request)
            report.measured.rounds = 8
            report.measured.outcomes = report.measured.answered = b"\xff"
        return [report.SerializeToString()]

    telling(lab, shorten)
    end = lab.run_session()
    assert changed and end["outcome"] == "aborted"
    (note,) = lab.records("alice", "outcomes_lost", session=end["session"])
    assert note["blocks"] == len(changed) and note["rounds"] > 8 and "why" not in note
    assert "of 8 rounds where" in named(lab, Fault.IMPOSSIBLE)[0]["detail"]
    assert all(end["session"] not in blocks for blocks in lab.settled().values())


def test_heralds_that_only_one_end_sees_end_the_session(lab: Lab) -> None:
    """Alice's device invents heralds: both ends compare them before anything is drawn."""

    def invent(report: pb.MemoryReport) -> list[bytes]:
        if report.WhichOneof("report") == "heralded":
            rounds = report.heralded.rounds
            report.heralded.attempts = np.arange(rounds, dtype="<i8").tobytes()
        return [report.SerializeToString()]

    telling(lab, invent)
    end = lab.run_session()
    assert end["outcome"] == "aborted" and "link failed" in end["reason"]
    assert lab.records("alice", "block_void")
    assert all(end["session"] not in blocks for blocks in lab.settled().values())


def test_after_all_this_a_key_is_made(lab: Lab) -> None:
    end = lab.run_session()
    assert end["outcome"] == "stored"
    assert all(blocks[end["session"]] == "deliverable" for blocks in lab.settled().values())
