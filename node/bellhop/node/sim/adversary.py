"""Devices and wires in an adversary's hands, for sessions in virtual time.

What attacks a link knows everything about both devices and is told the settings round by round, as
the theorem allows it; what it does not know is the settings of rounds to come.  `known` counts the
rounds whose outcome at Alice's end the adversary knows for certain: no theorem can give a key
longer than the other rounds.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.emulator.ledger import Block
from bellhop.hal.emulator.nature import Link, Nature
from bellhop.hal.operations import LinkName, NodeName, Side
from bellhop.stack.diqkd.rounds import KEY_SETTING_BOB, flip_alice, flip_bob
from bellhop.stack.messages import Message

Bits = NDArray[np.uint8]
Honest = Callable[[], Bits]

ALICE_ANGLES = np.array([0.0, np.pi / 2])
BOB_ANGLES = np.array([np.pi / 4, -np.pi / 4, 0.0])
"""Bloch angles of the settings in the frame of Phi+: what an honest device would measure."""


class Devices(Protocol):
    """Both devices of a link, played by the adversary; outcomes in the frame of Phi+."""

    known: int

    def alice(self, settings: Bits, honest: Honest) -> Bits: ...

    def bob(self, settings: Bits, honest: Honest) -> Bits: ...


LOCAL = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 1, 0]], np.uint8)
"""Best deterministic strategies, outcomes of Alice's 0 and 1, of Bob's 0 and 1: each wins three of
the four pairs of settings.  The other four are their complements."""


@dataclass(slots=True)
class Local:
    """Classical devices at the local bound: one of the eight best deterministic strategies, drawn
    for each round and known to the adversary.  They win three tests in four and err in no key
    bit."""

    chance: np.random.Generator
    known: int = 0
    _drawn: Bits = field(default_factory=lambda: np.zeros((0, 4), np.uint8))

    def alice(self, settings: Bits, honest: Honest) -> Bits:
        rounds = len(settings)
        complement = self.chance.integers(0, 2, size=(rounds, 1), dtype=np.uint8)
        self._drawn = LOCAL[self.chance.integers(0, len(LOCAL), rounds)] ^ complement
        self.known += rounds
        return self._drawn[np.arange(rounds), settings]

    def bob(self, settings: Bits, honest: Honest) -> Bits:
        rounds = np.arange(len(settings))
        test = self._drawn[rounds, 2 + np.minimum(settings, 1)]
        return np.where(settings == KEY_SETTING_BOB, self._drawn[:, 0], test).astype(np.uint8)


@dataclass(slots=True)
class InterceptResend:
    """Pairs are measured on their way, along an axis drawn for each, and products are sent on.

    `axes`: those that are drawn from, in steps of pi/4.  `share` of the pairs: the others arrive
    as they are.  Along the key setting's own axis (`KEY_AXIS`) no key bit is disturbed and
    S = sqrt(2), so that few errors and a low S come together.
    """

    chance: np.random.Generator
    axes: tuple[int, ...] = tuple(range(8))
    share: float = 1.0
    known: int = 0
    _angle: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    _met: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def alice(self, settings: Bits, honest: Honest) -> Bits:
        steps = self.chance.choice(self.axes, len(settings))
        self._angle = np.asarray(steps * (np.pi / 4), dtype=np.float64)
        self._met = self.chance.random(len(settings)) < self.share
        # A state along the axis of the key setting, up or down, is known for certain there.
        self.known += int(np.count_nonzero(self._met & (settings == 0) & (steps % 4 == 0)))
        return self._answer(ALICE_ANGLES[settings], honest)

    def bob(self, settings: Bits, honest: Honest) -> Bits:
        return self._answer(BOB_ANGLES[settings], honest)

    def _answer(self, angles: NDArray[np.float64], honest: Honest) -> Bits:
        zero_probability = np.cos((angles - self._angle) / 2) ** 2
        measured = self.chance.random(len(angles)) >= zero_probability
        return np.where(self._met, measured, honest()).astype(np.uint8)


KEY_AXIS = (0, 4)
"""Of `InterceptResend.axes`: along the key setting, either way."""


@dataclass(slots=True)
class Gambler:
    """Devices with memory: honest until more tests are won than an honest link would, and local
    while they are ahead.  They are told each other's test rounds and outcomes after every block."""

    chance: np.random.Generator
    aim: float
    known: int = 0
    ahead: float = 0.0
    _local: Local = field(init=False)
    _plays: bool = False
    _alice: tuple[Bits, Bits] | None = None

    def __post_init__(self) -> None:
        self._local = Local(self.chance)

    def alice(self, settings: Bits, honest: Honest) -> Bits:
        self._plays = self.ahead > 0
        bits = self._local.alice(settings, honest) if self._plays else honest()
        self.known = self._local.known
        self._alice = settings, bits
        return bits

    def bob(self, settings: Bits, honest: Honest) -> Bits:
        assert self._alice is not None
        bits = self._local.bob(settings, honest) if self._plays else honest()
        settings_a, bits_a = self._alice
        tests = settings != KEY_SETTING_BOB
        won = (bits_a ^ bits)[tests] == (settings_a & settings)[tests]
        self.ahead += float(np.sum(won)) - self.aim * int(np.count_nonzero(tests))
        return bits


