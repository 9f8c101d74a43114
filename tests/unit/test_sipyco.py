"""The driver for sipyco controllers: what it asks of one, and what it makes of the answers."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.certificates import issue, make_authority
from tests.support.sipyco_server import Server

from bellhop.hal.drivers.pyon import ControllerNonsense
from bellhop.hal.drivers.sipyco import SipycoLaboratory
from bellhop.hal.drivers.sipyco_answers import clock_of, heralds_of, outcome_of, ports_of
from bellhop.hal.errors import ConfigError
from bellhop.hal.laboratory import Herald, LaboratoryError, LabPort
from bellhop.hal.operations import (
    Attempt,
    BellState,
    LinkName,
    NodeName,
    RequestId,
    Side,
    Source,
)

LINK = LinkName("alice-bob")
REQUEST = RequestId("0" * 32)
NODE = NodeName("alice")
PORT: dict[str, Any] = {
    "link": "alice-bob", "side": "a", "peer": "bob", "settings": 2, "description": "a trap",
}  # fmt: skip
ORDER = Attempt(LINK, REQUEST, 3, 2)
HERALDS = [(7, 3, 100), (9, "psi_plus", 200)]


class Trap:
    """A controller that answers what it was given, the last answer again and again."""

    def __init__(self, **answers: list[object]) -> None:
        self.answers: dict[str, list[object]] = {"ping": [True], "ports": [[PORT]], **answers}
        self.calls: list[tuple[object, ...]] = []

    def _next(self, method: str, *arguments: object) -> object:
        self.calls.append((method, *arguments))
        answers = self.answers.get(method, [None])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ping(self) -> object:
        return self._next("ping")

    def ports(self) -> object:
        return self._next("ports")

    def offer(self, link: str, request: str, block: int, rounds: int) -> object:
        return self._next("offer", link, request, block, rounds)

    def attempt(self, link: str, request: str, block: int, rounds: int) -> object:
        return self._next("attempt", link, request, block, rounds)

    def heralds(self, link: str, request: str, block: int, first: int) -> object:
        return self._next("heralds", link, request, block, first)

    def measure(
        self, link: str, request: str, block: int, round_index: int, setting: int
    ) -> object:
        return self._next("measure", link, request, block, round_index, setting)

    def abandon(self, link: str, request: str, block: int) -> object:
        return self._next("abandon", link, request, block)

    def release(self, link: str, request: str) -> object:
        return self._next("release", link, request)

    def after_greeting(self) -> list[tuple[object, ...]]:
        return [call for call in self.calls if call[0] not in ("ping", "ports")]


@asynccontextmanager
async def laboratory(
    trap: object, context: ssl.SSLContext | None = None, **options: object
) -> AsyncIterator[SipycoLaboratory]:
    own = Server({"trap": trap}, "v2")
    server = await asyncio.start_server(own.connected, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    options = {"host": "127.0.0.1", "port": port, "poll_seconds": 0.001, **options}
    made = SipycoLaboratory.from_options(NODE, options)
    try:
        yield made
    finally:
        await made.close()
        server.close()
        await own.quiet()


async def heralds(made: SipycoLaboratory) -> list[Herald]:
    return [herald async for herald in made.attempt(ORDER)]


EXPECTED = [Herald(7, BellState.PSI_MINUS, 100), Herald(9, BellState.PSI_PLUS, 200)]


async def test_open_tells_the_ports() -> None:
    told = PORT | {"idealisations": ("no loss",), "pairs_held_max": 4, "source": "emulated"}
    told |= {"herald_is_measurement": True}
    async with laboratory(Trap(ports=[[told]])) as made:
        [port] = await made.open()
    assert port == LabPort(
        LINK, Side.A, NodeName("bob"), 2, "a trap", ("no loss",), 4, Source.EMULATED, True
    )
    [plain] = ports_of([PORT], NODE)
    assert (plain.pairs_held_max, plain.source) == (1, Source.HARDWARE)
    assert not plain.herald_is_measurement


async def test_an_offer_is_asked_for_until_it_is_let_go() -> None:
    trap = Trap(offer=[None, None, 123])
    async with laboratory(trap) as made:
        assert await made.synchronise(ORDER) == 123
    assert trap.after_greeting() == 3 * [("offer", LINK, REQUEST, 3, 2)]


@pytest.mark.parametrize("polled", [True, False])
async def test_heralds_come_by_asking_or_by_waiting(polled: bool) -> None:
    parts: list[object] = [[], HERALDS[:1], [], np.array([[9, 1, 200]]).tolist()]
    trap = Trap(heralds=parts) if polled else Trap(attempt=[HERALDS])
    async with laboratory(trap) as made:
        assert await heralds(made) == EXPECTED
    asked = [call[4] for call in trap.calls if call[0] == "heralds"]
    assert asked == ([0, 0, 1, 1] if polled else [])
    assert "abandon" not in {call[0] for call in trap.calls}


async def test_a_round_is_asked_once_with_its_setting() -> None:
    trap = Trap(measure=[0, 1, True, None, ValueError("secret 0110"), 1])
    async with laboratory(trap) as made:
        told = [await made.measure(LINK, REQUEST, 3, index, index % 2) for index in range(6)]
    assert told == [0, 1, 1, None, None, 1]
    rounds = [("measure", LINK, REQUEST, 3, index, index % 2) for index in range(6)]
    assert trap.after_greeting() == rounds


async def test_after_the_last_round_of_a_block_the_answers_are_seen_to_be_in_step() -> None:
    trap = Trap(attempt=[HERALDS], measure=[0, 1])
    async with laboratory(trap) as made:
        await heralds(made)
        asked = len(trap.calls)
        told = [await made.measure(LINK, REQUEST, 3, index, 0) for index in range(2)]
    assert told == [0, 1]
    assert [call[0] for call in trap.calls[asked:]] == ["measure", "measure", "ping"]


@pytest.mark.parametrize("shifted", [0, 1])
async def test_outcomes_that_are_shifted_by_a_round_are_not_told(shifted: int) -> None:
    """The last outcome of a block is the answer to what is asked after it."""
    trap = Trap(attempt=[HERALDS], ping=[True, shifted, True], measure=[0, 0])
    async with laboratory(trap) as made:
        await heralds(made)
        assert await made.measure(LINK, REQUEST, 3, 0, 0) == 0
        with pytest.raises(LaboratoryError, match="or it answers a call twice"):
            await made.measure(LINK, REQUEST, 3, 1, 0)
        assert made._connection is not None and made._connection.closed
        await abandoned(trap, made)


async def test_what_a_controller_says_of_a_measurement_is_not_repeated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with laboratory(Trap(measure=[ValueError("secret 0110")])) as made:
        for index in range(3):
            assert await made.measure(LINK, REQUEST, 3, index, 0) is None
    assert "secret" not in caplog.text
    assert caplog.text.count("not answered: measure failed at the controller with ValueError") == 1


async def abandoned(trap: Trap, made: SipycoLaboratory) -> None:
    """The controller is told, though nobody waits for it."""
    await made.close()
    assert trap.calls[-1] == ("abandon", LINK, REQUEST, 3)


@pytest.mark.parametrize("answer", [2, -1, "1", 0.0, [1], {"outcome": 1}])
async def test_an_impossible_outcome_is_named_and_not_shown(answer: object) -> None:
    trap = Trap(measure=[answer])
    async with laboratory(trap) as made:
        with pytest.raises(LaboratoryError, match="neither 0, 1 nor None") as caught:
            await made.measure(LINK, REQUEST, 3, 0, 0)
        assert "whoever wrote the controller" in caught.value.message
        await abandoned(trap, made)


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"attempt": [ValueError("no ions")]}, "ValueError: no ions"),
        ({"heralds": [ValueError("no light")]}, "ValueError: no light"),
        ({"heralds": [7]}, "no list"),
        ({"heralds": [[(1, 2)]]}, "is not (attempt, announces, at_ns)"),
    ],
)
async def test_an_attempt_that_fails_is_abandoned(
    answers: dict[str, list[object]], why: str
) -> None:
    trap = Trap(**answers)
    async with laboratory(trap) as made:
        with pytest.raises(LaboratoryError) as caught:
            await heralds(made)
        assert why in caught.value.message
        await abandoned(trap, made)


async def test_an_attempt_that_is_closed_early_is_abandoned() -> None:
    trap = Trap(heralds=[HERALDS[:1], []])
    async with laboratory(trap) as made:
        attempt = made.attempt(ORDER)
        assert await anext(attempt) == EXPECTED[0]
        assert isinstance(attempt, AsyncGenerator)
        await attempt.aclose()
        await abandoned(trap, made)


async def test_an_attempt_whose_last_herald_nobody_would_have_is_abandoned() -> None:
    trap = Trap(attempt=[HERALDS])
    async with laboratory(trap) as made:
        attempt = made.attempt(ORDER)
        assert [await anext(attempt), await anext(attempt)] == EXPECTED
        assert isinstance(attempt, AsyncGenerator)
        await attempt.aclose()
        await abandoned(trap, made)


@pytest.mark.parametrize(("count", "polled"), [(3, True), (3, False), (1, False)])
async def test_an_attempt_of_too_many_or_too_few_heralds_is_abandoned(
    count: int, polled: bool
) -> None:
    told = [(number, 3, number) for number in range(count)]
    trap = Trap(heralds=[told]) if polled else Trap(attempt=[told])
    async with laboratory(trap) as made:
        assert len(await heralds(made)) == count
        await abandoned(trap, made)


async def test_a_stalled_measurement_that_is_given_up_is_abandoned() -> None:
    released = asyncio.Event()

    class Stalling(Trap):
        async def measure(self, *arguments: object) -> object:
            await released.wait()
            return 1

    trap = Stalling()
    async with laboratory(trap) as made:
        await made.open()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await made.measure(LINK, REQUEST, 3, 0, 0)
        released.set()
        await abandoned(trap, made)


async def test_close_disconnects_although_the_controller_does_not_answer() -> None:
    never = asyncio.Event()

    class Stalling(Trap):
        async def abandon(self, *arguments: object) -> object:
            await never.wait()
            return None

    async with laboratory(Stalling(measure=[7])) as made:
        with pytest.raises(LaboratoryError):
            await made.measure(LINK, REQUEST, 3, 0, 0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await made.close()
        assert made._connection is not None and made._connection.closed
        never.set()


async def test_a_late_controller_is_named_and_connected_to_anew() -> None:
    never = asyncio.Event()
    trap = Trap(offer=[5])

    class Stalling(Trap):
        async def release(self, *arguments: object) -> object:
            await never.wait()
            return None

    async with laboratory(Stalling(offer=[5]), call_seconds=0.05) as made:
        await made.open()
        with pytest.raises(LaboratoryError, match=r"did not answer release within 0.05 s"):
            await made.release(LINK, REQUEST)
        never.set()
        assert await made.synchronise(ORDER) == 5
    assert trap.calls == []


async def test_a_controller_that_comes_back_must_be_the_same() -> None:
    trap = Trap(ports=[[PORT], [PORT], [PORT | {"settings": 4}]], offer=[1])
    async with laboratory(trap) as made:
        await made.open()
        for expected in (None, "other ports"):
            assert made._connection is not None
            made._connection.close()
            if expected is None:
                assert await made.synchronise(ORDER) == 1
            else:
                with pytest.raises(LaboratoryError, match=expected):
                    await made.synchronise(ORDER)


@pytest.mark.parametrize(
    ("answers", "options", "why"),
    [
        ({"ping": [False]}, {}, "device is not well"),
        ({"ping": [RuntimeError("no laser")]}, {}, "no laser"),
        ({"ports": [[]]}, {}, "ports are 0"),
        ({"ports": [None]}, {}, "ports are none"),
        ({"ports": [[PORT | {"side": "c"}]]}, {}, "ports are none"),
        ({"ports": [[PORT, PORT]]}, {}, "two of one link"),
        ({"ports": [[PORT | {"peer": "alice"}]]}, {}, "target of alice?"),
        ({"ports": [[PORT | {"side": "b"}]]}, {}, "fewer than 3"),
        ({"ports": [[PORT | {"link": "a\nb"}]]}, {}, "printed"),
        ({"ports": [[PORT | {"link": "ü"}]]}, {}, "ASCII"),
        ({"ports": [[PORT | {"peer": "Bob"}]]}, {}, "no name of a node"),
        ({}, {"target": "other"}, "no target 'other', only: trap"),
        ({}, {"methods": {"offer": "meet"}}, "has no method meet"),
        ({}, {"port": 1}, "no connection"),
    ],
)
async def test_a_controller_that_cannot_be_used_is_named(
    answers: dict[str, list[object]], options: dict[str, object], why: str
) -> None:
    async with laboratory(Trap(**answers), None, **options) as made:
        with pytest.raises(LaboratoryError) as caught:
            await made.open()
    assert why in caught.value.message and "who" in caught.value.message


async def test_methods_may_have_other_names() -> None:
    class Named:
        def __init__(self) -> None:
            self.offer = self.attempt = self.heralds = self.measure = print
            self.abandon = self.release = print

        def is_well(self) -> bool:
            return True

        def my_ports(self) -> list[dict[str, Any]]:
            return [PORT]

    async with laboratory(Named(), methods={"ping": "is_well", "ports": "my_ports"}) as made:
        assert len(await made.open()) == 1


async def test_both_ends_of_an_encrypted_connection_show_who_they_are(tmp_path: Path) -> None:
    """As sipyco's SimpleSSLConfig does it."""
    authority = make_authority(tmp_path)
    controller, own = (issue(authority, "emulator", name) for name in ("controller", "driver"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.certificate_file)
    context.load_cert_chain(controller.certificate, controller.key)
    tls = {
        "certificate": str(own.certificate),
        "key": str(own.key),
        "authority": str(authority.certificate_file),
    }
    async with laboratory(Trap(measure=[1]), context, tls=tls) as made:
        assert await made.measure(LINK, REQUEST, 3, 0, 0) == 1
    stranger = make_authority(tmp_path / "other").certificate_file
    async with laboratory(Trap(), context, tls=tls | {"authority": str(stranger)}) as made:
        with pytest.raises(LaboratoryError, match="CERTIFICATE_VERIFY_FAILED"):
            await made.open()


def test_a_port_with_a_text_that_is_no_unicode() -> None:
    with pytest.raises(ControllerNonsense, match="no Unicode"):
        ports_of([PORT | {"\ud800": 1}], NODE)


def test_answers_of_numpy() -> None:
    assert heralds_of(np.array([[7, 3, 100], [9, 1, 200]])) == EXPECTED
    assert outcome_of(np.uint8(1).item()) == 1


@pytest.mark.parametrize("answer", [-1, 2**63, 1.0, True, "1", None])
def test_a_clock_that_is_none(answer: object) -> None:
    with pytest.raises(ControllerNonsense, match="clock"):
        clock_of(answer)


@pytest.mark.parametrize(
    "answer",
    [
        {}, [()], [(1, 2, 3, 4)], [(True, 1, 2)], [(1, 4, 2)], [(1, -1, 2)], [(1, "phi", 2)],
        [(1, 1, -2)], [(1.0, 1, 2)], [(2**63, 1, 2)], np.zeros(3), [(0, 0, 0)] * 65_537,
    ],
    ids=lambda answer: str(answer)[:20],
)  # fmt: skip
def test_heralds_that_are_none(answer: object) -> None:
    with pytest.raises(ControllerNonsense, match="herald"):
        heralds_of(answer)


HERE = {"host": "127.0.0.1", "port": 3280}


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "host"),
        ({"host": "127.0.0.1"}, "port"),
        (HERE | {"port": 0}, "port"),
        (HERE | {"port": "3280"}, "port"),
        (HERE | {"host": ""}, "host"),
        (HERE | {"host": "a..b"}, "host"),
        (HERE | {"host": "192.0.2.1"}, "host"),
        (HERE | {"host": "trap.example"}, "host"),
        (HERE | {"target": "two words"}, "target"),
        (HERE | {"call_seconds": 0}, "call_seconds"),
        (HERE | {"poll_second": 1}, "poll_second"),
        (HERE | {"methods": {"ping": "__class__"}}, "methods.ping"),
        (HERE | {"methods": {"ping": "ports"}}, "methods"),
        (HERE | {"methods": {"pong": "ping"}}, "methods.pong"),
        (HERE | {"tls": {"certificate": "/a", "key": "/b"}}, "tls.authority"),
        (HERE | {"tls": {"certificate": "a", "key": "/b", "authority": "/c"}}, "tls.certificate"),
        (HERE | {"tls": {"certificate": "/a", "key": "/b", "authority": "/c"}}, "tls.authority"),
    ],
)
def test_an_option_that_is_wrong_is_named(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SipycoLaboratory.from_options(NODE, options)
    assert caught.value.field == f"laboratory.options.{field}"
    assert field.rpartition(".")[2] in caught.value.message


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_this_machine_needs_no_encryption(host: str) -> None:
    SipycoLaboratory.from_options(NODE, HERE | {"host": host})
    SipycoLaboratory.from_options(NODE, HERE | {"host": "192.0.2.1", "clear_text": True})
