"""What every preset keeps to, overrides, and presets that are refused."""

import os
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from bellhop.hal.configuration import decode_toml
from bellhop.hal.errors import ConfigError
from bellhop.hal.experiment import Experiment
from bellhop.hal.figures import Figures, Matrix
from bellhop.hal.preset import (
    TEXT_BYTES_MAX,
    Preset,
    figures,
    load_preset,
    parse_preset,
    preset_names,
    read_preset,
)

NAMES = (
    "cui-12km",
    "cui-1km",
    "cui-3m",
    "innsbruck-50km",
    "liu-101km",
    "liu-10km",
    "liu-10km-memory",
    "lu-100km",
    "lu-11km",
    "oxford",
    "projected",
)


def shipped_text(name: str) -> str:
    folder = resources.files("bellhop.hal").joinpath("presets")
    return (folder / f"{name}.toml").read_text(encoding="utf-8")


# What every preset keeps to


def test_all_published_experiments_are_there() -> None:
    assert preset_names() == NAMES
    for name in NAMES:
        preset = load_preset(name)
        assert preset.name == name
        assert preset.description == preset.title


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_where_it_is_from(name: str) -> None:
    found = dict(figures(load_preset(name)))
    assert len(found) > 60
    for path, figure in found.items():
        assert figure.source and figure.grade not in ("own", "set"), path
        read = figure.grade in ("P", "A", "S", "B", "I")
        assert not read or figure.source.startswith("arXiv 2"), path
        # What was tuned until something came out says to what, and is never called read.
        assert "calibrated to" not in figure.source or figure.grade == "I", path


@pytest.mark.parametrize("name", NAMES)
def test_groups_of_figures_say_where_they_are_from(name: str) -> None:
    def groups(content: object) -> list[Figures | Matrix]:
        if isinstance(content, Figures | Matrix):
            return [content]
        if isinstance(content, msgspec.Struct):
            return [
                one
                for field in content.__struct_fields__
                for one in groups(getattr(content, field))
            ]
        return []

    found = groups(load_preset(name))
    assert found and all(one.source and one.grade != "own" for one in found)


def test_what_nobody_measured_says_so() -> None:
    preset = load_preset("projected")
    assert "PROJECTED" in preset.title
    assert {figure.grade for _, figure in figures(preset)} == {"assumed"}
    assert not list(figures(preset.published))


# Overrides


def test_white_noise_scales_the_chsh_value() -> None:
    oxford = load_preset("oxford")
    noisy = load_preset("oxford", {"noise.white": 0.05})
    assert Experiment(noisy).chsh() == pytest.approx(0.95 * Experiment(oxford).chsh())
    assert noisy.noise.white.grade == "set"
    assert noisy.description == f"{oxford.title}; set: noise.white=0.05"


def test_overrides_set_one_end_or_both() -> None:
    overrides = {
        "device.a.readout_error": 0.01,
        "device.cooling_ns": 0.0,
        "fibre.length_m": 7_000.0,
        "fibre.b.noise_hz": 3.0,
        "device.memory.coherence_ns": 5e9,
        "device.b.memory.decay_ns": 1e9,
        "storage.window_ns": 1e6,
    }
    preset = load_preset("liu-10km", overrides)
    assert preset.device.a.readout_error.value == 0.01
    assert preset.device.b.readout_error.value == 0.0005
    assert preset.fibre.a.length_m.value == preset.fibre.b.length_m.value == 7_000.0
    assert preset.fibre.b.noise_hz.value == 3.0 != preset.fibre.a.noise_hz.value
    assert preset.device.a.memory.coherence_ns.value == 5e9
    assert preset.device.a.memory.decay_ns is None
    assert preset.device.b.memory.decay_ns is not None
    assert preset.storage.window_ns is not None
    for path, value in overrides.items():
        assert f"{path}={value:g}" in preset.description.split("set: ")[1].split(", ")
    # A later override of one end stands beside an earlier one of both.
    both = {"fibre.length_m": 7_000.0, "fibre.b.length_m": 8_000.0}
    mixed = load_preset("liu-10km", both)
    assert (mixed.fibre.a.length_m.value, mixed.fibre.b.length_m.value) == (7_000.0, 8_000.0)
    assert "fibre.a.length_m=7000, fibre.b.length_m=8000" in mixed.description


