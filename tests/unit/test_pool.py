"""The authentication pool: no mask twice, whatever an end has missed; wrong tags are counted."""

import json

import pytest

from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import NodeName
from bellhop.node.chance import SeededRng
from bellhop.stack.codec import join
from bellhop.stack.core import Fact
from bellhop.stack.diqkd.authenticate import HASH_KEY_BYTES, MASK_BYTES, TAG_BYTES
from bellhop.stack.diqkd.pool import FORGERIES_MAX, MASKS_PROVISIONED_MAX, Pool, PoolFile

ALICE, BOB = NodeName("alice"), NodeName("bob")
MASKS = 4
CONTENT = Pool.provision(SeededRng(5, "pool"), (BOB, ALICE), MASKS)


def changed(**fields: object) -> bytes:
    """The pool file with other fields, spelled as it should be."""
    return json.dumps(json.loads(CONTENT) | fields).encode()


def facts_of(own: NodeName, peer: NodeName) -> dict[str, bytes]:
    return {fact.name: fact.payload for fact in Pool.facts(CONTENT, own, peer)}


def pools() -> tuple[Pool, Pool]:
    return Pool(BOB, facts_of(ALICE, BOB)), Pool(ALICE, facts_of(BOB, ALICE))


def written(facts: dict[str, bytes], *more: Fact) -> dict[str, bytes]:
    return facts | {fact.name: fact.payload for fact in more}


def test_each_direction_has_masks_of_its_own() -> None:
    alice, bob = pools()
    ours = [alice.spend()[0].secret for _ in range(MASKS)]
    theirs = [bob.spend()[0].secret for _ in range(MASKS)]
    assert len({*ours, *theirs}) == 2 * MASKS
    file = json.loads(CONTENT)
    assert b"".join(ours).hex() == file["low"] and b"".join(theirs).hex() == file["high"]


def test_what_one_end_tags_the_other_accepts_once() -> None:
    alice, bob = pools()
    mask, _ = alice.spend()
    tag = alice.tag(mask, b"words")
    assert bob.check(mask.batch, mask.number, b"words", tag) is None
    assert bob.check(mask.batch, mask.number, b"words", tag) is None, "a check changes nothing"
    bob.saw(mask.batch, mask.number)
    assert bob.check(mask.batch, mask.number, b"words", tag) == "mask_used_before"
    assert (alice.masks_left, bob.masks_left_incoming) == (MASKS - 1, MASKS - 1)


def test_a_number_passed_over_is_refused_from_then_on() -> None:
    alice, bob = pools()
    (first, _), (second, _) = alice.spend(), alice.spend()
    tags = [alice.tag(mask, b"words") for mask in (first, second)]
    bob.saw(second.batch, second.number)
    assert bob.check(first.batch, first.number, b"words", tags[0]) == "mask_used_before"


@pytest.mark.parametrize(
    ("batch", "number"), [("provisioned", MASKS), ("provisioned", -1), ("other", 0)]
)
def test_an_unknown_mask_is_refused(batch: str, number: int) -> None:
    assert pools()[1].check(batch, number, b"", bytes(TAG_BYTES)) == "mask_unknown"


@pytest.mark.parametrize("change", ["words", "tag", "short", "long", "direction"])
def test_anything_changed_is_a_wrong_tag(change: str) -> None:
    alice, bob = pools()
    mask, _ = alice.spend()
    tag, words = alice.tag(mask, b"words"), b"words"
    if change == "words":
        words = b"word5"
    elif change == "direction":
        bob = alice  # what was said is sent back to whoever said it
    else:
        tag = {"tag": bytes([tag[0] ^ 1]) + tag[1:], "short": tag[:-1], "long": tag + b"\0"}[change]
    assert bob.check(mask.batch, mask.number, words, tag) == "tag_wrong"


def test_a_mask_persisted_as_spent_is_not_spent_after_a_restart() -> None:
    facts = facts_of(ALICE, BOB)
    pool = Pool(BOB, facts)
    spent = []
    for _ in range(MASKS):
        mask, fact = pool.spend()
        spent.append(mask.number)
        facts = written(facts, fact)
        pool = Pool(BOB, facts)
    assert spent == list(range(MASKS)) and pool.masks_left == 0


def test_a_mask_persisted_as_seen_is_refused_after_a_restart() -> None:
    alice, bob = pools()
    mask, _ = alice.spend()
    bob = Pool(ALICE, written(facts_of(BOB, ALICE), bob.saw(mask.batch, mask.number)))
    tag = alice.tag(mask, b"words")
    assert bob.check(mask.batch, mask.number, b"words", tag) == "mask_used_before"


# --- batches of blocks ----------------------------------------------------------------------------


def batch_masks(start: int, count: int) -> bytes:
    return bytes(range(start, start + count * MASK_BYTES))


def with_batch() -> tuple[Pool, dict[str, bytes]]:
    facts = facts_of(ALICE, BOB)
    pool = Pool(BOB, facts)
    fact = pool.batch_fact("ab", batch_masks(0, 5), batch_masks(100, 3))
    return pool, written(facts, fact)


