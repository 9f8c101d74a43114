"""The Oxford preset against what was published, and presets that are refused."""

from pathlib import Path

import numpy as np
import pytest

from bellhop.hal import states
from bellhop.hal.emulator.link import LinkPhysics
from bellhop.hal.errors import ConfigError
from bellhop.hal.operations import BellState, Side
from bellhop.hal.preset import Preset, load_preset, parse_preset, preset_names, read_preset


@pytest.fixture(scope="module")
def oxford() -> Preset:
    return load_preset("oxford")


def mean_state(preset: Preset) -> states.State:
    """The pair in the frame, averaged over what heralds it."""
    patterns = preset.station.pattern
    return np.asarray(
        sum(one.probability.value * preset.framed_state(one) for one in patterns), np.complex128
    )


def errors(preset: Preset) -> tuple[float, float]:
    return preset.readout_error(Side.A), preset.readout_error(Side.B)


def test_chsh_value_qber_and_fidelity_are_the_published_ones(oxford: Preset) -> None:
    state = mean_state(oxford)
    angles = oxford.angles(Side.A), oxford.angles(Side.B)
    chsh = float(states.chsh(state, *angles, *errors(oxford)))
    qber = float(states.error_rate(state, angles[0][0], angles[1][2], *errors(oxford)))
    published = oxford.published
    # Far inside the published errors of 0.006 and 0.02 %: the fit held both.
    assert chsh == pytest.approx(published.chsh.value, abs=1e-4)
    assert qber == pytest.approx(published.qber.value, abs=1e-5)
    fidelity = float(states.fidelity(state, BellState.PHI_PLUS))
    assert fidelity == pytest.approx(published.fidelity.value, abs=0.001)


def test_each_pattern_has_its_published_fidelity(oxford: Preset) -> None:
    for pattern in oxford.station.pattern:
        found = float(states.fidelity(oxford.framed_state(pattern), BellState.PHI_PLUS))
        assert found == pytest.approx(pattern.fidelity.value, abs=1e-6)
    for bell_state, (share, state) in oxford.announced().items():
        announcing = [p for p in oxford.station.pattern if p.announces == bell_state.name]
        expected = np.mean([pattern.fidelity.value for pattern in announcing])
        assert share == pytest.approx(0.5)
        assert float(states.fidelity(state, bell_state)) == pytest.approx(expected, abs=1e-6)


