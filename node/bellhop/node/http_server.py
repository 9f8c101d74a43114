"""What is common to the HTTP ends of a node: their trouble is told in our own words."""

import logging
from collections.abc import Callable
from typing import Any

import aiohttp.web_response
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bellhop.node.frames import raised_in
from bellhop.node.observe import Fields, note

CLIENT_LEFT = "client_left"
MALFORMED_HTTP = "malformed_http"

Refuse = Callable[[str, str], None]
"""Hears, of what is refused, a reason of the two above and our own words about it."""

# The only place from which the library's answers to what is no HTTP take it.
aiohttp.web_response.SERVER_SOFTWARE = "Bellhop"  # type: ignore[attr-defined]  # not exported


WHO: Fields = {"who_must_act": "the operator of the application"}


def only_noted(reason: str, detail: str) -> None:
    """A `Refuse` that counts nothing."""
    note("refused", {"reason": reason, "detail": detail, **WHO}, logging.WARNING)


def make_runner(app: web.Application, refuse: Refuse = only_noted) -> web.AppRunner:
    """A runner that writes no access log and lets a delivery end when its client has gone."""
    return web.AppRunner(
        app, access_log=None, handler_cancellation=False, logger=_ServerLogger(refuse)
    )


class _ServerLogger(logging.Logger):
    """What the library says of a connection.  Its own texts quote what was received."""

    def __init__(self, refuse: Refuse) -> None:
        super().__init__("aiohttp.server", logging.DEBUG)  # some of what is no HTTP is told so low
        self._refuse = refuse

    def handle(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            self._refuse(MALFORMED_HTTP, type(error).__name__)
            return
        if record.levelno < logging.ERROR or isinstance(error, web.RequestPayloadError):
            return  # a broken body is told of by whoever reads it
        fields: dict[str, Any] = {}
        if error is not None:
            fields = {"error": type(error).__name__, "frames": raised_in(error)}
        note("http_failed", fields, record.levelno)