def test_a_batch_is_spent_only_when_the_peer_has_it() -> None:
    pool, facts = with_batch()
    for one in (pool, Pool(BOB, facts)):
        assert (one.masks_left, one.masks_left_incoming) == (MASKS, MASKS)
    put, forgotten = pool.ready("ab")
    assert (pool.masks_left, pool.masks_left_incoming) == (MASKS + 5, MASKS + 3)
    assert forgotten == ()
    again = Pool(BOB, written(facts, *put))
    assert (again.masks_left, again.masks_left_incoming) == (MASKS + 5, MASKS + 3)


def test_a_tag_of_the_peer_under_a_batch_shows_that_it_has_it() -> None:
    pool, _ = with_batch()
    pool.saw("ab", 0)
    assert (pool.masks_left, pool.masks_left_incoming) == (MASKS + 5, MASKS + 2)


def test_older_batches_are_spent_first() -> None:
    pool, _ = with_batch()
    pool.ready("ab")
    spent = [pool.spend()[0] for _ in range(MASKS + 5)]
    names = [(mask.batch, mask.number) for mask in spent]
    expected = [("provisioned", n) for n in range(MASKS)] + [("ab", n) for n in range(5)]
    assert names == expected
    assert b"".join(mask.secret for mask in spent[MASKS:]) == batch_masks(0, 5)


def test_a_batch_that_neither_end_can_spend_any_more_is_forgotten() -> None:
    pool, _ = with_batch()
    for number in range(MASKS):
        pool.spend()
        pool.saw("provisioned", number)
    put, forgotten = pool.ready("ab")
    assert [fact.name for fact in put] == ["pool/bob/used/ab"]
    assert forgotten == ("pool/bob/batch/provisioned", "pool/bob/used/provisioned")
    assert pool.check("provisioned", 0, b"", bytes(TAG_BYTES)) == "mask_unknown"
    assert pool.masks_left == 5


def test_a_batch_both_have_spent_before_word_of_it_came_is_let_go() -> None:
    """The peer knew first: it may use all of a batch before it says that it has the block."""
    pool, _ = with_batch()
    pool.saw("ab", 2)
    for _ in range(MASKS + 5):
        pool.spend()
    put, forgotten = pool.ready("ab")
    assert put == () and forgotten == ("pool/bob/batch/ab", "pool/bob/used/ab")
    assert pool.ready("ab") == ((), ()), "word may come again"


def test_a_batch_the_peer_can_never_have_is_dropped() -> None:
    pool, _ = with_batch()
    assert pool.drop("ab") == ("pool/bob/batch/ab", "pool/bob/used/ab")
    assert pool.check("ab", 0, b"", bytes(TAG_BYTES)) == "mask_unknown"
    assert pool.ready("ab") == ((), ()) and pool.masks_left == MASKS


# --- forgeries ------------------------------------------------------------------------------------


def test_wrong_tags_are_counted_over_restarts_and_bounded() -> None:
    facts = facts_of(BOB, ALICE)
    pool = Pool(ALICE, facts)
    for count in range(1, FORGERIES_MAX + 1):
        assert not pool.worn
        assert pool.check("provisioned", 0, b"words", bytes(TAG_BYTES)) == "tag_wrong"
        facts = written(facts, pool.refused())
        pool = Pool(ALICE, facts)
        assert pool.forgeries == count
    assert pool.worn
    alice = pools()[0]
    mask, _ = alice.spend()
    right = alice.tag(mask, b"words")
    assert pool.check(mask.batch, mask.number, b"words", right) == "pool_worn"
    assert Pool.summary(facts, ALICE)["forgeries"] == FORGERIES_MAX


def test_a_new_pool_starts_a_new_count() -> None:
    facts = facts_of(BOB, ALICE)
    pool = Pool(ALICE, facts)
    facts = written(facts, pool.refused())
    other = Pool.provision(SeededRng(6, "pool"), (ALICE, BOB), 1)
    assert Pool(ALICE, written(facts, *Pool.facts(other, BOB, ALICE))).forgeries == 0


# --- provisioning ---------------------------------------------------------------------------------


def test_an_empty_pool() -> None:
    pool = Pool(BOB, {})
    assert not pool.provisioned and pool.masks_left == pool.masks_left_incoming == 0
    assert pool.check("provisioned", 0, b"", bytes(TAG_BYTES)) == "mask_unknown"


def test_a_pool_knows_only_its_own_peer() -> None:
    facts = facts_of(ALICE, BOB)
    assert not Pool(NodeName("bo"), facts).provisioned
    assert not Pool(NodeName("bob2"), facts).provisioned


def test_summary() -> None:
    assert Pool.summary(facts_of(ALICE, BOB), BOB) == {
        "provisioned": True,
        "pool_id": json.loads(CONTENT)["pool_id"],
        "masks_left": MASKS,
        "masks_left_incoming": MASKS,
        "mask_bits": 64,
        "forgeries": 0,
    }