@dataclass(slots=True)
class Repeater:
    """Devices with memory: every second outcome is a local strategy made of the outcome before it,
    so that it brings nothing new; the others are honest.  `known`: the repeated ones."""

    chance: np.random.Generator
    known: int = 0
    _first: Bits = field(default_factory=lambda: np.zeros(0, np.uint8))

    def alice(self, settings: Bits, honest: Honest) -> Bits:
        bits = honest().copy()
        bits[1::2] = bits[: 2 * (len(bits) // 2) : 2]
        self._first = bits
        self.known += len(bits) // 2
        return bits

    def bob(self, settings: Bits, honest: Honest) -> Bits:
        bits = honest().copy()
        bits[1::2] = self._first[1::2]
        return bits


class AttackedNature(Nature):
    """Nature with one link's devices in an adversary's hands."""

    def __init__(
        self, links: tuple[Link, ...], generator: np.random.Generator, devices: Devices
    ) -> None:
        super().__init__(links, generator)
        self._devices = devices

    def _answer(self, name: LinkName, side: Side, block: Block, settings: Bits) -> Bits:
        patterns = self._physics[name].announced[block.patterns]

        def turn(bits: Bits) -> Bits:
            """Between the devices' frame and that of Phi+; its own inverse."""
            if side is Side.A:
                return flip_alice(bits, settings, patterns)
            return flip_bob(bits, patterns)

        def honest() -> Bits:
            return turn(super(AttackedNature, self)._answer(name, side, block, settings))

        played = self._devices.alice if side is Side.A else self._devices.bob
        return turn(played(settings, honest))


Tamper = Callable[[NodeName, NodeName, Message], Message]


@dataclass(slots=True)
class Tampering:
    """Changes one field of one message of a session: which, the seed decides.

    `done` says what was changed, once it was.  The streams themselves are TLS; this is the
    adversary who has broken that.
    """

    chance: np.random.Generator
    kind: str
    skip: int
    done: str = ""

    def __call__(self, source: NodeName, target: NodeName, message: Message) -> Message:
        if self.done or type(message).__name__ != self.kind:
            return message
        if self.skip > 0:
            self.skip -= 1
            return message
        names = [item.name for item in dataclasses.fields(message)]
        name = names[int(self.chance.integers(len(names)))]
        value = getattr(message, name)
        changed = self._changed(value)
        if changed is None:
            return message
        self.done = f"{self.kind}.{name}"
        fields: dict[str, Any] = {name: changed}
        return dataclasses.replace(message, **fields)

    def _changed(self, value: object) -> object:
        """Another value of the same type, None if there is none to be had."""
        match value:
            case bool():
                return not value
            case int():
                return max(0, value + int(self.chance.choice([-1, 1, 7])))
            case bytes() if value:
                at, bit = int(self.chance.integers(len(value))), int(self.chance.integers(8))
                return value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :]
            case np.ndarray() if value.size:
                other = value.copy()
                at = int(self.chance.integers(value.size))
                other[at] = not other[at] if value.dtype == np.bool_ else other[at] ^ 1
                return other
            case _:
                return None
