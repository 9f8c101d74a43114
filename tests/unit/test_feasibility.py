"""Presets whose figures are each possible and together no experiment: refused, by a useful name."""

from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bellhop.hal.emulator.link import LinkPhysics, Past
from bellhop.hal.emulator.topology import LinkSection, read_links
from bellhop.hal.errors import ConfigError
from bellhop.hal.experiment import Experiment
from bellhop.hal.feasibility import HERALD_NS_MAX, SUCCESS_MIN, check
from bellhop.hal.figures import Figure
from bellhop.hal.operations import BLOCK_ROUNDS_MAX
from bellhop.hal.preset import SETTABLE, Preset, load_preset, preset_names
from bellhop.hal.preset_rules import RANGES
from bellhop.hal.sections import Fibres, Qubit

Overrides = dict[str, float]

QUIET = {"fibre.noise_hz": 0.0, "station.detector_dark_hz": 0.0}
SILENT = {"station.detector_dark_hz": 0.0}

REFUSED: list[tuple[str, Overrides, str, str]] = [
    # No light, and nothing that clicks without.
    ("liu-10km", QUIET | {"device.collection_efficiency": 1e-300}, "", "4.05e-303"),
    ("liu-10km", QUIET | {"device.bright_probability": 1e-300}, "", "0.00237 on side A"),
    ("liu-10km", QUIET | {"fibre.length_m": 1e7}, "", "1e-09"),
    ("liu-10km", QUIET | {"fibre.length_m": 5e7}, "", "probability 0,"),
    ("liu-10km", QUIET | {"fibre.attenuation_db_per_km": 1e4}, "", "probability 0,"),
    ("liu-10km", QUIET | {"fibre.transmission": 1e-200}, "", "noise with 0"),
    ("liu-10km", QUIET | {"station.detector_efficiency": 1e-100}, "", "1e-09"),
    ("oxford", {"device.collection_efficiency": 1e-150}, "", "5e-301"),
    ("oxford", {"device.collection_efficiency": 1e-9}, "", "5e-19"),
    ("oxford", {"device.a.collection_efficiency": 1e-9}, "", "8.94e-12"),
    ("cui-3m", {"device.collection_efficiency": 1e-30}, "", "7.68e-31"),
    ("projected", QUIET | {"fibre.conversion_efficiency": 1e-10}, "", "1e-09"),
    # Either half of a repeater node, and both together.
    ("innsbruck-50km", SILENT | {"device.collection_efficiency": 1e-12}, "", "7.76e-14"),
    ("innsbruck-50km", SILENT | {"device.b.collection_efficiency": 1e-12}, "", "7.76e-14"),
    ("innsbruck-50km", SILENT | {"device.a.collection_efficiency": 1e-12}, "", "7.76e-14"),
    ("innsbruck-50km", SILENT | {"device.collection_efficiency": 1e-7}, "", "7.76e-09 on side A"),
    # Clicks without light.
    ("liu-10km", {"station.window_ns": 1e15}, "", "4.8e+06 times"),
    ("liu-10km", {"station.detector_dark_hz": 1e9}, "", "100 times"),
    ("liu-10km", {"station.window_ns": 1e4, "fibre.noise_hz": 1e9}, "", "times"),
    ("innsbruck-50km", {"station.detector_dark_hz": 1e9}, "", "3e+04 times"),
    # Attempts that do not fit.
    ("oxford", {"device.attempts_on_ns": 100}, "", "attempt of 1000 ns in the 100 ns"),
    ("oxford", {"device.b.attempts_on_ns": 999}, "", "attempt of 1000 ns in the 999 ns"),
    ("oxford", {"fibre.length_m": 1e5}, "", "980895 ns in the 500000 ns"),
    ("oxford", {"device.preparation_ns": 1e15}, "", "in the 500000 ns"),
    ("cui-3m", {"station.window_ns": 14}, "", "14 ns (station.window_ns) longer than the 13 ns"),
    ("cui-3m", {"device.bin_spacing_ns": 12}, "", "longer than the 12 ns"),
    ("liu-10km", {"device.bins": 2}, "", "longer than the 0 ns"),
    # Heralds that take too long.
    ("liu-10km", {"device.preparation_ns": 1e13}, "", "9.08e+07 s on average"),
    ("liu-10km", {"device.a.preparation_ns": 1e12}, "", "more than 86400 s"),
    ("lu-11km", {"device.calibration_ns": 1e15, "device.calibration_every_ns": 1}, "", "pauses"),
    ("oxford", {"device.loss_every_ns": 1e6, "device.reload_ns": 1e15}, "", "3.2e+12 ns"),
    ("oxford", {"device.cooling_ns": 1e15}, "", "with pauses"),
    ("cui-12km", {"device.shuttle_ns": 1e13}, "", "more than 86400 s"),
    ("innsbruck-50km", {"device.preparation_ns": 1e15}, "", "more than 86400 s"),
    # Halves that are gone before they are measured.
    (
        "liu-10km",
        QUIET | {"device.emission_depolarising": 0, "device.memory.decay_ns": 1},
        "device.memory.decay_ns",
        "probability 0 until they are measured",
    ),
    # A single figure's range.
    ("innsbruck-50km", {"station.cutoff_attempts": 1e9}, "", "from 1 to 100000"),
    ("innsbruck-50km", {"station.cutoff_attempts": 1e7}, "", "from 1 to 100000"),
    ("liu-10km", {"device.photon_ns": 1e-300, "fibre.temperature_amplitude_k": 1}, "", "1e-06"),
    ("oxford", {"device.loss_every_ns": 1, "device.reload_ns": 1e15}, "", "from 1e+06"),
]


