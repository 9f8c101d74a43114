"""ETSI GS QKD 014 V1.1.1 over the network: every endpoint, every message, every identity."""

import asyncio
import base64
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from tests.support.distilled import ALICE, BOB, session_id, slot_id, slot_key
from tests.support.identities import Authority
from tests.support.kmes import (
    SAE_A,
    SAE_A2,
    SAE_B,
    SAE_B2,
    SETTINGS,
    Kmes,
    fill_both,
    keys_url,
    running_kmes,
)

from bellhop.stack.core import KeysTaken, RecordAllocations

SLOTS = 60  # 30 of them Alice's
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest_asyncio.fixture
async def kmes(tmp_path: Path, authority: Authority) -> AsyncIterator[Kmes]:
    async with running_kmes(tmp_path, authority) as both:
        await fill_both(both, slots=SLOTS)
        yield both


# --- what succeeds --------------------------------------------------------------------------------


async def test_status_says_what_can_be_had(kmes: Kmes) -> None:
    url = keys_url(kmes.alice, SAE_B, "status")
    status = await kmes.call(SAE_A, "GET", url)
    assert status.status == 200
    assert status.body == {
        "source_KME_ID": "kme-alice",
        "target_KME_ID": "kme-bob",
        "master_SAE_ID": SAE_A,
        "slave_SAE_ID": SAE_B,
        "key_size": 256,
        "stored_key_count": SLOTS // 2,
        "max_key_count": 100_000,
        "max_key_per_request": 128,
        "max_key_size": 1024,
        "min_key_size": 64,
        "max_SAE_ID_count": 0,
        "status_extension": {"bellhop_sources": ["emulated"]},
    }
    await kmes.take(SAE_A, SAE_B, number=3, size=512)
    assert (await kmes.call(SAE_A, "GET", url)).body["stored_key_count"] == SLOTS // 2 - 6


@pytest.mark.parametrize(
    ("query", "body", "number", "size_bits"),
    [
        ("", None, 1, 256),
        ("?number=3", None, 3, 256),
        ("?size=64&number=2", None, 2, 64),
        ("", {}, 1, 256),
        ("", {"number": 2}, 2, 256),
        ("", {"size": 1024, "number": 2}, 2, 1024),
        ("", {"size": 264, "additional_slave_SAE_IDs": []}, 1, 264),
        ("", {"extension_mandatory": None, "extension_optional": None}, 1, 256),
        ("", {"extension_optional": [{"abc_route_type": "direct"}, {"abc_max_age": 1}]}, 1, 256),
        ("", {"extension_mandatory": [{"bellhop_source": "emulated"}]}, 1, 256),
    ],
)
async def test_keys_are_had_by_get_and_by_post(
    kmes: Kmes, query: str, body: dict[str, object] | None, number: int, size_bits: int
) -> None:
    method = "GET" if body is None else "POST"
    taken = await kmes.call(SAE_A, method, keys_url(kmes.alice, SAE_B, "enc_keys", query), body)
    assert taken.headers["Content-Type"] == "application/json"
    assert len(taken.keys) == number
    assert {8 * len(key) for key in taken.keys.values()} == {size_bits}
    extension = {"bellhop_source": "emulated", "bellhop_session": session_id(1)}
    assert [key["key_extension"] for key in taken.body["keys"]] == [extension] * number
    first, *others = taken.keys
    by_get = keys_url(kmes.bob, SAE_A, "dec_keys", f"?key_ID={first}")
    fetched = (await kmes.call(SAE_B, "GET", by_get)).keys
    if others:
        fetched |= (await kmes.fetch(SAE_B, SAE_A, *others)).keys
    assert fetched == taken.keys


async def test_a_post_without_a_body_is_the_empty_request(kmes: Kmes) -> None:
    url = keys_url(kmes.alice, SAE_B, "enc_keys")
    taken = await kmes.call(SAE_A, "POST", url, data=b"")
    assert taken.keys == {slot_id(session_id(1), 0): slot_key(session_id(1), 0)}


