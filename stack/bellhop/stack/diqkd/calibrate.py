"""What calibrations say of a link: its CHSH value and error rate between key sessions, and drift.

Nothing about the outcomes of a key session leaves before its last round, and of its tests only
counts after it; so what a link is worth now is measured in rounds of their own, that never make a
key.  Alice publishes her settings and outcomes, Bob counts.

What a calibration costs, and what it cannot do
  No one-time mask is spent.  The result steers plans and warnings, and no security rests on a plan:
  a session's key follows from its own announced counts.  Messages are authenticated by TLS, and
  whoever forged one could make a node plan badly, which it will see in the session's result.
  It is not free either.  Alice's device decides what her published outcomes are, and a device with
  memory can put bits of an earlier session's string into them (J. Barrett, R. Colbeck, A. Kent,
  Phys. Rev. Lett. 110, 010503 (2013)).  So every published outcome counts, a bit a round, and Bob's
  counts too, into what the link's device has said in public (`device_use`): receipts of later
  sessions tell of it, and earlier keys that are still in use are exposed to so much more of the
  devices' reuse.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import LinkName
from bellhop.stack.core import Fact
from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate, best_flip_probability
from bellhop.stack.diqkd.bounds.chsh import S_MAX
from bellhop.stack.diqkd.rounds import KEY_SETTING_BOB
from bellhop.stack.ids import SessionId
from bellhop.stack.messages import CALIBRATION_SETTINGS

PREFIX = "calibration/"
CALIBRATED = "calibrated"
"""How a calibration ends, as an outcome and as the word that is remembered of its session."""

HISTORY_MAX = 64
"""Calibrations of a link that are remembered."""

ROUNDS_MIN = 1_000
"""Fewer rounds say too little, and may leave a pair of settings out."""

DRIFT_ERRORS = 3.0
"""Standard errors beyond which a difference is called drift."""

PLAN_ERRORS = 2.0
"""Standard errors by which a plan takes a link to be worse than its calibration found it."""

PAIRS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, KEY_SETTING_BOB))
"""Settings of Alice and Bob, in the order of every count here."""

Bits = NDArray[np.uint8]
Fields = dict[str, str | int | float]
Planned = tuple[float, float]
"""CHSH value and error rate that sessions are planned with."""

assert len(PAIRS) == CALIBRATION_SETTINGS


@dataclass(frozen=True, slots=True)
class Counts:
    """Rounds, and unequal outcomes among them, for each of `PAIRS`; in the frame of Phi+."""

    rounds: tuple[int, ...]
    unequal: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.rounds)

    @property
    def s(self) -> float:
        e00, e01, e10, e11 = (1.0 - 2.0 * share for share in self._shares()[:4])
        return e00 + e01 + e10 - e11

    @property
    def s_error(self) -> float:
        """One standard error; finite where every outcome was alike, too."""
        return 2.0 * math.sqrt(sum(self._variance(pair) for pair in range(4)))

    @property
    def qber(self) -> float:
        return self._shares()[4]

    @property
    def qber_error(self) -> float:
        return math.sqrt(self._variance(4))

    def _shares(self) -> list[float]:
        return [u / n for u, n in zip(self.unequal, self.rounds, strict=True)]

    def _variance(self, pair: int) -> float:
        """Of a share, at Laplace's estimate of its probability: one count more of either kind."""
        rounds = self.rounds[pair]
        share = (self.unequal[pair] + 1) / (rounds + 2)
        return share * (1.0 - share) / rounds


def count(outcomes_a: Bits, outcomes_b: Bits, settings_a: Bits, settings_b: Bits) -> Counts:
    """Counts of all rounds; arrays uint8, shape (rounds,), outcomes in the frame of Phi+."""
    unequal = outcomes_a != outcomes_b
    met = [(settings_a == x) & (settings_b == y) for x, y in PAIRS]
    return Counts(
        tuple(int(np.count_nonzero(pair)) for pair in met),
        tuple(int(np.count_nonzero(pair & unequal)) for pair in met),
    )


