"""The peer's word on a receipt: it completes it, or keeps the keys held back."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cores import port, records
from tests.support.receipts import AUTHORITY, after_a_session
from tests.support.two_cores import ALICE, BOB, OTHER, TwoCores

from bellhop.hal.operations import NodeName
from bellhop.node.chance import SeededRng
from bellhop.node.identity import CHAIN_BYTES_MAX, RSA_BITS_MAX
from bellhop.node.receipt_verifier import verify
from bellhop.node.sim.identities import simulated_identity
from bellhop.stack.core import Action, ConfirmKeys, Persist, Refuse, StoreKeys, Tell
from bellhop.stack.diqkd.device_use import DeviceUse
from bellhop.stack.diqkd.endorsements import KEPT_MAX, Endorsements
from bellhop.stack.diqkd.receipt import canonical, statement
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import ENDORSEMENT_BYTES_MAX, Abort, BlockStored

CAROL = NodeName("carol")


def about_to_confirm(seed: int = 12) -> tuple[TwoCores, BlockStored]:
    """Alice holds her block, and Bob's word of his is on its way to her."""
    two = TwoCores(seed=seed)
    two.meet()
    two.now_ns += 10**9
    two.ask(ALICE)
    two.go_on(until=lambda: any(isinstance(m, BlockStored) for m in two.mail[ALICE]))
    while not two.store[ALICE].held:
        two.work(ALICE)
    message = next(m for m in two.mail[ALICE] if isinstance(m, BlockStored))
    two.mail[ALICE].remove(message)
    return two, message


def refusals(actions: list[Action]) -> list[str]:
    return [action.reason for action in actions if isinstance(action, Refuse)]


def hear(two: TwoCores, message: BlockStored) -> list[Action]:
    two.mail[ALICE].append(message)
    before = len(two.actions)
    two.hear(ALICE, len(two.mail[ALICE]))
    return two.actions[before:]


def figures(end: dict[str, Any]) -> None:
    end["session_sha256"] = "0" * 64


def device(end: dict[str, Any]) -> None:
    end["statement"]["device"]["sessions_before"] += 1


def clock(end: dict[str, Any]) -> None:
    end["statement"]["stored_ns"] += 1


def signature(end: dict[str, Any]) -> None:
    end["signature"] = end["signature"][::-1]


def role(end: dict[str, Any]) -> None:
    end["statement"]["role"] = "alice"


def node(end: dict[str, Any]) -> None:
    end["statement"]["node"] = "carol"


def nobody(end: dict[str, Any]) -> None:
    end["certificates"] = []


def control_characters(end: dict[str, Any]) -> None:
    end["statement"]["device"]["description"] = "\x1b[2J"


def another_type(end: dict[str, Any]) -> None:
    end["statement"]["stored_ns"] = True


def more(end: dict[str, Any]) -> None:
    end["more"] = 1


@pytest.mark.parametrize(
    ("tamper", "reason"),
    [
        (figures, "endorsement_unsigned"),
        (device, "endorsement_unsigned"),
        (clock, "endorsement_unsigned"),
        (signature, "endorsement_malformed"),
        (role, "endorsement_of_another"),
        (node, "endorsement_of_another"),
        (nobody, "endorsement_malformed"),
        (control_characters, "endorsement_malformed"),
        (another_type, "endorsement_malformed"),
        (more, "endorsement_malformed"),
    ],
)
def test_a_tampered_word_is_refused_and_the_keys_stay_held(
    tamper: Callable[[dict[str, Any]], None], reason: str
) -> None:
    two, genuine = about_to_confirm()
    end = json.loads(genuine.endorsement)
    tamper(end)
    actions = hear(two, replace(genuine, endorsement=canonical(end)))
    assert refusals(actions) == [reason]
    assert not two.keys(ALICE) and two.store[ALICE].held
    snapshot = two.core[ALICE].snapshot()
    ((session, told),) = snapshot["refused_endorsements"].items()
    assert session in snapshot["held"] and told.startswith(reason)
    # What was changed on its way comes again: the keys are not lost.
    assert not refusals(hear(two, genuine))
    assert two.keys(ALICE) and not two.core[ALICE].snapshot()["refused_endorsements"]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"", "endorsement_missing"),
        (b"{}", "endorsement_malformed"),
        (b"[" * 5_000, "endorsement_malformed"),
        (b"\xff", "endorsement_malformed"),
        (b" " * (ENDORSEMENT_BYTES_MAX + 1), "endorsement_malformed"),
        (b'{"session_sha256": NaN}', "endorsement_malformed"),
    ],
)
def test_nonsense_is_refused(told: bytes, reason: str) -> None:
    two, genuine = about_to_confirm()
    assert refusals(hear(two, replace(genuine, endorsement=told))) == [reason]
    assert not two.keys(ALICE) and two.store[ALICE].held


