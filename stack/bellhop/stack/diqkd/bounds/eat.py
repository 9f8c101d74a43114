"""The finite-size theorem of the Oxford experiment, as a pure formula.

Source: Nadlinger et al., arXiv:2109.14600v2, supplement S10, Proposition 2 and eq. (73), built on
the entropy accumulation theorem with second-order terms (Dupuis and Fawzi, IEEE Trans. Inf.
Theory 65, 7596 (2019)). It holds against attacks on all rounds at once by devices with memory.

Two forms are offered.

* ``trevisan``: the published statement, for a Trevisan extractor, with its constant of 264 bits.
* ``two-universal``: the same entropy, hashed by an exactly 2-universal family (Toeplitz). The
  leftover hash lemma takes 2 log2(1/eps_PA), and the caller pays for the tags he sent.

The theorem has free parameters, and any admissible choice of them gives a true statement. So a
choice is *searched* in floating point (``eat_choice``), where a poor search only costs key, and
*evaluated* here as a pure formula in decimal arithmetic of 60 digits. Its logarithms, exponentials
and roots are correctly rounded by specification, so that two machines with the same problem and
the same choice hold the same number of bits, whatever their libm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Literal, assert_never

from bellhop.stack.diqkd.bounds.chsh import WIN_CLASSICAL, WIN_QUANTUM
from bellhop.stack.diqkd.bounds.exact import EXACT, LN2, log2

Form = Literal["trevisan", "two-universal"]

PAPER_HASH_ERROR = 4.0 * 2.0**-61
"""4 eps_h of the paper: its hashes for verification and authentication."""
SESSION_HASH_ERROR = 2.0**-40
"""Default allowance for all tags of a session; nine 64-bit polynomial tags on 2 MiB use 2^-43."""
ROUNDS_MAX = 10**12

THEOREMS: dict[Form, str] = {
    "trevisan": "arXiv:2109.14600v2, supplement S10, Prop. 2, eq. (73)",
    "two-universal": (
        "arXiv:2109.14600v2, supplement S10, Prop. 2, eq. (73), entropy terms unchanged, "
        "with the leftover hash lemma for 2-universal hashing as the extractor"
    ),
}

ASSUMPTIONS = (
    "Quantum mechanics is correct and complete.",
    "Each laboratory is sealed: nothing about settings or outcomes leaves it unless the protocol "
    "says so; in particular, photons emitted towards the midpoint carry no earlier outcome.",
    "During a round the two devices cannot signal to each other (shielding or distance).",
    "Alice's device does not learn whether a round is a test before it has answered.",
    "Settings and test rounds are drawn from uniform, independent, private random numbers.",
    "Classical processing in both laboratories is trusted, the channel authenticated.",
    "Every round whose settings were drawn counts; a missing outcome counts as 0.",
    "Threshold, rounds and test probability were fixed before the first round.",
    "The devices are not used again after the run in a way that reveals this key "
    "(one session's theorem says nothing about later ones).",
)

_LOG33 = EXACT.divide(EXACT.ln(Decimal(33)), LN2)
_LOG5 = EXACT.divide(EXACT.ln(Decimal(5)), LN2)
_BISECTIONS = 120
_ROUNDING_BITS = Decimal("1e-9")
_TREVISAN_BITS = 264
ALPHA_DOUBLE_PRIME_MAX = 1.0 + 1.0 / math.log2(5.0)


@dataclass(frozen=True, slots=True)
class EatProblem:
    """What is fixed when a key length is asked for. Raises ValueError that names the field.

    ``threshold`` is the winning probability demanded before the run (``chsh.losses_max`` turns it
    into a count). ``leak_bits`` is everything said about Alice's string: syndromes, tags and
    counts in the two-universal form; syndromes alone in the Trevisan form. ``epsilon`` is the
    soundness error of the whole session, ``hash_error`` the part of it that tags may use.
    """

    rounds: int
    gamma: Fraction
    threshold: float
    leak_bits: int
    epsilon: float
    form: Form
    hash_error: float

    def __post_init__(self) -> None:
        demands = {
            f"rounds must lie in [1, {ROUNDS_MAX}]": 1 <= self.rounds <= ROUNDS_MAX,
            "gamma must lie strictly between 0 and 1": 0 < self.gamma < 1,
            "threshold must lie between 0 and the quantum maximum": (
                0.0 <= self.threshold <= WIN_QUANTUM + 1e-12
            ),
            "leak_bits must not be negative": self.leak_bits >= 0,
            "epsilon must lie strictly between hash_error and 1": (
                0.0 <= self.hash_error < self.epsilon < 1.0
            ),
            "form must be trevisan or two-universal": self.form in THEOREMS,
        }
        for demand, met in demands.items():
            if not met:
                raise ValueError(demand)


@dataclass(frozen=True, slots=True)
class EatChoice:
    """Free parameters of the theorem, in the paper's letters; doubles, so they travel exactly.

    ``tangent`` is t, the winning probability where the min-tradeoff function touches eta.
    ``alpha_prime`` and ``alpha_double_prime`` are the Renyi orders of the min-entropy of the
    outcomes and the max-entropy of the test results, ``smoothing_prime`` and
    ``smoothing_double_prime`` their smoothing, ``privacy_error`` is eps_PA. The overall smoothing
    eps_s and the accumulation error eps_EA follow from the requested epsilon (``EatErrors``).
    """

    tangent: float
    alpha_prime: float
    alpha_double_prime: float
    smoothing_prime: float
    smoothing_double_prime: float
    privacy_error: float


@dataclass(frozen=True, slots=True)
class EatErrors:
    """The soundness error in its parts: max(eps_EA, eps_PA + 2 eps_s) + eps_hash."""

    soundness: float
    accumulation: float
    privacy: float
    smoothing: float
    hash: float


@dataclass(frozen=True, slots=True)
class KeyLength:
    """A key length with all that its claim rests on; ``key_bits`` 0 means no key, an outcome.

    ``entropy_bits`` is the smooth min-entropy of Alice's whole string before anything was leaked.
    """

    key_bits: int
    entropy_bits: float
    leak_bits: int
    form: Form
    theorem: str
    errors: EatErrors
    choice: EatChoice
    assumptions: tuple[str, ...] = ASSUMPTIONS

    @property
    def epsilon_soundness(self) -> float:
        return self.errors.soundness


def objection(problem: EatProblem, choice: EatChoice) -> str | None:
    """Why the theorem does not allow this choice, or None. For choices that a peer sent."""
    smoothings = (choice.smoothing_prime, choice.smoothing_double_prime, choice.privacy_error)
    if not WIN_CLASSICAL < choice.tangent < WIN_QUANTUM - 1e-12:
        return "the tangent must touch between the classical and the quantum bound"
    if not 1.0 < choice.alpha_prime < 2.0:
        return "alpha' must lie in (1, 2)"
    if not 1.0 < choice.alpha_double_prime < ALPHA_DOUBLE_PRIME_MAX - 1e-12:
        return "alpha'' must lie in (1, 1 + 1/log2(5))"
    if not all(0.0 < error < 1.0 for error in smoothings):
        return "every error must lie in (0, 1)"
    with localcontext(EXACT):
        if _smoothing_left(problem, choice) <= 0:
            return "the errors exceed the requested epsilon"
    return None


def evaluate(problem: EatProblem, choice: EatChoice) -> KeyLength:
    """Eq. (73) at these parameters: pure, about 10 ms, the same bits on every machine.

    Raises ValueError if the theorem does not allow the choice (``objection``).
    """
    wrong = objection(problem, choice)
    if wrong is not None:
        raise ValueError(wrong)
    with localcontext(EXACT):
        entropy = _smooth_min_entropy(problem, choice)
        privacy = -log2(Decimal(choice.privacy_error))
        left = entropy - problem.leak_bits - _ROUNDING_BITS
        match problem.form:
            case "trevisan":
                key_bits = _trevisan_length(left - 5 * privacy - _TREVISAN_BITS)
            case "two-universal":
                key_bits = max(0, math.floor(left - 2 * privacy))
            case _:
                assert_never(problem.form)
        key_bits = min(key_bits, problem.rounds)
        errors = EatErrors(
            soundness=problem.epsilon,
            accumulation=float(_accumulation_error(problem)),
            privacy=choice.privacy_error,
            smoothing=float(_smoothing(problem, choice)),
            hash=problem.hash_error,
        )
    return KeyLength(
        key_bits=key_bits,
        entropy_bits=float(entropy),
        leak_bits=problem.leak_bits,
        form=problem.form,
        theorem=THEOREMS[problem.form],
        errors=errors,
        choice=choice,
    )


# Everything below runs inside the exact context.


def _smooth_min_entropy(problem: EatProblem, choice: EatChoice) -> Decimal:
    """The right-hand side of eq. (73) up to and including the smoothing of the chain rule."""
    n = problem.rounds
    gamma = Decimal(problem.gamma.numerator) / Decimal(problem.gamma.denominator)
    slope = _eta_slope(Decimal(choice.tangent))
    prime = Decimal(choice.alpha_prime) - 1
    double_prime = Decimal(choice.alpha_double_prime) - 1
    unlikely = -log2(_accumulation_error(problem))

    # g_t(w_thr) - g_t(w) = slope (w_thr - w): only the slope of the tangent ever matters.
    per_round = slope * Decimal(problem.threshold) + _least_score(slope, gamma, prime)
    per_round -= prime**2 * _third_order(slope, prime)
    per_round -= gamma + double_prime * _LOG5**2
    outcomes = _theta(Decimal(choice.smoothing_prime)) + (1 + prime) * unlikely
    results = _theta(Decimal(choice.smoothing_double_prime)) + (1 + double_prime) * unlikely
    chain = 3 * _theta(_smoothing_left(problem, choice))
    return n * per_round - outcomes / prime - results / double_prime - chain


def _least_score(slope: Decimal, gamma: Decimal, prime: Decimal) -> Decimal:
    """Lower bound on min over w of eta(w) - slope w - (a' - 1) V(w), tight to 30 digits.

    Here Var f_t(q(w)) = slope^2 u (1/gamma - u) with u = 1 - w. The function is convex on
    [w_min, w_max]: eta is, and V is concave because Var is concave in w and positive. So the sign
    of the derivative brackets the minimum, and the tangent at the bracket's left end bounds it.
    """
    root2 = Decimal(2).sqrt()
    low, high = (2 - root2) / 4, (2 + root2) / 4
    if _score_slope(low, slope, gamma, prime) >= 0:
        return _score(low, slope, gamma, prime)
    # At w_max the slope of eta is infinite, so the minimum never sits at that end.
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if _score_slope(middle, slope, gamma, prime) < 0:
            low = middle
        else:
            high = middle
    falling = _score_slope(low, slope, gamma, prime)
    return _score(low, slope, gamma, prime) + falling * (high - low)


def _score(w: Decimal, slope: Decimal, gamma: Decimal, prime: Decimal) -> Decimal:
    spread = _LOG33 + (2 + _variance(w, slope, gamma)).sqrt()
    return _eta(w) - slope * w - prime * LN2 / 2 * spread**2


def _score_slope(w: Decimal, slope: Decimal, gamma: Decimal, prime: Decimal) -> Decimal:
    root = (2 + _variance(w, slope, gamma)).sqrt()
    variance_slope = slope**2 * (2 * (1 - w) - 1 / gamma)
    v_slope = LN2 * (_LOG33 + root) * variance_slope / (2 * root)
    return _eta_slope(w) - slope - prime * v_slope


def _variance(w: Decimal, slope: Decimal, gamma: Decimal) -> Decimal:
    return slope**2 * (1 - w) * (1 / gamma - (1 - w))


def _third_order(slope: Decimal, prime: Decimal) -> Decimal:
    """K = 2^((a'-1) e) ln^3(2^e + e_N^2) / (6 (2-a')^3 ln 2), e = 2 + g_t(1) - g_t(w_min)."""
    w_min = (2 - Decimal(2).sqrt()) / 4
    exponent = 2 + slope * (1 - w_min)
    grown = (exponent * LN2).exp() + Decimal(2).exp()
    return (prime * exponent * LN2).exp() * grown.ln() ** 3 / (6 * (1 - prime) ** 3 * LN2)


def _eta(w: Decimal) -> Decimal:
    """eta of ``chsh.entropy_rate``, with 0 below 3/4."""
    if w <= Decimal("0.75"):
        return Decimal(0)
    x = _violation(w)
    return ((1 + x) * log2(1 + x) + (1 - x) * log2(1 - x)) / 2


def _eta_slope(w: Decimal) -> Decimal:
    if w <= Decimal("0.75"):
        return Decimal(0)
    x = _violation(w)
    return 4 * (2 * w - 1) * log2((1 + x) / (1 - x)) / x


def _violation(w: Decimal) -> Decimal:
    return ((4 * w - 3) * (4 * w - 1)).sqrt()


def _theta(error: Decimal) -> Decimal:
    """-log2(1 - sqrt(1 - x^2)), written so that a small x loses nothing."""
    return -log2(error**2 / (1 + (1 - error**2).sqrt()))


def _accumulation_error(problem: EatProblem) -> Decimal:
    """eps_EA: all of epsilon that the hashes leave, since the theorem takes a maximum."""
    return Decimal(problem.epsilon) - Decimal(problem.hash_error)


def _smoothing(problem: EatProblem, choice: EatChoice) -> Decimal:
    """eps_s, from eps_PA + 2 eps_s = eps_EA."""
    return (_accumulation_error(problem) - Decimal(choice.privacy_error)) / 2


def _smoothing_left(problem: EatProblem, choice: EatChoice) -> Decimal:
    """eps_s - eps_s' - 2 eps_s''; the theorem needs it positive."""
    used = Decimal(choice.smoothing_prime) + 2 * Decimal(choice.smoothing_double_prime)
    return _smoothing(problem, choice) - used


def _trevisan_length(bits: Decimal) -> int:
    """Largest y with y + 4 log2(y) <= bits, 0 if there is none."""
    if bits < 1:
        return 0
    length = max(0, math.floor(bits - 4 * log2(bits)))
    while length + 1 + 4 * log2(Decimal(length + 1)) <= bits:
        length += 1
    return length
