"""A preset made ready: what a link heralds and when, and how its pairs are kept until measured.

All that is exact is computed here, once; `emulator.link` draws from it.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bellhop.hal import feasibility, heralding
from bellhop.hal.ages import Ages
from bellhop.hal.correlations import (
    Correlations,
    Effect,
    effects,
    fidelity,
    joint_probabilities,
    mapped,
    to_correlations,
    with_loss,
)
from bellhop.hal.drift import Drift
from bellhop.hal.operations import Side
from bellhop.hal.photonics import Herald
from bellhop.hal.preset import Preset
from bellhop.hal.schedule import Schedule
from bellhop.hal.storage import StorageModel

Numbers = NDArray[np.float64]

LOST = 2
"""The outcome of a qubit that is no longer there, beside 0 and 1."""


class Experiment:
    """See the module.  Arrays over announced Bell states have one entry for each of `announced`.

    `heralds`: the detector patterns, noise included.  Those that announce the same Bell state are
    one state here, mixed by their shares: no node is told which it was.
    `correlations` (k, 4, 4): the announced pairs when their light is emitted; a repeater node's as
    if nothing had waited in it, with its swap done.
    `herald_wait_ns`, `kept_from_ns`, `measured_ns`: how old each side's qubit is when its herald is
    known, when it is ready to be kept, and when it is measured; see `ages`.  None depends on either
    side's orders, so that nothing can be learned from an age.
    """

    def __init__(self, preset: Preset) -> None:
        feasibility.check_heralds(preset)
        self.preset = preset
        self.scheme = preset.station.scheme
        self.schedule = Schedule.of(preset)
        self.heralds = heralding.heralds(preset)
        self.law = heralding.law(preset, self.schedule.modes)
        self.drift = Drift.of(preset)
        self.angles = {side: _angles(preset, side) for side in Side}
        self.readout_error = {side: _readout_error(preset, side) for side in Side}
        self.ages = Ages.of(preset, self.schedule)
        self.herald_wait_ns = self.ages.herald_wait_ns
        self.kept_from_ns = self.ages.kept_from_ns
        self.measured_ns = self.ages.measured_ns
        self.storage = {side: self._storage_of(side) for side in Side}
        self.announced, self.shares, self.correlations = _announced(self.heralds)
        feasibility.check(self)

    # Counting

    @property
    def success_probability(self) -> float:
        """That an attempt heralds a pair."""
        return float(self.law.success_probability)

    @property
    def pairs_per_s(self) -> float:
        """While attempts run: cooling included, calibrations and reloads not."""
        return float(self.schedule.attempts_per_s * self.law.success_probability)

    @property
    def pairs_per_s_with_pauses(self) -> float:
        return float(self.pairs_per_s * self.schedule.duty)

    # Memories

    def has_memory(self, side: Side) -> bool:
        """Whether the qubit at this end waits to be measured; detectors do not."""
        return self.scheme in ("single-photon", "two-photon") or (
            self.scheme == "direct" and side is Side.A
        )

    def no_answer_probability(self, side: Side) -> float:
        """Of a memory's readout, beside losses."""
        device = self.preset.device.of(side)
        return device.no_answer_probability.value if self.has_memory(side) else 0.0

    def _storage_of(self, side: Side) -> StorageModel:
        if self.scheme == "direct" and side is Side.B:
            return StorageModel.ideal()
        device = self.preset.device.of(side)
        return StorageModel.of(device, self.herald_wait_ns[side])

    def pairs(self, stored_a_ns: ArrayLike, stored_b_ns: ArrayLike) -> Correlations:
        """Correlations (..., k, 4, 4) of the announced pairs at these ages, shapes (...): the mean
        over `ages.waits`, without drift.  What decayed is missing from the trace."""
        stored = {Side.A: np.asarray(stored_a_ns, float), Side.B: np.asarray(stored_b_ns, float)}
        result: Correlations = np.zeros(())
        for waits in self.ages.waits.parts(max(ns.size for ns in stored.values())):
            maps = {}
            for side in Side:
                late_ns = waits.of(side) if self.ages.before_transfer else 0.0
                ages_ns = stored[side][..., None] + waits.of(side)
                maps[side] = self.storage[side].map(ages_ns, late_ns)[..., None, :, :]
            aged = mapped(self.correlations, maps[Side.A], maps[Side.B])
            result = result + np.einsum("w,...wkij->...kij", waits.shares, aged)
        return result

    def fidelity(self, stored_a_ns: ArrayLike = 0.0, stored_b_ns: ArrayLike = 0.0) -> Numbers:
        """With the announced Bell states, mean over them, shape (...); without drift.  A pair that
        lost a half counts as none."""
        each = fidelity(self.pairs(stored_a_ns, stored_b_ns), self.announced)
        return np.asarray(each @ self.shares, dtype=np.float64)

    # Measurements

    def effects(self, side: Side) -> Effect:
        """Of the outcomes 0 and 1 in each setting, read with errors: (settings, 2, 4)."""
        return effects(self.angles[side], self.readout_error[side])

    def probabilities(
        self, stored_a_ns: float | None = None, stored_b_ns: float | None = None
    ) -> Numbers:
        """P(a, b) of the outcomes 0, 1 and `LOST` for each announced state and settings x, y:
        shape (k, settings of A, settings of B, 3, 3).  Ages default to `measured_ns`; the mean over
        `ages.waits`, without drift."""
        ages = {
            Side.A: self.measured_ns[Side.A] if stored_a_ns is None else stored_a_ns,
            Side.B: self.measured_ns[Side.B] if stored_b_ns is None else stored_b_ns,
        }
        result: Numbers = np.zeros(())
        for waits in self.ages.waits.parts(self.shares.size * sum(map(len, self.angles.values()))):
            outcomes = {
                side: with_loss(
                    self.aged(side, self.effects(side), ages[side], waits.of(side)[:, None, None])
                )
                for side in Side
            }
            tables = self._tables(outcomes)
            result = result + np.einsum("w,wkxyab->kxyab", waits.shares, tables)
        return result

    def aged(
        self, side: Side, effects: Effect, stored_ns: ArrayLike, waited_ns: ArrayLike | None = None
    ) -> Effect:
        """Effects (..., 4) of a measurement as they are at the emission: `stored_ns` (...) before
        it, and what the halves waited (...) on top; see `ages`."""
        storage = self.storage[side]
        if waited_ns is None:
            return storage.aged(effects, stored_ns)
        ages_ns = np.add(stored_ns, waited_ns, dtype=np.float64)
        return storage.aged(effects, ages_ns, waited_ns if self.ages.before_transfer else 0.0)

    def _tables(self, outcomes: dict[Side, Effect]) -> Numbers:
        """From (w, settings, 3, 4) of either side: (w, k, settings, settings, 3, 3)."""
        return joint_probabilities(
            self.correlations[:, None, None],
            outcomes[Side.A][:, None, :, None],
            outcomes[Side.B][:, None, None, :],
        )

    def chsh(self) -> float:
        """S in the frame of the announced states, of pairs that both ends answered; no drift."""
        e = self.bell_correlators()
        return float(e[0, 0] + e[0, 1] + e[1, 0] - e[1, 1])

    def qber(self) -> float:
        """How often the key settings (0 at side A, 2 at side B) disagree, as `chsh`."""
        return float((1.0 - self.bell_correlators()[0, 2]) / 2.0)

    def bell_correlators(self) -> Numbers:
        """E(x, y) of rounds that both ends answered, flipped as the herald says, without drift:
        (settings of A, settings of B)."""
        tables = self.shares[:, None, None, None, None] * self.probabilities()[..., :2, :2]
        equal = tables[..., 0, 0] + tables[..., 1, 1]
        different = tables[..., 0, 1] + tables[..., 1, 0]
        turned = (equal - different) * self.frame_signs()[:, :, None]
        return np.asarray(turned.sum(axis=0) / (equal + different).sum(axis=0), dtype=np.float64)

    def frame_signs(self) -> Numbers:
        """(k, settings of A): what a herald's flips do to a correlator; see `announced_as`."""
        bits = self.announced[:, None]
        b_flips = bits & 1
        a_flips = ((bits & 1) ^ (bits >> 1)) * (np.arange(len(self.angles[Side.A]))[None, :] == 1)
        return np.asarray(1.0 - 2.0 * (b_flips ^ a_flips), dtype=np.float64)


