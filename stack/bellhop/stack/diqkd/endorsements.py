"""Both ends' words on a receipt: this end's signed, the peer's checked, the two kept together.

Rules
  An end signs the digest of its own account of a session.  What the peer signed of another account
  is refused, and so is whatever is not the peer's: the block stays held, and no key of it is handed
  out, since two ends that hold different accounts may hold different keys.  It is not voided: what
  was damaged on its way comes again, and what one message can destroy is somebody's to destroy.
  What this end has signed is a fact before it is told, and it is told again until the peer has it:
  a signature is made once.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from bellhop.hal.operations import NodeName
from bellhop.stack.codec import Malformed, join, split
from bellhop.stack.core import Fact
from bellhop.stack.diqkd.receipt import IDEALISATIONS_MAX, TEXT_CHARACTERS_MAX, canonical
from bellhop.stack.identity import Identity
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import ENDORSEMENT_BYTES_MAX

SCHEMA = "bellhop-receipt/2"

DOMAIN = b" " * 64 + b"bellhop-receipt/2 endorsement\x00"
"""In front of what is signed, so that it is nothing else that this key signs.  The spaces are those
of TLS 1.3 (RFC 8446, 4.4.3): what older handshakes sign begins with 32 bytes of a peer's choice."""

PREFIX = "receipt/"

KEPT_MAX = 64
"""Receipts kept of a peer for it to hear again; it leaves at most `desk.HELD_MAX` unconfirmed."""

CERTIFICATES_MAX = 8

INTEGER_MAX = 1 << 63


class Endorsements:
    """The receipts that this end has signed and the peer is not known to have."""

    def __init__(self, own: NodeName, identity: Identity, facts: Mapping[str, bytes]) -> None:
        self._own = own
        self._identity = identity
        self._receipts: dict[SessionId, tuple[NodeName, dict[str, Any]]] = {}
        for name, payload in facts.items():
            if name.startswith(PREFIX):
                peer, receipt = split(payload, 2)
                content = NodeName(peer.decode()), json.loads(receipt)
                self._receipts[SessionId(name.removeprefix(PREFIX))] = content

    def write(
        self,
        session: SessionId,
        peer: NodeName,
        account: dict[str, Any],
        statement: dict[str, Any],
    ) -> tuple[str, Fact]:
        """Sign the account: the receipt with this end's word alone, and the fact that keeps it."""
        certificates = self._identity.certificates
        digest = hashlib.sha256(canonical(account)).hexdigest()
        signature = self._identity.sign(signed_bytes(digest, statement, certificates))
        end = {
            "statement": statement,
            "certificates": [base64.b64encode(der).decode() for der in certificates],
            "signature": base64.b64encode(signature).decode(),
        }
        role = statement["role"]
        ends = {"alice": None, "bob": None, role: end}
        receipt = {"schema": SCHEMA, "session": account, "ends": ends}
        self._receipts[session] = (peer, receipt)
        text = canonical(receipt)
        return text.decode(), Fact(f"{PREFIX}{session}", join(peer.encode(), text))

    def told(self, session: SessionId, peer: NodeName) -> bytes:
        """What to tell the peer of a session: this end's word, and of which account it is."""
        known = self._receipts.get(session)
        if known is None or known[0] != peer:
            return b""
        receipt = known[1]
        own = next(end for end in receipt["ends"].values() if end is not None)
        return canonical({"session_sha256": _digest(receipt), **own})

    def objection(self, session: SessionId, peer: NodeName, told: bytes) -> tuple[str, str] | None:
        """Why the peer's word does not complete the receipt: a word of a fixed list, and more."""
        known = self._receipts.get(session)
        if known is None or known[0] != peer:
            return "endorsement_unexpected", ""
        if not told:
            return "endorsement_missing", "the peer has nothing to show for this session any more"
        try:
            end = _read(told)
        except (ValueError, RecursionError):
            return "endorsement_malformed", ""
        statement, receipt = end["statement"], known[1]
        if statement["node"] != peer or receipt["ends"][statement["role"]] is not None:
            return "endorsement_of_another", "it is not that of the peer in its role"
        certificates = tuple(base64.b64decode(text) for text in end["certificates"])
        content = signed_bytes(end["session_sha256"], statement, certificates)
        signature = base64.b64decode(end["signature"])
        why = self._identity.objection(
            peer, certificates, content, signature, statement["stored_ns"]
        )
        if why is not None:
            return "endorsement_unsigned", why
        if end["session_sha256"] != _digest(receipt):
            return (
                "endorsement_of_other_figures",
                f"{peer} signed another account of session {session}: its keys stay held back",
            )
        return None

    def completed(self, session: SessionId, told: bytes) -> str:
        """The receipt with both words; to what was told there was no objection."""
        _, receipt = self._receipts[session]
        end = _read(told)
        del end["session_sha256"]
        ends = {**receipt["ends"], end["statement"]["role"]: end}
        return canonical({**receipt, "ends": ends}).decode()

    def heard(self, session: SessionId, peer: NodeName) -> tuple[str, ...]:
        """The peer needs no more of this end's word: as `forget`, if it is the peer's to say."""
        known = self._receipts.get(session)
        return self.forget(session) if known is not None and known[0] == peer else ()

    def forget(self, session: SessionId) -> tuple[str, ...]:
        """The peer has it, or never can: the prefix of its fact, if there is one."""
        return (f"{PREFIX}{session}",) if self._receipts.pop(session, None) else ()

    def beyond(self, peer: NodeName, held: set[SessionId]) -> tuple[str, ...]:
        """Forget the oldest of a peer beyond the bound, but for those held here."""
        of_peer = [
            session
            for session, (other, _) in self._receipts.items()
            if other == peer and session not in held
        ]
        gone = of_peer[: max(0, len(of_peer) - KEPT_MAX)]
        return tuple(prefix for session in gone for prefix in self.forget(session))


