"""ETSI GS QKD 014 over the network: what is no request of the standard is told why, exactly."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.identities import Authority
from tests.support.kmes import (
    SAE_A,
    SAE_A2,
    SAE_B,
    Kmes,
    fill_both,
    keys_url,
    running_kmes,
)

SLOTS = 60  # 30 of them Alice's
DEEP = b'{"extension_optional":[{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}]}"
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest_asyncio.fixture
async def kmes(tmp_path: Path, authority: Authority) -> AsyncIterator[Kmes]:
    async with running_kmes(tmp_path, authority) as both:
        await fill_both(both, slots=SLOTS)
        yield both


# --- 400 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"size": 257}, "size shall be a multiple of 8"),
        ({"size": 1}, "size shall be a multiple of 8"),
        ({"size": 56}, "size shall be 64 to 1024"),
        ({"size": 0}, "size shall be 64 to 1024"),
        ({"size": 1032}, "size shall be 64 to 1024"),
        ({"size": 8 * 10**30}, "size shall be 64 to 1024"),
        ({"number": 0}, "number shall be 1 to 128"),
        ({"number": -1}, "number shall be 1 to 128"),
        ({"number": 129}, "number shall be 1 to 128"),
        ({"additional_slave_SAE_IDs": ["sae-c"]}, "additional_slave_SAE_IDs is not supported"),
        (
            {"extension_mandatory": [{"abc_route_type": "direct"}]},
            "not all extension_mandatory parameters are supported",
        ),
        (
            {"extension_mandatory": [{"bellhop_source": "emulated"}, {"abc_x": 1}]},
            "not all extension_mandatory parameters are supported",
        ),
        (
            {"extension_mandatory": [{"bellhop_source": "hardware"}]},
            "not all extension_mandatory request options could be met",
        ),
        (
            {"extension_mandatory": [{"bellhop_source": ["emulated"]}]},
            "not all extension_mandatory request options could be met",
        ),
        (
            {"extension_mandatory": [{"bellhop_source": "emulated"}, {"bellhop_source": "x"}]},
            "not all extension_mandatory request options could be met",
        ),
        ({"number": "1"}, "the request does not fit the data model"),
        ({"number": 1.0}, "the request does not fit the data model"),
        ({"number": True}, "the request does not fit the data model"),
        ({"size": "256"}, "the request does not fit the data model"),
        ({"nubmer": 1}, "the request does not fit the data model"),
        ({"extension_mandatory": {}}, "the request does not fit the data model"),
        ({"extension_optional": [1]}, "the request does not fit the data model"),
        ({"additional_slave_SAE_IDs": "sae-c"}, "the request does not fit the data model"),
        ([], "the request does not fit the data model"),
    ],
)
async def test_wrong_key_requests_are_told_why(kmes: Kmes, body: object, message: str) -> None:
    refused = await kmes.call(SAE_A, "POST", keys_url(kmes.alice, SAE_B, "enc_keys"), body)
    assert (refused.status, refused.message) == (400, message)
    assert (await kmes.take(SAE_A, SAE_B, number=SLOTS // 2)).status == 200  # and cost nothing


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?size=257", "size shall be a multiple of 8"),
        ("?size=32", "size shall be 64 to 1024"),
        ("?number=0", "number shall be 1 to 128"),
        ("?number=129", "number shall be 1 to 128"),
        ("?number=-1", "number shall be a whole number"),
        ("?number=1.0", "number shall be a whole number"),
        ("?size=", "size shall be a whole number"),
        ("?size=%D9%A3", "size shall be a whole number"),  # a digit, though not of ASCII
        ("?number=1&number=1", "each parameter shall stand once"),
        ("?nubmer=1", "unknown parameter"),
        ("?number", "the query is malformed"),
        ("?number=%FF", "the query is malformed"),
    ],
)
async def test_wrong_queries_are_told_why(kmes: Kmes, query: str, message: str) -> None:
    refused = await kmes.call(SAE_A, "GET", keys_url(kmes.alice, SAE_B, "enc_keys", query))
    assert (refused.status, refused.message) == (400, message)


@pytest.mark.parametrize(
    "data",
    [b"{", b"\xff", b'{"number":1} x', b'{"size":NaN}', b'{"\xff":1}', DEEP],
    ids=["cut", "bytes", "tail", "nan", "utf-8", "deep"],
)
@pytest.mark.parametrize("name", ["enc_keys", "dec_keys"])
async def test_what_is_not_json_is_no_request(kmes: Kmes, data: bytes, name: str) -> None:
    refused = await kmes.call(SAE_A, "POST", keys_url(kmes.alice, SAE_B, name), data=data)
    assert refused.status == 400 and refused.message.startswith("the request ")


async def test_bodies_are_bounded_and_stand_where_they_belong(kmes: Kmes) -> None:
    url = keys_url(kmes.alice, SAE_B, "enc_keys")
    refused = await kmes.call(SAE_A, "POST", url, data=b" " * 65_537)
    assert (refused.status, refused.message) == (400, "the body is longer than 65536 bytes")
    refused = await kmes.call(SAE_A, "GET", url, {"size": 512})
    assert (refused.status, refused.message) == (400, "a GET has no body: use POST")
    refused = await kmes.call(SAE_A, "POST", url + "?size=512", {})
    assert refused.status == 400 and refused.message.startswith("a POST has no query")
    refused = await kmes.call(SAE_A, "GET", keys_url(kmes.alice, SAE_B, "status", "?size=1"))
    assert (refused.status, refused.message) == (400, "status has no parameters")


@pytest.mark.parametrize(
    ("key_ids", "message"),
    [
        ([UNKNOWN_ID], "one or more keys specified are not found on KME"),
        (["not a uuid"], "key_ID shall be a UUID"),
        (["\0"], "key_ID shall be a UUID"),
        ([UNKNOWN_ID, UNKNOWN_ID], "key_IDs shall name each key once"),
        ([UNKNOWN_ID, UNKNOWN_ID.replace("a", "A").replace("8", "9")] * 65, "key_IDs shall name 1"),
        ([], "key_IDs shall name 1 to 128 keys"),
        ([1], "the request does not fit the data model"),
    ],
)
async def test_wrong_key_ids_are_told_why(kmes: Kmes, key_ids: list[str], message: str) -> None:
    refused = await kmes.fetch(SAE_B, SAE_A, *key_ids)
    assert refused.status == 400 and refused.message.startswith(message)


@pytest.mark.parametrize("body", [None, {}, {"key_IDs": None}, {"key_IDs": [{}]}, {"keys": []}])
async def test_a_fetch_names_its_keys(kmes: Kmes, body: object) -> None:
    url = keys_url(kmes.bob, SAE_A, "dec_keys")
    assert (await kmes.call(SAE_B, "POST", url, body)).status == 400


@pytest.mark.parametrize("query", ["", "?key_ID=", "?key_ID=x", f"?key_ID={UNKNOWN_ID}&a=1"])
async def test_a_fetch_by_get_names_one_key(kmes: Kmes, query: str) -> None:
    refused = await kmes.call(SAE_B, "GET", keys_url(kmes.bob, SAE_A, "dec_keys", query))
    assert refused.status == 400


async def test_slaves_are_known_and_elsewhere(kmes: Kmes) -> None:
    for name in ("status", "enc_keys"):
        refused = await kmes.call(SAE_A, "GET", keys_url(kmes.alice, "sae-c", name))
        assert (refused.status, refused.message) == (400, "unknown slave_SAE_ID")
        assert refused.body["details"] == [{"slave_SAE_ID": "sae-c"}]
        refused = await kmes.call(SAE_A, "GET", keys_url(kmes.alice, SAE_A2, name))
        assert refused.status == 400 and "one of this KME" in refused.message


@pytest.mark.parametrize("segment", ["%FF", "%zz", "%", "a%2", "ü", "a b"])
async def test_paths_are_url_encoded(kmes: Kmes, segment: str) -> None:
    """Sent by hand: a client library would repair it."""
    port = int(kmes.alice.rpartition(":")[2])
    reader, writer = await asyncio.open_connection(
        "localhost", port, ssl=kmes.context(SAE_A), server_hostname="localhost"
    )
    target = f"/api/v1/keys/{segment}/status"
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    assert answer.split()[1] == b"400"
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/keys",
        "/api/v1/keys//status",
        "/api/v2/keys/sae-b/status",
        "/api/v1/keys/sae-b/status/",
        "/api/v1/keys/sae-b/keys",
        "/api/v1/keys/a/b/status",
    ],
)
async def test_there_is_nothing_outside_the_api(kmes: Kmes, path: str) -> None:
    answer = await kmes.call(SAE_A, "GET", kmes.alice + path)
    assert answer.status == 404 and set(answer.body) == {"message"}


@pytest.mark.parametrize(
    ("method", "name", "allowed"),
    [
        ("POST", "status", "GET"),
        ("HEAD", "status", "GET"),
        ("PUT", "enc_keys", "GET, POST"),
        ("DELETE", "dec_keys", "GET, POST"),
    ],
)
async def test_other_methods_are_refused(kmes: Kmes, method: str, name: str, allowed: str) -> None:
    answer = await kmes.call(SAE_A, method, keys_url(kmes.alice, SAE_B, name))
    assert (answer.status, answer.headers["Allow"]) == (405, allowed)
