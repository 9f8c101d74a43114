"""What a node says about itself: structured log records, and what C libraries write on stderr.

A record is an event's name and flat fields.  Values of any other type than int, float, str or bool
are refused, so that no key, block or array can slip into a log by its repr.
"""

import atexit
import datetime
import faulthandler
import json
import logging
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Literal

from bellhop.node.frames import raised_in

Value = int | float | str | bool
Fields = Mapping[str, Value]
Format = Literal["json", "text"]

EVENT_CHARACTERS_MAX = 100
LINE_CHARACTERS_MAX = 2000
"""Longer lines of foreign output are cut."""

REFUSALS_BURST = 20
REFUSALS_PER_SECOND = 2.0
"""Refusals of a kind beyond this are counted, not logged: whoever knocks must not fill the disk."""

LOGGER = logging.getLogger("bellhop")

_RESERVED = frozenset({"time", "level", "event"})
_FIELDS = "bellhop_fields"
_HANDSHAKE = "tls_handshake_refused"


def note(event: str, fields: Fields | None = None, level: int = logging.INFO) -> None:
    """Log `event` with `fields`.

    Fields are int, float, str or bool: an assertion refuses anything else, bytes and arrays above
    all.
    """
    checked = check_fields(fields or {})
    LOGGER.log(level, "%s", event[:EVENT_CHARACTERS_MAX], extra={_FIELDS: checked})


def check_fields(fields: Fields) -> dict[str, Value]:
    """A copy of `fields` after the assertion that each may be shown."""
    for name, value in fields.items():
        assert isinstance(value, Value), f"field {name} is a {type(value).__name__}"
        assert name not in _RESERVED, f"field {name} is part of every record"
    return {name: _finite(value) for name, value in fields.items()}


def _finite(value: Value) -> Value:
    """JSON has no infinities; they become text."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, event, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_document(record), ensure_ascii=False, separators=(",", ":"))


class TextLines(logging.Formatter):
    """Lines for people; a value with spaces or control characters stands in quotes."""

    def format(self, record: logging.LogRecord) -> str:
        document = _document(record)
        moment, level, event = (str(document.pop(name)) for name in ("time", "level", "event"))
        fields = " ".join(f"{name}={_shown(value)}" for name, value in document.items())
        return f"{moment} {level:<7} {_shown(event)} {fields}".rstrip()


def _document(record: logging.LogRecord) -> dict[str, Value]:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    document: dict[str, Value] = {
        "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
    }
    fields = getattr(record, _FIELDS, None)
    if fields is None:  # a library's record: its sentence is a field, not an event's name
        document |= {"event": "log", "logger": record.name, "message": record.getMessage()}
    else:
        document |= {"event": record.getMessage(), **fields}
    if record.exc_info and record.exc_info[1] is not None:  # not its text: whose words are they?
        error = record.exc_info[1]
        document |= {"error": type(error).__name__, "frames": raised_in(error)}
    return document


def _shown(value: Value) -> str:
    text = str(value)
    plain = text.isprintable() and not any(c in ' "=' for c in text) and text
    return text if plain else json.dumps(text, ensure_ascii=True)


def configure_logs(level: str, form: Format, stream: IO[str]) -> logging.Handler:
    """Send every record of this process of at least `level` to `stream`; returns the handler."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    return handler


@dataclass(frozen=True, slots=True)
class Refusal:
    """A TLS handshake that failed: why, and the library's own words.  It does not say with whom."""

    reason: str
    detail: str


REFUSAL_REASONS = (
    "foreign_authority",
    "no_certificate",
    "expired",
    "wrong_purpose",
    "wrong_name",
    "not_tls",
    "old_tls",
    "other",
)

# What grpc 1.85 writes; the reasons are BoringSSL's.
_GRPC_LINE = re.compile(
    r"[IWEF]\d{4} \S+ +\d+ ssl_transport_security\S*\.cc:\d+\] (?P<detail>"
    r"Handshake failed with error .*|No match found for server name: .*)"
)
_REASONS = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "no_certificate"),
    ("certificate has expired", "expired"),
    ("certificate is not yet valid", "expired"),
    ("unsupported certificate purpose", "wrong_purpose"),
    ("No match found for server name", "wrong_name"),
    ("CERTIFICATE_VERIFY_FAILED", "foreign_authority"),
    ("ALERT_UNKNOWN_CA", "foreign_authority"),
    ("HTTP_REQUEST", "not_tls"),
    ("WRONG_VERSION_NUMBER", "not_tls"),
    ("UNSUPPORTED_PROTOCOL", "old_tls"),
)


