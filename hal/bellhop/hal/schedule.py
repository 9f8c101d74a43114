"""When attempts are made: periods, modes, cooling, calibrations, reloads and the light's travel.

Both devices of a link run in step: what takes time takes as long as on the slower side, and there
are as many modes as the side with fewer has.  Times are integers of nanoseconds in int64, so that
a schedule lasts 292 years at most.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.errors import ConfigError
from bellhop.hal.figures import Figure
from bellhop.hal.operations import Side
from bellhop.hal.sections import Device, Devices, Fibre, Fibres, Station

Whole = NDArray[np.int64]

LIGHT_IN_FIBRE_M_PER_NS = 0.2041
"""The vacuum's 0.29979 m/ns over the refractive index of silica, about 1.469."""

TIME_NS_MAX = 2**63 - 1
"""What an int64 of nanoseconds can say."""


class Parts(Protocol):
    """What of a preset says when attempts are made."""

    @property
    def device(self) -> Devices: ...
    @property
    def fibre(self) -> Fibres: ...
    @property
    def station(self) -> Station: ...


def flight_ns(fibre: Fibre) -> float:
    """What light takes through one fibre."""
    return fibre.length_m.value / LIGHT_IN_FIBRE_M_PER_NS


def announcement_ns(preset: Parts) -> float:
    """What light takes from the one end of the link by the station to the other."""
    return flight_ns(preset.fibre.a) + flight_ns(preset.fibre.b)


def herald_wait_ns(preset: Parts, side: Side) -> float:
    """From a photon's emission on one side until the news of its click is back there.

    Direct: side B has the detectors and no memory, so nothing waits there.  Repeater node: the wait
    of the middle node's memory towards `side`; the ends have none.
    """
    if preset.station.scheme == "direct" and side is Side.B:
        return 0.0
    return 2.0 * flight_ns(preset.fibre.of(side))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Attempts one after the other, with their pauses.

    A turn is as many whole attempts as `attempts_on_ns` holds (at least one), then `cooling_ns`.
    A calibration is due after each `calibration_every_ns` of turns, and is made before the next
    attempt.  `losses`: (mean time of turns between losses, reload) of each device, in ns.
    `mode_offsets_ns`: each mode's emission after the attempt's start, rising.
    """

    period_ns: int
    modes: int = 1
    mode_offsets_ns: tuple[float, ...] = (0.0,)
    attempts_on_ns: int | None = None
    cooling_ns: int = 0
    calibration_every_ns: int | None = None
    calibration_ns: int = 0
    losses: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        assert self.period_ns >= 1 and self.modes == len(self.mode_offsets_ns) >= 1
        assert self.calibration_every_ns is None or self.calibration_every_ns >= 1
        assert all(every > 0 for every, _ in self.losses)

    @classmethod
    def of(cls, preset: Parts) -> "Schedule":
        """The schedule of a link.  The time on the light's way is that of the longer arm there and
        back; with several modes it is shared by all (Cui et al., arXiv 2503.13898):
        period = preparation + 2 L/c + ions (their preparation + bins x spacing) + shuttling.
        """
        direct = preset.station.scheme == "direct"
        devices = (preset.device.a,) if direct else (preset.device.a, preset.device.b)
        fibres = (preset.fibre.a,) if direct else (preset.fibre.a, preset.fibre.b)
        preparation_ns = _slowest([d.preparation_ns for d in devices])
        block_ns, offsets_ns = _modes(devices)
        flight = 2.0 * max(flight_ns(fibre) for fibre in fibres)
        on_ns, cooling_ns = _turns(devices)
        every_ns, calibration_ns = _calibrations(devices)
        return cls(
            period_ns=max(1, round(preparation_ns + block_ns + flight)),
            modes=len(offsets_ns),
            mode_offsets_ns=tuple(preparation_ns + offset for offset in offsets_ns),
            attempts_on_ns=on_ns,
            cooling_ns=cooling_ns,
            calibration_every_ns=every_ns,
            calibration_ns=calibration_ns,
            losses=_losses(devices),
        )

    @property
    def attempts_per_turn(self) -> int:
        """Whole attempts between two coolings; an attempt longer than that is made nonetheless."""
        return 1 if self.attempts_on_ns is None else max(1, self.attempts_on_ns // self.period_ns)

    @property
    def turn_ns(self) -> int:
        """From one turn's first attempt to the next one's."""
        if self.attempts_on_ns is None:
            return self.period_ns
        return max(self.attempts_on_ns, self.period_ns) + self.cooling_ns

    @property
    def attempts_per_s(self) -> float:
        """Attempts over the time of whole turns: cooling counts, calibrations and reloads don't."""
        return 1e9 * self.attempts_per_turn / self.turn_ns

    @property
    def duty(self) -> float:
        """The share of time that is turns, not calibrations or reloads, in the long run."""
        pauses = sum(reload_ns / every_ns for every_ns, reload_ns in self.losses)
        if self.calibration_every_ns is not None:
            pauses += self.calibration_ns / self.calibration_every_ns
        return 1.0 / (1.0 + pauses)

    def start_ns(self, attempts: Whole) -> Whole:
        """When attempt number k (from 0, any shape) starts, reloads not counted.

        Attempts that go on from an earlier block keep counting, so that no calibration is
        forgotten: a block of attempts i to k lasts end_ns(k) - start_ns(i).

        Raises:
            ConfigError: the time does not fit in int64.
        """
        self._check(attempts)
        active = self._active_start_ns(attempts)
        if self.calibration_every_ns is None:
            return active
        pauses = active // self.calibration_every_ns
        return active + pauses * self.calibration_ns

    def between_ns(self, attempts: Whole) -> tuple[Whole, NDArray[np.float64]]:
        """The time from an attempt's start to that of the one so many (w,) later: what it may be,
        by how many pauses fall in between, and how likely each is if attempts of all phases are
        alike, (4, w) both.  Cooling and calibrations are taken as independent of each other.
        """
        turns = attempts // self.attempts_per_turn
        share = (attempts - turns * self.attempts_per_turn) / self.attempts_per_turn
        pause_ns = self.turn_ns - self.attempts_per_turn * self.period_ns
        times, chances = [], []
        for more, cooled in ((0, 1.0 - share), (1, share)):
            active = attempts * self.period_ns + (turns + more) * pause_ns
            if self.calibration_every_ns is None:
                times += [active, active]
                chances += [cooled, np.zeros_like(cooled)]
                continue
            whole, rest = np.divmod(active, self.calibration_every_ns)
            late = rest / self.calibration_every_ns
            times += [active + (whole + once) * self.calibration_ns for once in (0, 1)]
            chances += [cooled * (1.0 - late), cooled * late]
        return np.stack(times), np.stack(chances)

    def begun_in(self, first: int, elapsed_ns: int, most: int) -> int:
        """How many attempts, numbers `first` and up but at most so many, have begun when so much
        time has passed since the first one did."""

        def after_ns(attempts: int) -> int:
            start, later = self.start_ns(np.array([first, first + attempts], dtype=np.int64))
            return int(later - start)

        return bisect_left(range(most), elapsed_ns, key=after_ns)

    def end_ns(self, attempts: Whole) -> Whole:
        """When attempt number k ends, cooling and calibrations included: see `start_ns`."""
        return self.start_ns(attempts) + self.period_ns

    def active_ns(self, attempts: Whole) -> Whole:
        """The time of turns until the end of attempt number k: what losses are counted over."""
        self._check(attempts)
        return self._active_start_ns(attempts) + self.period_ns

    def reload_ns(self, generator: np.random.Generator, active_ns: int) -> int:
        """All reloads in so much time of turns: losses of each device are a Poisson process."""
        return sum(
            round(int(generator.poisson(active_ns / every_ns)) * reload_ns)
            for every_ns, reload_ns in self.losses
        )

    def _active_start_ns(self, attempts: Whole) -> Whole:
        if self.attempts_on_ns is None:
            return attempts * self.period_ns
        turns = attempts // self.attempts_per_turn
        within = attempts - turns * self.attempts_per_turn
        return turns * self.turn_ns + within * self.period_ns

    def _check(self, attempts: Whole) -> None:
        """In Python's integers: what int64 could not hold would come out negative, and silently."""
        last = int(attempts.max(initial=0))
        turns, within = divmod(last, self.attempts_per_turn)
        end_ns = turns * self.turn_ns + (within + 1) * self.period_ns
        if self.calibration_every_ns is not None:
            end_ns += end_ns // self.calibration_every_ns * self.calibration_ns
        if end_ns > TIME_NS_MAX:
            raise ConfigError(
                f"attempt {last} would end after 292 years: success is too rare for so many rounds",
                attempt=last,
            )


