"""Clients that leave in mid request or speak no HTTP: one counted record, none of their bytes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.identities import Authority
from tests.support.kmes import SAE_A, SAE_B, Kmes, keys_url, running_kmes
from tests.support.waiting import PATIENCE_S, until

from bellhop.node.metrics import Metrics
from bellhop.node.observe import REFUSALS_BURST, JsonLines
from bellhop.node.witness import Witness

pytestmark = pytest.mark.e2e

PATH = keys_url("", SAE_B, "enc_keys")
SECRET = "5ec2e7-bytes"
POST = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics([], [], [], [])


@pytest_asyncio.fixture
async def kmes(tmp_path: Path, metrics: Metrics) -> AsyncIterator[Kmes]:
    witness = Witness(metrics)
    authority = Authority(tmp_path / "pki")
    async with running_kmes(tmp_path, authority, refuse=witness.refused_http) as both:
        yield both


def refusals(metrics: Metrics, reason: str) -> float:
    labels = {"peer": "other", "reason": reason}
    return metrics.registry.get_sample_value("bellhop_refusals_total", labels) or 0.0


async def say(kmes: Kmes, request: str, leave: bool) -> bytes:
    """Send `request` and hang up, or read the answer."""
    port = int(kmes.alice.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("localhost", port, ssl=kmes.context(SAE_A))
    writer.write(request.encode("latin-1"))
    await writer.drain()
    if leave:
        writer.transport.abort()
        return b""
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "request_text",
    [
        POST + "Content-Length: 10\r\n\r\n{",
        POST + "Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    ],
)
async def test_a_client_that_leaves_is_one_record(
    kmes: Kmes, metrics: Metrics, caplog: pytest.LogCaptureFixture, request_text: str
) -> None:
    await say(kmes, request_text, leave=True)
    await until(lambda: refusals(metrics, "client_left") == 1)
    (record,) = of_us(caplog)
    assert record.levelno == logging.WARNING and record.exc_info is None
    assert '"who_must_act":"the operator of the application"' in JsonLines().format(record)


@pytest.mark.parametrize(
    "request_text",
    [
        f"{SECRET}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{SECRET}\r\n\r\n",
        f"GET / HTTP/1.1\r\nContent-Length: {SECRET}\r\n\r\n",
        f"GET /{SECRET * 2000} HTTP/1.1\r\n\r\n",
        POST + f"Transfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
        POST + f"Content-Encoding: gzip\r\nContent-Length: 12\r\n\r\n{SECRET}",
    ],
)
async def test_what_is_no_http_is_one_record_without_its_bytes(
    kmes: Kmes, metrics: Metrics, caplog: pytest.LogCaptureFixture, request_text: str
) -> None:
    answer = await say(kmes, request_text, leave=False)
    assert answer.startswith(b"HTTP/1.1 400 ") or answer.startswith(b"HTTP/1.0 400 ")
    assert b"\r\nServer: Bellhop\r\n" in answer
    await until(lambda: refusals(metrics, "malformed_http") == 1)
    (record,) = of_us(caplog)
    assert SECRET not in JsonLines().format(record)
    assert record.exc_info is None


async def test_many_are_counted_and_few_are_logged(
    kmes: Kmes, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    callers = 3 * REFUSALS_BURST
    for _ in range(callers):
        await say(kmes, "no http\r\n\r\n", leave=False)
    await until(lambda: refusals(metrics, "malformed_http") == callers)
    assert REFUSALS_BURST <= len(of_us(caplog)) < callers


def of_us(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What would be logged, but for the loop's own debugging."""
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_an_answer_does_not_tell_versions(kmes: Kmes) -> None:
    answer = await kmes.call(SAE_A, "GET", keys_url(kmes.alice, SAE_B, "status"))
    assert answer.headers["Server"] == "Bellhop"
