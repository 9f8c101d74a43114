"""Requests of any kind to the key delivery service: keys or a refusal in JSON, nothing else.

The service runs with a real store behind real TLS.  Whatever comes, it neither fails nor hands a
key out twice, and no key is lost but those that it handed out.
"""

import base64
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.distilled import ALICE, session_id, slot_id
from tests.support.identities import Authority
from tests.support.kmes import SAE_A, SAE_A2, SAE_B, SAE_B2, Kmes, fill_both, running_kmes
from tests.support.relay import Loop

from bellhop.node.keystore.delivery import slots_for

SLOTS = 4_000
STATUSES = {200, 400, 401, 404, 405, 503}
FAILED = "this KME has failed"
EXAMPLES = settings(
    max_examples=100,
    deadline=None,
    # one service for all examples: what it must keep is checked after each
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass
class Target:
    """Alice's KME, and which keys it has handed out."""

    kmes: Kmes
    loop: Loop
    taken: set[str] = field(default_factory=set)
    slots: int = 0

    def send(self, request: bytes) -> tuple[int, Any]:
        """Bytes over a connection of sae-a's own; the status and the JSON of the answer."""
        port = int(self.kmes.alice.rpartition(":")[2])
        with socket.create_connection(("localhost", port), 20) as plain:
            context = self.kmes.context(SAE_A)
            with closing(context.wrap_socket(plain, server_hostname="localhost")) as tls:
                tls.sendall(request)
                answer = b""
                while part := tls.recv(65_536):
                    answer += part
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"application/json" not in head:
            assert head.split()[1] == b"400", head  # no HTTP at all: aiohttp's own words
            return 400, None
        return int(head.split()[1]), json.loads(body or b"null")

    def checked(self, request: bytes) -> int:
        """Send, and check what must hold; returns the status."""
        try:
            status, body = self.send(request)
        except (ConnectionError, ssl.SSLError):
            return 0  # the end of the connection is an answer to what is no HTTP
        assert status in STATUSES
        if status == 200 and "keys" in body:
            self.note(body["keys"])
        elif status != 200 and body is not None:
            assert isinstance(body["message"], str) and body["message"] != FAILED
        return status

    def note(self, rows: list[dict[str, Any]]) -> None:
        ids = {row["key_ID"] for row in rows}
        assert len(ids) == len(rows) and not ids & self.taken, "a key goes out once"
        self.taken |= ids
        self.slots += sum(slots_for(8 * len(base64.b64decode(row["key"]))) for row in rows)

    def stock(self) -> int:
        return self.loop.run(self.kmes.stores[ALICE].stock("bob", 256)).keys  # type: ignore[arg-type] # a NodeName is a str


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    loop = Loop()
    folder = tmp_path_factory.mktemp("kmes")
    running = running_kmes(folder, Authority(folder / "authority"))
    kmes = loop.run(running.__aenter__())
    loop.run(fill_both(kmes, slots=SLOTS))
    yield Target(kmes, loop)
    loop.run(running.__aexit__(None, None, None))
    loop.close()


def request(method: str, target: str, body: bytes | None = None) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode("utf-8", "surrogateescape") + b"\r\n" + (body or b"")


# --- paths and queries ----------------------------------------------------------------------------

_methods = st.sampled_from(["GET", "GET", "POST", "PUT", "HEAD", "OPTIONS", "BREW"])
_saes = st.one_of(
    st.sampled_from([SAE_A, SAE_B, quote(SAE_A2, safe=""), quote(SAE_B2, safe="")]),
    st.sampled_from(["%", "%FF", "%2F", "..", ""]),
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), max_size=20),
)
_calls = st.sampled_from(["status", "enc_keys", "dec_keys", "keys", "status/", "Status", ""])
_values = st.one_of(
    st.integers(-2, 3).map(str),
    st.integers(0, 10**12).map(str),
    st.sampled_from(["64", "256", "512", "1024", "1e3", "٣", "+1", "", slot_id(session_id(1), 0)]),
    st.text(st.characters(codec="ascii", exclude_characters=" \r\n#"), max_size=12),
)
_queries = st.lists(
    st.tuples(st.sampled_from(["number", "size", "key_ID", "Number", "x"]), _values), max_size=4
).map(lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs) if pairs else "")


@EXAMPLES
@given(_methods, _saes, _calls, _queries)
def test_any_path_and_query(target: Target, method: str, sae: str, call: str, query: str) -> None:
    target.checked(request(method, f"/api/v1/keys/{sae}/{call}{query}"))


@EXAMPLES
@given(st.text(max_size=60))
def test_any_target(target: Target, text: str) -> None:
    target.checked(request("GET", "/" + text.encode("utf-8", "replace").decode()))


@EXAMPLES
@given(st.binary(max_size=300))
def test_any_bytes(target: Target, data: bytes) -> None:
    """And a request behind them, so that there is something to answer."""
    target.checked(data + b"\r\n\r\n" + request("GET", "/"))


# --- bodies ---------------------------------------------------------------------------------------

_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.integers(-(10**30), 10**30),
    st.sampled_from([64, 256, 512, 1024, 1.0, "emulated", "hardware", slot_id(session_id(1), 2)]),
    st.floats(),
    st.text(max_size=20),
)
_json = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
_options = st.dictionaries(st.sampled_from(["bellhop_source", "abc_x"]), _json, max_size=2)
_extensions = st.one_of(_json, st.lists(_options, max_size=2))
_orders = st.fixed_dictionaries(
    {},
    optional={
        "number": _leaves,
        "size": _leaves,
        "additional_slave_SAE_IDs": _json,
        "extension_mandatory": _extensions,
        "extension_optional": _extensions,
    },
)
_key_ids = st.lists(st.fixed_dictionaries({"key_ID": _leaves}), max_size=3)
_fetches = st.fixed_dictionaries(
    {}, optional={"key_IDs": st.one_of(_json, _key_ids), "key_IDs_extension": _json}
)


@EXAMPLES
@given(st.one_of(_orders, _json))
def test_any_key_request(target: Target, order: object) -> None:
    body = json.dumps(order).encode()
    target.checked(request("POST", f"/api/v1/keys/{SAE_B}/enc_keys", body))


@EXAMPLES
@given(st.one_of(_fetches, _json))
def test_any_fetch(target: Target, fetch: object) -> None:
    body = json.dumps(fetch).encode()
    assert target.checked(request("POST", f"/api/v1/keys/{SAE_B}/dec_keys", body)) != 200


@EXAMPLES
@given(st.sampled_from(["enc_keys", "dec_keys"]), st.binary(max_size=200))
def test_any_body(target: Target, call: str, body: bytes) -> None:
    target.checked(request("POST", f"/api/v1/keys/{SAE_B}/{call}", body))


@EXAMPLES
@given(_orders, st.data())
def test_mutated_key_requests(
    target: Target, order: dict[str, object], data: st.DataObject
) -> None:
    body = bytearray(json.dumps(order).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(body)))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    target.checked(request("POST", f"/api/v1/keys/{SAE_B}/enc_keys", bytes(body)))


def test_after_all_this_every_key_is_accounted_for(target: Target) -> None:
    """What is neither in stock nor handed out is lost; and a good request is still answered."""
    body = json.dumps({"number": 2, "size": 512}).encode()
    before = target.slots
    assert target.checked(request("POST", f"/api/v1/keys/{SAE_B}/enc_keys", body)) == 200
    assert target.slots == before + 4
    assert target.stock() + target.slots == SLOTS // 2
