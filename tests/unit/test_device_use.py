"""What a device was used for: counted for ever, under the name of its link."""

from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal.operations import LinkName
from bellhop.stack.diqkd.device_use import DeviceUse, read_use

COUNTS = st.integers(0, 2**63)


@given(COUNTS, COUNTS, COUNTS)
def test_it_is_read_as_it_was_kept(sessions: int, aborted: int, bits: int) -> None:
    use = DeviceUse(sessions, aborted, bits)
    fact = use.fact(LinkName("fibre"))
    assert fact.name == "device/fibre" and read_use(fact.payload) == use


def test_every_session_counts_however_it_ended() -> None:
    use = DeviceUse().stored(1_000).ended(1).stored(500)
    assert use == DeviceUse(sessions=2, aborted=1, published_bits=1_501)


def test_a_count_of_sessions_alone_is_read() -> None:
    assert read_use((7).to_bytes(8, "big")) == DeviceUse(sessions=7)
