"""The heralds of a preset and the law by which they come, for each scheme."""

import numpy as np
from numpy.typing import NDArray

from bellhop.hal import states
from bellhop.hal.gates import GateErrors, swap
from bellhop.hal.operations import BellState, Side
from bellhop.hal.photonics import (
    Arm,
    Detection,
    Herald,
    click_efficiency,
    direct,
    noise_probability,
    single_photon,
    two_photon,
)
from bellhop.hal.preset import Preset
from bellhop.hal.sampling import Law, Multiplexed, RepeaterNode
from bellhop.hal.schedule import Parts
from bellhop.hal.sections import Fibre


def heralds(preset: Preset) -> tuple[Herald, ...]:
    """Every detector pattern, its probability in one mode, and its pair at emission.

    A repeater node's are the outcomes of its swap, given that both halves are there.  If the
    preset has a measured state, its patterns share the probability that the photonics derive.
    """
    derived = _derived(preset)
    if preset.state is not None:
        derived = _measured(preset, sum(herald.probability for herald in derived))
    return tuple(
        Herald(herald.announces, herald.probability, _degraded(preset, herald.state))
        for herald in derived
    )


def law(preset: Preset, modes: int) -> Law:
    """By which attempts succeed, each with so many `modes`."""
    if preset.station.scheme == "repeater-node":
        return RepeaterNode(*halves(preset, modes), _cutoff(preset))
    (p,) = per_mode(preset)
    return Multiplexed(p, modes)


def per_mode(preset: Parts) -> tuple[float, ...]:
    """That one mode heralds; of a repeater node that it gives the half towards A, and towards B."""
    if preset.station.scheme == "repeater-node":
        return tuple(_total(_half(preset, side)) for side in Side)
    return (_total(_of_photons(preset)),)


def _total(found: tuple[Herald, ...]) -> float:
    return min(1.0, sum(herald.probability for herald in found))


def mode_shares(preset: Preset, modes: int) -> NDArray[np.float64]:
    """P(an attempt's first success was in this mode), given that it had one, (modes,)."""
    (p,) = per_mode(preset)
    shares = (1.0 - p) ** np.arange(modes)
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def halves(preset: Preset, modes: int) -> tuple[float, float]:
    """That an attempt gives a repeater node its half towards side A, and towards side B."""
    p_a, p_b = (Multiplexed(p, modes).success_probability for p in per_mode(preset))
    return p_a, p_b


def _cutoff(preset: Preset) -> int:
    assert preset.station.cutoff_attempts is not None, "checked with the preset"
    return int(preset.station.cutoff_attempts.value)


def wait_shares(preset: Preset, modes: int, first: Side) -> NDArray[np.float64]:
    """P(`first` side's half was the first one and waited so many attempts), (cutoff + 1,).

    The node's success closes either an attempt that gave both halves, counted as side A's with no
    wait, or as many failures of the other side as the wait is long, less one.  Over both sides
    they sum to 1.
    """
    p_a, p_b = halves(preset, modes)
    failures = np.arange(_cutoff(preset))
    after = {
        Side.A: p_a * (1.0 - p_b) * p_b * (1.0 - p_b) ** failures,
        Side.B: p_b * (1.0 - p_a) * p_a * (1.0 - p_a) ** failures,
    }
    total = p_a * p_b + float(after[Side.A].sum() + after[Side.B].sum())
    at_once = p_a * p_b if first is Side.A else 0.0
    return np.concatenate([[at_once], after[first]]) / total


def _derived(preset: Preset) -> tuple[Herald, ...]:
    """From the photonics, without added noise."""
    if preset.station.scheme == "repeater-node":
        return _swapped(preset)
    return _of_photons(preset)


def _of_photons(preset: Parts) -> tuple[Herald, ...]:
    """What clicks at a station, or at side B's detectors, herald."""
    scheme = preset.station.scheme
    if scheme == "direct":
        return _half(preset, Side.A)
    arms = (_arm(preset, Side.A), _arm(preset, Side.B))
    detection = _detection(preset, (preset.fibre.a, preset.fibre.b))
    make = single_photon if scheme == "single-photon" else two_photon
    return make(*arms, detection)


def _arm(preset: Parts, side: Side) -> Arm:
    device = preset.device.of(side)
    return Arm(
        efficiency=click_efficiency(device, preset.fibre.of(side), preset.station),
        bright_probability=device.bright_probability.value,
        emission_dephasing=device.emission_dephasing.value,
        emission_depolarising=device.emission_depolarising.value,
    )


def _detection(preset: Parts, fibres: tuple[Fibre, ...]) -> Detection:
    station = preset.station
    return Detection(
        dark_probability=noise_probability(fibres, station),
        phase_visibility=station.phase_visibility.value,
        hom_visibility=station.hom_visibility.value,
    )


def _half(preset: Parts, side: Side) -> tuple[Herald, ...]:
    """The emitting memory and its photon, in this order."""
    return direct(_arm(preset, side), _detection(preset, (preset.fibre.of(side),)))


def _swapped(preset: Preset) -> tuple[Herald, ...]:
    """The outcomes of a repeater node's Bell-state measurement on its two memories.

    Either half is a memory and its photon, alike with its ends exchanged.  The node's errors are
    those of whichever of its two memories is worse.
    """
    (left,), (right,) = _half(preset, Side.A), _half(preset, Side.B)
    each = [GateErrors.of(preset.device.of(side)) for side in Side]
    errors = GateErrors(
        max(one.single_qubit for one in each),
        max(one.two_qubit for one in each),
        max(one.readout for one in each),
    )
    swapped = swap(left.state, right.state, errors)
    return tuple(
        Herald(outcome, float(swapped.probabilities[outcome]), swapped.states[outcome])
        for outcome in BellState
    )


def _measured(preset: Preset, probability: float) -> tuple[Herald, ...]:
    assert preset.state is not None
    measured = preset.state
    fitted = states.from_correlations(
        measured.bloch_a.value, measured.bloch_b.value, measured.correlations.value
    )
    total = sum(pattern.probability.value for pattern in measured.pattern)
    found = []
    for pattern in measured.pattern:
        announces = BellState[pattern.announces]
        state = states.phase_flip(fitted, pattern.phase_flip.value, Side.A)
        share = probability * pattern.probability.value / total
        found.append(Herald(announces, share, states.announced_as(state, announces)))
    return tuple(found)


def _degraded(preset: Preset, state: states.State) -> states.State:
    """With what [noise] adds; phase flips mean the same whatever state is announced."""
    flipped = states.phase_flip(state, preset.noise.phase.value, Side.A)
    return states.white_noise(flipped, preset.noise.white.value)