def _announced(heralds: tuple[Herald, ...]) -> tuple[NDArray[np.uint8], Numbers, Correlations]:
    """Bell states (k,), their shares of the heralds (k,), and the pairs (k, 4, 4)."""
    kinds = sorted({herald.announces for herald in heralds})
    weights = {kind: sum(h.probability for h in heralds if h.announces is kind) for kind in kinds}
    total = sum(weights.values())
    pairs = [
        sum(
            h.probability / weights[kind] * to_correlations(h.state)
            for h in heralds
            if h.announces is kind
        )
        for kind in kinds
    ]
    shares = np.array([weights[kind] / total for kind in kinds])
    return np.array(kinds, dtype=np.uint8), shares, np.stack(pairs)


def _angles(preset: Preset, side: Side) -> Numbers:
    """In radians, one a setting."""
    degrees = preset.settings.angles_a if side is Side.A else preset.settings.angles_b
    return np.deg2rad(np.array(degrees.value, dtype=np.float64))


def _readout_error(preset: Preset, side: Side) -> float:
    """That an outcome is flipped: by the memory's readout, or by the analyser of a photon."""
    scheme = preset.station.scheme
    if scheme == "repeater-node" or (scheme == "direct" and side is Side.B):
        return preset.station.analyser_error.value
    return preset.device.of(side).readout_error.value