def refusal_of(line: str) -> Refusal | None:
    """The refused handshake that a line of gRPC's C core tells of, if it does."""
    match = _GRPC_LINE.match(line)
    if match is None:
        return None
    detail = match["detail"]
    reason = next((reason for mark, reason in _REASONS if mark in detail), "other")
    return Refusal(reason, detail[:LINE_CHARACTERS_MAX])


class Allowance:
    """How many records of one kind may be written: a burst, then so many a second."""

    def __init__(self) -> None:
        self._left = float(REFUSALS_BURST)
        self._looked_s = time.monotonic()
        self._not_shown = 0

    def take(self) -> dict[str, Value] | None:
        """The fields to add to a record that may be written; None if it may not."""
        now_s = time.monotonic()
        earned = (now_s - self._looked_s) * REFUSALS_PER_SECOND
        self._left, self._looked_s = min(self._left + earned, float(REFUSALS_BURST)), now_s
        if self._left < 1.0:
            self._not_shown += 1
            return None
        self._left -= 1.0
        not_shown, self._not_shown = self._not_shown, 0
        return {"not_shown": not_shown} if not_shown else {}


class AdoptedStderr:
    """File descriptor 2 read line by line, until `close`; `stream` is the true stderr."""

    def __init__(self, on_refusal: Callable[[Refusal], None] | None) -> None:
        sys.stderr.flush()
        self._kept = os.dup(2)
        self.stream: IO[str] = open(  # noqa: SIM115  (closed by close)
            self._kept, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        os.close(write_end)
        self._on_refusal = on_refusal
        self._allowance = Allowance()
        self._closed = False
        self._thread = threading.Thread(
            target=self._read, args=(read_end,), name="stderr", daemon=True
        )
        self._thread.start()
        # A crash in C leaves nobody to read the pipe, an exception that ends the program does.
        faulthandler.enable(self._kept)
        atexit.register(self.close)

    def close(self) -> None:
        """Give stderr back.  What was written before is logged first."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        faulthandler.disable()
        sys.stderr.flush()
        os.dup2(self._kept, 2)  # closes the pipe's last write end here, so that the thread ends
        # A child that is still alive holds another write end; it must not hold us.
        self._thread.join(timeout=1.0)

    def _read(self, read_end: int) -> None:
        with open(read_end, encoding="utf-8", errors="backslashreplace") as lines:
            for line in lines:
                if text := line.rstrip():
                    self._log(text)

    def _log(self, line: str) -> None:
        refusal = refusal_of(line)
        if refusal is None:
            note("stderr", {"text": line[:LINE_CHARACTERS_MAX]}, logging.WARNING)
            return
        if self._on_refusal:
            self._on_refusal(refusal)
        more = self._allowance.take()
        if more is None:
            return
        fields: dict[str, Value] = {
            "reason": refusal.reason,
            "detail": refusal.detail,
            "who_must_act": "the operator of the peer",
            **more,
        }
        note(_HANDSHAKE, fields, logging.WARNING)


def adopt_stderr(on_refusal: Callable[[Refusal], None] | None = None) -> AdoptedStderr:
    """Turn what anybody writes on file descriptor 2 into log records; logs go to `.stream`.

    gRPC's C core tells of a failed handshake only there, on a level that GRPC_VERBOSITY can switch
    off and without the other end's address; call this before grpc is imported.  `on_refusal` runs
    on the reading thread, once for each refused handshake, also for those that are not logged.
    """
    if os.environ.get("GRPC_VERBOSITY", "").upper() in {"NONE", "ERROR"}:
        del os.environ["GRPC_VERBOSITY"]
    return AdoptedStderr(on_refusal)


@contextmanager
def service_logs(as_json: bool) -> Iterator[None]:
    """The logs of a service that has no configuration of its own, on an adopted stderr."""
    stderr = adopt_stderr()
    configure_logs("info", "json" if as_json else "text", stderr.stream)
    try:
        yield
    finally:
        stderr.close()
        sys.stderr.flush()