async def test_key_ids_are_read_in_either_case_and_with_extensions(kmes: Kmes) -> None:
    (key_id,) = (await kmes.take(SAE_A, SAE_B)).keys
    body = {
        "key_IDs": [{"key_ID": key_id.upper(), "key_ID_extension": {"abc_x": 1}}],
        "key_IDs_extension": {"abc_y": 2},
    }
    fetched = await kmes.call(SAE_B, "POST", keys_url(kmes.bob, SAE_A, "dec_keys"), body)
    assert list(fetched.keys) == [key_id]


async def test_identities_survive_the_url(kmes: Kmes) -> None:
    status = await kmes.call(SAE_A2, "GET", keys_url(kmes.alice, SAE_B2, "status"))
    assert (status.body["master_SAE_ID"], status.body["slave_SAE_ID"]) == (SAE_A2, SAE_B2)
    taken = await kmes.take(SAE_A2, SAE_B2, number=2)
    assert (await kmes.fetch(SAE_B, SAE_A2, *taken.keys)).status == 401
    assert (await kmes.fetch(SAE_B2, SAE_A2, *taken.keys)).keys == taken.keys


async def test_bob_is_a_master_too(kmes: Kmes) -> None:
    taken = await kmes.call(SAE_B, "GET", keys_url(kmes.bob, SAE_A, "enc_keys"))
    assert list(taken.keys) == [slot_id(session_id(1), 1)]  # an odd slot: never one of Alice's


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_of_tls_are_spoken(kmes: Kmes, version: ssl.TLSVersion) -> None:
    for sae in (SAE_A, SAE_B):
        kmes.context(sae).minimum_version = kmes.context(sae).maximum_version = version
    taken = await kmes.take(SAE_A, SAE_B)
    assert (await kmes.fetch(SAE_B, SAE_A, *taken.keys)).keys == taken.keys


# --- one delivery a recipient ---------------------------------------------------------------------


async def test_keys_are_delivered_once(kmes: Kmes) -> None:
    taken = await kmes.take(SAE_A, SAE_B, number=3)
    one, two, three = taken.keys
    assert (await kmes.fetch(SAE_B, SAE_A, one)).status == 200
    again = await kmes.fetch(SAE_B, SAE_A, two, one, three)
    assert (again.status, again.message) == (400, "one or more keys specified are not found on KME")
    assert again.body["details"] == [{"key_ID": one}]
    left = await kmes.fetch(SAE_B, SAE_A, three, two)  # nothing of the refused request was spent
    assert left.keys == {key_id: taken.keys[key_id] for key_id in (three, two)}


async def test_no_key_goes_twice_under_fifty_parallel_requests(kmes: Kmes) -> None:
    answers = await asyncio.gather(*(kmes.take(SAE_A, SAE_B) for _ in range(50)))
    served = [answer.keys for answer in answers if answer.status == 200]
    assert len(served) == SLOTS // 2
    assert len({key_id for keys in served for key_id in keys}) == SLOTS // 2
    assert {answer.status for answer in answers} == {200, 503}
    everything = {key_id: key for keys in served for key_id, key in keys.items()}
    twice = [(key_id, attempt) for key_id in everything for attempt in range(2)]
    fetched = await asyncio.gather(*(kmes.fetch(SAE_B, SAE_A, key_id) for key_id, _ in twice))
    assert sorted(answer.status for answer in fetched) == [200] * 30 + [400] * 30
    got = {k: v for answer in fetched if answer.status == 200 for k, v in answer.keys.items()}
    assert got == everything


# --- 401 ------------------------------------------------------------------------------------------


async def test_keys_are_their_slaves_alone(kmes: Kmes) -> None:
    mine, other = [*(await kmes.take(SAE_A, SAE_B, number=2)).keys]
    (theirs,) = (await kmes.take(SAE_A, SAE_B2)).keys
    for key_ids in ([theirs], [mine, theirs], [theirs, UNKNOWN_ID]):
        refused = await kmes.fetch(SAE_B, SAE_A, *key_ids)
        assert refused.status == 401 and "message" in refused.body
        assert refused.body["details"] == [{"key_ID": theirs}]
        assert "WWW-Authenticate" not in refused.headers
    # the master itself, at either end of the path
    at_home = {"key_IDs": [{"key_ID": mine}]}
    for path_sae in (SAE_A, SAE_B):
        url = keys_url(kmes.alice, path_sae, "dec_keys")
        assert (await kmes.call(SAE_A, "POST", url, at_home)).status == 401
    # another master in the path: not that one's key
    assert (await kmes.fetch(SAE_B, SAE_A2, mine)).status == 400
    assert (await kmes.fetch(SAE_B, SAE_A, mine, other)).status == 200
    assert (await kmes.fetch(SAE_B2, SAE_A, mine)).status == 401