def test_a_missing_qubit_can_be_set_figure_by_figure() -> None:
    preset = load_preset("liu-10km", {"device.a.communication.coherence_ns": 5e6})
    assert preset.device.a.communication is not None
    assert preset.device.b.communication is None


def test_what_is_missing_from_a_qubit_is_named_as_it_was_set() -> None:
    for end in ("", "a.", "b."):
        with pytest.raises(ConfigError) as caught:
            load_preset("liu-10km", {f"device.{end}communication.decay_ns": 1e9})
        assert caught.value.field == f"device.{end}communication.coherence_ns"


def test_one_ends_override_wins_in_any_order() -> None:
    figures = [("fibre.b.length_m", 8_000.0), ("fibre.length_m", 7_000.0)]
    for ordered in (figures, figures[::-1]):
        fibre = load_preset("liu-10km", dict(ordered)).fibre
        assert (fibre.a.length_m.value, fibre.b.length_m.value) == (7_000.0, 8_000.0)
    with pytest.raises(ConfigError, match="no effect") as caught:
        load_preset("liu-10km", dict([*figures, ("fibre.a.length_m", 9_000.0)]))
    assert caught.value.field == "fibre.length_m"


COMMUNICATION = {"device.communication.coherence_ns": 1e9}


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("liu-10km", "station.cutoff_attempts", 3.0),
        ("cui-3m", "station.cutoff_attempts", 3.0),
        ("liu-10km", "device.transfer_ns", 5.0),
        ("liu-10km", "device.b.transfer_error", 0.1),
        ("innsbruck-50km", "device.transfer_ns", 5.0),
        ("oxford", "device.bright_probability", 0.1),
        ("projected", "device.a.bright_probability", 0.1),
        ("cui-1km", "device.bright_probability", 0.1),
        ("cui-1km", "device.b.readout_error", 0.1),
        ("cui-1km", "device.b.memory.coherence_ns", 1e6),
        ("cui-1km", "device.b.communication.decay_ns", 1e6),
        ("cui-1km", "fibre.b.length_m", 1e3),
        ("cui-1km", "fibre.b.noise_hz", 1e3),
        ("cui-1km", "station.hom_visibility", 0.9),
        ("innsbruck-50km", "station.hom_visibility", 0.9),
        ("innsbruck-50km", "device.no_answer_probability", 0.1),
        ("innsbruck-50km", "fibre.wavelength_nm", 1310.0),
        ("projected", "station.phase_visibility", 0.9),
        ("projected", "station.analyser_error", 0.1),
        ("projected", "device.two_qubit_error", 0.1),
        ("liu-10km", "device.a.single_qubit_error", 0.1),
        ("liu-10km", "device.attempts_on_ns", 1e9),
        ("liu-10km", "device.loss_every_ns", 1e9),
        ("liu-10km", "device.calibration_every_ns", 1e9),
        ("oxford", "device.memory.pulse_interval_ns", 1e6),
        ("liu-10km", "device.shuttle_ns", 1e3),
        ("liu-10km", "device.photon_ns", 30.0),
        ("liu-10km", "fibre.phase_stabilised_every_ns", 1e6),
        ("liu-10km", "fibre.a.polarisation_stabilised_every_ns", 1e6),
        ("liu-10km", "fibre.temperature_period_ns", 1e9),
        ("liu-10km", "fibre.delay_ps_per_km_k", 40.0),
        ("liu-10km", "fibre.delay_stabilised_every_ns", 1e9),
        # A measured state has all of these in it.
        ("oxford", "station.detector_dark_hz", 1.0),
        ("oxford", "station.hom_visibility", 0.9),
        ("oxford", "station.phase_visibility", 0.9),
        ("oxford", "fibre.noise_hz", 1.0),
        ("oxford", "fibre.b.noise_hz", 1.0),
        ("oxford", "device.emission_dephasing", 0.1),
        ("oxford", "device.a.emission_depolarising", 0.1),
        # Photons that interfere are alike.
        ("liu-10km", "fibre.a.wavelength_nm", 1315.0),
        ("liu-10km", "fibre.b.wavelength_nm", 1315.0),
        ("oxford", "fibre.b.wavelength_nm", 422.2),
    ],
)
def test_what_would_have_no_effect_is_refused_by_name(name: str, path: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset(name, {path: value})
    assert caught.value.field == path
    assert path in caught.value.message


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("liu-10km", COMMUNICATION | {"device.transfer_ns": 5.0}),
        ("liu-10km", {"fibre.wavelength_nm": 1310.0}),
        ("oxford", {"fibre.b.wavelength_nm": 422.05}),
        ("liu-10km", {"device.photon_ns": 30.0, "fibre.a.temperature_amplitude_k": 1.0}),
        ("cui-1km", {"device.readout_error": 0.1}),
        ("innsbruck-50km", {"station.analyser_error": 0.1}),
        # The scheme does not feel it; that nothing changes is what the model says.
        ("oxford", {"fibre.phase_diffusion_rad2_per_s": 1.0}),
    ],
)
def test_what_has_an_effect_elsewhere_is_taken(name: str, overrides: dict[str, float]) -> None:
    preset = load_preset(name, overrides)
    for path in overrides:
        assert f"{path}=" in preset.description


