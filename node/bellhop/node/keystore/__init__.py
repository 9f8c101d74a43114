"""The key store: keys at rest are encrypted, a key leaves once to a recipient, and is erased."""

from bellhop.node.keystore.delivery import FetchRequest, TakeRequest
from bellhop.node.keystore.records import (
    BlockState,
    BlockSummary,
    DeliveredKey,
    EmulatedRefused,
    Fetched,
    FetchOutcome,
    InsufficientKeys,
    KeyRecord,
    KeyState,
    NotFound,
    NotYetAllocated,
    NotYours,
    RefusedAllocation,
    SourceUnmet,
    Stock,
    Taken,
    TakeOutcome,
)
from bellhop.node.keystore.store import KeyStore
from bellhop.node.keystore.vault import create_kek, read_kek

__all__ = [
    "BlockState",
    "BlockSummary",
    "DeliveredKey",
    "EmulatedRefused",
    "FetchOutcome",
    "FetchRequest",
    "Fetched",
    "InsufficientKeys",
    "KeyRecord",
    "KeyState",
    "KeyStore",
    "NotFound",
    "NotYetAllocated",
    "NotYours",
    "RefusedAllocation",
    "SourceUnmet",
    "Stock",
    "TakeOutcome",
    "TakeRequest",
    "Taken",
    "create_kek",
    "read_kek",
]
