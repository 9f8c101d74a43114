"""Who is at the other end of a connection, from its certificate.

Every party's certificate has exactly one URI `bellhop:KIND:NAME` among its alternative names.  The
authority that signs it vouches for it; nothing a party says of itself counts.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from bellhop.hal.errors import PeerError

Kind = Literal["node", "emulator", "kme", "sae"]
KINDS: tuple[Kind, ...] = get_args(Kind)

NAME_CHARACTERS_MAX = 63
"""A name is one label of a domain name (RFC 1035)."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SCHEME = "bellhop:"


class Identity(NamedTuple):
    """A party: what it is and what it is called."""

    kind: Kind
    name: str


def valid_name(name: str) -> bool:
    """Lower-case letters, digits and hyphens: what fits a certificate, a host name and a log."""
    return _NAME.fullmatch(name) is not None


def identity_of(alternative_names: Iterable[str]) -> Identity:
    """The one identity among a certificate's alternative names.

    Raises PeerError if there is none, more than one, or one that is not well formed.
    """
    found = sorted({name for name in alternative_names if name.lower().startswith(_SCHEME)})
    if len(found) != 1:
        raise PeerError(
            f"the certificate names {len(found)} Bellhop identities instead of one: its owner must"
            f" get one with exactly one URI {_SCHEME}KIND:NAME"
        )
    parts = found[0].split(":")
    kind = next((kind for kind in KINDS if len(parts) == 3 and kind == parts[1]), None)
    if kind is None or not found[0].startswith(_SCHEME) or not valid_name(parts[2]):
        raise PeerError(
            "the certificate's Bellhop identity is malformed: its owner must get one with a URI"
            f" {_SCHEME}KIND:NAME, KIND one of {', '.join(KINDS)}"
        )
    return Identity(kind, parts[2])


def peer_identity(auth_context: Mapping[str, Iterable[bytes]]) -> Identity:
    """The identity of a gRPC peer from `ServicerContext.auth_context()`.

    Only for connections with mutual TLS: then the names in the context are the verified
    certificate's.  Raises PeerError as `identity_of`.
    """
    if b"ssl" not in tuple(auth_context.get("transport_security_type", ())):
        raise PeerError("the connection has no client certificate: its owner must use mutual TLS")
    names = auth_context.get("x509_subject_alternative_name", ())
    return identity_of(name.decode("utf-8", errors="replace") for name in names)