def flipped_table(preset: Preset, x: int, y: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """P(ab|xy) as the raw pairs give it, after the flips that the herald calls for."""
    angle_a, angle_b = preset.angles(Side.A)[x], preset.angles(Side.B)[y]
    total = np.zeros((2, 2))
    for bell_state, (share, state) in preset.announced().items():
        raw = states.joint_probabilities(state, angle_a, angle_b, *errors(preset))
        if x == 1 and bell_state is BellState.PSI_PLUS:
            raw = raw[::-1]
        total += share * raw[:, ::-1]
    return total.ravel()


def test_the_published_table_is_met_within_the_stated_residuals(oxford: Preset) -> None:
    residuals = [
        flipped_table(oxford, entry.x, entry.y) - np.array(entry.value)
        for entry in oxford.published.table
    ]
    flat = np.concatenate(residuals)
    assert flat.shape == (20,)
    assert np.abs(flat).max() < 0.0013
    assert np.sqrt(np.mean(flat**2)) < 0.00077


def test_raw_pairs_with_flips_give_the_published_chsh_value(oxford: Preset) -> None:
    signs = np.array([1, -1, -1, 1])
    e = {(x, y): float(flipped_table(oxford, x, y) @ signs) for x in (0, 1) for y in (0, 1, 2)}
    assert e[0, 0] + e[0, 1] + e[1, 0] - e[1, 1] == pytest.approx(2.677, abs=1e-4)
    assert (1.0 - e[0, 2]) / 2.0 == pytest.approx(0.0144, abs=1e-5)


def test_the_angles_are_near_the_published_ones(oxford: Preset) -> None:
    assert np.rad2deg(oxford.angles(Side.A)) == pytest.approx([0, 90], abs=2.0)
    assert np.rad2deg(oxford.angles(Side.B)) == pytest.approx([45, -45, 0], abs=2.0)


def test_the_station_succeeds_as_two_photons_do(oxford: Preset) -> None:
    """P = eta^2 / 2 for an analyser that resolves two of four Bell states."""
    eta = oxford.station.detection_probability.value
    assert oxford.station.success_probability.value == pytest.approx(eta**2 / 2, rel=0.02)


def test_heralds_come_at_the_published_rate(oxford: Preset) -> None:
    rounds = 60_000
    heralds = LinkPhysics(oxford).herald(np.random.default_rng(5), rounds)
    rate = rounds / (heralds.duration_ns / 1e9)
    # Poissonian: 0.4 % standard error; the target allows 2 %.
    assert rate == pytest.approx(oxford.published.herald_rate_hz.value, rel=0.02)


def test_white_noise_scales_the_chsh_value(oxford: Preset) -> None:
    noisy = load_preset("oxford", {"noise.white": 0.05})
    values = [
        float(states.chsh(mean_state(p), p.angles(Side.A), p.angles(Side.B), *errors(p)))
        for p in (oxford, noisy)
    ]
    assert values[1] == pytest.approx(0.95 * values[0])
    assert values[1] <= 2.55
    assert noisy.noise.white.grade == "set"
    assert "noise.white=0.05" in noisy.description
    assert oxford.description == oxford.title


def test_every_figure_has_a_source(oxford: Preset) -> None:
    assert preset_names() == ("oxford",)
    figures = [
        figure
        for section in (oxford.device, oxford.fibre, oxford.station, oxford.state, oxford.published)
        for figure in (getattr(section, name) for name in section.__struct_fields__)
        if hasattr(figure, "grade")
    ]
    assert len(figures) > 20
    assert all(figure.source and figure.grade != "set" for figure in figures)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("noise.white", 1.5),
        ("noise.white", float("nan")),
        ("noise.black", 0.1),
        ("noise", 0.1),
        ("", 0.1),
        ("published.chsh", 2.8),
        ("device.coherence_shape", 1.0),
        ("device.attempt_period_ns", 0.0),
        ("device.attempt_period_ns", 1000.5),
        ("device.attempts_on_ns", 999.0),
        ("device.coherence_ns", float("inf")),
        ("device.readout_error_a", -0.1),
        ("station.success_probability", 0.0),
        ("station.success_probability", 1.1),
        ("fibre.length_a_m", -1.0),
        ("__class__.x", 0.0),
    ],
)
def test_overrides_out_of_range_are_refused_by_name(path: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("oxford", {path: value})
    assert caught.value.field == path


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("[fibre]", "[fibre]\ncolour = 3", "fibre.colour"),
        ('name = "oxford"', "", "name"),
        ("value = 422,", 'value = "422",', "fibre.wavelength_nm.value"),
        ('announces = "PSI_PLUS"', 'announces = "PSI"', "station.pattern[0].announces"),
        ("[0.93710926, ", "[-0.93710926, ", "state"),
        ("value = [0.0, 90.0]", "value = [0.0]", "state.angles_a"),
        ("probability = { value = 0.25", "probability = { value = 0.2", "station.pattern"),
    ],
)
def test_files_that_are_wrong_name_the_field(
    old: str, new: str, field: str, tmp_path: Path
) -> None:
    source = Path(states.__file__).parent / "presets" / "oxford.toml"
    text = source.read_text()
    assert old in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_preset(file)
    assert caught.value.field == field


def test_files_that_are_no_presets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_preset(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="not TOML"):
        parse_preset("name = ", "text")
    with pytest.raises(ConfigError, match="oxford"):
        load_preset("../oxford")
