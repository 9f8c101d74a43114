"""Who a node is to third parties: what it signs, anybody can check against an authority.

A signature is computational, unlike the tags of a session: no key's secrecy rests on one.  It binds
a node to what it says of a session, long after the session.
"""

from typing import Protocol

from bellhop.hal.operations import NodeName


class Identity(Protocol):
    """Handed in, as time and chance are: a daemon's is its certificate, a simulation's is drawn."""

    @property
    def certificates(self) -> tuple[bytes, ...]:
        """This node's certificate (DER, X.509), then those between it and the authority."""
        ...

    def sign(self, content: bytes) -> bytes:
        """A signature under the key of the first certificate."""
        ...

    def objection(
        self,
        signer: NodeName,
        certificates: tuple[bytes, ...],
        content: bytes,
        signature: bytes,
        signed_ns: int,
    ) -> str | None:
        """Why this is not the signature of the node `signer` at that Unix time, or None.

        Whatever a peer sent may be given: nothing is raised.
        """
        ...