@pytest.mark.parametrize("masks", [0, -1, MASKS_PROVISIONED_MAX + 1])
def test_a_pool_of_an_impossible_size_is_not_made(masks: int) -> None:
    with pytest.raises(ConfigError) as caught:
        Pool.provision(SeededRng(1), (ALICE, BOB), masks)
    assert caught.value.field == "masks"


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", CONTENT[:-2], CONTENT.replace(b'"low"', b'"other"')],
)
def test_what_is_no_pool_file_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match="not a pool file"):
        Pool.facts(content, ALICE, BOB)


def test_a_pool_file_of_others_or_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="not for alice and carol"):
        Pool.facts(CONTENT, ALICE, NodeName("carol"))
    newer = json.dumps(json.loads(CONTENT) | {"bellhop_pool": 2}).encode()
    with pytest.raises(ConfigError, match="another version"):
        Pool.facts(newer, ALICE, BOB)


@pytest.mark.parametrize("low", ["00" * 8, "00" * 31, ""])
def test_a_damaged_pool_file_is_refused(low: str) -> None:
    damaged = json.dumps(json.loads(CONTENT) | {"low": low}).encode()
    with pytest.raises(ConfigError, match="damaged"):
        Pool.facts(damaged, ALICE, BOB)


@pytest.mark.parametrize(
    "content",
    [
        CONTENT + b"\n",
        b" " + CONTENT,
        CONTENT.replace(b": ", b":"),
        CONTENT[:-1] + b', "low": ' + json.dumps(json.loads(CONTENT)["low"]).encode() + b"}",
        CONTENT[:-1] + b', "more": 1}',
        CONTENT.decode().encode("utf-16"),
        changed(bellhop_pool=True),
        changed(low=json.loads(CONTENT)["low"].upper()),
        changed(pool_id=json.loads(CONTENT)["pool_id"].upper()),
        changed(pool_id="ab"),
        changed(pool_id=None),
        changed(pool_id=7),
        changed(nodes={"alice": 1, "bob": 2}),
    ],
)
def test_a_pool_has_one_spelling(content: bytes) -> None:
    """Else the same masks could come in another file, under the same id or another."""
    with pytest.raises(ConfigError, match="damaged"):
        Pool.facts(content, ALICE, BOB)


@pytest.mark.parametrize("content", [b"[" * 100_000, changed(nodes=None), changed(low=7)])
def test_nothing_in_a_pool_file_raises_another_error(content: bytes) -> None:
    with pytest.raises(ConfigError, match="not a pool file"):
        Pool.facts(content, ALICE, BOB)


def test_a_pool_that_protects_nothing_is_refused() -> None:
    zeros, low = "00" * HASH_KEY_BYTES, json.loads(CONTENT)["low"]
    for content in (
        changed(hash_key=zeros),
        changed(low="", high=""),
        changed(high=low),  # either direction would spend the other's masks
        changed(low=low[: 2 * MASK_BYTES] * MASKS),
    ):
        with pytest.raises(ConfigError, match="damaged"):
            Pool.facts(content, ALICE, BOB)


def test_no_more_masks_are_read_than_are_drawn() -> None:
    """Distinct masks, so that their number alone decides."""
    whole = b"".join(n.to_bytes(MASK_BYTES) for n in range(2 * MASKS_PROVISIONED_MAX + 2))
    for masks in (MASKS_PROVISIONED_MAX, MASKS_PROVISIONED_MAX + 1):
        cut = masks * MASK_BYTES
        content = changed(low=whole[:cut].hex(), high=whole[cut : 2 * cut].hex())
        if masks > MASKS_PROVISIONED_MAX:
            with pytest.raises(ConfigError, match="damaged"):
                PoolFile.decode(content)
        else:
            assert len(PoolFile.decode(content).low) == cut


def test_a_pool_is_known_by_a_public_id() -> None:
    pool_id = json.loads(CONTENT)["pool_id"]
    alice, bob = pools()
    assert alice.id == bob.id == pool_id
    taken = PoolFile.decode(CONTENT).taken(BOB)
    assert taken == Fact(f"pool-taken/{pool_id}", b"bob")
    other = json.loads(Pool.provision(SeededRng(6, "pool"), (ALICE, BOB), MASKS))["pool_id"]
    assert other != pool_id


def test_no_secret_shows_in_a_repr() -> None:
    alice, _ = pools()
    mask, fact = alice.spend()
    file = json.loads(CONTENT)
    shown = repr(alice) + repr(mask) + repr(fact) + repr(Pool.facts(CONTENT, ALICE, BOB))
    shown += repr(PoolFile.decode(CONTENT))
    assert mask.secret.hex() not in shown and repr(mask.secret)[2:-1] not in shown
    assert file["hash_key"] not in shown
    assert repr(bytes.fromhex(file["hash_key"]))[2:-1] not in shown


def test_facts_hold_nothing_but_what_was_said() -> None:
    names = sorted(facts_of(ALICE, BOB))
    assert names == [
        "pool/bob/batch/provisioned",
        "pool/bob/forgeries",
        "pool/bob/id",
        "pool/bob/key",
        "pool/bob/used/provisioned",
    ]
    assert facts_of(ALICE, BOB)["pool/bob/used/provisioned"] == join(bytes(8), bytes(8))
