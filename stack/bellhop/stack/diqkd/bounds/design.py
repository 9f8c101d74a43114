"""What is fixed before a run whose key is bounded by Renyi entropy accumulation."""

import math
from dataclasses import dataclass

RENYI = "renyi-2405.05912"
FILTERED = "renyi-filtered-unrefereed"
EAT = "eat-2109.14600"

SCALE = 1 << 16
"""Sessions draw tests and flips exactly from whole words, so their probabilities are multiples of
one over this; a float holds such a number exactly."""


@dataclass(frozen=True, slots=True)
class Design:
    """The order alpha in (1, 3/2), the test probability, the scores of a won and a lost test round,
    and the probability that Alice flips a key bit before it is used (noisy preprocessing)."""

    alpha: float
    test_probability: float
    score_win: float
    score_lose: float
    flip_probability: float = 0.0

    def __post_init__(self) -> None:
        if not 1.0 < self.alpha < 1.5:
            raise ValueError("alpha is above 1 and below 3/2")
        if not 0.0 < self.test_probability < 1.0:
            raise ValueError("test_probability is above 0 and below 1")
        if not 0.0 <= self.flip_probability <= 0.5:
            raise ValueError("flip_probability is from 0 to 1/2")
        if not self.score_win > self.score_lose:
            raise ValueError("score_win is above score_lose")
        if math.isinf(self.score_win) or math.isinf(self.score_lose):
            raise ValueError("scores are finite")

    @property
    def drawable(self) -> bool:
        """Whether a session can draw tests and flips with exactly these probabilities."""
        scaled = (self.test_probability * SCALE, self.flip_probability * SCALE)
        return all(number.is_integer() for number in scaled)


@dataclass(frozen=True, slots=True)
class CertifiedDesign:
    """A design with a lower bound on its kappa (bits a round) that was proved, not searched for.

    `kappa` holds for this `bound` and this Eve (`adaptive`: she may act between rounds).
    `made_for`: rounds, CHSH value and error rate it is best for; it is sound for any.
    """

    name: str
    bound: str
    design: Design
    adaptive: bool
    kappa: float
    made_for: tuple[int, float, float]
