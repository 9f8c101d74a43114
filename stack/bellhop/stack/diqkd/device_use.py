"""What a link's device has been used for: it may remember all of it, and nobody can look.

J. Barrett, R. Colbeck, A. Kent, Phys. Rev. Lett. 110, 010503 (2013): a device that is used again
can hide what it remembers of an earlier key in whatever later sessions say in public.  The theorem
of one session says nothing of that; so it is counted how much has been said.
"""

from dataclasses import dataclass, replace

from bellhop.hal.operations import LinkName
from bellhop.stack.core import Fact

PREFIX = "device/"


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """Sessions a link's device was measured in, by how they ended; `published_bits` is how much was
    said in public that depends on its outcomes.  Counted from the making of this node's store."""

    sessions: int = 0
    aborted: int = 0
    published_bits: int = 0

    def stored(self, published_bits: int) -> "DeviceUse":
        """After another session that left a key."""
        published = self.published_bits + published_bits
        return replace(self, sessions=self.sessions + 1, published_bits=published)

    def ended(self, published_bits: int) -> "DeviceUse":
        """After another session that was measured and left none."""
        published = self.published_bits + published_bits
        return replace(self, aborted=self.aborted + 1, published_bits=published)

    def fact(self, link: LinkName) -> Fact:
        counts = (self.sessions, self.aborted, self.published_bits)
        return Fact(f"{PREFIX}{link}", b"".join(count.to_bytes(8, "big") for count in counts))


def read_use(payload: bytes) -> DeviceUse:
    """What `DeviceUse.fact` wrote; a count that was not kept yet is 0."""
    counts = [int.from_bytes(payload[start : start + 8], "big") for start in (0, 8, 16)]
    return DeviceUse(*counts)