def counts_objection(counts: Counts, tests: NDArray[np.bool_], settings_a: Bits) -> str | None:
    """Why these cannot be the counts of rounds in which Alice had these settings, or None."""
    if len(counts.rounds) != len(PAIRS) or len(counts.unequal) != len(PAIRS):
        return "counts_length"
    pairs = zip(counts.unequal, counts.rounds, strict=True)
    if not all(0 <= unequal <= rounds for unequal, rounds in pairs):
        return "counts_impossible"
    if not all(counts.rounds):
        return "counts_missing"
    by_setting = [int(np.count_nonzero(tests & (settings_a == x))) for x in (0, 1)]
    said = [counts.rounds[0] + counts.rounds[1], counts.rounds[2] + counts.rounds[3]]
    if said != by_setting or counts.total != len(tests):
        return "counts_of_other_rounds"
    return None


def published_bits(rounds: int) -> int:
    """What a calibration says in public of its devices' outcomes: Alice's, and Bob's counts."""
    return rounds + CALIBRATION_SETTINGS * rounds.bit_length()


@dataclass(frozen=True, slots=True)
class Calibration:
    """One calibration of a link, and when it ended (ns of the nodes' clock).

    `span_ns`: from its first attempt to its last herald, by the clock of the own device.
    """

    session: SessionId
    at_ns: int
    counts: Counts
    span_ns: int

    @property
    def pairs_per_s(self) -> float:
        """Heralded, pauses counted; 0 if the device says nothing of time."""
        return 1e9 * self.counts.total / self.span_ns if self.span_ns > 0 else 0.0

    def fields(self) -> Fields:
        """For answers, logs and people."""
        c = self.counts
        return {
            "session": self.session,
            "at_ns": self.at_ns,
            "rounds": c.total,
            "s": c.s,
            "s_error": c.s_error,
            "qber": c.qber,
            "qber_error": c.qber_error,
            "pairs_per_s": self.pairs_per_s,
        }

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(payload: bytes) -> "Calibration":
        content = json.loads(payload)
        counts = {name: tuple(numbers) for name, numbers in content["counts"].items()}
        session, at_ns = SessionId(content["session"]), content["at_ns"]
        return Calibration(session, at_ns, Counts(**counts), content["span_ns"])


class Compared(NamedTuple):
    """What the configuration expects of a link; `planned`: what its sessions are planned with.

    Else they are planned with calibrations.
    """

    s: float
    qber: float
    planned: bool = True


@dataclass(frozen=True, slots=True)
class Drift:
    """A figure that is off by more than `DRIFT_ERRORS`; `since` names what it is compared with."""

    figure: str
    since: str
    before: float
    now: float
    standard_errors: float
    what_to_do: str

    @property
    def warning(self) -> str:
        return (
            f"{self.figure} is {self.now:.5g}, the {self.since} has {self.before:.5g}"
            f" ({self.standard_errors:+.1f} standard errors)"
        )

    def fields(self) -> Fields:
        return asdict(self) | {"warning": self.warning}


@dataclass(frozen=True, slots=True)
class Keyless:
    """Sessions would be planned with these figures, at which none has a key however long it is."""

    s: float
    qber: float

    @property
    def warning(self) -> str:
        return (
            f"no key can be planned: sessions are planned with S = {self.s:.4f} and QBER ="
            f" {self.qber:.2%}, {PLAN_ERRORS:g} standard errors worse than was found"
        )

    def fields(self) -> Fields:
        what = "align the link, then calibrate it again; with more rounds, if the errors are large"
        return {"figure": "key", **asdict(self), "what_to_do": what, "warning": self.warning}


_ALIGN = 'align the link, or plan with what it gives: diqkd.{}, or diqkd.plan_from = "calibration"'
_EXPECT = "align the link, or expect what it gives: diqkd.{}; plans are made of this calibration"
_LOOK = "look at the link before the next session; calibrate again if it was changed"


def drift(
    now: Counts, before: Counts | None, design: Compared | None
) -> tuple[Drift | Keyless, ...]:
    """Where the link is worse than its design, or other than at the last calibration; and whether
    sessions are planned with what it shows, and have no key at that."""
    found = [] if design is None else _worse(now, design)
    if before is not None:
        found += _changed(now, before)
    drifted: list[Drift | Keyless] = [
        one for one in found if abs(one.standard_errors) > DRIFT_ERRORS
    ]
    if design is not None and not design.planned:
        s, qber = cautious(now)
        above = max(s, 0.0)  # the formula knows S by its magnitude
        if asymptotic_key_rate(above, qber, best_flip_probability(above, qber)) <= 0.0:
            drifted.append(Keyless(s, qber))
    return tuple(drifted)


