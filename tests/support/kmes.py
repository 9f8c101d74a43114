"""Two key management entities with real stores, real TLS and real sockets, and how to call them.

A test knows of `Kmes` only the two base URLs, the authority and the word that passes between the
nodes, so that two daemons can stand in for what is started here.
"""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import yarl
from aiohttp import web
from tests.support.distilled import ALICE, BOB, block_of, fill, open_store
from tests.support.identities import Authority

from bellhop.hal.operations import NodeName
from bellhop.node.etsi014 import EtsiSettings, Sae, make_app
from bellhop.node.http_server import Refuse, make_runner, only_noted
from bellhop.node.keystore import KeyStore
from bellhop.node.tls import PartyKind, client_context, server_context
from bellhop.stack.core import KeysTaken, RecordAllocations
from bellhop.stack.ids import SaeId

SAE_A: Final = SaeId("sae-a")
SAE_A2: Final = SaeId("50%/é: 1")
SAE_B: Final = SaeId("sae-b")
SAE_B2: Final = SaeId("a/b:ü?#&+%2F")
SAES: Final[Mapping[SaeId, Sae]] = {
    SAE_A: Sae(ALICE, "kme-alice"),
    SAE_A2: Sae(ALICE, "kme-alice"),
    SAE_B: Sae(BOB, "kme-bob"),
    SAE_B2: Sae(BOB, "kme-bob"),
}
SETTINGS: Final = EtsiSettings(kme_id="kme-alice", node=ALICE)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: `body` is its JSON."""

    status: int
    headers: Mapping[str, str]
    body: Any = field(repr=False)

    @property
    def message(self) -> str:
        """Of an Error body."""
        return str(self.body["message"])

    @property
    def keys(self) -> dict[str, bytes]:
        """Of a key container: the bytes by key id."""
        assert self.status == 200, self.body
        return {
            key["key_ID"]: base64.b64decode(key["key"], validate=True) for key in self.body["keys"]
        }


@dataclass(slots=True)
class Kmes:
    """Alice's and Bob's, and whoever calls them."""

    alice: str
    bob: str
    authority: Authority
    session: aiohttp.ClientSession
    stores: Mapping[NodeName, KeyStore]
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def context(self, sae: str) -> ssl.SSLContext:
        """The TLS client of an SAE."""
        if sae not in self.contexts:
            credentials = self.authority.credentials(PartyKind.SAE, sae)
            self.contexts[sae] = client_context(credentials)
        return self.contexts[sae]

    async def call(
        self,
        sae: str | ssl.SSLContext,
        method: str,
        url: str,
        body: object = None,
        data: bytes | None = None,
    ) -> Answer:
        """One request by `sae`, an identifier or a TLS client of one's own."""
        context = sae if isinstance(sae, ssl.SSLContext) else self.context(sae)
        async with self.session.request(
            method, yarl.URL(url, encoded=True), json=body, data=data, ssl=context
        ) as response:
            if method != "HEAD":
                assert response.headers["Content-Type"].startswith("application/json")
            return Answer(
                response.status,
                dict(response.headers),
                None if method == "HEAD" else await response.json(),
            )

    async def take(self, master: str, slave: str, **body: object) -> Answer:
        """enc_keys by POST at Alice's."""
        return await self.call(master, "POST", keys_url(self.alice, slave, "enc_keys"), body)

    async def fetch(self, slave: str | ssl.SSLContext, master: str, *key_ids: str) -> Answer:
        """dec_keys by POST at Bob's."""
        body = {"key_IDs": [{"key_ID": key_id} for key_id in key_ids]}
        return await self.call(slave, "POST", keys_url(self.bob, master, "dec_keys"), body)


def keys_url(kme: str, sae: str, call: str, query: str = "") -> str:
    """Where `call` is, about the other SAE."""
    return f"{kme}/api/v1/keys/{quote(sae, safe='')}/{call}{query}"


async def fill_both(kmes: Kmes, number: int = 1, slots: int = 8, source: str = "emulated") -> None:
    """What a session leaves in both stores; the even slots are Alice's."""
    await fill(kmes.stores[ALICE], block_of(number, slots, source=source))
    await fill(kmes.stores[BOB], block_of(number, slots, peer=ALICE, me=BOB, source=source))


@asynccontextmanager
async def running_kmes(
    folder: Path,
    authority: Authority,
    settings: EtsiSettings = SETTINGS,
    deliver: Callable[[KeysTaken], bool] = lambda told: True,
    refuse: Refuse = only_noted,
) -> AsyncIterator[Kmes]:
    """Both, over the stores in `folder`.  `deliver`: whether Bob's node hears of a delivery."""
    telling: set[asyncio.Task[object]] = set()
    async with AsyncExitStack() as stack:
        stores = {
            node: await stack.enter_async_context(await open_store(folder / node, node))
            for node in (ALICE, BOB)
        }

        def tell_bob(told: KeysTaken) -> None:
            if deliver(told):
                action = RecordAllocations(ALICE, told.allocations)
                telling.add(asyncio.create_task(stores[BOB].record_allocations(action)))

        urls = {}
        for node, on_taken in ((ALICE, tell_bob), (BOB, lambda told: None)):
            here = replace(settings, kme_id=f"kme-{node}", node=node)
            app = make_app(here, stores[node], SAES, on_taken, refuse)
            urls[node] = await stack.enter_async_context(
                _serving(app, authority, here.kme_id, refuse)
            )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Kmes(urls[ALICE], urls[BOB], authority, session, stores)
        await asyncio.gather(*telling)


@asynccontextmanager
async def _serving(
    app: web.Application, authority: Authority, kme: str, refuse: Refuse
) -> AsyncIterator[str]:
    runner = make_runner(app, refuse)
    await runner.setup()
    try:
        context = server_context(authority.credentials(PartyKind.KME, kme))
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
