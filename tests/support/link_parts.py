"""The parts of a link for tests: every figure a bare number, each end as the test says."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from bellhop.hal.figures import Figure
from bellhop.hal.sections import Device, Devices, Fibre, Fibres, Qubit, Scheme, Station


@dataclass(frozen=True)
class LinkParts:
    """What `schedule.Parts` asks for."""

    device: Devices
    fibre: Fibres
    station: Station

    def device_a(self, **figures: float) -> "LinkParts":
        return replace(self, device=Devices(_with(self.device.a, figures), self.device.b))

    def device_b(self, **figures: float) -> "LinkParts":
        return replace(self, device=Devices(self.device.a, _with(self.device.b, figures)))

    def devices(self, **figures: float) -> "LinkParts":
        return self.device_a(**figures).device_b(**figures)

    def fibre_a(self, **figures: float) -> "LinkParts":
        return replace(self, fibre=Fibres(_with(self.fibre.a, figures), self.fibre.b))

    def fibre_b(self, **figures: float) -> "LinkParts":
        return replace(self, fibre=Fibres(self.fibre.a, _with(self.fibre.b, figures)))

    def fibres(self, **figures: float) -> "LinkParts":
        return self.fibre_a(**figures).fibre_b(**figures)


def own(value: float) -> Figure:
    return Figure(value, "this test", "own")


def link(scheme: Scheme = "single-photon", length_m: float = 0.0) -> LinkParts:
    """A link of equal ends that prepares for 1 us and has no pauses and no drift."""
    device = Device(
        preparation_ns=own(1000),
        collection_efficiency=own(0.5),
        memory=Qubit(coherence_ns=own(1e9)),
        readout_error=own(0.0),
    )
    fibre = Fibre(length_m=own(length_m), wavelength_nm=own(1550))
    station = Station(scheme=scheme, detector_efficiency=own(1.0), window_ns=own(10))
    return LinkParts(Devices(device, device), Fibres(fibre, fibre), station)


def _with(section: Any, figures: dict[str, float]) -> Any:
    return msgspec.structs.replace(section, **{name: own(v) for name, v in figures.items()})
