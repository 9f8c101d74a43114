"""The bounds by their names: each with its theorem, what it assumes, and the key that it gives.

One interface (`Bound`) for sessions, receipts and plans.  A bound is made before the first round
and asked once, after the last, with what the run has shown.

The variable length, and why announcing counts costs the logarithm of their range and nothing else
-------------------------------------------------------------------------------------------------
By the Renyi bounds the key's length is computed from the exact count of lost test rounds, which Bob
announces; there is no threshold.  Let j be everything that is announced and depends on outcomes
(lost tests, corrected errors, requests for more syndrome), one of J values that were fixed
beforehand.  Write rho_j for the part of the state, of Alice's string and Eve, in which j comes out,
not normalised; Q for the trace that stands in the sandwiched Renyi divergence of order alpha from
the reference state, Q = 2^(-(alpha-1) H_alpha) for a whole state; F_j for the score.

1. Accumulation bounds a *sum*: with x_j = 2^((alpha-1) F_j) Q(rho_j),

       sum_j x_j <= 2^(-(alpha-1) n kappa).

   It is stated for the finest j, the string of test results.  Coarser j that still fix the score
   are sums of N strings each, and Q of a sum of N positive operators is at most N^(alpha-1) times
   the sum of their Q (convexity of Tr X^alpha): this is the test string that `RenyiBound` pays.
   Finer j (a count of errors beside that of losses) only lower the sum, since Tr (X + Y)^alpha is
   at least Tr X^alpha + Tr Y^alpha.  By the same inequality `leak` bits of syndrome cost a factor
   of 2^((alpha-1) leak).

2. The leftover hash lemma for order alpha (F. Dupuis, arXiv:2105.05342) holds for each rho_j:
   hashed to l_j bits by a 2-universal family, its trace distance (halved) from a uniform and
   independent key is at most 2^(2/alpha - 2) (2^((alpha-1) l_j) Q(rho_j))^(1/alpha).

3. Put l_j = F_j + n kappa - leak - log2 J + 2 - alpha/(alpha-1) log2(1/epsilon) into 2.  The
   constants cancel and the distance of rho_j is at most

       epsilon (2^((alpha-1) n kappa) / J^(alpha-1))^(1/alpha) x_j^(1/alpha).

   As j is public, the distance of the whole is the sum over j.  By Hoelder's inequality
   sum_j x_j^(1/alpha) <= J^(1 - 1/alpha) (sum_j x_j)^(1/alpha), and with 1 the sum of all the
   distances is at most epsilon.  So log2 J pays exactly: no factor J stays in the error.

Rounding a length down, or cutting it to the number of rounds, only makes every distance smaller.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from types import MappingProxyType
from typing import Protocol

from bellhop.stack.diqkd.bounds.chsh import losses_max
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED, RENYI, CertifiedDesign
from bellhop.stack.diqkd.bounds.eat import ASSUMPTIONS as EAT_ASSUMPTIONS
from bellhop.stack.diqkd.bounds.eat import THEOREMS as EAT_THEOREMS
from bellhop.stack.diqkd.bounds.eat import EatChoice, EatProblem, evaluate
from bellhop.stack.diqkd.bounds.exact import EXACT, log2


@dataclass(frozen=True, slots=True)
class Theorem:
    """What a claim rests on.  `refereed`: every theorem it needs has been published."""

    name: str
    statement: str
    assumptions: tuple[str, ...]
    refereed: bool


_LABORATORY = EAT_ASSUMPTIONS[:7]
_LATER = EAT_ASSUMPTIONS[-1]
_FIXED = (
    "Order, scores, test probability, flip probability, kappa, rounds, and the values that an "
    "announcement can take were fixed before the first round.",
    "Flips of Alice's key bits (noisy preprocessing) are drawn by her own private generator and "
    "kept secret.",
    "kappa is a proven lower bound on the entropy of one round beside its score.",
    _LATER,
)
_BETWEEN_ROUNDS = {
    True: "Eve may act on her memory between rounds, on all that was announced until then.",
    False: "Nothing that depends on a round is announced before the last round has ended.",
}

THEOREMS: Mapping[str, Theorem] = MappingProxyType(
    {
        RENYI: Theorem(
            RENYI,
            "f-weighted Renyi entropy accumulation (A. Arqand, T. A. Hahn, E. Y.-Z. Tan, "
            "arXiv:2405.05912), the string of test results kept with Alice's and paid; leftover "
            "hash lemma for sandwiched Renyi entropies (F. Dupuis, arXiv:2105.05342)",
            (*_LABORATORY, *_FIXED),
            True,
        ),
        FILTERED: Theorem(
            FILTERED,
            "UNREFEREED: filtered Renyi entropy accumulation, derived from the chain rule for "
            "sandwiched Renyi entropies (F. Dupuis, O. Fawzi, R. Renner, Commun. Math. Phys. 379, "
            "867 (2020), Cor. 3.5; T. Metger et al., arXiv:2203.04989, Lemma 3.6) and the leftover "
            "hash lemma of F. Dupuis, arXiv:2105.05342",
            (*_LABORATORY, *_FIXED, "The derivation, which no referee has read, is right."),
            False,
        ),
        EAT: Theorem(EAT, EAT_THEOREMS["two-universal"], EAT_ASSUMPTIONS, True),
    }
)
"""The registry: every bound that can be named, the default first."""

DEFAULT = RENYI


@dataclass(frozen=True, slots=True)
class Shown:
    """What a run has shown in public once it is over.

    `losses` of the `tests` test rounds were lost.  `leak_bits` is everything said about Alice's
    string: syndrome with its extra steps, verification tag, log2 of the announced counts' ranges,
    log2 of the ways in which more syndrome could have been asked for.  ValueError if the counts
    contradict each other.
    """

    rounds: int
    tests: int
    losses: int
    leak_bits: float

    def __post_init__(self) -> None:
        if not 0 <= self.losses <= self.tests <= self.rounds or self.rounds < 1:
            raise ValueError("losses are among the tests, tests among the rounds")
        if not 0.0 <= self.leak_bits < math.inf:
            raise ValueError("leak_bits is a number that is not negative")

    @property
    def wins(self) -> int:
        return self.tests - self.losses


@dataclass(frozen=True, slots=True)
class Errors:
    """A bound's part of the soundness error: max(accumulation, privacy + 2 smoothing).

    What verification and authentication may let pass (`parameters.hash_error`) comes on top.
    """

    privacy: float
    accumulation: float = 0.0
    smoothing: float = 0.0

    @property
    def secrecy(self) -> float:
        """Distance of the key from a perfect one, in bits that are the same at both ends."""
        return max(self.accumulation, self.privacy + 2.0 * self.smoothing)

    def soundness(self, hash_error: float) -> float:
        return self.secrecy + hash_error


class Bound(Protocol):
    """A theorem with all that it needs to know before the first round."""

    @property
    def name(self) -> str: ...

    @property
    def theorem(self) -> str: ...

    @property
    def assumptions(self) -> tuple[str, ...]: ...

    @property
    def refereed(self) -> bool: ...

    @property
    def errors(self) -> Errors: ...

    def key_bits(self, shown: Shown) -> int:
        """The key's length; zero or less means that there is none.  Same on every machine."""
        ...