def test_a_measured_state_leaves_the_bright_probability_to_whoever_measured_it() -> None:
    text = shipped_text("oxford").replace('"two-photon"', '"single-photon"')
    assert parse_preset(text, "mine").state
    with pytest.raises(ConfigError) as caught:
        parse_preset(text, "mine", {"device.bright_probability": 0.1})
    assert caught.value.field == "device.bright_probability"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("noise.white", 1.5),
        ("noise.white", float("nan")),
        ("noise.black", 0.1),
        ("noise", 0.1),
        ("", 0.1),
        (".", 0.1),
        ("published.s", 2.8),
        ("settings.angles_a", 0.1),
        ("state.bloch_a", 0.1),
        ("device.a", 1.0),
        ("device.memory", 1.0),
        ("device.memory.coherence_shape", 1.0),
        ("device.a.b.cooling_ns", 1.0),
        ("device.preparation_ns.value", 1.0),
        ("station.a.window_ns", 1.0),
        ("device.preparation_ns", -1.0),
        ("device.attempts_on_ns", 999.5),
        ("device.attempts_on_ns", 0.0),
        ("device.memory.coherence_ns", float("inf")),
        ("device.memory.pulse_error", 0.1),
        ("device.a.readout_error", -0.1),
        ("device.ions", 1.5),
        ("device.bins", 70_000.0),
        ("device.b.two_qubit_error", 0.8),
        ("device.calibration_ns", 1.0),
        ("station.detector_efficiency", 0.0),
        ("station.hom_visibility", 1.1),
        ("station.cutoff_attempts", 0.0),
        ("fibre.length_m", -1.0),
        ("fibre.a.length_m", 1e9),
        ("fibre.phase_stabilised_every_ns", 0.0),
        ("storage.window_ns", 0.0),
        ("__class__.x", 0.0),
        ("device.__class__", 0.0),
    ],
)
def test_overrides_out_of_range_are_refused_by_name(path: str, value: float) -> None:
    with pytest.raises(ConfigError) as caught:
        load_preset("oxford", {path: value})
    assert caught.value.field == path
    assert path in caught.value.message


