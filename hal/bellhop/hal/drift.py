"""What deployed fibre does to light as time goes by: phase, polarisation, delay.  Off by default.

Phase and polarisation walk at random (Wiener processes) and are set back to zero at each multiple
of a stabilisation interval.  Measured phase noise has a spectrum of its own (J. Minář et al., Phys.
Rev. A 77, 052325 (2008)); a Wiener process is the simplest law that loses coherence in the measured
time.  Temperature swings as a sine; both arms feel it in step, as in one city's weather, so equal
arms with equal swings cancel.  A walk is drawn exactly at the heralds' times, however far apart.
"""

from dataclasses import dataclass
from math import expm1, log, pi

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.figures import Figure
from bellhop.hal.schedule import Parts
from bellhop.hal.sections import Device, Fibre

Angles = NDArray[np.float64]
Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Wander:
    """What drift did to each of n heralds, (n,) each; None where nothing drifts.

    `phase` (rad): between the two arms, on the coherence of single-photon pairs.  `overlap`: of the
    two photons' polarisations and wave packets, a factor on the coherence, from -1 to 1.  `tilt_a`,
    `tilt_b` (rad): what each arm turned a photon's polarisation by, where that is the qubit; the
    Bloch vector turns by twice that.
    """

    phase: Angles | None = None
    overlap: Angles | None = None
    tilt_a: Angles | None = None
    tilt_b: Angles | None = None


@dataclass(frozen=True, slots=True)
class Drifted:
    """Where a link's drift stands: the last herald's time, and each walk's angle then."""

    time_ns: int
    angles: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Walk:
    """An angle from 0 that gathers the variance `diffusion` (rad^2/s) x time."""

    diffusion_rad2_per_s: float
    stabilised_every_ns: int | None

    def draw(
        self, generator: np.random.Generator, times_ns: Times, before: tuple[int, float]
    ) -> Angles:
        """The angle at rising times (n,), n at least 1, from what it was at the time `before`."""
        previous = np.concatenate((times_ns[:1], times_ns[:-1]))
        previous[0] = before[0]
        since = previous
        if self.stabilised_every_ns is not None:
            zeroed = times_ns - times_ns % self.stabilised_every_ns
            since = np.maximum(previous, zeroed)
        spread = np.sqrt((self.diffusion_rad2_per_s * 1e-9) * (times_ns - since))
        steps = generator.standard_normal(len(times_ns)) * spread
        if self.stabilised_every_ns is None:
            steps[0] += before[1]
            return np.asarray(np.cumsum(steps), np.float64)
        anew = previous // self.stabilised_every_ns != times_ns // self.stabilised_every_ns
        if not anew[0]:
            steps[0] += before[1]
        sums = np.cumsum(steps)
        # Each angle counts the steps since the last one that started from zero.
        begun = np.maximum.accumulate(np.where(anew, np.arange(len(steps)), 0))
        return np.asarray(sums - sums[begun] + steps[begun], np.float64)


@dataclass(frozen=True, slots=True)
class Swing:
    """One arm's delay as its temperature swings as a sine, set right every so often."""

    amplitude_ns: float
    period_ns: int
    stabilised_every_ns: int | None

    def delay_ns(self, times_ns: Times) -> Angles:
        """What the delay is off by since it was last set right (at time 0 if never again)."""
        every = self.stabilised_every_ns
        right = times_ns - times_ns % every if every is not None else np.zeros_like(times_ns)
        return self._swing_ns(times_ns) - self._swing_ns(right)

    def _swing_ns(self, times_ns: Times) -> Angles:
        # The remainder in integers: a double of nanoseconds is coarse after some months.
        turns = (times_ns % self.period_ns) / self.period_ns
        return np.asarray(self.amplitude_ns * np.sin(2.0 * pi * turns), np.float64)