@pytest.mark.parametrize("name", ["status", "enc_keys", "dec_keys"])
async def test_callers_are_saes_of_this_kme(kmes: Kmes, name: str) -> None:
    for stranger in (SAE_B, "sae-nobody"):
        refused = await kmes.call(stranger, "GET", keys_url(kmes.alice, SAE_B, name))
        assert refused.status == 401 and "not one of this KME" in refused.message


async def test_a_client_without_a_certificate_is_refused(kmes: Kmes) -> None:
    bare = ssl.create_default_context(cafile=str(kmes.authority.folder / "authority.crt.pem"))
    with pytest.raises(aiohttp.ClientError):
        await kmes.call(bare, "GET", keys_url(kmes.alice, SAE_B, "status"))


async def test_a_certificate_of_another_authority_is_refused(kmes: Kmes, tmp_path: Path) -> None:
    foreign = Kmes("", "", Authority(tmp_path / "foreign"), kmes.session, {}).context(SAE_A)
    foreign.load_verify_locations(kmes.authority.folder / "authority.crt.pem")
    with pytest.raises(aiohttp.ClientError):
        await kmes.call(foreign, "GET", keys_url(kmes.alice, SAE_B, "status"))


# --- 503 and waiting ------------------------------------------------------------------------------


async def test_a_shortage_is_503_with_what_there_is(kmes: Kmes) -> None:
    refused = await kmes.take(SAE_A, SAE_B, number=SLOTS // 2 + 1)
    assert (refused.status, refused.message) == (503, "not enough keys at the moment")
    assert refused.body["details"] == [{"available": SLOTS // 2}]
    assert int(refused.headers["Retry-After"]) > 0


async def test_a_fetch_may_overtake_the_word_of_the_other_node(
    tmp_path: Path, authority: Authority
) -> None:
    told: list[KeysTaken] = []

    def hold(keys: KeysTaken) -> bool:
        told.append(keys)
        return False

    async with running_kmes(tmp_path, authority, deliver=hold) as kmes:
        await fill_both(kmes, slots=SLOTS)
        taken = await kmes.take(SAE_A, SAE_B)
        fetching = asyncio.create_task(kmes.fetch(SAE_B, SAE_A, *taken.keys))
        (late,) = told
        assert late.peer == BOB
        _, waiting = await asyncio.wait({fetching}, timeout=0.2)
        assert waiting, "Bob's waits for the word of Alice's"
        await kmes.stores[BOB].record_allocations(RecordAllocations(ALICE, late.allocations))
        assert (await fetching).keys == taken.keys


async def test_a_fetch_does_not_wait_for_ever(tmp_path: Path, authority: Authority) -> None:
    settings = replace(SETTINGS, allocation_wait_ns=50 * 10**6)
    never_taken = slot_id(session_id(1), 0)
    async with running_kmes(tmp_path, authority, settings) as kmes:
        await fill_both(kmes, slots=SLOTS)
        refused = await kmes.fetch(SAE_B, SAE_A, never_taken)
    assert (refused.status, refused.body["details"]) == (400, [{"key_ID": never_taken}])


# --- silence --------------------------------------------------------------------------------------


async def test_keys_are_in_no_log(kmes: Kmes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        taken = await kmes.take(SAE_A, SAE_B, number=2)
        await kmes.fetch(SAE_B, SAE_A, *taken.keys)
        await kmes.fetch(SAE_B2, SAE_A, *taken.keys)
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert "etsi014_master" in logged and "etsi014_refused" in logged
    for key in taken.keys.values():
        for form in (key.hex(), base64.b64encode(key).decode(), repr(key)[2:-1]):
            assert form not in logged
