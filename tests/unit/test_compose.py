"""Presets put together from others: what wins, what is refused, and how errors name it."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal.compose import OWN_SOURCE, Composition, Table, compose
from bellhop.hal.configuration import convert
from bellhop.hal.errors import ConfigError
from bellhop.hal.experiment import Experiment
from bellhop.hal.preset import Preset, load_preset, parse_preset

MEMORIES = Path(__file__).parents[2] / "docs" / "memories.md"


def example() -> str:
    """The link of unequal nodes in the documentation."""
    section = MEMORIES.read_text(encoding="utf-8").split("## Presets")[1]
    found = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


def own(value: object) -> Table:
    return {"value": value, "source": OWN_SOURCE, "grade": "own"}


def figure(value: float) -> Table:
    return {"value": value, "source": "a paper", "grade": "P"}


def test_a_link_of_unequal_nodes_takes_ten_lines() -> None:
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) <= 10
    preset = parse_preset(example(), "docs")
    liu, lu = load_preset("liu-10km"), load_preset("lu-11km")
    assert preset.device.a == lu.device.a
    assert preset.device.b == liu.device.a != liu.device.b
    assert preset.fibre.b.length_m.value == 8_000
    assert preset.fibre.b.length_m.grade == "own"
    assert preset.fibre.a == liu.fibre.a
    # Photons that interfere have one wavelength.
    assert preset.fibre.a.wavelength_nm == preset.fibre.b.wavelength_nm
    assert preset.station == liu.station


def test_a_link_of_unequal_nodes_gives_what_arithmetic_does() -> None:
    """The single-photon scheme for small efficiencies and no noise, from the figures alone."""
    preset = parse_preset(example(), "docs")
    quiet = {"fibre.noise_hz": 0.0, "station.detector_dark_hz": 0.0}
    experiment = Experiment(parse_preset(example(), "docs", quiet))
    eta, alpha = [], []
    for device, fibre in ((preset.device.a, preset.fibre.a), (preset.device.b, preset.fibre.b)):
        lost_db = fibre.attenuation_db_per_km.value * fibre.length_m.value / 1e3
        eta.append(
            device.collection_efficiency.value
            * fibre.conversion_efficiency.value
            * fibre.transmission.value
            * preset.station.detector_efficiency.value
            / 10 ** (lost_db / 10)
        )
        alpha.append(device.bright_probability.value)
    clicks = alpha[0] * eta[0] + alpha[1] * eta[1]
    assert experiment.success_probability == pytest.approx(clicks, rel=0.01)
    slower = max(preset.device.a.preparation_ns.value, preset.device.b.preparation_ns.value)
    period_ns = slower + 2 * 8_000 / 0.2041
    assert experiment.pairs_per_s == pytest.approx(clicks / period_ns * 1e9, rel=0.01)
    # Both emitted: that share of the clicks is no Bell state, but for the small emission noise.
    both = alpha[0] * alpha[1] * sum(eta) / clicks
    flips = [device.emission_depolarising.value for device in (preset.device.a, preset.device.b)]
    expected = both + (1 - 2 * both) * (1 - math.prod(1 - flip for flip in flips)) / 2
    readout = preset.device.a.readout_error.value + preset.device.b.readout_error.value
    assert experiment.qber() == pytest.approx(expected + readout, abs=3e-4)


# Layers

FULL: Table = {
    "device": {
        "x": figure(1),
        "y": figure(2),
        "memory": {"coherence_ns": figure(10), "decay_ns": figure(20)},
        "a": {"y": figure(3)},
        "b": {"y": figure(4)},
    },
    "station": {"scheme": "direct", "window_ns": figure(5)},
    "noise": {},
}


def presets(name: str) -> Table | None:
    known: dict[str, Table] = {
        "full": FULL,
        "nested": {"device": {"preset": "full", "x": 9, "b": {"x": 8}}},
        "itself": {"device": {"preset": "itself"}},
        "round": {"device": {"a": {"preset": "about"}}, "station": {"preset": "full"}},
        "about": {"device": {"preset": "round"}, "station": {"preset": "round"}},
    }
    return known.get(name)


def composed(document: Table) -> Table:
    return compose(document, presets).document


def device(document: Table, end: str) -> Table:
    ends = composed({"device": document})["device"]
    assert isinstance(ends, dict)
    found = ends[end]
    assert isinstance(found, dict)
    return found


def test_an_end_wins_over_both_and_the_file_over_the_preset() -> None:
    assert device({"x": 1, "a": {"x": 2}}, "a") == {"x": own(2)}
    assert device({"x": 1, "a": {"x": 2}}, "b") == {"x": own(1)}
    assert device({"preset": "full"}, "b")["y"] == figure(4)
    assert device({"preset": "full", "y": 7}, "b")["y"] == own(7)
    assert device({"y": 7, "b": {"preset": "full"}}, "b")["y"] == own(7)
    assert device({"b": {"preset": "full", "y": 7}}, "b")["y"] == own(7)
    assert device({"b": {"preset": "full", "y": 7}}, "a") == {}


def test_a_side_can_be_taken_for_the_other() -> None:
    assert device({"a": {"preset": "full", "side": "b"}}, "a")["y"] == figure(4)
    assert device({"preset": "full", "side": "a"}, "b")["y"] == figure(3)


def test_an_end_can_name_another_preset_than_both() -> None:
    document: Table = {"preset": "full", "b": {"preset": "nested"}}
    assert device(document, "a")["x"] == figure(1)
    assert device(document, "b")["x"] == own(8)


def test_presets_may_name_presets() -> None:
    assert device({"preset": "nested"}, "a")["x"] == own(9)
    assert device({"preset": "nested"}, "a")["y"] == figure(3)


def test_qubits_are_overridden_figure_by_figure() -> None:
    memory = device({"preset": "full", "memory": {"coherence_ns": 11}}, "a")["memory"]
    assert memory == {"coherence_ns": own(11), "decay_ns": figure(20)}
    document: Table = {"memory": {"coherence_ns": 11}, "a": {"memory": {"decay_ns": 12}}}
    assert device(document, "a")["memory"] == {"coherence_ns": own(11), "decay_ns": own(12)}
    assert device(document, "b")["memory"] == {"coherence_ns": own(11)}


def test_bare_numbers_become_figures_of_the_file() -> None:
    document: Table = {
        "name": "mine",
        "settings": {"angles_a": [0, 90.0]},
        "state": {"correlations": [[1, 0], [0, 1]], "pattern": [{"name": "p", "fidelity": 1}]},
        "station": {"preset": "full", "window_ns": figure(3), "good": True},
        "published": {"fidelity_after_ms": {"450": 0.5}, "table": [{"x": 0, "value": [1, 2]}]},
    }
    assert composed(document) == {
        "name": "mine",
        "settings": {"angles_a": own([0, 90.0])},
        "state": {
            "correlations": own([[1, 0], [0, 1]]),
            "pattern": [{"name": "p", "fidelity": own(1)}],
        },
        "station": {"scheme": "direct", "window_ns": figure(3), "good": True},
        "published": {
            "fidelity_after_ms": {"450": own(0.5)},
            "table": [{"x": 0, "value": [1, 2]}],
        },
    }


def test_what_is_borrowed_stays_as_it_was() -> None:
    before = repr(FULL)
    composed({"device": {"preset": "full", "memory": {"coherence_ns": 1}, "a": {"x": 5}}})
    assert repr(FULL) == before


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"device": {"preset": "nowhere"}}, "device.preset"),
        ({"device": {"preset": "../full"}}, "device.preset"),
        ({"device": {"a": {"preset": "nowhere"}}}, "device.a.preset"),
        ({"device": {"preset": 3}}, "device.preset"),
        ({"device": {"preset": "itself"}}, "device.preset"),
        ({"device": {"preset": "about"}}, "device.a.preset"),
        ({"fibre": {"preset": "full"}}, "fibre.preset"),
        ({"station": {"preset": "nested"}}, "station.preset"),
        ({"device": {"a": {"side": "b"}}}, "device.a.side"),
        ({"device": {"preset": "full", "side": "c"}}, "device.side"),
        ({"device": 3}, "device"),
        ({"device": {"a": 3}}, "device.a"),
        ({"station": [1]}, "station"),
    ],
)
def test_references_that_lead_nowhere_name_the_field(document: Table, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(document, presets)
    assert caught.value.field == field
    assert field in caught.value.message


def test_a_preset_may_be_passed_twice_by_different_sections() -> None:
    """`round` and `about` lead to each other, but not in circles for the station."""
    assert composed({"station": {"preset": "about"}})["station"] == FULL["station"]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[device]\npreset = 'liu-10km'\ncolour = 1", "device.colour"),
        ("[device]\npreset = 'liu-10km'\nreadout_error = 2", "device.readout_error"),
        ("[device]\npreset = 'liu-10km'\nb.readout_error = 2", "device.b.readout_error"),
        ("[device.b]\npreset = 'liu-10km'", "device.a.preparation_ns"),
        ("[device.memory]\ncoherence_ns = 1", "device.preparation_ns"),
        ("[device]\npreset = 'liu-10km'\nmemory.coherence_ns = 0", "device.memory.coherence_ns"),
        ("[device]\npreset = 'liu-10km'\nmemory.colour = 0", "device.memory.colour"),
        ("[device]\npreset = 'liu-10km'\nions = 'two'", "device.ions"),
        ("[device]\npreset = 'liu-10km'\n[state]\npreset = 'liu-10km'", "state.preset"),
        ("[device]\npreset = 'liu-10km'\n[published]\npreset = 'liu-10km'", "published.preset"),
    ],
)
def test_errors_name_the_field_as_the_file_does(text: str, field: str) -> None:
    rest = "[fibre]\npreset = 'liu-10km'\n[station]\npreset = 'liu-10km'\n"
    with pytest.raises(ConfigError) as caught:
        parse_preset(f"name = 'mine'\ntitle = 'mine'\n{rest}{text}", "mine.toml")
    assert caught.value.field == field
    assert field in caught.value.message


def test_paths_are_renamed_from_the_nearest_table_on() -> None:
    composition = Composition({}, {"device.a": "device", "device.a.memory.x": "device.a.memory.x"})
    assert composition.as_written("device.a.memory.y") == "device.memory.y"
    assert composition.as_written("device.a.memory.x.value") == "device.a.memory.x.value"
    assert composition.as_written("device.b.x") == "device.b.x"
    error = ConfigError("other", "station.x")
    assert composition.rename(error) is error


WORDS = st.sampled_from(
    ["device", "fibre", "station", "a", "b", "preset", "side", "memory", "x", "value", "full"]
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
CONTENT = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(WORDS, below, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, CONTENT, max_size=4))
def test_whatever_is_in_a_file_is_refused_in_order(document: Table) -> None:
    with pytest.raises(ConfigError):
        convert(compose(document, presets).document, Preset, "a file")
