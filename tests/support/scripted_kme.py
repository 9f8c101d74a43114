"""An HTTPS end that answers an application's requests as a test tells it to, over real mutual TLS.

It stands where the daemon's key delivery stands, for answers that no sound daemon gives.
"""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bellhop.node.tls import Credentials, sae_of_peercert, server_context


@dataclass
class Asked:
    """One request as it arrived; `path` still encoded."""

    caller: str
    method: str
    path: str
    body: Any


Answer = Callable[[Asked], web.Response]


@dataclass
class ScriptedKme:
    """Where it listens and what it was asked."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)


def container(**keys: bytes) -> web.Response:
    """A key container (ETSI GS QKD 014, table 11)."""
    rows = [{"key_ID": i, "key": base64.b64encode(key).decode()} for i, key in keys.items()]
    return web.json_response({"keys": rows})


@contextmanager
def scripted_kme(credentials: Credentials, answer: Answer) -> Iterator[ScriptedKme]:
    """Serve on loopback in a thread of its own, because commands bring their own loop."""
    kme = ScriptedKme()

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        caller = sae_of_peercert(request.transport.get_extra_info("peercert"))
        body = await request.json() if request.can_read_body else None
        kme.asked.append(Asked(caller, request.method, request.rel_url.raw_path, body))
        return answer(kme.asked[-1])

    async def serve(ready: threading.Event, stop: asyncio.Event) -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        context = server_context(credentials)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        kme.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        ready.set()
        await stop.wait()
        await runner.cleanup()

    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(ready, stop),))
    thread.start()
    assert ready.wait(10)
    try:
        yield kme
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