@dataclass(frozen=True, slots=True)
class Drift:
    """All drift of one link.

    `phase`: both arms' walks.  `polarisation`: each arm's.  `swings`: each arm's delay, where two
    photons interfere; `sharpness_per_ns2`: their wave packets' overlap at the delay t between them
    is exp(-sharpness t^2), of amplitudes, so the Hong-Ou-Mandel visibility takes it squared.
    `interfere_polarised`: two photons interfere whose polarisation is no qubit.
    """

    phase: tuple[Walk, ...] = ()
    polarisation: tuple[Walk | None, Walk | None] = (None, None)
    swings: tuple[Swing | None, Swing | None] = (None, None)
    sharpness_per_ns2: float = 0.0
    interfere_polarised: bool = False

    @classmethod
    def of(cls, preset: Parts) -> "Drift":
        """Only what the scheme feels: phase if one photon is shared by both arms, delay if photons
        of two arms interfere, polarisation always (side B of a direct link sends nothing)."""
        scheme = preset.station.scheme
        arms = (preset.fibre.a, preset.fibre.b)
        single = scheme == "single-photon"
        midpoint = single or scheme == "two-photon"
        phase = tuple(walk for arm in arms if (walk := _phase(arm))) if single else ()
        tilt_b = None if scheme == "direct" else _polarisation(arms[1])
        return cls(
            phase=phase,
            polarisation=(_polarisation(arms[0]), tilt_b),
            swings=(_swing(arms[0]), _swing(arms[1])) if midpoint else (None, None),
            sharpness_per_ns2=(1.0 if single else 2.0)
            * _sharpness_per_ns2(preset.device.a, preset.device.b),
            interfere_polarised=single,
        )

    @property
    def off(self) -> bool:
        """Nothing drifts: every `Wander` would be empty."""
        return not self._walks and self.swings == (None, None)

    @property
    def _walks(self) -> tuple[Walk, ...]:
        return (*self.phase, *(walk for walk in self.polarisation if walk is not None))

    def draw(
        self,
        generator: np.random.Generator,
        times_ns: Times,
        drifted: Drifted | None = None,
    ) -> tuple[Wander, Drifted]:
        """The drift of heralds at rising times (n,), and where it stands after them.

        `drifted`: where it stood after the block before; None at the start, when at time 0
        everything is set right.
        """
        walks = self._walks
        before = drifted or Drifted(0, (0.0,) * len(walks))
        if len(times_ns) == 0:
            empty = np.empty(0)
            return self._wander(times_ns, [empty for _ in walks]), before
        assert times_ns[0] >= before.time_ns, "time goes on from block to block"
        angles = [
            walk.draw(generator, times_ns, (before.time_ns, angle))
            for walk, angle in zip(walks, before.angles, strict=True)
        ]
        after = Drifted(int(times_ns[-1]), tuple(float(angle[-1]) for angle in angles))
        return self._wander(times_ns, angles), after

    def _wander(self, times_ns: Times, angles: list[Angles]) -> Wander:
        rest = iter(angles)
        phases = [next(rest) for _ in self.phase]
        phase = np.sum(phases, axis=0) if phases else None
        tilt_a, tilt_b = (None if walk is None else next(rest) for walk in self.polarisation)
        overlap = self._timing(times_ns)
        if not self.interfere_polarised:
            return Wander(phase, overlap, tilt_a, tilt_b)
        between = _difference(tilt_a, tilt_b)
        if between is not None:
            overlap = np.cos(between) if overlap is None else overlap * np.cos(between)
        return Wander(phase, overlap)

    def _timing(self, times_ns: Times) -> Angles | None:
        a, b = (None if swing is None else swing.delay_ns(times_ns) for swing in self.swings)
        between = _difference(a, b)
        if between is None:
            return None
        return np.asarray(np.exp(-self.sharpness_per_ns2 * between**2), np.float64)


def mean_cosine(diffusion_rad2_per_s: float, interval_ns: float) -> float:
    """The coherence that a walk leaves on average over its stabilisation interval t:
    the mean of E[cos] = exp(-D s/2) over s from 0 to t, (1 - exp(-D t/2)) / (D t/2)."""
    x = diffusion_rad2_per_s * 1e-9 * interval_ns / 2.0
    return -expm1(-x) / x if x > 0.0 else 1.0


def _difference(a: Angles | None, b: Angles | None) -> Angles | None:
    if a is None:
        return b  # Only even functions are taken of it.
    return a if b is None else a - b


def _interval(figure: Figure | None) -> int | None:
    return None if figure is None else max(1, round(figure.value))


def _walk(diffusion: Figure, every: Figure | None) -> Walk | None:
    return Walk(diffusion.value, _interval(every)) if diffusion.value > 0 else None


def _phase(fibre: Fibre) -> Walk | None:
    return _walk(fibre.phase_diffusion_rad2_per_s, fibre.phase_stabilised_every_ns)


def _polarisation(fibre: Fibre) -> Walk | None:
    return _walk(fibre.polarisation_diffusion_rad2_per_s, fibre.polarisation_stabilised_every_ns)


def _swing(fibre: Fibre) -> Swing | None:
    per_k_ns = fibre.length_m.value * 1e-3 * fibre.delay_ps_per_km_k.value * 1e-3
    amplitude_ns = per_k_ns * fibre.temperature_amplitude_k.value
    if amplitude_ns == 0.0:
        return None
    period_ns = max(1, round(fibre.temperature_period_ns.value))
    return Swing(amplitude_ns, period_ns, _interval(fibre.delay_stabilised_every_ns))


def _sharpness_per_ns2(a: Device, b: Device) -> float:
    """Of two Gaussian packets with intensities of the full widths w at half maximum: amplitudes are
    exp(-k t^2), k = 2 ln 2 / w^2, and overlap by exp(-t^2 k_a k_b / (k_a + k_b)) of what they do at
    t = 0, which is in the preset's `hom_visibility` if the widths differ."""
    width2 = a.photon_ns.value**2 + b.photon_ns.value**2
    return 2.0 * log(2.0) / width2
