"""The kinds of identity that cores hand about."""

from typing import NewType

SessionId = NewType("SessionId", str)
"""A DI-QKD session and the block distilled by it: 32 hexadecimal digits, drawn by the initiator."""

KeyId = NewType("KeyId", str)
"""A key as applications name it: the lower-case text of a version 8 UUID (RFC 9562, 5.8)."""

SaeId = NewType("SaeId", str)
"""A secure application entity (ETSI GS QKD 014), as its certificate names it."""

JobNumber = NewType("JobNumber", int)
"""One `Compute` of one incarnation of a node."""

AskNumber = NewType("AskNumber", int)
"""One request of an operator, to be answered once."""