def _worse(now: Counts, design: Compared) -> list[Drift]:
    """How much worse than the design either figure is; 0 errors for what is better."""
    s_errors = min(0.0, (now.s - design.s) / now.s_error)
    qber_errors = max(0.0, (now.qber - design.qber) / now.qber_error)
    what = _ALIGN if design.planned else _EXPECT
    return [
        Drift("s", "design", design.s, now.s, s_errors, what.format("s_design")),
        Drift("qber", "design", design.qber, now.qber, qber_errors, what.format("qber_design")),
    ]


def _changed(now: Counts, before: Counts) -> list[Drift]:
    """How much has changed since the last calibration, for the better too."""
    s_error = math.hypot(now.s_error, before.s_error)
    qber_error = math.hypot(now.qber_error, before.qber_error)
    last = "last calibration"
    return [
        Drift("s", last, before.s, now.s, (now.s - before.s) / s_error, _LOOK),
        Drift("qber", last, before.qber, now.qber, (now.qber - before.qber) / qber_error, _LOOK),
    ]


def cautious(counts: Counts) -> Planned:
    """What to plan with after these counts: worse than they by `PLAN_ERRORS`."""
    return worse_by_errors(counts.s, counts.s_error, counts.qber, counts.qber_error)


def worse_by_errors(s: float, s_error: float, qber: float, qber_error: float) -> Planned:
    """Likewise, of figures with their standard errors."""
    s, qber = s - PLAN_ERRORS * s_error, qber + PLAN_ERRORS * qber_error
    return min(s, S_MAX), min(max(qber, 0.0), 0.5)


class Calibrations:
    """The history of every link of one node; facts `calibration/<link>/<number>`."""

    def __init__(self, facts: Mapping[str, bytes]) -> None:
        self._of: dict[LinkName, dict[int, Calibration]] = {}
        for name in sorted(facts):
            if name.startswith(PREFIX):
                link, _, number = name.removeprefix(PREFIX).rpartition("/")
                kept = self._of.setdefault(LinkName(link), {})
                kept[int(number)] = Calibration.decode(facts[name])

    def of(self, link: LinkName) -> list[Calibration]:
        """Oldest first."""
        return list(self._of.get(link, {}).values())

    def last(self, link: LinkName) -> Calibration | None:
        return next(reversed(self._of.get(link, {}).values()), None)

    def of_session(self, session: SessionId) -> Calibration | None:
        every = (one for kept in self._of.values() for one in kept.values())
        return next((one for one in every if one.session == session), None)

    def add(self, link: LinkName, calibration: Calibration) -> tuple[Fact, tuple[str, ...]]:
        """Remember one: the fact to put, and the names of facts to forget."""
        kept = self._of.setdefault(link, {})
        number = 1 + max(kept, default=0)
        kept[number] = calibration
        old = [one for one in kept if one <= number - HISTORY_MAX]
        for one in old:
            del kept[one]
        fact = Fact(_name(link, number), calibration.encode())
        return fact, tuple(_name(link, one) for one in old)

    def drift(self, link: LinkName, design: Compared | None) -> tuple[Drift | Keyless, ...]:
        """Of the newest calibration, from its design and from the one before."""
        newest = self.of(link)[-2:]
        if not newest:
            return ()
        before = newest[0].counts if len(newest) > 1 else None
        return drift(newest[-1].counts, before, design)

    def planned(self, link: LinkName) -> Planned | None:
        """What to plan with: the newest calibration, worse by `PLAN_ERRORS`; None without one."""
        last = self.last(link)
        return None if last is None else cautious(last.counts)

    def document(self) -> dict[str, list[Fields]]:
        """By link, oldest first; for people."""
        return {link: [one.fields() for one in self.of(link)] for link in sorted(self._of)}


def _name(link: LinkName, number: int) -> str:
    """Digits enough that no name begins with another."""
    return f"{PREFIX}{link}/{number:012d}"
