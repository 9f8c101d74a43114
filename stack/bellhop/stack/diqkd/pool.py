"""The pre-shared authentication key of two nodes: a hash key, and one-time masks in batches.

Rules
  A pool is named by a random public id, and a node takes it once: nothing else keeps its masks from
  being spent again.
  A mask is named by its batch and its number, so both ends mean the same one whatever either has
  missed.  The first batch is provisioned by hand; every distilled block brings another, named by
  its session.
  Each direction has masks of its own: the two ends never spend the same one.
  A sender spends a batch in order and persists how far it is before the tag leaves.  A receiver
  persists how far it has seen, and refuses a number it has passed.
  A batch of a block is spent only when both ends are known to have it.
  Every wrong tag is a forger's try under the same hash key.  They are counted as long as that key
  lives, and after `FORGERIES_MAX` none is looked at any more: every session's error pays for all.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import NodeName
from bellhop.stack.codec import join, split
from bellhop.stack.core import Fact
from bellhop.stack.diqkd.authenticate import (
    HASH_KEY_BYTES,
    MASK_BYTES,
    TAG_BITS,
    tag,
    verify_tag,
)
from bellhop.stack.rng import Rng

FIRST_BATCH = "provisioned"
TAG_WRONG = "tag_wrong"
MASKS_PROVISIONED_MAX = 65_536
FILE_VERSION = 1

POOL_ID_BYTES = 16

TAKEN = "pool-taken/"
"""Facts of this prefix name the pools a node has ever taken: they outlive the pools."""

FORGERIES_MAX = 64
"""Wrong tags looked at under one hash key; then the pool is worn, and another is provisioned."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A one-time mask of this end's sending direction, not spent yet."""

    batch: str
    number: int
    secret: bytes = field(repr=False)


@dataclass(slots=True)
class _Batch:
    order: int
    outgoing: bytes = field(repr=False)
    incoming: bytes = field(repr=False)
    usable: bool
    spent: int = 0
    seen: int = 0

    @property
    def left(self) -> int:
        return len(self.outgoing) // MASK_BYTES - self.spent if self.usable else 0

    @property
    def left_incoming(self) -> int:
        return len(self.incoming) // MASK_BYTES - self.seen


_POOL_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class PoolFile:
    """What is carried to both nodes by hand: canonical JSON, so that a pool has one spelling.

    `low` are the masks of the node whose name sorts first.
    """

    pool_id: str  # public, random: a pool is known by it and nothing else, and taken once
    nodes: tuple[str, ...]
    hash_key: bytes = field(repr=False)
    low: bytes = field(repr=False)
    high: bytes = field(repr=False)

    @staticmethod
    def draw(rng: Rng, nodes: tuple[NodeName, NodeName], masks: int) -> "PoolFile":
        if not 0 < masks <= MASKS_PROVISIONED_MAX:
            raise ConfigError(
                f"a pool holds 1 to {MASKS_PROVISIONED_MAX} masks a direction", field="masks"
            )
        return PoolFile(
            rng.child("pool id").draw(POOL_ID_BYTES).hex(),
            tuple(sorted(nodes)),
            rng.draw(HASH_KEY_BYTES),
            rng.draw(masks * MASK_BYTES),
            rng.draw(masks * MASK_BYTES),
        )

    def encode(self) -> bytes:
        content = {
            "bellhop_pool": FILE_VERSION,
            "pool_id": self.pool_id,
            "nodes": self.nodes,
            "hash_key": self.hash_key.hex(),
            "low": self.low.hex(),
            "high": self.high.hex(),
        }
        return json.dumps(content).encode()

    @staticmethod
    def decode(content: bytes) -> "PoolFile":
        """The one pool that is spelled so; ConfigError if none is, or if it protects nothing."""
        try:
            read = json.loads(content)
            version = read["bellhop_pool"]
            secrets = (bytes.fromhex(read[name]) for name in ("hash_key", "low", "high"))
            file = PoolFile(read["pool_id"], tuple(read["nodes"]), *secrets)
            canonical = file.encode()
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError("this is not a pool file: provision a new one") from None
        if version != FILE_VERSION or len(file.hash_key) != HASH_KEY_BYTES:
            raise ConfigError("the pool file is of another version: provision a new one")
        if canonical != content or not file._sound():
            raise ConfigError("the pool file is damaged: provision a new one")
        return file

    def _sound(self) -> bool:
        """Whether it may be what `draw` has drawn.  Masks repeat by chance once in 2**30 pools."""
        both = self.low + self.high
        masks = [both[start : start + MASK_BYTES] for start in range(0, len(both), MASK_BYTES)]
        return (
            _POOL_ID.fullmatch(str(self.pool_id)) is not None  # JSON knows no types of ours
            and len(self.low) == len(self.high)
            and len(self.low) % MASK_BYTES == 0
            and 0 < len(self.low) <= MASKS_PROVISIONED_MAX * MASK_BYTES
            and any(self.hash_key)
            and len(set(masks)) == len(masks)
        )

    def facts(self, own: NodeName, peer: NodeName) -> tuple[Fact, ...]:
        """The pool as one node keeps it.  ConfigError if it is not for these two."""
        if self.nodes != tuple(sorted((own, peer))):
            raise ConfigError(f"the pool file is not for {own} and {peer}: check --peer")
        outgoing, incoming = (self.low, self.high)[:: 1 if own == min(own, peer) else -1]
        prefix = f"pool/{peer}/"
        return (
            Fact(f"{prefix}key", self.hash_key),
            Fact(f"{prefix}id", self.pool_id.encode()),
            Fact(f"{prefix}batch/{FIRST_BATCH}", join((0).to_bytes(8), outgoing, incoming)),
            Fact(f"{prefix}used/{FIRST_BATCH}", join((0).to_bytes(8), (0).to_bytes(8))),
            Fact(f"{prefix}forgeries", (0).to_bytes(8, "big")),
        )

    def taken(self, peer: NodeName) -> Fact:
        """A node that has this fact has had the pool, and never takes it again."""
        return Fact(f"{TAKEN}{self.pool_id}", peer.encode())


