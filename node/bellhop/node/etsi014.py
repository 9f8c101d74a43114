"""Key delivery to applications: the server of ETSI GS QKD 014 V1.1.1 over mutual TLS.

Rules.  The caller is who its certificate says, on every request; it must be an SAE of this KME.
Keys are erased and recorded on the disk before their answer is written: a lost answer is a lost
key, never a key handed out twice.  Of what the standard leaves open:

    no keys at the moment      503 with Retry-After and the number available
    an unknown slave SAE       400
    a URL outside the API      404, another method 405, both with an Error body
    multicast                  max_SAE_ID_count is 0
    extension_optional         ignored

A request that is no HTTP at all is answered by aiohttp with 400 and plain text.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bellhop.hal.errors import KeyStoreError, PeerError
from bellhop.hal.operations import NodeName
from bellhop.node import etsi014_messages as messages
from bellhop.node.etsi014_messages import Detail, KeyOrder, Limits, Refused
from bellhop.node.http_server import CLIENT_LEFT, MALFORMED_HTTP, Refuse, only_noted
from bellhop.node.keystore import (
    EmulatedRefused,
    Fetched,
    FetchRequest,
    InsufficientKeys,
    KeyStore,
    NotFound,
    NotYetAllocated,
    NotYours,
    SourceUnmet,
    Taken,
    TakeRequest,
)
from bellhop.node.observe import LOGGER, note
from bellhop.node.tls import sae_of_peercert
from bellhop.stack.core import KeysTaken
from bellhop.stack.ids import KeyId, SaeId

BODY_BYTES_MAX: Final = 64 * 1024
BODY_WAIT_S: Final = 10.0
REQUESTS_MAX: Final = 1024
"""Requests in work at one time; those beyond are asked to come again."""

RETRY_AFTER_S: Final = 30
"""When to ask again for keys: sessions take minutes."""

EMULATED_REFUSED: Final = "this KME is in production and refuses to deliver emulated keys"

_PATH: Final = re.compile(r"/api/v1/keys/(?P<sae>[^/]+)/(?P<call>status|enc_keys|dec_keys)")
_METHODS: Final = {"status": ("GET",), "enc_keys": ("GET", "POST"), "dec_keys": ("GET", "POST")}


@dataclass(frozen=True, slots=True)
class Sae:
    """Where an application fetches its keys."""

    node: NodeName
    kme_id: str


@dataclass(frozen=True, slots=True)
class EtsiSettings:
    """This KME.  Sizes in bits, all of them multiples of 8; `production` refuses emulated keys.

    `common_name_identity`: know an SAE whose certificate has no bellhop: name by its common name.
    """

    kme_id: str
    node: NodeName
    key_size_bits: int = 256
    min_key_size_bits: int = 64
    max_key_size_bits: int = 1024
    max_key_per_request: int = 128
    max_key_count: int = 100_000
    allocation_wait_ns: int = 2 * 10**9
    common_name_identity: bool = False
    production: bool = False


def make_app(
    settings: EtsiSettings,
    store: KeyStore,
    saes: Mapping[SaeId, Sae],
    on_taken: Callable[[KeysTaken], None],
    refuse: Refuse = only_noted,
) -> web.Application:
    """The application; `saes` are those of the whole network, looked up at each request.

    `on_taken` hears of deliveries to masters, which are durable and in the outbox by then;
    `refuse` of bodies that never came whole.
    """
    delivery = _Delivery(settings, store, saes, on_taken, refuse)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_route("*", "/{path:.*}", delivery.answer)
    return app


@dataclass(frozen=True, slots=True)
class _Call:
    """A request whose caller is known.  `named`: the SAE in the path."""

    caller: SaeId
    named: SaeId
    method: str
    query: str
    body: bytes


class _Delivery:
    def __init__(
        self,
        settings: EtsiSettings,
        store: KeyStore,
        saes: Mapping[SaeId, Sae],
        on_taken: Callable[[KeysTaken], None],
        refuse: Refuse,
    ) -> None:
        self._settings = settings
        self._limits = Limits(
            settings.key_size_bits,
            settings.min_key_size_bits,
            settings.max_key_size_bits,
            settings.max_key_per_request,
        )
        self._store = store
        self._saes = saes
        self._on_taken = on_taken
        self._refuse = refuse
        self._in_work = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer anything, with JSON."""
        if self._in_work >= REQUESTS_MAX:
            return _error(503, "too many requests at a time", retry_after_s=1)
        self._in_work += 1
        try:
            return await self._route(request)
        except _BodyLost as lost:
            self._refuse(lost.reason, "a request's body did not come whole")
            return _error(400, "the body did not come whole")
        except Refused as refused:
            level = logging.WARNING if refused.status == 401 else logging.DEBUG
            note("etsi014_refused", {"status": refused.status, "why": refused.message}, level)
            return _error(refused.status, refused.message, *refused.details)
        except KeyStoreError as error:
            note("etsi014_failed", {"message": error.message}, logging.ERROR)
            return _error(503, "the key store of this KME has failed")
        except Exception:  # noqa: BLE001 - the top of a request; the standard knows no 500
            LOGGER.exception("etsi014_failed")
            return _error(503, "this KME has failed")
        finally:
            self._in_work -= 1

    async def _route(self, request: web.Request) -> web.Response:
        # the raw path: a router would decode %2F before it splits
        path, query = request.rel_url.raw_path, request.rel_url.raw_query_string
        match = _PATH.fullmatch(path)
        if match is None:
            return _error(404, "there is no such resource in ETSI GS QKD 014 V1.1.1")
        name = match["call"]
        if request.method not in _METHODS[name]:
            response = _error(405, f"{name} is not called by {request.method[:16]}")
            response.headers["Allow"] = ", ".join(_METHODS[name])
            return response
        caller = self._caller(request)
        named = messages.read_sae_id(match["sae"])
        call = _Call(caller, named, request.method, query, await _body(request, query))
        if name == "status":
            return await self._status(call)
        return await (self._enc_keys(call) if name == "enc_keys" else self._dec_keys(call))

    def _caller(self, request: web.Request) -> SaeId:
        transport = request.transport
        if transport is None:
            raise Refused("the connection is gone", status=401)
        try:
            caller = SaeId(
                sae_of_peercert(
                    transport.get_extra_info("peercert"), self._settings.common_name_identity
                )
            )
        except PeerError as error:
            raise Refused(error.message, status=401) from None
        sae = self._saes.get(caller)
        if sae is None or sae.node != self._settings.node:
            raise Refused(
                "the SAE of the client certificate is not one of this KME",
                {"SAE_ID": caller},
                {"KME_ID": self._settings.kme_id},
                status=401,
            )
        return caller

    def _slave(self, call: _Call) -> Sae:
        slave = self._saes.get(call.named)
        if slave is None:
            raise Refused("unknown slave_SAE_ID", {"slave_SAE_ID": call.named})
        if slave.node == self._settings.node:
            raise Refused(
                "the slave SAE is one of this KME, and quantum keys are shared between two",
                {"slave_SAE_ID": call.named},
            )
        return slave

    async def _status(self, call: _Call) -> web.Response:
        slave, settings = self._slave(call), self._settings
        if call.query:
            raise Refused("status has no parameters")
        stock = await self._store.stock(slave.node, settings.key_size_bits, settings.production)
        return _json(
            200,
            msgspec.json.encode(
                {
                    "source_KME_ID": settings.kme_id,
                    "target_KME_ID": slave.kme_id,
                    "master_SAE_ID": call.caller,
                    "slave_SAE_ID": call.named,
                    "key_size": settings.key_size_bits,
                    "stored_key_count": min(stock.keys, settings.max_key_count),
                    "max_key_count": settings.max_key_count,
                    "max_key_per_request": settings.max_key_per_request,
                    "max_key_size": settings.max_key_size_bits,
                    "min_key_size": settings.min_key_size_bits,
                    "max_SAE_ID_count": 0,
                    "status_extension": {"bellhop_sources": stock.sources},
                }
            ),
        )

    async def _enc_keys(self, call: _Call) -> web.Response:
        slave = self._slave(call)
        if call.method == "GET":
            order = messages.read_key_query(call.query, self._limits)
        else:
            order = messages.read_key_request(call.body, self._limits)
        outcome = await self._store.take(self._take_request(call, slave, order))
        match outcome:
            case Taken(keys, told):
                self._on_taken(told)
                _note_delivery("etsi014_master", call, len(keys))
                return _json(200, messages.write_container(keys))
            case InsufficientKeys(available):
                return _error(
                    503,
                    "not enough keys at the moment",
                    {"available": available},
                    retry_after_s=RETRY_AFTER_S,
                )
            case EmulatedRefused(available):
                return _emulated(available)
            case SourceUnmet(available):
                raise Refused(messages.MANDATORY_UNMET, {"available": available})
            case _ as unknown:
                assert_never(unknown)

    def _take_request(self, call: _Call, slave: Sae, order: KeyOrder) -> TakeRequest:
        return TakeRequest(
            peer=slave.node,
            master=call.caller,
            slave=call.named,
            number=order.number,
            size_bits=order.size_bits,
            production=self._settings.production,
            source=order.source,
        )

    async def _dec_keys(self, call: _Call) -> web.Response:
        key_ids: tuple[KeyId, ...]
        if call.method == "GET":
            key_ids = messages.read_key_id_query(call.query)
        else:
            key_ids = messages.read_key_ids(call.body, self._limits)
        outcome = await self._store.fetch(
            FetchRequest(call.named, call.caller, key_ids, self._settings.production),
            wait_s=self._settings.allocation_wait_ns / 1e9,
        )
        match outcome:
            case Fetched(keys):
                _note_delivery("etsi014_slave", call, len(keys))
                return _json(200, messages.write_container(keys))
            case NotFound(named) | NotYetAllocated(named):
                raise Refused(messages.KEYS_NOT_FOUND, *_details(named))
            case NotYours(named):
                raise Refused("the keys are another SAE's", *_details(named), status=401)
            case EmulatedRefused(available):
                return _emulated(available)
            case _ as unknown:
                assert_never(unknown)