def signed_bytes(
    session_sha256: str, statement: dict[str, Any], certificates: tuple[bytes, ...]
) -> bytes:
    """What is signed: the certificates with it, or another one of the same key would do."""
    content = {
        "session_sha256": session_sha256,
        "statement": statement,
        "certificates_sha256": [hashlib.sha256(der).hexdigest() for der in certificates],
    }
    return DOMAIN + canonical(content)


def _digest(receipt: dict[str, Any]) -> str:
    return hashlib.sha256(canonical(receipt["session"])).hexdigest()


# --- what a peer sent --------------------------------------------------------------------------

_TEXT = "text"
_COUNT = "count"
_SHAPE: dict[str, Any] = {
    "session_sha256": _TEXT,
    "statement": {
        "node": _TEXT,
        "role": _TEXT,
        "device": {
            "source": _TEXT,
            "description": _TEXT,
            "idealisations": [_TEXT],
            "sessions_before": _COUNT,
            "aborted_before": _COUNT,
            "published_bits_before": _COUNT,
        },
        "randomness": {"source": _TEXT, "health": _TEXT},
        "stored_ns": _COUNT,
    },
    "certificates": [bytes],
    "signature": bytes,
}


def _read(told: bytes) -> dict[str, Any]:
    """An endorsement as `Endorsements.told` makes one; ValueError if it is anything else."""
    if len(told) > ENDORSEMENT_BYTES_MAX:
        raise Malformed("too long")
    end: dict[str, Any] = json.loads(told)
    wrong = next(_misshapen(end, _SHAPE, "endorsement"), None)
    if wrong is not None:
        raise Malformed(wrong)
    if end["statement"]["role"] not in ("alice", "bob"):
        raise Malformed("no such role")
    if not 1 <= len(end["certificates"]) <= CERTIFICATES_MAX:
        raise Malformed("too many certificates, or none")
    if canonical(end) != told:
        raise Malformed("not canonical")
    return end


def _misshapen(value: Any, shape: Any, name: str) -> Iterator[str]:
    """Names of what is not as it should be.  Texts are fit to be shown on any screen."""
    if isinstance(shape, dict):
        if not isinstance(value, dict) or set(value) != set(shape):
            yield name
            return
        for inner, wanted in shape.items():
            yield from _misshapen(value[inner], wanted, inner)
    elif isinstance(shape, list):
        if not isinstance(value, list) or len(value) > IDEALISATIONS_MAX:
            yield name
            return
        for item in value:
            yield from _misshapen(item, shape[0], name)
    elif not _fits(value, shape):
        yield name


def _fits(value: Any, shape: Any) -> bool:
    if shape is _COUNT:
        return type(value) is int and 0 <= value < INTEGER_MAX
    if type(value) is not str:
        return False
    if shape is _TEXT:
        return len(value) <= TEXT_CHARACTERS_MAX and value.isprintable()
    try:
        return base64.b64encode(base64.b64decode(value, validate=True)).decode() == value
    except (binascii.Error, ValueError):
        return False