def blamed(overrides: Overrides, field: str) -> set[str]:
    """What may be named: figures that were set, and not only to turn something off."""
    return {field} if field else {path for path, value in overrides.items() if value > 0.0}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "overrides", "field", "said"), REFUSED)
def test_what_is_no_experiment_is_refused_by_a_figure_that_was_set(
    name: str, overrides: Overrides, field: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(name, overrides)
    assert caught.value.field in blamed(overrides, field)
    assert caught.value.field in caught.value.message
    assert said in caught.value.message


@pytest.mark.parametrize(("name", "overrides", "field", "said"), REFUSED)
def test_a_topology_names_the_links_field(
    name: str, overrides: Overrides, field: str, said: str
) -> None:
    section = LinkSection(name="fibre", a="alice", b="bob", preset=name, set=overrides)
    with pytest.raises(ConfigError) as caught:
        read_links((section,), folder=None)  # type: ignore[arg-type]  # no file is named
    assert caught.value.field in {f"link[0].set.{one}" for one in blamed(overrides, field)}


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        # Dark clicks alone: an experiment, if a bad one.
        ("liu-10km", {"device.bright_probability": 1e-300}),
        ("liu-10km", {"device.collection_efficiency": 1e-12}),
        ("innsbruck-50km", {"device.collection_efficiency": 1e-12}),
        ("liu-10km", {"fibre.noise_hz": 1e9}),
        ("liu-10km", QUIET | {"device.bright_probability": 1.0}),
        ("projected", {"device.bins": 65_535.0}),
        ("liu-10km", {"device.preparation_ns": 9e9}),
        ("oxford", {"device.attempts_on_ns": 1_000.0}),
        ("oxford", {"device.collection_efficiency": 4.5e-5}),
        ("innsbruck-50km", {"device.collection_efficiency": 1.0, "station.cutoff_attempts": 1.0}),
        ("cui-1km", {"device.collection_efficiency": 1.0, "fibre.conversion_efficiency": 1.0}),
        ("innsbruck-50km", {"station.cutoff_attempts": 10_000.0}),
        ("oxford", {"device.reload_ns": 1e15}),
    ],
)
def test_what_is_barely_an_experiment_is_drawn(name: str, overrides: Overrides) -> None:
    is_sound(load_preset(name, overrides))


def test_the_bounds_are_the_ones_that_are_met() -> None:
    rare = Experiment(load_preset("oxford", {"device.collection_efficiency": 4.5e-5}))
    assert SUCCESS_MIN < rare.success_probability < 1.1 * SUCCESS_MIN
    slow = Experiment(load_preset("liu-10km", {"device.preparation_ns": 9e9}))
    assert 0.9 * HERALD_NS_MAX < 1e9 / slow.pairs_per_s_with_pauses < HERALD_NS_MAX


def test_presets_that_are_no_files_are_checked_too() -> None:
    """A curve of lengths replaces fibres."""
    preset = load_preset("liu-10km", QUIET)
    long = msgspec.structs.replace(preset.fibre.a, length_m=Figure(5e7, "a curve", "assumed"))
    with pytest.raises(ConfigError, match="length_m"):
        Experiment(msgspec.structs.replace(preset, fibre=Fibres(long, long)))


def test_nothing_decays_without_a_lifetime() -> None:
    experiment = Experiment(load_preset("oxford"))

    @dataclass
    class Asked:
        preset: Preset
        shares: NDArray[np.float64]

        def probabilities(self) -> NDArray[np.float64]:
            raise AssertionError("no need to")

    check(Asked(experiment.preset, experiment.shares))


# Any figures at all

EXTREME = st.sampled_from(
    [0.0, 1e-300, 1e-12, 1e-9, 1e-3, 0.5, 1.0, 2.0, 110.0, 1e5, 1e6, 1e9, 1e12, 1e15, 1e300]
)
FIGURES = [
    f"{section}.{name}"
    for section, struct in SETTABLE.items()
    for name in RANGES.get(struct, {})
    if not (section == "station" and name == "cutoff_attempts")
] + [f"device.{kind}.{name}" for kind in ("memory", "communication") for name in RANGES[Qubit]]


def is_sound(preset: Preset) -> None:
    """Whatever is not refused has probabilities, and heralds that can be drawn and told."""
    physics = LinkPhysics(preset)
    experiment = physics.experiment
    table = experiment.probabilities()
    assert np.isfinite(table).all()
    assert table.min() > -1e-12 and table.max() < 1.0 + 1e-12
    np.testing.assert_allclose(table.sum(axis=(-2, -1)), 1.0, atol=1e-9)
    assert experiment.shares.sum() == pytest.approx(1.0)
    assert SUCCESS_MIN <= experiment.success_probability <= 1.0
    assert 0.0 < experiment.pairs_per_s_with_pauses <= experiment.pairs_per_s
    generator = np.random.default_rng(1)
    past = Past(generator)
    for rounds in (100, 1):
        heralds = physics.herald(generator, rounds, past)
        assert heralds.attempts[0] >= 0 and (np.diff(heralds.attempts) > 0).all()
        assert heralds.lead_ns >= 0 and 0 < heralds.duration_ns < 2**63
        zeros = np.zeros(rounds, np.uint8)
        uniforms = generator.random(rounds)
        first, second = experiment.storage
        outcomes = physics.answer(first, heralds.patterns, zeros, uniforms, heralds.hidden)
        assert outcomes.max() <= 2
    assert rounds < BLOCK_ROUNDS_MAX and second is not first


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(preset_names()),
    overrides=st.dictionaries(st.sampled_from(FIGURES), EXTREME, min_size=1, max_size=3),
)
def test_any_figures_are_refused_or_an_experiment(name: str, overrides: Overrides) -> None:
    try:
        preset = load_preset(name, overrides)
    except ConfigError as error:
        assert error.field and error.field in error.message
        return
    is_sound(preset)
