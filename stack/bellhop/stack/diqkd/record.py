"""What one end holds of a session: its rounds, and the tagged messages said and heard.

Rules
  Everything a crash must not undo is a fact, named under `session/<id>/`:
      parameters          the design, this end's role in it, whether the peer has agreed
      drawn/<slot>        which rounds are tests, the own settings, the heralded patterns
      outcomes/<slot>     the own outcomes, 0 where lost
      corrected           Bob's, from his decision on: the string he has accepted
      said/<stage>        a tagged message as it was sent: sent again, never made again
      heard/<stage>       a tagged message as it was accepted
  A slot with settings and no outcomes after a restart was in the device's hands: its outcomes are
  lost and count as 0.  Its settings are never drawn again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import NodeName
from bellhop.stack.codec import join, pack, split, unpack
from bellhop.stack.core import Fact
from bellhop.stack.diqkd.parameters import Parameters, decode_parameters
from bellhop.stack.ids import SessionId
from bellhop.stack.link.machine import MeasureDirectly
from bellhop.stack.messages import Stage, Tagged

Bits = NDArray[np.uint8]
Flags = NDArray[np.bool_]

PREFIX = "session/"


@dataclass(slots=True)
class Record:
    """The facts of a session, in memory.  Arrays have one entry a round or one a slot."""

    parameters: Parameters
    own: NodeName
    peer: NodeName
    agreed: bool
    request: MeasureDirectly = field(init=False)
    tests: Flags = field(init=False, repr=False)
    settings: Bits = field(init=False, repr=False)
    outcomes: Bits = field(init=False, repr=False)
    patterns: Bits = field(init=False, repr=False)
    drawn: Flags = field(init=False, repr=False)
    measured: Flags = field(init=False, repr=False)
    peer_done: Flags = field(init=False, repr=False)
    corrected: Bits | None = field(default=None, repr=False)
    said: dict[Stage, Tagged] = field(default_factory=dict, repr=False)
    heard: dict[Stage, Tagged] = field(default_factory=dict, repr=False)
    stored: bool = False

    def __post_init__(self) -> None:
        p = self.parameters
        self.request = MeasureDirectly(
            p.link, self.peer, p.request, p.rounds, p.block_rounds, p.window
        )
        self.tests = np.zeros(p.rounds, np.bool_)
        self.settings = np.zeros(p.rounds, np.uint8)
        self.outcomes = np.zeros(p.rounds, np.uint8)
        self.patterns = np.zeros(p.rounds, np.uint8)
        self.drawn = np.zeros(self.request.slots, np.bool_)
        self.measured = np.zeros(self.request.slots, np.bool_)
        self.peer_done = np.zeros(self.request.slots, np.bool_)

    @property
    def session(self) -> SessionId:
        return self.parameters.session

    @property
    def is_alice(self) -> bool:
        return self.parameters.alice == self.own

    @property
    def prefix(self) -> str:
        return f"{PREFIX}{self.session}/"

    @property
    def raw_prefixes(self) -> tuple[str, ...]:
        """Facts that only serve until the key is there."""
        own = tuple(f"{self.prefix}{kind}" for kind in ("drawn/", "outcomes/", "corrected"))
        return (*own, f"link/{self.session}/")

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All facts of the session."""
        return (self.prefix, f"link/{self.session}/")

    def done(self, stage: Stage) -> bool:
        return stage in self.said or stage in self.heard

    # --- facts -----------------------------------------------------------------------------------

    def parameters_fact(self) -> Fact:
        state = b"stored" if self.stored else b"agreed" if self.agreed else b"proposed"
        payload = join(self.parameters.encode(), self.peer.encode(), state)
        return Fact(f"{self.prefix}parameters", payload)

    def draw(self, slot: int, tests: Flags, settings: Bits, patterns: Bits) -> Fact:
        """Settings are drawn; a slot is drawn once."""
        assert not self.drawn[slot], "settings are never drawn again"
        span = self.request.span(slot)
        self.tests[span], self.settings[span], self.patterns[span] = tests, settings, patterns
        self.drawn[slot] = True
        payload = join(pack(tests), settings.tobytes(), patterns.tobytes())
        return Fact(f"{self.prefix}drawn/{slot}", payload)

    def measure(self, slot: int, outcomes: Bits | None) -> Fact:
        """Outcomes are there, or lost (None) and count as 0."""
        assert self.drawn[slot] and not self.measured[slot]
        span = self.request.span(slot)
        if outcomes is not None:
            self.outcomes[span] = outcomes
        self.measured[slot] = True
        return Fact(f"{self.prefix}outcomes/{slot}", pack(self.outcomes[span]))

    def say(self, message: Tagged) -> Fact:
        assert not self.done(message.stage)
        self.said[message.stage] = message
        return Fact(f"{self.prefix}said/{message.stage.value}", _encode_tagged(message))

    def hear(self, message: Tagged) -> Fact:
        assert not self.done(message.stage)
        self.heard[message.stage] = message
        return Fact(f"{self.prefix}heard/{message.stage.value}", _encode_tagged(message))

    def correct(self, bits: Bits) -> Fact:
        """Bob accepts this string: he must have it even if no decoder finds it again."""
        self.corrected = bits
        return Fact(f"{self.prefix}corrected", pack(bits))

    def forget_rounds(self) -> None:
        """The key is there: raw bits are kept no longer than they serve."""
        self.settings = self.outcomes = self.patterns = np.zeros(0, np.uint8)
        self.corrected = None

    # --- restart ---------------------------------------------------------------------------------

    def _restore(self, name: str, payload: bytes) -> None:
        kind, _, rest = name.partition("/")
        match kind:
            case "drawn":
                slot = int(rest)
                span = self.request.span(slot)
                tests, settings, patterns = split(payload, 3)
                rounds = self.request.slot_rounds(slot)
                self.tests[span] = unpack(tests, rounds).astype(np.bool_)
                self.settings[span] = np.frombuffer(settings, np.uint8)
                self.patterns[span] = np.frombuffer(patterns, np.uint8)
                self.drawn[slot] = True
            case "outcomes":
                slot = int(rest)
                rounds = self.request.slot_rounds(slot)
                self.outcomes[self.request.span(slot)] = unpack(payload, rounds)
                self.measured[slot] = True
            case "corrected":
                self.corrected = unpack(payload, self.parameters.rounds)
            case "said":
                self.said[Stage(rest)] = _decode_tagged(self.session, Stage(rest), payload)
            case "heard":
                self.heard[Stage(rest)] = _decode_tagged(self.session, Stage(rest), payload)


def restore(own: NodeName, facts: Mapping[str, bytes]) -> list[Record]:
    """The sessions that were under way when this node stopped."""
    records = []
    for name, payload in facts.items():
        if name.startswith(PREFIX) and name.endswith("/parameters"):
            encoded, peer, state = split(payload, 3)
            record = Record(
                decode_parameters(encoded),
                own,
                NodeName(peer.decode()),
                agreed=state != b"proposed",
                stored=state == b"stored",
            )
            for other, content in facts.items():
                if other.startswith(record.prefix):
                    record._restore(other.removeprefix(record.prefix), content)
            records.append(record)
    return records


def _encode_tagged(message: Tagged) -> bytes:
    number = message.number.to_bytes(8, "big")
    return join(message.body, message.batch.encode(), number, message.tag)


def _decode_tagged(session: SessionId, stage: Stage, payload: bytes) -> Tagged:
    body, batch, number, tag = split(payload, 4)
    return Tagged(session, stage, body, batch.decode(), int.from_bytes(number, "big"), tag)