class Pool:
    """One end's view of what it shares with one peer.  Empty until provisioned."""

    def __init__(self, peer: NodeName, facts: Mapping[str, bytes]) -> None:
        self._prefix = f"pool/{peer}/"
        self._hash_key = facts.get(f"{self._prefix}key", b"")
        self.id = facts.get(f"{self._prefix}id", b"").decode()
        self._forgeries = int.from_bytes(facts.get(f"{self._prefix}forgeries", b""), "big")
        self._batches: dict[str, _Batch] = {}
        for name, payload in facts.items():
            if name.startswith(f"{self._prefix}batch/"):
                self._add(name.removeprefix(f"{self._prefix}batch/"), payload)
        for name, payload in facts.items():
            if name.startswith(f"{self._prefix}used/"):
                batch = self._batches.get(name.removeprefix(f"{self._prefix}used/"))
                if batch is not None:
                    spent, seen = split(payload, 2)
                    batch.spent, batch.seen = int.from_bytes(spent), int.from_bytes(seen)
                    batch.usable = True

    def _add(self, name: str, payload: bytes) -> None:
        order, outgoing, incoming = split(payload, 3)
        self._batches[name] = _Batch(int.from_bytes(order), outgoing, incoming, usable=False)

    # --- state ---------------------------------------------------------------------------------

    @property
    def provisioned(self) -> bool:
        return bool(self._hash_key and self.id)

    @property
    def masks_left(self) -> int:
        """Masks this end may still spend."""
        return sum(batch.left for batch in self._batches.values())

    @property
    def masks_left_incoming(self) -> int:
        """Masks the peer may still spend, as far as this end has seen."""
        return sum(batch.left_incoming for batch in self._batches.values() if batch.usable)

    @property
    def forgeries(self) -> int:
        """Wrong tags refused under this hash key."""
        return self._forgeries

    @property
    def worn(self) -> bool:
        """Whether so many wrong tags came that none is looked at any more."""
        return self._forgeries >= FORGERIES_MAX

    # --- spending ------------------------------------------------------------------------------

    def spend(self) -> tuple[Mask, Fact]:
        """The next mask, and the fact to persist before a tag under it leaves."""
        name, batch = min(
            ((name, batch) for name, batch in self._batches.items() if batch.left),
            key=lambda item: item[1].order,
        )
        start = batch.spent * MASK_BYTES
        mask = Mask(name, batch.spent, batch.outgoing[start : start + MASK_BYTES])
        batch.spent += 1
        return mask, self._used(name, batch)

    def tag(self, mask: Mask, message: bytes) -> bytes:
        return tag(self._hash_key, mask.secret, message)

    def check(self, batch: str, number: int, message: bytes, received: bytes) -> str | None:
        """Why a received tag is refused, or None.  Changes nothing."""
        if self.worn:
            return "pool_worn"
        known = self._batches.get(batch)
        if known is None or not 0 <= number < len(known.incoming) // MASK_BYTES:
            return "mask_unknown"
        if number < known.seen:
            return "mask_used_before"
        secret = known.incoming[number * MASK_BYTES : (number + 1) * MASK_BYTES]
        if not verify_tag(self._hash_key, secret, message, received):
            return TAG_WRONG
        return None

    def refused(self) -> Fact:
        """A tag was wrong: the fact that counts it, to be persisted before anything else."""
        self._forgeries += 1
        return Fact(f"{self._prefix}forgeries", self._forgeries.to_bytes(8, "big"))

    def saw(self, batch: str, number: int) -> Fact:
        """A tag under this mask was accepted: the fact that refuses it from now on."""
        known = self._batches[batch]
        known.seen = number + 1
        known.usable = True
        return self._used(batch, known)

    # --- replenishing --------------------------------------------------------------------------

    def batch_fact(self, name: str, outgoing: bytes, incoming: bytes) -> Fact:
        """Both ends' masks of a new batch, to be stored with the block they come from."""
        order = 1 + max((batch.order for batch in self._batches.values()), default=0)
        payload = join(order.to_bytes(8), outgoing, incoming)
        self._add(name, payload)
        return Fact(f"{self._prefix}batch/{name}", payload)

    def ready(self, name: str) -> tuple[tuple[Fact, ...], tuple[str, ...]]:
        """The peer has the batch too: its masks may be spent.  Facts to put, prefixes to forget.

        The peer may have known it before this end did, and have spent all of it with us.
        """
        if name in self._batches:
            self._batches[name].usable = True
        worn_out = self._worn_out()
        batch = self._batches.get(name)
        return () if batch is None else (self._used(name, batch),), worn_out

    def drop(self, name: str) -> tuple[str, ...]:
        """The peer can never have the batch: prefixes of its facts, to be forgotten."""
        self._batches.pop(name, None)
        return self._prefixes(name)

    def _prefixes(self, name: str) -> tuple[str, ...]:
        return tuple(f"{self._prefix}{kind}/{name}" for kind in ("batch", "used"))

    def _used(self, name: str, batch: _Batch) -> Fact:
        payload = join(batch.spent.to_bytes(8), batch.seen.to_bytes(8))
        return Fact(f"{self._prefix}used/{name}", payload)

    def _worn_out(self) -> tuple[str, ...]:
        """Prefixes of facts about batches that neither end can spend from any more."""
        gone = [
            name
            for name, batch in self._batches.items()
            if batch.usable and batch.left == 0 and batch.left_incoming == 0
        ]
        for name in gone:
            del self._batches[name]
        return tuple(prefix for name in gone for prefix in self._prefixes(name))

    # --- provisioning --------------------------------------------------------------------------

    @staticmethod
    def provision(rng: Rng, nodes: tuple[NodeName, NodeName], masks: int) -> bytes:
        """The content of a pool file: `masks` a direction.  To be carried to both nodes by hand."""
        return PoolFile.draw(rng, nodes, masks).encode()

    @staticmethod
    def facts(content: bytes, own: NodeName, peer: NodeName) -> tuple[Fact, ...]:
        """A pool file as the facts of one node.  ConfigError if it is not for these two."""
        return PoolFile.decode(content).facts(own, peer)

    @staticmethod
    def summary(facts: Mapping[str, bytes], peer: NodeName) -> dict[str, str | int | bool]:
        """What an operator may see."""
        pool = Pool(peer, facts)
        return {
            "provisioned": pool.provisioned,
            "pool_id": pool.id,
            "masks_left": pool.masks_left,
            "masks_left_incoming": pool.masks_left_incoming,
            "mask_bits": TAG_BITS,
            "forgeries": pool.forgeries,
        }
