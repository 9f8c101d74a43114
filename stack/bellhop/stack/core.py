"""The contract of every core: events in, actions out.

Rules.  Actions are performed in list order.  `Persist`, `StoreKeys` and the other durable actions
are on disk before the next action starts, so "I have it" is told to a peer only after the disk has
it, by where it stands in the list.  A core has no clock, no chance and no input or output of its
own.  A peer's nonsense is a `Refuse`, never an exception.
"""

from dataclasses import dataclass, field
from typing import Protocol

from bellhop.hal.operations import NodeName, Operation, Report
from bellhop.stack.ids import AskNumber, JobNumber, KeyId, SessionId
from bellhop.stack.messages import Allocation, Message


@dataclass(frozen=True, slots=True)
class Fact:
    """What must outlive a crash: a name and sealed bytes.  The last one of a name holds."""

    name: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Slot:
    """One deliverable key of a distilled block; `issuer` may hand it out first."""

    index: int
    key_id: KeyId
    issuer: NodeName
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DistilledBlock:
    """What a session leaves behind in the key store.  `receipt` is its JSON text."""

    session: SessionId
    peer: NodeName
    source: str
    receipt: str
    slots: tuple[Slot, ...]


# --- events: facts, in the past tense -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline came."""


@dataclass(frozen=True, slots=True)
class PeerJoined:
    peer: NodeName


@dataclass(frozen=True, slots=True)
class PeerLost:
    peer: NodeName


@dataclass(frozen=True, slots=True)
class PeerSaid:
    peer: NodeName
    message: Message


@dataclass(frozen=True, slots=True)
class Reported:
    """The memory reported."""

    report: Report


@dataclass(frozen=True, slots=True)
class RunSession:
    """An operator asks for a DI-QKD session of `rounds` rounds with `peer`.

    One that is not expected to gain what the node wants is only run `even_at_a_loss`.
    """

    peer: NodeName
    rounds: int
    even_at_a_loss: bool = False


@dataclass(frozen=True, slots=True)
class AbortSession:
    """An operator gives up the running session with `peer`."""

    peer: NodeName


@dataclass(frozen=True, slots=True)
class PauseSession:
    """An operator wants no new pairs for the session with `peer`, or pairs again."""

    peer: NodeName
    paused: bool


@dataclass(frozen=True, slots=True)
class CalibrateLink:
    """An operator asks for S and the error rate of the link to `peer`: a session without a key."""

    peer: NodeName
    rounds: int


Ask = RunSession | AbortSession | PauseSession | CalibrateLink


@dataclass(frozen=True, slots=True)
class Asked:
    number: AskNumber
    ask: Ask


@dataclass(frozen=True, slots=True)
class Computed:
    job: JobNumber
    result: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class ComputeFailed:
    job: JobNumber
    why: str


@dataclass(frozen=True, slots=True)
class KeysTaken:
    """Keys were handed to their masters here; durable already, with their place in the outbox."""

    peer: NodeName
    allocations: tuple[Allocation, ...]


Event = (
    Tick
    | PeerJoined
    | PeerLost
    | PeerSaid
    | Reported
    | Asked
    | Computed
    | ComputeFailed
    | KeysTaken
)


# --- actions: orders, in the imperative -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """To the memory."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Tell:
    peer: NodeName
    message: Message


@dataclass(frozen=True, slots=True)
class Persist:
    """Durable, all or nothing: facts named with a prefix in `forget` go, then `put` comes."""

    put: tuple[Fact, ...] = ()
    forget: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreKeys:
    """The keys of a block, with the facts that go and come with it, in one transaction.

    They are held back until `ConfirmKeys`: nobody is handed a key that the peer may not have.
    """

    block: DistilledBlock
    persist: Persist


@dataclass(frozen=True, slots=True)
class ConfirmKeys:
    """The peer has the block too: its keys are deliverable.

    `receipt`: the block's receipt from now on, with the peer's word; empty: as it was stored.
    """

    session: SessionId
    persist: Persist
    receipt: str = ""


@dataclass(frozen=True, slots=True)
class VoidKeys:
    """The peer can never have the block: its held keys are erased."""

    session: SessionId
    why: str


@dataclass(frozen=True, slots=True)
class RecordAllocations:
    """The peer handed these keys to their masters: their slaves may fetch them here."""

    peer: NodeName
    allocations: tuple[Allocation, ...]


@dataclass(frozen=True, slots=True)
class ForgetAllocations:
    """The peer has recorded these: they leave the outbox."""

    peer: NodeName
    key_ids: tuple[KeyId, ...]


class Job(Protocol):
    """Heavy arithmetic: a pure, picklable call.  Never holds what a log may show."""

    @property
    def name(self) -> str: ...

    def run(self) -> object: ...


@dataclass(frozen=True, slots=True)
class Compute:
    job: JobNumber
    work: Job = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The last word on an operator's request: `outcome` says which, `fields` what more."""

    number: AskNumber
    outcome: str
    fields: dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Refuse:
    """What a peer said is refused; `who` must act."""

    peer: NodeName
    reason: str
    detail: str = ""
    who: str = "the operator of the peer"


@dataclass(frozen=True, slots=True)
class Note:
    """To the log and the metrics."""

    name: str
    fields: dict[str, str | int | float]


Action = (
    Order
    | Tell
    | Persist
    | StoreKeys
    | ConfirmKeys
    | VoidKeys
    | RecordAllocations
    | ForgetAllocations
    | Compute
    | Answer
    | Refuse
    | Note
)


class Core(Protocol):
    """A value that takes an event and the time and returns actions."""

    def step(self, now_ns: int, event: Event) -> list[Action]: ...

    def next_deadline(self) -> int | None:
        """When `Tick` is wanted, in the time of `step`; one number hides every timer."""
        ...