Told = tuple[Endorsements, BlockStored]


@pytest.fixture(scope="module")
def told_to_alice() -> Told:
    """Made once, and outside of what Hypothesis takes the time of."""
    two, genuine = about_to_confirm()
    return two.core[ALICE]._desk._endorsements, genuine


@given(data=st.data())
def test_whatever_is_changed_in_a_word_it_is_refused(
    told_to_alice: Told, data: st.DataObject
) -> None:
    words, genuine = told_to_alice
    assert words.objection(genuine.session, BOB, genuine.endorsement) is None
    changed = bytearray(genuine.endorsement)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    if bytes(changed) != genuine.endorsement:
        assert words.objection(genuine.session, BOB, bytes(changed)) is not None


@given(told=st.binary() | st.text().map(str.encode))
def test_no_bytes_raise(told_to_alice: Told, told: bytes) -> None:
    words, genuine = told_to_alice
    assert words.objection(genuine.session, BOB, told) is not None


class Wordy:
    """An identity whose certificates and signatures are as long as they may be."""

    certificates = (bytes(CHAIN_BYTES_MAX),)

    def sign(self, content: bytes) -> bytes:
        return bytes(RSA_BITS_MAX // 8)

    def objection(self, *_: object) -> str | None:
        return None


@pytest.mark.parametrize("character", ["a", "ü", "\U0001d54f", "\x1b", '"'])
def test_the_longest_word_fits_into_a_message(character: str) -> None:
    record = records()[ALICE]
    wordy = replace(port(), description=9_999 * character, idealisations=99 * (999 * character,))
    said = statement(record, wordy, DeviceUse(), SeededRng(1), 2**62)
    assert said["device"]["idealisations"] and "\x1b" not in said["device"]["description"]
    words = Endorsements(ALICE, Wordy(), {})
    words.write(record.session, BOB, {}, said)
    told = words.told(record.session, BOB)
    assert len(told) <= ENDORSEMENT_BYTES_MAX
    bobs = Endorsements(BOB, Wordy(), {})
    bobs.write(record.session, ALICE, {}, {"role": "bob", "node": BOB})
    assert bobs.objection(record.session, ALICE, told) is None


def liar(two: TwoCores, signer: NodeName, **changes: Any) -> bytes:
    """A word of another account, signed as it should be."""
    (block,) = two.store[BOB].held.values() or two.store[BOB].deliverable.values()
    receipt = json.loads(block.receipt)
    account = {**receipt["session"], **changes}
    words = Endorsements(BOB, simulated_identity(signer), {})
    words.write(block.session, ALICE, account, receipt["ends"]["bob"]["statement"])
    return words.told(block.session, ALICE)


def test_a_peer_that_signs_other_figures_gets_no_key_released_here() -> None:
    two, genuine = about_to_confirm()
    lie = liar(two, BOB, run={"rounds": 1})
    actions = hear(two, replace(genuine, endorsement=lie))
    assert refusals(actions) == ["endorsement_of_other_figures"]
    assert [a.who for a in actions if isinstance(a, Refuse)] == ["the operators of both nodes"]
    assert not any(isinstance(a, ConfirmKeys | Tell) for a in actions), "nor is it told otherwise"
    assert not two.keys(ALICE) and two.store[ALICE].held
    (block,) = two.store[ALICE].held.values()
    assert json.loads(block.receipt)["ends"]["bob"] is None, "not endorsed by the peer"


def test_a_word_that_another_node_signed_is_refused() -> None:
    two, genuine = about_to_confirm()
    actions = hear(two, replace(genuine, endorsement=liar(two, CAROL)))
    assert refusals(actions) == ["endorsement_unsigned"]
    assert not two.keys(ALICE)


def test_ones_own_word_is_not_the_peers() -> None:
    two, genuine = about_to_confirm()
    told = next(
        a.message.endorsement
        for a in two.actions
        if isinstance(a, Tell) and a.peer == BOB and isinstance(a.message, BlockStored)
    )
    actions = hear(two, replace(genuine, endorsement=told))
    assert refusals(actions) == ["endorsement_of_another"]
    assert not two.keys(ALICE)


def test_a_word_that_comes_before_the_own_block_is_looked_at_then() -> None:
    two = TwoCores(seed=12)
    two.meet()
    two.now_ns += 10**9
    two.ask(ALICE)
    two.go_on(until=lambda: bool(two.store[ALICE].held))
    # Alice has stored and told; Bob has not computed his key yet when he hears it.
    assert not two.store[BOB].held
    early = two.mail[BOB]
    while early and not isinstance(early[0], BlockStored):
        two.hear(BOB, 1)
    two.hear(BOB, 1)
    assert two.jobs[BOB] and not two.store[BOB].held, "it is not his turn to store yet"
    two.go_on()
    assert two.keys(BOB) == two.keys(ALICE) != {}


def test_what_is_stored_before_it_is_told() -> None:
    """A signature is made once, and is on the disk before it leaves."""
    two = after_a_session()
    stored: set[bytes] = set()
    told = 0
    for action in two.actions:
        persist = action.persist if isinstance(action, StoreKeys | ConfirmKeys) else action
        if isinstance(persist, Persist):
            stored |= {f.payload for f in persist.put if f.name.startswith("receipt/")}
        if isinstance(action, Tell) and isinstance(action.message, BlockStored):
            signed = json.loads(action.message.endorsement)["signature"].encode()
            assert any(signed in payload for payload in stored)
            told += 1
    assert told >= 3


@pytest.mark.parametrize("restarting", [ALICE, BOB])
def test_a_restart_in_between_leaves_two_complete_receipts(restarting: NodeName) -> None:
    two = TwoCores(seed=12)
    two.meet()
    two.now_ns += 10**9
    two.ask(ALICE)
    two.go_on(until=lambda: bool(two.store[restarting].held))
    two.restart(restarting)
    two.settle()
    check_both(two)


@pytest.mark.parametrize("restarting", [ALICE, BOB])
def test_who_has_confirmed_tells_it_again_after_a_restart(restarting: NodeName) -> None:
    """The peer's confirmation is lost with its word; it asks again, and gets the very same."""
    other = OTHER[restarting]
    two = TwoCores(seed=12)
    two.meet()
    two.now_ns += 10**9
    two.ask(ALICE)

    def drop() -> bool:
        kept = [m for m in two.mail[other] if not isinstance(m, BlockStored)]
        two.mail[other].clear()
        two.mail[other].extend(kept)
        return bool(two.store[restarting].deliverable)

    two.go_on(until=drop)
    assert two.store[restarting].deliverable and not two.store[other].deliverable
    two.restart(restarting)
    two.settle()
    check_both(two)


def check_both(two: TwoCores) -> None:
    receipts = []
    for name in (ALICE, BOB):
        (block,) = two.store[name].deliverable.values()
        receipts.append(block.receipt)
        assert verify(block.receipt.encode(), AUTHORITY).exit_code == 0
    assert receipts[0] == receipts[1]


def test_nothing_is_kept_that_the_peer_has() -> None:
    two = after_a_session()
    two.settle()
    for name in (ALICE, BOB):
        assert not [fact for fact in two.store[name].facts if fact.startswith("receipt/")]


def test_what_is_kept_for_a_silent_peer_is_bounded() -> None:
    words = Endorsements(ALICE, simulated_identity(ALICE), {})
    sessions = [SessionId(f"{n:032x}") for n in range(KEPT_MAX + 3)]
    statement = {"role": "alice", "node": ALICE}
    facts = {}
    for session in sessions:
        _, fact = words.write(session, BOB, {"a": 1}, statement)
        facts[fact.name] = fact.payload
    held = {sessions[1]}
    assert words.beyond(BOB, held) == tuple(f"receipt/{sessions[n]}" for n in (0, 2))
    assert words.told(sessions[0], BOB) == b"" != words.told(sessions[1], BOB)
    again = Endorsements(ALICE, simulated_identity(ALICE), facts)
    assert again.told(sessions[5], BOB) == words.told(sessions[5], BOB)
    assert again.told(sessions[5], CAROL) == b"", "it is nobody else's"
    assert words.heard(sessions[5], CAROL) == ()


def test_a_voided_block_leaves_no_word_behind() -> None:
    two, genuine = about_to_confirm()
    two.mail[ALICE].append(Abort(genuine.session, "given up"))
    two.hear(ALICE)
    assert not two.store[ALICE].held and not two.store[ALICE].deliverable
    assert not [fact for fact in two.store[ALICE].facts if fact.startswith("receipt/")]
