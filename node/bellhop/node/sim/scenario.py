"""A scenario: who is linked to whom, what sessions are run, and what goes wrong meanwhile."""

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import msgspec

from bellhop.hal.configuration import decode_toml, read_text, require
from bellhop.hal.emulator.nature import Link
from bellhop.hal.emulator.topology import LinkSection, read_links
from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import BLOCK_ROUNDS_MAX, LinkName, NodeName
from bellhop.hal.preset import load_preset
from bellhop.stack.diqkd.parameters import ROUNDS_MAX, TEST_SCALE, SessionPolicy

SESSIONS_MAX = 1_000

FaultKind = Literal["none", "swarm"]
BoundName = Literal["renyi-2405.05912", "eat-2109.14600", "renyi-filtered-unrefereed"]


class SessionSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs from a node's usual policy.  Times in seconds of simulated time.

    `epsilon` as large as allowed here makes keys out of few rounds, to exercise the protocol; such
    a key is worth nothing.
    """

    bound: BoundName | None = None
    allow_unrefereed: bool | None = None
    test_probability: str | None = None
    s_design: float | None = None
    qber_design: float | None = None
    deviations: float | None = None
    epsilon: float | None = None
    block_rounds: int | None = None
    window: int | None = None
    retry_s: float | None = None
    stall_s: float | None = None
    pair_s: float | None = None


class ScenarioFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rounds` a session; `sessions` one after another on each link."""

    link: tuple[LinkSection, ...]
    rounds: int = 1_500_000
    sessions: int = 1
    faults: FaultKind = "none"
    session: SessionSection = SessionSection()


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario file, checked.  `name` is what the command line calls it by."""

    links: tuple[Link, ...]
    rounds: int = 1_500_000
    sessions: int = 1
    faults: FaultKind = "none"
    policy: SessionPolicy = field(default_factory=SessionPolicy)
    name: str = ""

    @property
    def rate_hz(self) -> float:
        """Heralds a second on the slowest link, all pauses counted."""
        return min(Experiment(link.preset).pairs_per_s_with_pauses for link in self.links)


def two_nodes() -> Scenario:
    """The scenario that is run if none is named: the Oxford experiment between two nodes."""
    link = Link(LinkName("fibre"), NodeName("alice"), NodeName("bob"), load_preset("oxford"))
    return Scenario((link,))


def read_scenario(path: Path) -> Scenario:
    """Raises ConfigError naming the field."""
    file = decode_toml(read_text(path), ScenarioFile, str(path))
    return checked(
        Scenario(
            links=_links(file.link, path.resolve().parent),
            rounds=file.rounds,
            sessions=file.sessions,
            faults=file.faults,
            policy=_policy(file.session),
            name=str(path),
        )
    )


def checked(scenario: Scenario) -> Scenario:
    """`scenario`, if its numbers are in range."""
    require(0 < scenario.rounds <= ROUNDS_MAX, "rounds", f"is from 1 to {ROUNDS_MAX}")
    require(0 < scenario.sessions <= SESSIONS_MAX, "sessions", f"is from 1 to {SESSIONS_MAX}")
    return scenario


def _links(sections: tuple[LinkSection, ...], folder: Path) -> tuple[Link, ...]:
    links = read_links(sections, folder)
    pairs = {frozenset((link.a, link.b)) for link in links}
    require(len(pairs) == len(links), "link", "joins each two nodes once")
    return links


def _policy(section: SessionSection) -> SessionPolicy:
    given = {k: v for k, v in msgspec.structs.asdict(section).items() if v is not None}
    for name in ("retry_s", "stall_s", "pair_s"):
        if name in given:
            require(given[name] > 0, f"session.{name}", "is above 0")
            given[name.replace("_s", "_ns")] = round(given.pop(name) * 1e9)
    if section.test_probability is not None:
        given["test_probability"] = _fraction(section.test_probability)
    policy = replace(SessionPolicy(), **given)
    _check_policy(policy)
    return policy


def _check_policy(policy: SessionPolicy) -> None:
    """What a session would refuse, said before it begins."""
    ranges: dict[str, tuple[float, float, float]] = {
        "s_design": (policy.s_design, 2.0001, 2.8284272),
        "qber_design": (policy.qber_design, 1e-6, 0.4999),
        "deviations": (policy.deviations, 1.0, 10.0),
        "epsilon": (policy.epsilon, 1e-30, 0.9999),
        "block_rounds": (policy.block_rounds, 1, BLOCK_ROUNDS_MAX),
        "window": (policy.window, 1, 16),
    }
    for name, (value, low, high) in ranges.items():
        require(low <= value <= high, f"session.{name}", f"is from {low:g} to {high:g}")


def _fraction(text: str) -> Fraction:
    where = "session.test_probability"
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    rule = f"is a fraction between 0 and 1, a multiple of 1/{TEST_SCALE}"
    require(0 < value < 1 and TEST_SCALE % value.denominator == 0, where, rule)
    return value
