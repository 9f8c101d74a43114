"""Two nodes that want to know what nature would not tell, and may order what the service offers.

They see reports: what is in them, when they are due, in which order, and what is refused and why.
They must not find in them the other end's settings or outcomes before those are told, which
pattern of several with one Bell state it was, how drift stands, how long a half was stored, or
attempts that failed.
"""

from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bellhop.hal.emulator.clock import Clock
from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.emulator.nature import Delivery, Link, Nature
from bellhop.hal.operations import (
    Attempt,
    Heralded,
    LinkName,
    Measure,
    Measured,
    MemoryLost,
    NodeName,
    Operation,
    Release,
    Report,
    RequestId,
    Side,
)
from bellhop.hal.preset import Preset, load_preset

ALICE, BOB = NodeName("alice"), NodeName("bob")
FIBRE = LinkName("fibre")
REQUEST = RequestId("ab" * 16)
ROUNDS = 40_000
P_MIN = 1e-6
"""Some hundreds of comparisons, none of which chance should ever fail."""

LOSING = {"device.memory.decay_ns": 2e5, "device.no_answer_probability": 0.05}
DRIFTING = {
    "fibre.phase_diffusion_rad2_per_s": 0.3,
    "fibre.phase_stabilised_every_ns": 1e10,
    "fibre.a.polarisation_diffusion_rad2_per_s": 0.01,
}
LINKS: dict[str, tuple[str, dict[str, float]]] = {
    "laboratory": ("oxford", {}),
    "losing": ("liu-10km", LOSING),
    "drifting": ("liu-10km", DRIFTING),
    "tilting": ("oxford", DRIFTING),
    "storing": ("innsbruck-50km", {}),
    "multiplexed": ("cui-12km", {"device.communication.decay_ns": 1e6}),
}

Settings = NDArray[np.uint8]


def preset_of(kind: str) -> Preset:
    name, overrides = LINKS[kind]
    return load_preset(name, overrides)


def nature_of(preset: Preset, seed: int, clock: Clock | None = None) -> Nature:
    link = Link(FIBRE, ALICE, BOB, preset)
    return Nature((link,), np.random.default_rng(seed), clock or Clock(fast=True))


def reports(nature: Nature, node: NodeName, operation: Operation) -> list[Delivery]:
    return nature.step(0, node, operation)


def herald(nature: Nature, rounds: int = ROUNDS, block: int = 0) -> Heralded:
    order = Attempt(FIBRE, REQUEST, block, rounds)
    assert reports(nature, ALICE, order) == []
    report = reports(nature, BOB, order)[0].report
    assert isinstance(report, Heralded)
    return report


def measure(nature: Nature, node: NodeName, settings: Settings, block: int = 0) -> Measured:
    (delivery,) = reports(nature, node, Measure(FIBRE, REQUEST, block, settings))
    assert delivery.node == node
    assert isinstance(delivery.report, Measured)
    return delivery.report


def chosen(seed: int, top: int, rounds: int = ROUNDS) -> Settings:
    return np.random.default_rng(seed).integers(0, top, rounds, dtype=np.uint8)


