"""A link's figures: counted values agree with exact ones, and the command shows all of them."""

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bellhop.hal.characterise import DEFINITIONS, PAIRS, characterise
from bellhop.hal.curves import by_length, exact_by_length, fibre_length_m, with_length
from bellhop.hal.drift import mean_cosine
from bellhop.hal.estimates import Estimate
from bellhop.hal.experiment import Experiment
from bellhop.hal.figures import Figure
from bellhop.hal.operations import Side
from bellhop.hal.preset import Preset, load_preset, preset_names
from bellhop.hal.trials import BLOCK_ROUNDS, Trials
from bellhop.node.cli import main
from bellhop.node.cli.characterise import all_estimates, printable, with_error
from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate

FEW = 100
MANUAL = Path(__file__).parents[2] / "docs" / "characterise.md"
FIGURES = (
    "attempts_per_s",
    "success_probability",
    "pairs_per_s",
    "pairs_per_s_with_pauses",
    "fidelity",
    "s",
    "answered",
    "qber",
    "fidelity_half_ms",
    "fidelity_next_pair",
    "fidelity_next_pair_window",
    "link_efficiency",
    "gain_over_no_memory",
    "key_rate_asymptotic",
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["emulator", "characterise", *arguments])


def document(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def counted(one: Estimate) -> tuple[float, float]:
    assert one.value is not None and one.stderr is not None
    return one.value, one.stderr


# Counting

LONG_TURNS = {"device.attempts_on_ns": 1e13, "device.cooling_ns": 1e13}
RARE_CALIBRATIONS = {"device.calibration_every_ns": 1e12, "device.calibration_ns": 1e12}
SHORT_TURNS = {
    "device.attempts_on_ns": 1e6,
    "device.cooling_ns": 5e7,
    "storage.window_ns": 1e7,
    "device.memory.coherence_ns": 1e8,
}
LOSSES = {"device.memory.decay_ns": 3e8, "device.no_answer_probability": 0.2}
STRONG_PULSES = {"device.memory.pulse_error": 0.02, "device.memory.pulse_interval_ns": 4e7}
ALWAYS = {"device.bins": 1_000.0}

Case = tuple[str, dict[str, float], int]
CASES: list[Case] = [
    ("oxford", {}, 200),
    ("lu-11km", {}, 200),
    ("projected", ALWAYS, 200),
    ("projected", RARE_CALIBRATIONS, 2_000),
    ("projected", SHORT_TURNS, 2_000),
    ("liu-10km", LONG_TURNS, 200),
    ("liu-10km-memory", LOSSES, 4_000),
]
MORE_CASES: list[Case] = [
    ("innsbruck-50km", {}, 400),
    ("cui-12km", {}, 400),
    ("liu-10km-memory", {}, 200),
    ("liu-10km-memory", {}, 10_000),
    ("liu-10km-memory", STRONG_PULSES, 40_000),
    ("lu-11km", {}, 20_000),
    ("oxford", {}, 60_000),
    ("oxford", {}, 300_000),
    ("projected", {}, 300_000),
    ("cui-1km", {}, 300_000),
]


def pulls(case: Case, seeds: int) -> dict[str, list[float]]:
    """By figure, how many standard errors counted ones are off their exact values, a seed each.

    What comes by a clock has no error, and is exact.
    """
    name, figures, pairs = case
    preset = load_preset(name, figures)
    found: dict[str, list[float]] = {}
    for seed in range(seeds):
        one = characterise(preset, pairs=pairs, seed=seed)
        named = one.estimates | one.correlators
        named |= {f"fidelity after {ms}": f for ms, f in one.fidelity_after_ms.items()}
        named |= {f"coherence after {ms}": f for ms, f in one.coherence_after_ms.items()}
        for figure, estimate in named.items():
            if estimate.value is None or estimate.exact is None:
                continue
            value, error = counted(estimate)
            if error == 0.0:
                assert value == pytest.approx(estimate.exact, rel=1e-9), figure
                continue
            found.setdefault(figure, []).append((value - estimate.exact) / error)
    return found


def assert_covered(case: Case, seeds: int) -> None:
    """The pulls' spread is not above 1.25, and their mean not off zero, by more than chance allows.

    Of counts of a handful the mean pull is off by up to a third, as the error goes with the count.
    """
    for figure, off in pulls(case, seeds).items():
        chance = 4.0 / math.sqrt(len(off))
        spread = math.sqrt(sum(one * one for one in off) / len(off))
        mean = sum(off) / len(off)
        assert spread < 1.25 + chance / math.sqrt(2.0), (figure, spread)
        assert abs(mean) < 0.35 + chance, (figure, mean)


@pytest.mark.parametrize("case", CASES)
def test_standard_errors_cover(case: Case) -> None:
    assert_covered(case, 40)


@pytest.mark.campaign
@pytest.mark.parametrize("case", CASES + MORE_CASES)
def test_standard_errors_cover_over_many_seeds(case: Case) -> None:
    assert_covered(case, max(40, min(400, 2_000_000 // case[2])))


def test_a_crossing_is_covered_where_it_is_given() -> None:
    none: dict[str, float] = {}
    for figures, pairs in ((none, 10_000), (STRONG_PULSES, 40_000)):
        case = ("liu-10km-memory", figures, pairs)
        off = pulls(case, 16)["fidelity_half_ms"]
        assert len(off) == 16
        assert sum(one * one for one in off) < 16 + 5.0 * math.sqrt(32)


def test_more_pairs_err_less() -> None:
    few, many = (characterise(load_preset("lu-11km"), pairs=n).estimates for n in (2_000, 200_000))
    for figure in ("pairs_per_s", "pairs_per_s_with_pauses", "fidelity", "s", "qber"):
        assert counted(few[figure])[1] == pytest.approx(10.0 * counted(many[figure])[1], rel=0.2)


def test_attempts_come_by_the_clock() -> None:
    """Oxford's: 500 in 500 us, then 300 us of cooling."""
    for name, expected in (("oxford", 625_000.0), ("liu-10km", 1e9 / 375_638)):
        one = characterise(load_preset(name), pairs=FEW).estimates["attempts_per_s"]
        value, error = counted(one)
        assert value == pytest.approx(expected, rel=1e-4)
        assert error == 0.0


def test_certain_success_has_an_error_still() -> None:
    preset = load_preset("projected", ALWAYS)
    one = characterise(preset, pairs=FEW).estimates["success_probability"]
    value, error = counted(one)
    assert value == 1.0
    assert error == pytest.approx(1.0 / FEW)
    assert one.exact is not None and 0.0 < 1.0 - one.exact < 1e-6


def test_readouts_that_do_not_answer_cost_rounds() -> None:
    silent = load_preset("liu-10km-memory", {"device.no_answer_probability": 0.5})
    found = characterise(silent, pairs=40_000).estimates
    value, error = counted(found["answered"])
    assert value == pytest.approx(0.25, abs=4.5 * error)
    assert found["answered"].exact == pytest.approx(0.25)
    all_of_them = characterise(load_preset("liu-10km-memory"), pairs=40_000).estimates
    assert found["s"].exact == all_of_them["s"].exact
    assert counted(found["s"])[1] == pytest.approx(2.0 * counted(all_of_them["s"])[1], rel=0.1)


def until_next(preset: Preset, window_ns: float) -> float:
    """By going through all places in a turn and all numbers of attempts until the next herald."""
    e = Experiment(preset)
    p, total, weight = e.success_probability, 0.0, 0.0
    steps = np.arange(1, math.ceil(32.0 / p))
    chance = p * (1.0 - p) ** (steps - 1)
    for place in range(e.schedule.attempts_per_turn):
        at = e.schedule.active_ns(np.array([place]))
        stored_ns = e.schedule.active_ns(place + steps) - at
        ages = (e.kept_from_ns[side] + stored_ns * e.has_memory(side) for side in Side)
        within = chance * (stored_ns <= window_ns)
        total += float(within @ e.fidelity(*ages))
        weight += float(within.sum())
    return total / weight


@pytest.mark.parametrize(
    "figures",
    [
        {"device.memory.coherence_ns": 1e6},
        {"device.memory.coherence_ns": 1e6, "storage.window_ns": 2.3e5},
        SHORT_TURNS,
        SHORT_TURNS | {"device.attempts_on_ns": 1.5e6, "storage.window_ns": 1.1e8},
        {"device.collection_efficiency": 0.05, "device.memory.coherence_ns": 1e8},
    ],
)
def test_the_wait_for_the_next_pair_is_exact(figures: dict[str, float]) -> None:
    preset = load_preset("projected", figures)
    found = characterise(preset, pairs=FEW).estimates
    assert found["fidelity_next_pair"].exact == pytest.approx(
        until_next(preset, math.inf), abs=2e-6
    )
    window = preset.storage.window_ns
    if window is not None:
        exact = found["fidelity_next_pair_window"].exact
        assert exact == pytest.approx(until_next(preset, window.value), abs=2e-6)


def test_a_window_shorter_than_an_attempt_sees_no_next_pair() -> None:
    found = characterise(
        load_preset("projected", {"storage.window_ns": 1_000}), pairs=FEW
    ).estimates
    one = found["fidelity_next_pair_window"]
    assert (one.value, one.exact) == (None, None)
    assert one.reason is not None and "storage.window_ns" in one.reason


def test_the_link_efficiency_is_of_both_memories() -> None:
    """Rates of exponential dephasing add: 1/(1/0.4 s + 1/1.2 s) = 0.3 s."""
    figures = {"device.a.memory.coherence_ns": 4e8, "device.b.memory.coherence_ns": 1.2e9}
    found = characterise(load_preset("liu-10km-memory", figures), pairs=FEW).estimates
    rate, efficiency = found["pairs_per_s"].exact, found["link_efficiency"].exact
    assert rate is not None and efficiency == pytest.approx(0.3 * rate, rel=1e-6)


def test_a_run_is_counted_through_all_its_blocks() -> None:
    trials = Trials(load_preset("liu-10km-memory"), np.random.default_rng(1))
    pairs = BLOCK_ROUNDS + 100
    played = trials.play(pairs, ((0, 0), (0, 1), (1, 0), (1, 1)))
    assert played.rounds == played.answered.sum() == pairs
    assert np.ptp(played.answered) == 0
    assert trials.kept(pairs).sum() == pairs
    # The last of a block has its successor in the next one.
    assert trials.until_next(pairs)[0].sum() == pairs - 1


def test_equal_seeds_give_equal_figures() -> None:
    preset = load_preset("lu-11km")
    one, same, another = (characterise(preset, pairs=FEW, seed=seed) for seed in (3, 3, 4))
    assert one == same
    assert one.estimates["s"] != another.estimates["s"]


def test_the_errors_of_chsh_values_are_below_3e_3_unless_asked_otherwise() -> None:
    """Whatever the state: a correlator's variance is at most 1, each has a quarter of the pairs."""
    assert math.sqrt(4 * 1.0 / (PAIRS / 4)) < 0.003


def test_the_fidelity_of_a_measured_state_is_that_of_its_patterns() -> None:
    preset = load_preset("oxford")
    assert preset.state is not None
    patterns = preset.state.pattern
    mean = sum(p.probability.value * p.fidelity.value for p in patterns)
    one = characterise(preset, pairs=400_000, seed=2).estimates["fidelity"]
    value, error = counted(one)
    assert one.exact == pytest.approx(mean, abs=2e-6)
    assert abs(value - mean) < 4.0 * error


def test_brighter_ions_herald_more_often_and_worse() -> None:
    figures = [
        characterise(
            load_preset("liu-10km", {"device.bright_probability": alpha}), pairs=200_000
        ).estimates
        for alpha in (0.02, 0.10)
    ]
    rates = [counted(one["pairs_per_s"])[0] for one in figures]
    assert rates[1] / rates[0] == pytest.approx(5.0, rel=0.05)
    fidelities = [counted(one["fidelity"])[0] for one in figures]
    # The published line 0.95 - 0.9 alpha.
    assert fidelities[0] - fidelities[1] == pytest.approx(0.072, abs=0.01)


def test_what_is_lost_is_not_taken_for_a_pair() -> None:
    """An ion whose bright half is gone by half, with a photon measured long ago: the trace is 3/4,
    ZZ (1 + 1/2)/2 and XX, YY sqrt(1/2), so the fidelity (1.5 + 2 sqrt(1/2))/4 of what it was."""
    figures = {"device.memory.coherence_ns": 1e15, "device.memory.decay_ns": 1e9}
    after = math.log(2.0) * 1e3
    found = characterise(load_preset("cui-3m", figures), pairs=200_000, after_ms=[after])
    value, error = counted(found.fidelity_after_ms[f"{after:g}"])
    assert value == pytest.approx((1.5 + 2.0 * math.sqrt(0.5)) / 4.0, abs=4.0 * error)


def test_a_drifting_phase_takes_what_its_law_says() -> None:
    """Against the same link without drift: XX and YY by the walk's mean cosine, ZZ by nothing."""
    interval_ns = 50e9
    drift = {
        "fibre.a.phase_diffusion_rad2_per_s": 0.02,
        "fibre.a.phase_stabilised_every_ns": interval_ns,
    }
    still = characterise(load_preset("liu-10km"), pairs=400_000).correlators
    found = characterise(load_preset("liu-10km", drift), pairs=400_000)
    assert found.estimates["fidelity"].exact is None
    assert found.estimates["pairs_per_s"].exact is not None
    kept = mean_cosine(0.02, interval_ns)
    assert 0.7 < kept < 0.9
    for name, factor in (("xx", kept), ("yy", kept), ("zz", 1.0)):
        expected = still[name].exact
        value, error = counted(found.correlators[name])
        assert expected is not None
        # A stretch between two stabilisations is one draw of the phase: some 7,000 of them.
        assert value == pytest.approx(factor * expected, abs=4.0 * error + 0.01)


def test_where_nothing_is_stored_nothing_is_kept() -> None:
    found = characterise(load_preset("innsbruck-50km"), pairs=FEW, after_ms=[1.0])
    for name in ("fidelity_half_ms", "fidelity_next_pair", "link_efficiency"):
        assert found.estimates[name].value is None
    assert found.fidelity_after_ms["1"].value is None
    assert counted(found.estimates["gain_over_no_memory"])[0] > 1.0


@pytest.mark.parametrize(
    ("name", "figures", "reason"),
    [
        ("oxford", {"noise.white": 0.9}, "is below 0.5 from the start"),
        ("liu-10km-memory", {"device.memory.coherence_ns": 1e15}, "does not fall below 0.5"),
        ("cui-3m", {}, "too gently"),
        ("oxford", {}, "too gently"),
        ("innsbruck-50km", {}, "keeps its half"),
    ],
)
def test_a_crossing_that_is_not_there_has_a_reason(
    name: str, figures: dict[str, float], reason: str
) -> None:
    pulses_off = {"device.memory.pulse_error": 0.0} if name == "liu-10km-memory" else {}
    preset = load_preset(name, figures | pulses_off)
    one = characterise(preset, pairs=10_000).estimates["fidelity_half_ms"]
    assert (one.value, one.stderr) == (None, None)
    assert one.reason is not None and reason in one.reason


@pytest.mark.parametrize(
    ("figures", "missing"),
    [
        # An ion is bright, and the bright one is gone before it is measured, but for 1 in 400.
        (
            ("device.memory.decay_ns=1", "fibre.noise_hz=0", "station.detector_dark_hz=0"),
            ("s", "key_rate_asymptotic"),
        ),
        (("device.no_answer_probability=1",), ("s", "qber", "key_rate_asymptotic")),
    ],
)
def test_where_rounds_are_lost_there_is_no_bell_value(
    figures: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    options = [part for figure in figures for part in ("--set", figure)]
    arguments = ("liu-10km", "--pairs", str(FEW), *options)
    answer = document(*arguments)
    assert answer["answered"]["exact"] < 0.003
    for figure in missing:
        assert (answer[figure]["value"], answer[figure]["stderr"]) == (None, None)
        assert "answered" in answer[figure]["reason"]
    assert all(answer["correlators"][f"e{x}{y}"]["value"] is None for x in (0, 1) for y in (0, 1))
    shown = run(*arguments)
    assert shown.exit_code == 0
    assert "answered at both ends" in shown.output


def test_more_modes_than_an_attempt_needs() -> None:
    answer = document("projected", "--pairs", str(FEW), "--set", "device.bins=65535")
    assert answer["success_probability"]["exact"] == 1.0
    assert answer["fidelity_next_pair"]["exact"] is not None


def test_how_far_apart_needs_both_errors() -> None:
    published = Figure(2.0, "somebody", "P", error=0.4)
    assert Estimate(2.5, 0.3, None, published).apart == pytest.approx(1.0)
    assert Estimate(2.5, 0.3, None, Figure(2.0, "somebody", "P")).apart is None
    assert Estimate(None, None, None, published).apart is None
    assert Estimate(2.5, 0.3).apart is None


def test_assumptions_are_what_the_experiment_did_not_say() -> None:
    found = {a.path: a for a in characterise(load_preset("liu-10km"), pairs=FEW).assumptions}
    assert found["device.preparation_ns"].grade == "I"
    assert all(a.grade not in ("P", "A", "S", "B") and a.source for a in found.values())
    # A default stands for something that is not in the model.
    assert "device.two_qubit_error" not in found
    unequal = load_preset("liu-10km", {"device.b.readout_error": 0.01, "noise.white": 0.1})
    changed = {a.path: a.grade for a in characterise(unequal, pairs=FEW).assumptions}
    assert changed["device.b.readout_error"] == changed["noise.white"] == "set"
    assert changed["device.a.readout_error"] == "assumed"


# Curves


@pytest.mark.parametrize("name", ["liu-10km", "cui-1km", "oxford"])
def test_a_link_at_its_own_length_is_itself(name: str) -> None:
    preset = load_preset(name)
    own = with_length(preset, fibre_length_m(preset))
    assert fibre_length_m(own) == fibre_length_m(preset)
    (point,) = exact_by_length(own, [fibre_length_m(preset)])
    exact = characterise(preset, pairs=FEW).estimates
    assert point.pairs_per_s.value == pytest.approx(exact["pairs_per_s"].exact)
    assert point.fidelity.value == pytest.approx(exact["fidelity"].exact)


def test_arms_keep_their_proportion() -> None:
    unequal = load_preset("liu-10km", {"fibre.a.length_m": 2_000, "fibre.b.length_m": 6_000})
    long = with_length(unequal, 16_000)
    assert (long.fibre.a.length_m.value, long.fibre.b.length_m.value) == (4_000, 12_000)
    none = with_length(load_preset("liu-10km", {"fibre.length_m": 0}), 8_000)
    assert (none.fibre.a.length_m.value, none.fibre.b.length_m.value) == (4_000, 4_000)


def test_counted_points_lie_on_the_exact_curve() -> None:
    preset = load_preset("liu-10km")
    lengths = [1_000.0, 20_000.0, 80_000.0]
    points = by_length(preset, lengths, np.random.default_rng(5), 40_000)
    for point, exact in zip(points, exact_by_length(preset, lengths), strict=True):
        for one, other in (
            (point.pairs_per_s, exact.pairs_per_s),
            (point.fidelity, exact.fidelity),
        ):
            value, error = counted(one)
            assert other.value is not None
            assert abs(value - other.value) < 4.5 * error


# The command


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_every_figure(name: str) -> None:
    answer = document(name, "--pairs", str(FEW), "--seed", "5")
    assert (answer["preset"], answer["seed"], answer["pairs"]) == (name, 5, FEW)
    assert set(FIGURES) <= set(answer)
    for figure in FIGURES:
        assert {"value", "stderr", "exact"} <= set(answer[figure])
        value, stderr = answer[figure]["value"], answer[figure]["stderr"]
        assert (value is None) == (stderr is None)
        assert value is None or (math.isfinite(value) and stderr >= 0.0)
        assert ("reason" in answer[figure]) == (value is None or answer[figure]["exact"] is None)
    for figure in ("attempts_per_s", "pairs_per_s", "success_probability", "fidelity", "s", "qber"):
        assert answer[figure]["value"] is not None
    assert set(answer["correlators"]) == {"xx", "yy", "zz", "e00", "e01", "e10", "e11"}
    assert answer["fidelity_after_ms"].keys() == answer["coherence_after_ms"].keys() != set()
    assert answer["assumptions"] and all(a["source"] for a in answer["assumptions"])


def test_published_values_stand_beside_ours() -> None:
    answer = document("liu-10km-memory", "--pairs", "20000")
    half = answer["fidelity_half_ms"]
    assert (half["published"], half["published_stderr"]) == (547.0, 34.0)
    assert half["published_grade"] == "S" and "2602.08472" in half["published_source"]
    expected = (half["value"] - 547.0) / math.hypot(half["stderr"], 34.0)
    assert half["standard_errors_apart"] == pytest.approx(expected)
    assert answer["fidelity_after_ms"]["450"]["published"] == 0.554
    assert "published" not in answer["qber"]


def test_the_key_rate_is_that_of_s_and_qber() -> None:
    answer = document("liu-10km", "--pairs", "20000")
    rate = answer["key_rate_asymptotic"]
    expected = asymptotic_key_rate(answer["s"]["value"], answer["qber"]["value"])
    assert rate["value"] == pytest.approx(expected)
    assert rate["exact"] == pytest.approx(
        asymptotic_key_rate(answer["s"]["exact"], answer["qber"]["exact"])
    )
    assert rate["at_published"] == pytest.approx(0.326, abs=0.002)
    assert 0.0 < rate["stderr"] < 0.2


def test_storage_times_of_ones_own() -> None:
    answer = document("lu-11km", "--pairs", "20000", "--after-ms", "0", "--after-ms", "300")
    after = answer["fidelity_after_ms"]
    assert list(after) == ["0", "300"]
    assert after["0"]["exact"] == pytest.approx(answer["fidelity"]["exact"])
    assert after["0"]["value"] > after["300"]["value"] + 0.1


def test_figures_can_be_set() -> None:
    far = document("liu-10km", "--set", "fibre.length_m=50500", "--pairs", str(FEW))
    published = document("liu-101km", "--pairs", str(FEW))
    assert far["attempts_per_s"]["exact"] == published["attempts_per_s"]["exact"]
    assert "fibre.length_m=50500" in far["title"]
    assert {"figure": "fibre.length_m", "value": 50500.0} in [
        {name: a[name] for name in ("figure", "value")} for a in far["assumptions"]
    ]


LINK_OF_MY_OWN = """
name = "mine"
title = "An ion and an atom"
device.a.preset = "liu-10km"
device.b.preset = "lu-11km"
fibre.preset = "liu-10km"
fibre.b.length_m = 20_000
station.preset = "liu-10km"
"""


def test_a_preset_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(LINK_OF_MY_OWN)
    answer = document("--preset-file", str(file), "--pairs", str(FEW))
    assert answer["preset"] == "mine"
    set_by_me = [a for a in answer["assumptions"] if a["grade"] == "own"]
    assert [a["figure"] for a in set_by_me] == ["fibre.b.length_m"]


def test_figures_of_one_end_come_after_those_of_both() -> None:
    both, one = ("--set", "fibre.length_m=20000"), ("--set", "fibre.b.length_m=1000")
    answers = [document("liu-10km", "--pairs", str(FEW), *s) for s in (both + one, one + both)]
    assert answers[0] == answers[1]
    assert "fibre.b.length_m=1000" in answers[0]["title"]


def test_titles_are_shown_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    title = 'title = "[bold]x[/red] $x_{$"'
    file.write_text(re.sub("^title.*$", lambda _: title, LINK_OF_MY_OWN, flags=re.MULTILINE))
    picture = tmp_path / "rate.png"
    result = run("--preset-file", str(file), "--pairs", str(FEW), "--plot", str(picture))
    assert result.exit_code == 0, result.output
    assert "[bold]x[/red] $x_{$" in result.output
    assert picture.exists()
    assert printable("a\x1b[31m\nb") == "a [31m b"


def test_people_get_a_table() -> None:
    result = run("liu-10km-memory", "--pairs", "20000")
    assert result.exit_code == 0
    for text in ("counted", "exact", "published", "547 ± 34 (S)", "s.e.", "fidelity after 450 ms"):
        assert text in result.output
    for name in DEFINITIONS:
        assert f"{name}: " in result.output
    assert "gain_over_no_memory: there is no repeater node" in result.output
    assert "device.preparation_ns" in result.output


def test_the_command_adds_one_figure_and_the_manual_names_all() -> None:
    found = characterise(load_preset("oxford"), pairs=FEW)
    assert set(all_estimates(found)) == set(FIGURES)
    manual = MANUAL.read_text()
    for name in (*FIGURES, "fidelity_after_ms", "coherence_after_ms", *preset_names()):
        assert f"`{name}`" in manual


def test_the_manuals_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manual = MANUAL.read_text()
    (link,) = re.findall(r"^```toml\n(.*?)^```$", manual, re.MULTILINE | re.DOTALL)
    Path("mine.toml").write_text(link)
    commands = re.findall(r"^bellhop emulator characterise (.+)$", manual, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        result = run(*shlex.split(command), "--pairs", str(FEW))
        assert result.exit_code == 0, result.output
    assert Path("rate.png").exists() and Path("decay.png").exists()


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2.57141, 0.00217, "2.5714 ± 0.0022"),
        (-0.52761, 0.0012, "-0.5276 ± 0.0012"),
        (547.2, 34.0, "547 ± 34"),
        (21901.5, 450.0, "21,902 ± 450"),
        (2662.1516, 3e-7, "2662.15 ± 3e-07"),
        (0.9, None, "0.9"),
    ],
)
def test_values_end_where_their_errors_do(value: float, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "PRESET"),
        (("oxford", "--preset-file", "mine.toml"), "PRESET"),
        (("nowhere",), "preset"),
        (("--preset-file", "absent.toml"), "absent.toml"),
        (("oxford", "--pairs", "99"), "--pairs"),
        (("oxford", "--pairs", "10000000000"), "--pairs"),
        (("oxford", "--seed", "-1"), "--seed"),
        (("oxford", "--after-ms", "-1"), "--after-ms"),
        (("oxford", "--after-ms", "nan"), "--after-ms"),
        (("oxford", "--set", "noise.white"), "--set"),
        (("oxford", "--set", "noise.white=much"), "--set"),
        (("oxford", "--set", "noise.white=2"), "noise.white"),
        (("oxford", "--set", "noise.white=0.1", "--set", " noise.white=0.2"), "--set"),
        (("oxford", "--set", "noise.black=0.1"), "noise.black"),
        (("oxford", "--plot", "rate.bmp"), "--plot"),
        (("oxford", "--plot", "no/such/folder/rate.png"), "--plot"),
        (("innsbruck-50km", "--plot-storage", "storage.png"), "--plot-storage"),
    ],
)
def test_what_is_wrong_is_named(arguments: tuple[str, ...], named: str) -> None:
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    error = json.loads(result.stderr)
    assert error["error"] == "ConfigError"
    assert named in error["message"]


def test_pictures(tmp_path: Path) -> None:
    files = [tmp_path / "length.png", tmp_path / "storage.svg"]
    plots = ("--plot", str(files[0]), "--plot-storage", str(files[1]))
    answer = document("liu-10km-memory", "--pairs", str(FEW), *plots)
    assert answer["plots"] == [str(file) for file in files]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in files[1].read_text()


def test_a_file_is_still_an_emulator_to_run(tmp_path: Path) -> None:
    for name in ("topology.toml", "./characterise"):
        result = CliRunner().invoke(main, ["emulator", str(tmp_path / name)])
        assert result.exit_code == 2
        assert "cannot be read" in result.stderr
    missing = CliRunner().invoke(main, ["emulator"])
    assert missing.exit_code == 2
    assert "Missing argument 'FILE'" in missing.stderr
    shown = CliRunner().invoke(main, ["emulator", "--help"])
    assert shown.exit_code == 0
    assert "characterise" in shown.output


def test_an_emulator_that_runs_loads_nothing_for_pictures() -> None:
    program = (
        "import sys, bellhop.hal.emulator.server, bellhop.hal.characterise, bellhop.hal.curves;"
        "import bellhop.node.cli.emulator, bellhop.node.cli.characterise;"
        "print([m for m in ('matplotlib', 'scipy') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ended.stdout.strip() == b"[]"