class _BodyLost(Exception):
    """The client left, or what it sent is not HTTP: in most cases nobody reads an answer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def _body(request: web.Request, query: str) -> bytes:
    """The body of a POST; a GET has none, and a POST no query: neither is silently ignored."""
    if request.method == "GET":
        if request.can_read_body:
            raise Refused("a GET has no body: use POST")
        return b""
    if query:
        raise Refused("a POST has no query: all parameters stand in its body")
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refused(f"the body is longer than {BODY_BYTES_MAX} bytes") from None
    except ConnectionError:
        raise _BodyLost(CLIENT_LEFT) from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise _BodyLost(MALFORMED_HTTP) from None
    except TimeoutError:
        raise Refused(f"the body did not come within {BODY_WAIT_S:g} s") from None


def _details(key_ids: tuple[KeyId, ...]) -> tuple[Detail, ...]:
    return tuple({"key_ID": key_id} for key_id in key_ids)


def _note_delivery(event: str, call: _Call, keys: int) -> None:
    note(event, {"caller": call.caller, "other": call.named, "keys": keys})


def _emulated(available: int) -> web.Response:
    """To ask again does not help, so nobody is told when."""
    return _error(503, EMULATED_REFUSED, {"available": available})


def _error(
    status: int, message: str, *details: Detail, retry_after_s: int | None = None
) -> web.Response:
    response = _json(status, messages.write_error(message, details))
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(retry_after_s)
    return response


def _json(status: int, body: bytes) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
