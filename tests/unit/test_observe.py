"""Log records, refused handshakes and metrics: what a node shows, and what it never shows."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from bellhop.hal.errors import ConfigError
from bellhop.node.config_values import Address
from bellhop.node.metrics import Metrics, start_metrics
from bellhop.node.observe import LOGGER, Refusal, configure_logs, note, refusal_of


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """The root logger writes here, and gets its own handlers back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_line(log: io.StringIO) -> None:
    configure_logs("info", "json", log)
    note("session_keyed", {"peer": "bob", "s": 2.677, "bits": 125_000, "production": False})
    note("refused", {"detail": 'two\nlines and a "quote"'}, logging.WARNING)
    note("too_detailed", {}, logging.DEBUG)
    first, second = records(log)
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "info",
        "event": "session_keyed",
        "peer": "bob",
        "s": 2.677,
        "bits": 125_000,
        "production": False,
    }
    assert (second["level"], second["detail"]) == ("warning", 'two\nlines and a "quote"')


def test_a_text_record_is_one_line_too(log: io.StringIO) -> None:
    configure_logs("info", "text", log)
    note("refused", {"peer": "bob", "detail": "a\nforged line", "escape": "\x1b[2J"})
    (line,) = log.getvalue().splitlines()
    assert line.endswith('info    refused peer=bob detail="a\\nforged line" escape="\\u001b[2J"')


def test_records_of_libraries_and_exceptions(log: io.StringIO) -> None:
    configure_logs("info", "json", log)
    logging.getLogger("aiohttp.server").error("Error on %s", "port 1")
    try:
        raise ValueError("nonsense")
    except ValueError:
        LOGGER.exception("task_failed")
    library, failed = records(log)
    assert (library["logger"], library["message"]) == ("aiohttp.server", "Error on port 1")
    assert failed["error"] == "ValueError"
    assert "test_observe.py" in failed["frames"]
    assert "nonsense" not in log.getvalue(), "an error's text may show what it was about"


@pytest.mark.parametrize(
    "secret",
    [
        b"key",
        bytearray(b"key"),
        memoryview(b"key"),
        np.zeros(4, np.uint8),
        np.int64(2),
        [1, 2],
        {"k": 1},
        None,
        ValueError("key"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_nothing_but_plain_values_is_logged(log: io.StringIO, secret: Any) -> None:
    configure_logs("debug", "json", log)
    with pytest.raises(AssertionError, match=type(secret).__name__):
        note("stored", {"key": secret})
    assert log.getvalue() == ""


def test_a_record_stays_json_when_a_figure_is_none(log: io.StringIO) -> None:
    configure_logs("info", "json", log)
    note("scored", {"s": float("nan"), "qber": float("inf")})
    assert "NaN" not in log.getvalue() and records(log)[0]["s"] == "nan"


def test_a_field_cannot_pose_as_the_record() -> None:
    with pytest.raises(AssertionError, match="part of every record"):
        note("stored", {"level": "info"})


_PREFIX = "I1122 23:01:09.668626    5376 ssl_transport_security.cc:2563] "
_ERROR = "Handshake failed with error SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate", "foreign_authority"),
        ("CERTIFICATE_VERIFY_FAILED: unsupported certificate purpose", "wrong_purpose"),
        ("CERTIFICATE_VERIFY_FAILED: certificate has expired", "expired"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid certificate", "no_certificate"),
        ("HTTP_REQUEST: Invalid certificate verification context", "not_tls"),
        ("SOMETHING_NEW", "other"),
    ],
)
def test_lines_of_refused_handshakes(words: str, reason: str) -> None:
    assert refusal_of(f"{_PREFIX}{_ERROR}{words}") == Refusal(reason, f"{_ERROR}{words}")


def test_lines_that_tell_of_no_handshake() -> None:
    assert refusal_of(f"{_PREFIX}SSL session resumed") is None
    assert refusal_of(f"a peer said: {_PREFIX}{_ERROR}") is None
    assert refusal_of("") is None


def metrics() -> Metrics:
    return Metrics(["bob"], ["chsh_below_threshold"], ["malformed"], ["reconcile"])


def value(figures: Metrics, name: str, **labels: str) -> float | None:
    return figures.registry.get_sample_value(f"bellhop_{name}", labels)


def test_metrics_of_a_session() -> None:
    figures = metrics()
    figures.heralded(1_500_000)
    figures.scored(2.677, 0.0144)
    figures.session_keyed(gross_bits=130_000, net_bits=129_488)
    figures.session_aborted("chsh_below_threshold")
    figures.stage_took("reconcile", 2.5)
    figures.masks_left("bob", 40)
    figures.peer_connected("bob", True)
    figures.keys_held(stored=10, deliverable=8)
    assert value(figures, "pairs_heralded_total") == 1_500_000
    assert value(figures, "session_chsh_s") == 2.677
    assert value(figures, "key_bits_total", kind="net") == 129_488
    assert value(figures, "sessions_total", outcome="abort") == 1
    assert value(figures, "session_aborts_total", reason="chsh_below_threshold") == 1
    assert value(figures, "stage_seconds_sum", stage="reconcile") == 2.5
    assert value(figures, "pool_masks_left", peer="bob") == 40
    assert value(figures, "peer_connected", peer="bob") == 1
    assert value(figures, "keys", state="deliverable") == 8


def test_nobody_can_make_the_series_grow() -> None:
    figures = metrics()
    figures.refused("mallory-0", "first")
    before = figures.text().count(b"\n")
    for i in range(100):
        figures.refused(f"mallory-{i}", f"reason {i}")
        figures.session_aborted(f"reason {i}")
        figures.stage_took(f"stage {i}", 1.0)
        figures.peer_connected(f"mallory-{i}", True)
        figures.masks_left(f"mallory-{i}", 1)
    series = {line.split(b" ")[0] for line in figures.text().splitlines()}
    assert value(figures, "refusals_total", peer="other", reason="other") == 101
    assert not any(b"mallory" in name for name in series)
    # One series of each of the other four, a histogram being one a bucket and three more.
    assert figures.text().count(b"\n") - before < 25


async def test_metrics_are_served(tmp_path: Path) -> None:
    figures = metrics()
    figures.heralded(7)
    server = await start_metrics(figures, Address("127.0.0.1:0"), tmp_path / "port")
    try:
        assert (tmp_path / "port").read_text() == f"{server.address}\n"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{server.address}/metrics") as response:
                assert response.content_type == "text/plain"
                assert "bellhop_pairs_heralded_total 7.0" in await response.text()
            async with session.get(f"http://{server.address}/") as response:
                assert response.status == 404
        with pytest.raises(ConfigError, match="another address"):
            await start_metrics(figures, server.address)
    finally:
        await server.close()