def independent(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """The p-value that two columns of small whole numbers have nothing to do with each other."""
    table = np.zeros((int(one.max()) + 1, int(other.max()) + 1))
    np.add.at(table, (one, other), 1)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def seen(report: Measured) -> NDArray[np.int64]:
    """All that a round of a report says: 0, 1, or no answer."""
    return np.where(report.answered, report.outcomes, 2).astype(np.int64)


def features(heralded: Heralded, bell_states: int) -> dict[str, NDArray[np.int64]]:
    """What an end might read something from, round by round."""
    waited = np.diff(heralded.attempts, prepend=-1)
    edges = np.quantile(waited, [0.25, 0.5, 0.75])
    place = np.arange(len(waited))
    return {
        "what was announced": heralded.patterns.astype(np.int64),
        "how long it took": np.searchsorted(edges, waited),
        "the attempt's parity": heralded.attempts % 2,
        "the attempt's place in a turn": heralded.attempts % 5,
        "the place in the block": place * 8 // len(place),
    }


# What reports are made of


def test_reports_have_room_for_what_is_told_and_nothing_else() -> None:
    common = {"link", "request", "block"}
    assert {f.name for f in fields(Heralded)} - common == {
        "attempts",
        "patterns",
        "begun_ns",
        "ended_ns",
    }
    assert {f.name for f in fields(Measured)} - common == {"outcomes", "answered"}
    assert {f.name for f in fields(MemoryLost)} - common == {"operation", "reason"}


def reachable(report: Report) -> list[NDArray[np.generic]]:
    arrays = (getattr(report, field.name) for field in fields(report))
    return [array for array in arrays if isinstance(array, np.ndarray)]


@pytest.mark.parametrize("kind", LINKS)
def test_arrays_of_a_report_are_no_windows_on_others(kind: str) -> None:
    """Neither a view of a greater array nor writable."""
    nature = nature_of(preset_of(kind), 1)
    heralded = herald(nature)
    told: list[Report] = [heralded]
    for node, seed in ((ALICE, 2), (BOB, 3)):
        settings = chosen(seed, 2)
        told.append(measure(nature, node, settings))
        assert settings.flags.writeable
    arrays = [array for report in told for array in reachable(report)]
    assert len(arrays) == 6
    for index, array in enumerate(arrays):
        assert not array.flags.writeable
        whole = array if array.base is None else array.base
        assert getattr(whole, "nbytes", -1) == array.nbytes
        assert not any(np.shares_memory(array, other) for other in arrays[:index])
    assert set(np.unique(heralded.patterns)) <= set(LinkPhysics(preset_of(kind)).announced.tolist())


# The other end's settings and outcomes


@pytest.mark.parametrize("first", [ALICE, BOB])
@pytest.mark.parametrize("kind", LINKS)
def test_nothing_at_one_end_tells_the_others_settings(kind: str, first: NodeName) -> None:
    preset = preset_of(kind)
    nature = nature_of(preset, 4)
    heralded = herald(nature)
    settings = {ALICE: chosen(5, 2), BOB: chosen(6, 3)}
    order = (first, BOB if first == ALICE else ALICE)
    told = {node: measure(nature, node, settings[node]) for node in order}
    for node, other in ((ALICE, BOB), (BOB, ALICE)):
        theirs = settings[other].astype(np.int64)
        clues = features(heralded, 4)
        for state in np.unique(heralded.patterns):
            for setting in np.unique(settings[node]):
                among = (heralded.patterns == state) & (settings[node] == setting)
                assert independent(seen(told[node])[among], theirs[among]) > P_MIN
                follows = seen(told[node])[1:][among[1:]]
                assert independent(follows, theirs[:-1][among[1:]]) > P_MIN
        for clue in clues.values():
            assert independent(clue, theirs) > P_MIN


@pytest.mark.parametrize("kind", LINKS)
def test_whether_the_other_end_was_asked_shows_nowhere(kind: str) -> None:
    """Not in the law of outcomes, the share of answers, what is refused, or when."""
    preset = preset_of(kind)
    settings = chosen(7, 3)
    alone, asked = nature_of(preset, 8), nature_of(preset, 8)
    heralded = herald(alone)
    assert np.array_equal(heralded.attempts, herald(asked).attempts)
    measure(asked, ALICE, np.ones(ROUNDS, np.uint8))
    probes: list[Operation] = [
        Attempt(FIBRE, REQUEST, 0, ROUNDS),
        Attempt(FIBRE, REQUEST, 0, ROUNDS + 1),
        Measure(FIBRE, REQUEST, 0, settings[:-1]),
        Measure(FIBRE, REQUEST, 0, settings + np.uint8(1)),
        Measure(FIBRE, REQUEST, 1, settings),
        Measure(FIBRE, REQUEST, 0, settings),
        Measure(FIBRE, REQUEST, 0, settings),
        Release(FIBRE, REQUEST),
        Measure(FIBRE, REQUEST, 0, settings),
    ]
    answers = {}
    for probe in probes:
        one, two = reports(alone, BOB, probe), reports(asked, BOB, probe)
        assert [(d.due_ns, d.node) for d in one] == [(d.due_ns, d.node) for d in two]
        for before, after in zip(one, two, strict=True):
            if isinstance(before.report, Measured) and isinstance(after.report, Measured):
                answers = {"alone": before.report, "asked": after.report}
            else:
                assert before.report == after.report
    for state in np.unique(heralded.patterns):
        for setting in np.unique(settings):
            among = (heralded.patterns == state) & (settings == setting)
            both = np.concatenate([seen(report)[among] for report in answers.values()])
            which = np.repeat([0, 1], np.count_nonzero(among))
            assert independent(both, which) > P_MIN


@pytest.mark.parametrize("kind", LINKS)
def test_outcomes_of_the_other_end_follow_from_borns_rule_alone(kind: str) -> None:
    """Knowing Born's rule, both ends' settings and one's own outcomes, no other clue helps."""
    preset = preset_of(kind)
    nature = nature_of(preset, 9)
    heralded = herald(nature)
    clues = features(heralded, 4)
    if kind in ("drifting", "tilting"):
        # Fibre drifts slowly: that rounds near each other are alike is for all to see.
        del clues["the place in the block"], clues["the attempt's place in a turn"]
    if kind == "storing":
        # That a pair which came at once was not stored for long is for all to see, too.
        del clues["how long it took"]
    x, y = chosen(10, 2), chosen(11, 3)
    a, b = measure(nature, ALICE, x), measure(nature, BOB, y)
    for state in np.unique(heralded.patterns):
        for x_setting, y_setting in ((0, 0), (0, 2), (1, 1)):
            among = (heralded.patterns == state) & (x == x_setting) & (y == y_setting)
            both = 3 * seen(a)[among] + seen(b)[among]
            for clue in clues.values():
                assert independent(clue[among], both) > P_MIN


# What is hidden of the link


def test_patterns_that_announce_one_bell_state_look_alike() -> None:
    """Oxford's four patterns have fidelities from 0.958 to 0.964, and announce two states: all of a
    state have the same pair, and sub-ensembles by any clue the same statistics."""
    physics = LinkPhysics(load_preset("oxford"))
    assert len(physics.experiment.heralds) == 4
    assert len(physics.announced) == 2
    generator = np.random.default_rng(12)
    heralds = physics.herald(generator, 1_000, Past(generator))
    assert set(np.unique(heralds.patterns)) == {0, 1}
    assert heralds.hidden is None


@pytest.mark.parametrize("kind", ["drifting", "storing"])
def test_one_ends_outcomes_show_no_drift_and_no_storage(kind: str) -> None:
    """The pair knows; either half alone does not."""
    physics = LinkPhysics(preset_of(kind))
    generator = np.random.default_rng(13)
    heralds = physics.herald(generator, ROUNDS, Past(generator))
    assert heralds.hidden is not None
    hidden = heralds.hidden.phase if kind == "drifting" else heralds.hidden.wait_a_ns
    assert hidden is not None
    bins = np.searchsorted(np.quantile(hidden, [0.25, 0.5, 0.75]), hidden)
    for side in Side:
        settings = chosen(14, physics.settings(side))
        outcomes = physics.answer(
            side, heralds.patterns, settings, generator.random(ROUNDS), heralds.hidden
        )
        for setting in np.unique(settings):
            among = settings == setting
            assert independent(outcomes[among].astype(np.int64), bins[among]) > P_MIN


@pytest.mark.parametrize("kind", LINKS)
def test_heralds_say_nothing_of_attempts_that_failed_but_their_number(kind: str) -> None:
    """Numbers rise, times are those of the whole block, and both ends are told the same at once."""
    nature = nature_of(preset_of(kind), 15)
    order = Attempt(FIBRE, REQUEST, 0, 1_000)
    reports(nature, ALICE, order)
    one, two = reports(nature, BOB, order)
    assert one.report is two.report and one.due_ns == two.due_ns
    assert isinstance(one.report, Heralded)
    assert np.all(np.diff(one.report.attempts) > 0)
    following = herald(nature, 10, block=1)
    assert following.attempts[0] > one.report.attempts[-1]
    assert following.begun_ns >= one.report.ended_ns


def test_a_block_given_up_while_under_way_tells_no_herald() -> None:
    """Ordering, giving up and ordering anew is no way to pick from heralds: nothing is told."""
    nature = nature_of(load_preset("oxford"), 16, Clock())
    order = Attempt(FIBRE, REQUEST, 0, 1_000)
    nature.step(0, ALICE, order)
    waiting = nature.step(0, BOB, order)
    told = nature.step(1, BOB, Release(FIBRE, REQUEST))
    assert [(d.node, type(d.report)) for d in told] == [(ALICE, MemoryLost)]
    assert not any(nature.current(delivery) for delivery in waiting)
    late = Measure(FIBRE, REQUEST, 0, np.zeros(1_000, np.uint8))
    for node in (ALICE, BOB):
        (refused,) = nature.step(waiting[0].due_ns, node, late)
        assert isinstance(refused.report, MemoryLost)


def test_measuring_again_or_otherwise_tells_nothing_more() -> None:
    nature = nature_of(load_preset("oxford"), 17)
    herald(nature, 100)
    measure(nature, ALICE, np.zeros(100, np.uint8))
    for value in (0, 1):
        again = Measure(FIBRE, REQUEST, 0, np.full(100, value, np.uint8))
        (refused,) = reports(nature, ALICE, again)
        assert isinstance(refused.report, MemoryLost)
        (elsewhere,) = reports(nature, ALICE, replace(again, request=RequestId("cd" * 16)))
        assert isinstance(elsewhere.report, MemoryLost)
        assert elsewhere.report.reason == "not heralded"