# Files


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("[fibre]", "[fibre]\ncolour = 3", "fibre.colour"),
        ("[fibre]", "[fibre]\nnoise_hz.colour = 3", "fibre.noise_hz.colour"),
        ('name = "oxford"', "", "name"),
        ("value = 422,", 'value = "422",', "fibre.wavelength_nm.value"),
        ("wavelength_nm =", "# wavelength_nm =", "fibre.wavelength_nm"),
        ("[device.memory]\n", "[device.a.memory]\n", "device.b.memory"),
        ("[device.memory]\n", "[device.memory]\npulse_error = 0.1\n", "device.memory.pulse_error"),
        ("value = 0.002,", "value = 2,", "device.readout_error"),
        ('scheme = "two-photon"', 'scheme = "repeater-node"', "station.cutoff_attempts"),
        ('scheme = "two-photon"', 'scheme = "three-photon"', "station.scheme"),
        ('announces = "PSI_PLUS"', 'announces = "PSI"', "state.pattern[0].announces"),
        ("[0.93710926, ", "[-0.93710926, ", "state"),
        ("value = [0.0, 90.0]", "value = [0.0]", "settings.angles_a"),
        ("probability = { value = 0.25", "probability = { value = 0.2", "state.pattern"),
        ("x = 0, y = 2", "x = 0, y = 3", "published.table[4].y"),
        ("s = { value = 2.677", "s = { value = nan", "published.s"),
        ("s = { value = 2.677", "s = { value = 4.1", "published.s"),
        ("qber = { value = 0.0144", "qber = { value = 2.0", "published.qber"),
        ("[published]", "[published]\nfidelity_next_pair = 1.5", "published.fidelity_next_pair"),
        ("[published]", "[published]\nlink_efficiency = -1", "published.link_efficiency"),
        ("[published]", "[published]\nfidelity_half_ms = 1e10", "published.fidelity_half_ms"),
        (
            "[published]",
            "[published]\nfidelity_after_ms.soon = 0.5",
            "published.fidelity_after_ms.soon",
        ),
        (
            "[published]",
            "[published]\nfidelity_after_ms.1e10 = 0.5",
            "published.fidelity_after_ms.1e10",
        ),
        ("[published]", "[published]\nfidelity_after_ms.1 = 1.5", "published.fidelity_after_ms.1"),
        ('title = "', 'title = "\\u001b[31m', "title"),
        ('title = "', 'title = "a\\nb', "title"),
        ('title = "', 'title = "' + "x" * 200, "title"),
        ('name = "', 'name = "\\u202e', "name"),
        ('name = "oxford"', 'name = ""', "name"),
        ('source = "arXiv', 'source = "\\u0007arXiv', "device.preparation_ns.source"),
    ],
)
def test_files_that_are_wrong_name_the_field(
    old: str, new: str, field: str, tmp_path: Path
) -> None:
    text = shipped_text("oxford")
    assert old in text
    file = tmp_path / "mine.toml"
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        read_preset(file)
    assert caught.value.field == field
    assert caught.value.field in caught.value.message


def test_files_that_are_no_presets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_preset(tmp_path / "absent.toml")
    for text in ("name = ", "n = " + "1" * 5000, "n = " + "[" * 5000):
        with pytest.raises(ConfigError, match=r"not TOML|too deep"):
            parse_preset(text, "text")
    with pytest.raises(ConfigError, match="oxford"):
        load_preset("../oxford")
    with pytest.raises(ConfigError, match="regular"):
        read_preset(tmp_path)
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="regular"):
        read_preset(pipe)


@pytest.mark.parametrize("text", [".".join("a" * 30_000), f"[{'.'.join('a' * 30_000)}]"])
def test_keys_that_are_tables_deep_are_refused_at_once(text: str) -> None:
    for content in (text, f"name = 'x'\r\n{text} = 1", f"x = {{ {text} = 1 }}"):
        with pytest.raises(ConfigError, match="too deep"):
            parse_preset(content, "text")
        with pytest.raises(ConfigError, match="too deep"):
            decode_toml(content, Preset, "text")


def test_a_preset_has_an_end() -> None:
    text = shipped_text("oxford") + "\n# " + "." * 1_000
    assert parse_preset(text, "text").name == "oxford"
    with pytest.raises(ConfigError, match="longer than"):
        parse_preset(text + " " * TEXT_BYTES_MAX, "text")


def test_a_preset_is_plain_data() -> None:
    preset = load_preset("innsbruck-50km")
    assert msgspec.convert(msgspec.to_builtins(preset), Preset) == preset