def _slowest(figures: Sequence[Figure]) -> float:
    return max(figure.value for figure in figures)


def _fewest(figures: Sequence[Figure]) -> int:
    return round(min(figure.value for figure in figures))


def _modes(devices: Sequence[Device]) -> tuple[float, list[float]]:
    """How long all ions' excitations take, and when each mode is excited from their start."""
    ions = _fewest([d.ions for d in devices])
    bins = _fewest([d.bins for d in devices])
    spacing_ns = _slowest([d.bin_spacing_ns for d in devices])
    ready_ns = _slowest([d.ion_preparation_ns for d in devices])
    shuttle_ns = _slowest([d.shuttle_ns for d in devices])
    ion_ns = ready_ns + bins * spacing_ns
    offsets_ns = [
        ion * (ion_ns + shuttle_ns) + ready_ns + number * spacing_ns
        for ion in range(ions)
        for number in range(bins)
    ]
    return ions * ion_ns + (ions - 1) * shuttle_ns, offsets_ns


def _turns(devices: Sequence[Device]) -> tuple[int | None, int]:
    """One device that cools stops both: the shorter turn, the longer cooling."""
    cooling = [d for d in devices if d.attempts_on_ns is not None and d.cooling_ns.value > 0]
    on = [round(d.attempts_on_ns.value) for d in cooling if d.attempts_on_ns is not None]
    if not on:
        return None, 0
    return min(on), round(_slowest([d.cooling_ns for d in cooling]))


def _calibrations(devices: Sequence[Device]) -> tuple[int | None, int]:
    """Both calibrate at once: as often as the one that needs it more, as long as the slower."""
    paused = [d for d in devices if d.calibration_every_ns and d.calibration_ns.value > 0]
    every = [round(d.calibration_every_ns.value) for d in paused if d.calibration_every_ns]
    if not every:
        return None, 0
    return max(1, min(every)), round(_slowest([d.calibration_ns for d in paused]))


def _losses(devices: Sequence[Device]) -> tuple[tuple[float, float], ...]:
    return tuple(
        (device.loss_every_ns.value, device.reload_ns.value)
        for device in devices
        if device.loss_every_ns is not None and device.reload_ns.value > 0
    )
