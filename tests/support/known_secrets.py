"""Every secret of a node as a test may know it, in every spelling in which it could leak.

What a node holds is read from a copy of its store, under its key-encryption key and with the
store's own code.
"""

import base64
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from bellhop.hal.operations import NodeName
from bellhop.node.keystore import KeyStore, read_kek
from bellhop.node.keystore.database import Transaction
from bellhop.stack.codec import split
from bellhop.stack.core import Fact
from bellhop.stack.diqkd.authenticate import MASK_BYTES
from bellhop.stack.diqkd.record import Record, restore
from bellhop.stack.diqkd.rounds import flip_alice

HEAD_BYTES = 8
"""No spelling is shorter: what is looked for first."""

MASKS = 40
"""Of each batch: more than the sessions of a test spend."""

BITS = 128
"""Of a long string, from the start of each slot: whoever shows it, shows these."""

LISTED = 24
"""Of what is spelt as a list: as much as numpy prints in a line."""


@dataclass
class Secrets:
    """Byte strings and bit strings by what they are."""

    strings: dict[str, bytes] = field(default_factory=dict, repr=False)
    bits: dict[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def __or__(self, other: "Secrets") -> "Secrets":
        return Secrets(self.strings | other.strings, self.bits | other.bits)

    def needles(self) -> dict[bytes, str]:
        """Every spelling of every secret, and what it is."""
        found: dict[bytes, str] = {}
        for what, secret in self.strings.items():
            for part in {secret[:16], secret[-16:]}:
                found |= {text: f"{what} as {how}" for how, text in spellings(part)}
        for what, bits in self.bits.items():
            found |= {text: f"{what} as {how}" for how, text in spellings_of_bits(bits[:BITS])}
        assert all(len(needle) >= HEAD_BYTES for needle in found)
        return found


# --- spellings ------------------------------------------------------------------------------------


def spellings(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """How eight bytes or more may stand in a file."""
    yield "bytes", secret
    yield "bytes backwards", secret[::-1]
    yield "bytes with their bits backwards", _mirrored(secret)
    orders = {"": secret, " backwards": secret[::-1], " mirrored": _mirrored(secret)}
    for order, data in orders.items():
        yield "hex" + order, data.hex().encode()
        yield "HEX" + order, data.hex().upper().encode()
    yield "hex with spaces", secret.hex(" ").encode()
    yield "hex with colons", secret.hex(":").encode()
    yield "a number", str(int.from_bytes(secret, "big")).encode()
    yield "a number, little endian", str(int.from_bytes(secret, "little")).encode()
    for data in (secret, _mirrored(secret)):
        for shift in range(3):
            text = base64.b64encode(bytes(shift) + data)
            # what the bytes around it cannot change
            inner = text[-(-8 * shift // 6) : 8 * (shift + len(data)) // 6]
            yield f"base64, shifted by {shift}", inner
            yield f"base64url, shifted by {shift}", inner.translate(bytes.maketrans(b"+/", b"-_"))
    yield "escapes", repr(secret)[2:-1].encode()
    yield "JSON escapes", json.dumps(secret.decode("latin1"))[1:-1].encode()
    yield from _lists(np.frombuffer(secret, np.uint8))


def spellings_of_bits(bits: NDArray[np.uint8]) -> Iterator[tuple[str, bytes]]:
    """How a bit string may: packed either way, a byte a bit, or as text."""
    for order in ("little", "big"):
        packed = np.packbits(bits, bitorder=order).tobytes()
        yield from ((f"{how}, packed {order}", text) for how, text in spellings(packed))
    yield from ((f"{how}, a byte a bit", text) for how, text in spellings(bits.tobytes()))
    yield "text", "".join(map(str, bits.tolist())).encode()
    yield from ((f"{how} of truths", text) for how, text in _lists(bits.astype(np.bool_)))
    yield from _lists(bits)


def _lists(values: NDArray[np.uint8] | NDArray[np.bool_]) -> Iterator[tuple[str, bytes]]:
    few = values[:LISTED] if values.dtype == np.bool_ or values.max() < 10 else values[:12]
    yield "a list", str(few.tolist())[1:-1].encode()
    yield "a dense list", json.dumps(few.tolist(), separators=(",", ":"))[1:-1].encode()
    yield "numpy's repr", np.array2string(few, 1000, separator=", ")[1:-1].strip().encode()
    yield "numpy's str", np.array2string(few, 1000)[1:-1].strip().encode()


def _mirrored(data: bytes) -> bytes:
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    return np.packbits(bits, bitorder="big").tobytes()


def found_in(content: bytes, needles: Mapping[bytes, str]) -> set[str]:
    """Which of the needles stand in `content`; all of them in one pass."""
    by_head: dict[int, list[bytes]] = {}
    for needle in needles:
        by_head.setdefault(int.from_bytes(needle[:HEAD_BYTES], "little"), []).append(needle)
    heads = np.array(sorted(by_head), np.uint64)
    found = set()
    for shift in range(min(HEAD_BYTES, len(content))):
        words = np.frombuffer(content, "<u8", (len(content) - shift) // HEAD_BYTES, shift)
        places = np.searchsorted(heads, words)
        hits = np.flatnonzero(heads[np.minimum(places, len(heads) - 1)] == words)
        for hit in hits.tolist():
            start = shift + HEAD_BYTES * hit
            for needle in by_head[int(words[hit])]:
                if content.startswith(needle, start):
                    found.add(needles[needle])
    return found


# --- what a node holds ----------------------------------------------------------------------------


STATE_FILES = ("keystore.sqlite3", "keystore.sqlite3-wal", "key-encryption.key")
COPIES_MAX = 100


def copied(state: Path, to: Path) -> Path:
    """A copy of a node's folder as it is now, whatever the node does.

    Made again until no file changed meanwhile: what moves from the log into the database between
    the two copies would be in neither.
    """
    to.mkdir(parents=True)
    for _ in range(COPIES_MAX):
        before = _stamps(state)
        for name in STATE_FILES:
            (to / name).unlink(missing_ok=True)
            if (state / name).exists():
                shutil.copy2(state / name, to / name)
        if _stamps(state) == before:
            return to
    raise AssertionError(f"{state} changes faster than it can be copied")


def _stamps(state: Path) -> list[tuple[int, int]]:
    found = [(state / name).stat() for name in STATE_FILES if (state / name).exists()]
    return [(file.st_size, file.st_mtime_ns) for file in found]


async def secrets_of(state: Path, node: NodeName) -> Secrets:
    """All that the copied store in `state` keeps from the world."""
    kek = read_kek(state / "key-encryption.key")
    async with await KeyStore.open(state, kek, node, lambda: 0) as store:
        facts = await store.load_facts()
        at_rest = await store._do(_keys_at_rest)
    secrets = Secrets({f"key-encryption key of {node}": kek, **at_rest})
    for fact in facts:
        if fact.name.startswith("pool/"):
            secrets.strings |= _of_pool(fact)
    for record in restore(node, {fact.name: fact.payload for fact in facts}):
        secrets.bits |= _of_rounds(record)
    return secrets


def _keys_at_rest(tx: Transaction) -> dict[str, bytes]:
    """Keys, and the keys under which they lie."""
    (sealed,) = tx.sql.execute("SELECT value FROM meta WHERE name = 'facts_key'").fetchone()
    found = {"the facts' key": tx.keys.open(sealed, "facts_key")}
    rows = tx.sql.execute(
        "SELECT k.key_id, b.session, k.slot, b.dek, k.sealed"
        " FROM keys k JOIN blocks b USING (block) WHERE k.sealed IS NOT NULL"
    )
    for key_id, session, slot, dek, sealed in rows:
        found[f"data key of {session}"] = tx.keys.open(dek, "blocks", session)
        seal = tx.keys.open_key(dek, "blocks", session)
        found[f"key {key_id}"] = seal.open(sealed, "keys", key_id, session, slot)
    return found


def _of_pool(fact: Fact) -> dict[str, bytes]:
    if fact.name.endswith("/key"):
        return {f"hash key {fact.name}": fact.payload}
    if "/batch/" not in fact.name:
        return {}
    _, *ways = split(fact.payload, 3)
    return {
        f"mask {number} of way {way} of {fact.name}": masks[start : start + MASK_BYTES]
        for way, masks in enumerate(ways)
        for number, start in enumerate(range(0, min(len(masks), MASKS * MASK_BYTES), MASK_BYTES))
    }


def _of_rounds(record: Record) -> dict[str, NDArray[np.uint8]]:
    found = {}
    own = f"{record.own} in {record.session}"
    for slot in np.flatnonzero(record.measured.flags(0, record.request.slots)).tolist():
        span = record.request.span(slot)
        settings = record.settings[span]
        found[f"outcomes {slot} of {own}"] = record.outcomes[span]
        found[f"settings in tests {slot} of {own}"] = settings[record.tests[span]]
        if record.is_alice:
            raw = flip_alice(record.outcomes[span], settings, record.patterns[span])
            found[f"raw key {slot} of {own}"] = raw
            if record.flips[span].any():
                found[f"flips {slot} of {own}"] = record.flips[span].astype(np.uint8)
                found[f"flipped key {slot} of {own}"] = raw ^ record.flips[span]
    if record.corrected is not None:
        found[f"corrected string of {own}"] = record.corrected
    return found


def private_keys(folder: Path) -> dict[str, bytes]:
    """The numbers that certificates under `folder` are about."""
    found = {}
    for path in sorted(folder.rglob("*.key.pem")):
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value
        found[f"private key {path.name}"] = number.to_bytes(key.key_size // 8, "big")
    return found