class _Named:
    """What the registry knows of a bound, by the bound's name."""

    __slots__ = ()

    @property
    def name(self) -> str:
        raise NotImplementedError

    @property
    def theorem(self) -> str:
        return THEOREMS[self.name].statement

    @property
    def refereed(self) -> bool:
        return THEOREMS[self.name].refereed


@dataclass(frozen=True, slots=True)
class _DesignedBound(_Named):
    """A bound of a certified design, its length variable.  ValueError for another bound's design
    and for an epsilon outside (0, 1)."""

    certified: CertifiedDesign
    epsilon_privacy: float

    def __post_init__(self) -> None:
        if self.certified.bound != self.name:
            raise ValueError(f"the design is for {self.certified.bound}, not for {self.name}")
        if not 0.0 < self.epsilon_privacy < 1.0:
            raise ValueError("epsilon_privacy is above 0 and below 1")

    @property
    def assumptions(self) -> tuple[str, ...]:
        return (*THEOREMS[self.name].assumptions, _BETWEEN_ROUNDS[self.certified.adaptive])

    @property
    def errors(self) -> Errors:
        return Errors(privacy=self.epsilon_privacy)


@dataclass(frozen=True, slots=True)
class RenyiBound(_DesignedBound):
    """The default.  l = F + n kappa - leak - t h(losses/t) + 2 - alpha/(alpha-1) log2(1/epsilon).

    F is the sum of the scores of the t test rounds.  The string of test results is part of what is
    bounded, so the logarithm of how many such strings there are with as many losses, at most
    t h(losses/t), is paid.  See `renyi` for kappa.
    """

    @property
    def name(self) -> str:
        return RENYI

    def key_bits(self, shown: Shown) -> int:
        return _variable_length(self, shown, pays_test_string=True)


