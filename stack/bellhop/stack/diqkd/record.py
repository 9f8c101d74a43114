"""What one end holds of a session: its rounds, and the tagged messages said and heard.

Rules
  Everything a crash must not undo is a fact, named under `session/<id>/`:
      parameters          the design, this end's role in it, whether the peer has agreed
      drawn/<page>/<slot>     which rounds are tests, the own settings, the heralded patterns,
                              and Alice's flips
      outcomes/<page>/<slot>  the own outcomes, 0 where lost
      pages/<page>        all that of a run of slots that both ends have answered: it takes the
                          place of theirs, and of the link's, in one transaction
      paused              which ends order no new pairs, and since when the session is held
      extra               how many steps of extra syndrome Alice has given, and their bits
      corrected           Bob's, from his decision on: the string he has accepted
      said/<stage>        a tagged message as it was sent: sent again, never made again
      heard/<stage>       a tagged message as it was accepted
  A slot with settings and no outcomes after a restart was in the device's hands: its outcomes are
  lost and count as 0.  Its settings are never drawn again.
  A device that holds a single pair makes a million slots of a session: their facts are folded into
  pages as the session goes, so that what is stored, and read at a restart, stays small.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from bellhop.hal.operations import NodeName
from bellhop.stack.codec import join, pack, split, unpack
from bellhop.stack.core import Fact, Persist
from bellhop.stack.diqkd.pages import (
    Bits,
    Drawn,
    Flags,
    decode_drawn,
    decode_page,
    encode_page,
)
from bellhop.stack.diqkd.parameters import Parameters, decode_parameters
from bellhop.stack.ids import SessionId
from bellhop.stack.link.block import Span
from bellhop.stack.link.machine import MeasureDirectly
from bellhop.stack.link.slots import Slots
from bellhop.stack.messages import Stage, Tagged

PREFIX = "session/"


@dataclass(slots=True)
class Record:
    """The facts of a session, in memory.  Arrays have one entry a round.

    `drawn`, `measured`: slots at this end.  `peer_done`: those that the peer has answered, as far
    as Alice knows; she announces only what her own device has answered.  `span`: what the device's
    clock says of the pairs that were drawn for.  `held_since_ns`: see `holds`; 0 if not.
    """

    parameters: Parameters
    own: NodeName
    peer: NodeName
    agreed: bool
    request: MeasureDirectly = field(init=False)
    tests: Flags = field(init=False, repr=False)
    settings: Bits = field(init=False, repr=False)
    outcomes: Bits = field(init=False, repr=False)
    patterns: Bits = field(init=False, repr=False)
    flips: Flags = field(init=False, repr=False)
    drawn: Slots = field(init=False, repr=False)
    measured: Slots = field(init=False, repr=False)
    peer_done: Slots = field(init=False, repr=False)
    pages: int = field(default=0, init=False)
    span: Span | None = field(default=None, init=False)
    paused: bool = False
    peer_paused: bool = False
    held_since_ns: int = 0
    steps: int = 0
    extra: bytes = field(default=b"", repr=False)
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
        self.flips = np.zeros(p.rounds, np.bool_)
        self.drawn = Slots(self.request.slots)
        self.measured = Slots(self.request.slots)
        self.peer_done = Slots(self.request.slots)

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
        kinds = ("drawn/", "outcomes/", "pages/", "paused", "corrected")
        own = tuple(f"{self.prefix}{kind}" for kind in kinds)
        return (*own, f"link/{self.session}/")

    @property
    def prefixes(self) -> tuple[str, ...]:
        """All facts of the session."""
        return (self.prefix, f"link/{self.session}/")

    @property
    def answered(self) -> Slots:
        """Slots that both ends have answered, as far as this end knows."""
        return self.peer_done if self.is_alice else self.measured

    @property
    def rounds_answered(self) -> int:
        request, answered = self.request, self.answered
        lacking = request.block_rounds - request.slot_rounds(request.slots - 1)
        last = request.slots - 1 in answered
        return answered.count * request.block_rounds - (lacking if last else 0)

    @property
    def on_hold(self) -> bool:
        """Whether an end is paused: both order no new pairs then."""
        return self.paused or self.peer_paused

    def done(self, stage: Stage) -> bool:
        return stage in self.said or stage in self.heard

    def message(self, stage: Stage) -> Tagged | None:
        """What was said in a stage, by whichever end."""
        return self.said.get(stage) or self.heard.get(stage)

    # --- facts -----------------------------------------------------------------------------------

    def parameters_fact(self) -> Fact:
        state = b"stored" if self.stored else b"agreed" if self.agreed else b"proposed"
        payload = join(self.parameters.encode(), self.peer.encode(), state)
        return Fact(f"{self.prefix}parameters", payload)

    def pause_fact(self) -> Fact:
        paused = bytes([self.paused | self.peer_paused << 1])
        return Fact(f"{self.prefix}paused", paused + self.held_since_ns.to_bytes(8, "big"))

    def draw(
        self,
        slot: int,
        tests: Flags,
        settings: Bits,
        patterns: Bits,
        flips: Flags | None = None,
        span: Span = Span(),  # noqa: B008 - frozen
    ) -> Fact:
        """Settings are drawn; a slot is drawn once."""
        assert slot not in self.drawn, "settings are never drawn again"
        unflipped = np.zeros(len(tests), np.bool_)
        drawn = Drawn(tests, settings, patterns, unflipped if flips is None else flips, span)
        self._take(self.request.span(slot), drawn)
        self.drawn.add(slot)
        return Fact(f"{self.prefix}drawn/{self.request.page(slot)}/{slot}", drawn.encode())

    def _take(self, rounds: slice, drawn: Drawn) -> None:
        self.tests[rounds], self.settings[rounds] = drawn.tests, drawn.settings
        self.patterns[rounds], self.flips[rounds] = drawn.patterns, drawn.flips
        self.span = drawn.span if self.span is None else self.span | drawn.span

    def _drawn(self, rounds: slice) -> Drawn:
        assert self.span is not None, "something was drawn"
        return Drawn(
            self.tests[rounds],
            self.settings[rounds],
            self.patterns[rounds],
            self.flips[rounds],
            self.span,
        )

    def measure(self, slot: int, outcomes: Bits | None) -> Fact:
        """Outcomes are there, or lost (None) and count as 0."""
        assert slot in self.drawn and slot not in self.measured
        span = self.request.span(slot)
        if outcomes is not None:
            self.outcomes[span] = outcomes
        self.measured.add(slot)
        name = f"{self.prefix}outcomes/{self.request.page(slot)}/{slot}"
        return Fact(name, pack(self.outcomes[span]))

    def fold(self) -> list[Persist]:
        """Pages, in the place of the facts of their slots, as many as are full by now.

        Pages of a single slot are none: nothing would be saved.
        """
        request = self.request
        persists: list[Persist] = []
        while request.page_slots > 1 and self.pages < request.pages:
            page, rounds = self.pages, request.page_span(self.pages)
            if self.answered.first < request.slots_of(page).stop:
                break
            content = encode_page(self._drawn(rounds), self.outcomes[rounds])
            singles = (
                f"{self.prefix}drawn/{page}/",
                f"{self.prefix}outcomes/{page}/",
                f"link/{self.session}/{page}/",
            )
            persists.append(Persist((Fact(f"{self.prefix}pages/{page}", content),), singles))
            self.pages += 1
        return persists

    def say(self, message: Tagged) -> Fact:
        assert not self.done(message.stage)
        self.said[message.stage] = message
        return Fact(f"{self.prefix}said/{message.stage.value}", _encode_tagged(message))

    def hear(self, message: Tagged) -> Fact:
        assert not self.done(message.stage)
        self.heard[message.stage] = message
        return Fact(f"{self.prefix}heard/{message.stage.value}", _encode_tagged(message))

    def give(self, steps: int, extra: bytes) -> Fact:
        """Alice gives so much extra syndrome in all, or Bob has it."""
        assert steps >= self.steps, "what was given is not taken back"
        self.steps, self.extra = steps, extra
        return Fact(f"{self.prefix}extra", bytes([steps]) + extra)

    def correct(self, bits: Bits) -> Fact:
        """Bob accepts this string: he must have it even if no decoder finds it again."""
        self.corrected = bits
        return Fact(f"{self.prefix}corrected", pack(bits))

    def forget_rounds(self) -> None:
        """The key is there: raw bits are kept no longer than they serve."""
        self.settings = self.outcomes = self.patterns = np.zeros(0, np.uint8)
        self.flips = np.zeros(0, np.bool_)
        self.corrected = None

    # --- restart ---------------------------------------------------------------------------------

    def _restore(self, name: str, payload: bytes) -> None:
        kind, _, rest = name.partition("/")
        match kind:
            case "drawn":
                slot = int(rest.rpartition("/")[2])
                rounds = self.request.slot_rounds(slot)
                self._take(self.request.span(slot), decode_drawn(payload, rounds))
                self.drawn.add(slot)
            case "outcomes":
                slot = int(rest.rpartition("/")[2])
                rounds = self.request.slot_rounds(slot)
                self.outcomes[self.request.span(slot)] = unpack(payload, rounds)
                self.measured.add(slot)
            case "pages":
                self._restore_page(int(rest), payload)
            case "paused":
                self.paused, self.peer_paused = bool(payload[0] & 1), bool(payload[0] & 2)
                self.held_since_ns = int.from_bytes(payload[1:], "big")
            case "extra":
                self.steps, self.extra = payload[0], payload[1:]
            case "corrected":
                self.corrected = unpack(payload, self.parameters.rounds)
            case "said":
                self.said[Stage(rest)] = _decode_tagged(self.session, Stage(rest), payload)
            case "heard":
                self.heard[Stage(rest)] = _decode_tagged(self.session, Stage(rest), payload)

    def _restore_page(self, page: int, payload: bytes) -> None:
        folded, rounds = self.request.slots_of(page), self.request.page_span(page)
        drawn, self.outcomes[rounds] = decode_page(payload, rounds.stop - rounds.start)
        self._take(rounds, drawn)
        for slots in (self.drawn, self.measured, self.peer_done):
            slots.add_run(folded.start, folded.stop)
        self.pages = max(self.pages, page + 1)


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
