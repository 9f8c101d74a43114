"""Figures of a preset that change nothing in it, and why: whoever sets one of them is told.

What a scheme's physics does not feel, such as the light's phase where two photons herald, is set
without objection: that nothing changes is then what the model says.
"""

from collections.abc import Iterator

from bellhop.hal.figures import Figure
from bellhop.hal.preset_rules import Sections
from bellhop.hal.sections import Device, Fibre, Scheme

MIDPOINT: tuple[Scheme, ...] = ("single-photon", "two-photon")

NEEDED_BY: dict[str, tuple[Scheme, ...]] = {
    "device.bright_probability": ("single-photon",),
    "device.single_qubit_error": ("repeater-node",),
    "device.two_qubit_error": ("repeater-node",),
    "device.no_answer_probability": ("single-photon", "two-photon", "direct"),
    "device.photon_ns": MIDPOINT,
    "fibre.wavelength_nm": MIDPOINT,
    "station.phase_visibility": ("single-photon",),
    "station.hom_visibility": MIDPOINT,
    "station.analyser_error": ("direct", "repeater-node"),
    "station.cutoff_attempts": ("repeater-node",),
}
"""Figures that only some schemes have a use for."""

MEANT_FOR: tuple[tuple[str, str], ...] = (
    ("attempts_on_ns", "cooling_ns"),
    ("loss_every_ns", "reload_ns"),
    ("calibration_every_ns", "calibration_ns"),
)
"""How often something happens in a device, and what says how much it is."""

DRIFTS: dict[str, tuple[str, ...]] = {
    "phase_diffusion_rad2_per_s": ("phase_stabilised_every_ns",),
    "polarisation_diffusion_rad2_per_s": ("polarisation_stabilised_every_ns",),
    "temperature_amplitude_k": (
        "temperature_period_ns",
        "delay_ps_per_km_k",
        "delay_stabilised_every_ns",
    ),
}
"""What drifts in a fibre, and what tells more of how."""


def without_effect(preset: Sections) -> dict[str, str]:
    """Paths of figures that change nothing, such as "device.b.photon_ns", and the reason."""
    scheme = preset.station.scheme
    found: dict[str, str] = {}
    for path, schemes in NEEDED_BY.items():
        section, name = path.split(".")
        if scheme not in schemes:
            reason = f"the {scheme} scheme has no use for it"
            ends = [path] if section == "station" else [f"{section}.{end}.{name}" for end in "ab"]
            found.update(dict.fromkeys(ends, reason))
    steady = not any(f.temperature_amplitude_k.value for f in (preset.fibre.a, preset.fibre.b))
    for end, device, fibre in (
        ("a", preset.device.a, preset.fibre.a),
        ("b", preset.device.b, preset.fibre.b),
    ):
        idle = {**dict(_idle_of_device(device)), **dict(_idle_of_fibre(fibre))}
        if steady:
            idle["device.photon_ns"] = "no fibre has a temperature_amplitude_k"
        if scheme == "direct" and end == "b":
            names = [f"device.{name}" for name in Device.__struct_fields__]
            names += [f"fibre.{name}" for name in Fibre.__struct_fields__]
            idle = dict.fromkeys(names, "side B of a direct link is a detector")
        for path, reason in idle.items():
            section, _, name = path.partition(".")
            found[f"{section}.{end}.{name}"] = reason
    return found


def reason_for(path: str, idle: dict[str, str]) -> str | None:
    """Why the figure at a path, or the table that it is in, changes nothing; None if it does."""
    while path:
        if path in idle:
            return idle[path]
        path = path.rpartition(".")[0]
    return None


def _idle_of_device(device: Device) -> Iterator[tuple[str, str]]:
    for name, needed in MEANT_FOR:
        if _is_none(getattr(device, needed)):
            yield f"device.{name}", f"{needed} is 0"
    for kind in ("memory", "communication"):
        qubit = getattr(device, kind)
        if qubit is not None and _is_none(qubit.pulse_error):
            yield f"device.{kind}.pulse_interval_ns", f"{kind}.pulse_error is 0"
    if device.ions.value == 1:
        yield "device.shuttle_ns", "there is one ion"


def _idle_of_fibre(fibre: Fibre) -> Iterator[tuple[str, str]]:
    for drift, names in DRIFTS.items():
        if _is_none(getattr(fibre, drift)):
            yield from ((f"fibre.{name}", f"{drift} is 0") for name in names)


def _is_none(figure: Figure) -> bool:
    return figure.value == 0.0