@dataclass(frozen=True, slots=True)
class FilteredBound(_DesignedBound):
    """Tighter, and read by no referee.

    l = F + n kappa - leak + 2 - alpha/(alpha-1) log2(1/epsilon), F the sum of the scores.  The test
    results never enter the entropy, so nothing is paid for them.  See `filtered` for kappa.
    """

    @property
    def name(self) -> str:
        return FILTERED

    def key_bits(self, shown: Shown) -> int:
        return _variable_length(self, shown, pays_test_string=False)


@dataclass(frozen=True, slots=True)
class EatBound(_Named):
    """The theorem of the Oxford experiment: length and threshold are fixed beforehand.

    A run that lost more tests than `chsh.losses_max`, or said more than was planned for, has no
    key.  ValueError if the theorem does not allow the choice, or for a run of another length.
    """

    problem: EatProblem
    choice: EatChoice

    @property
    def name(self) -> str:
        return EAT

    @property
    def theorem(self) -> str:
        return EAT_THEOREMS[self.problem.form]

    @property
    def assumptions(self) -> tuple[str, ...]:
        return THEOREMS[EAT].assumptions

    @property
    def errors(self) -> Errors:
        parts = evaluate(self.problem, self.choice).errors
        return Errors(parts.privacy, parts.accumulation, parts.smoothing)

    def key_bits(self, shown: Shown) -> int:
        problem = self.problem
        if shown.rounds != problem.rounds:
            raise ValueError(f"the bound is for {problem.rounds} rounds, not {shown.rounds}")
        allowed = losses_max(problem.rounds, problem.gamma, problem.threshold)
        if shown.losses > allowed or shown.leak_bits > problem.leak_bits:
            return 0
        return evaluate(problem, self.choice).key_bits


def designed_bound(
    certified: CertifiedDesign, epsilon_privacy: float
) -> RenyiBound | FilteredBound:
    """The bound that a design is for, with this error of privacy amplification."""
    kind = FilteredBound if certified.bound == FILTERED else RenyiBound
    return kind(certified, epsilon_privacy)


def _variable_length(bound: _DesignedBound, shown: Shown, *, pays_test_string: bool) -> int:
    design = bound.certified.design
    with localcontext(EXACT):
        score = shown.wins * Decimal(design.score_win) + shown.losses * Decimal(design.score_lose)
        length = score + shown.rounds * Decimal(bound.certified.kappa) - Decimal(shown.leak_bits)
        if pays_test_string:
            length -= _test_string_bits(shown)
        alpha = Decimal(design.alpha)
        length += 2 + alpha / (alpha - 1) * log2(Decimal(bound.epsilon_privacy))
        return min(math.floor(length), shown.rounds)


def _test_string_bits(shown: Shown) -> Decimal:
    """t h(losses/t), at least log2 of the number of strings with that many losses."""
    parts = (Decimal(shown.wins), Decimal(shown.losses))
    return sum((part * log2(shown.tests / part) for part in parts if part), Decimal(0))
