"""What a receipt's numbers must be, written a second time: by the papers, not by the node's code.

Imports the standard library and nothing else.

Renyi entropy accumulation (A. Arqand, T. A. Hahn, E. Y.-Z. Tan, arXiv:2405.05912) and its filtered
form, which no referee has read; the entropy accumulation of the Oxford experiment
(arXiv:2109.14600v2, supplement S10, Proposition 2, eq. 73) with a 2-universal hash.  Letters are
those of the papers.  Lengths are found in decimal arithmetic of 60 digits, whose logarithms are
correctly rounded: every machine finds the same number of bits.
"""

import math
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction
from typing import Any

EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999)

# --- both kinds -----------------------------------------------------------------------------------


def hash_error(covered_bytes: int, tag_bits: int) -> float:
    """A polynomial hash over GF(2^128), cut to `tag_bits`, is guessed with at most this chance:
    coefficients of 16 bytes and one for the length, each worth 2^-t."""
    return float((-(-covered_bytes // 16) + 1) * 2.0**-tag_bits)


def count_bits(rounds: int) -> int:
    """Announcing exactly how many tests were lost and how many key bits were wrong: each of the
    two is one of at most rounds + 1 values."""
    return 2 * rounds.bit_length()


def pattern_bits(bits: int, errors: int) -> float:
    """n h(k/n): of the logarithm of how many patterns of k errors n bits may have, all but the
    logarithm of n + 1; infinite if there are none."""
    if not 0 <= errors <= bits:
        return math.inf
    counts = (errors, bits - errors)
    return math.fsum(count * math.log2(bits / count) for count in counts if count > 0)


# --- Renyi entropy accumulation -------------------------------------------------------------------


def raw_kappa(design: Mapping[str, float], adaptive: bool, filtered: bool) -> float:
    """kappa by the strategies that are known to be best: the two-qubit family that attains the
    CHSH bound, and the deterministic ones.  A proven kappa cannot be above it."""
    alpha, g, p = design["alpha"], design["test_probability"], design["flip_probability"]
    ah = 1.0 / (2.0 - alpha) if adaptive else alpha
    scores = design["score_win"], design["score_lose"]
    if filtered and adaptive:
        scores = scores[0], scores[0] - (scores[0] - scores[1]) / alpha
    win, lose = (2.0 ** (score * (ah - 1.0) / ah) for score in scores)
    test = _filtered_test if filtered else _paid_test

    def one_round(q: float, t: float) -> float:
        m1, m2 = (1.0 - q) ** (1.0 / ah), q ** (1.0 / ah)
        u = (m1 + m2) / 4.0
        d = math.sqrt(max(u * u - m1 * m2 * p * (1.0 - p), 0.0))
        generation = 2.0 * ((u + d) ** ah + (u - d) ** ah)
        value: float = (1.0 - g) * generation + g * test(m1, m2, t, win, lose, ah)
        return value

    won = max(k * win**ah + (4 - k) * lose**ah for k in (1, 3)) / 4.0
    deterministic = (1.0 - g) * ((1.0 - p) ** ah + p**ah) + g * won
    theta: float = max(_largest(one_round), deterministic)
    return -math.log2(theta) / (ah - 1.0)


def _paid_test(m1: float, m2: float, t: float, win: float, lose: float, ah: float) -> float:
    u = (m1 + m2) / 4.0
    biases = u * math.cos(t), (m1 - m2) / 4.0 * math.sin(t)
    return math.fsum((win * max(u + c, 0.0)) ** ah + (lose * max(u - c, 0.0)) ** ah for c in biases)


def _filtered_test(m1: float, m2: float, t: float, win: float, lose: float, ah: float) -> float:
    m0, md, w0, wd = m1 + m2, m1 - m2, (win + lose) / 2.0, (win - lose) / 2.0
    total = 0.0
    for k, c in ((m0 / 4.0, m0 / 4.0 * math.cos(t)), (md / 4.0, md / 4.0 * math.sin(t))):
        trace = 2.0 * (m0 / 4.0 * w0 + wd * c)
        inner = trace * trace / 4.0 - (m0 * m0 / 16.0 - k * k) * (w0 * w0 - wd * wd)
        d = math.sqrt(max(inner, 0.0))
        total += (trace / 2.0 + d) ** ah + max(trace / 2.0 - d, 0.0) ** ah
    return total


def _largest(function: Callable[[float, float], float]) -> float:
    """The largest value over 0 <= q <= 1/2, 0 <= t <= pi/2: a grid, then finer ones around the best
    points of the coarse one."""
    width = (0.5, math.pi / 2.0)
    coarse = [(width[0] * i / 40, width[1] * j / 40) for i in range(41) for j in range(41)]
    starts = sorted(coarse, key=lambda at: function(*at), reverse=True)[:60:20]
    best = -math.inf
    for centre in starts:
        reach = width[0] / 20, width[1] / 20
        for _ in range(12):
            low = [max(0.0, c - r) for c, r in zip(centre, reach, strict=True)]
            high = [min(w, c + r) for c, r, w in zip(centre, reach, width, strict=True)]
            points = [
                (low[0] + (high[0] - low[0]) * i / 6, low[1] + (high[1] - low[1]) * j / 6)
                for i in range(7)
                for j in range(7)
            ]
            value, centre = max((function(*at), at) for at in points)
            best = max(best, value)
            reach = reach[0] / 3, reach[1] / 3
    return best


def renyi_bits(
    certified: Mapping[str, Any],
    rounds: int,
    tests: int,
    losses: int,
    leak: int,
    privacy: float,
    filtered: bool,
) -> int:
    """floor(F + n kappa - leak - t h(losses/t) + 2 - alpha/(alpha-1) log2(1/epsilon)), the string
    of test results free of charge in the filtered form; 0 or less: no key."""
    design = certified["design"]
    with localcontext(EXACT):
        wins, alpha = tests - losses, Decimal(design["alpha"])
        bits = wins * Decimal(design["score_win"]) + losses * Decimal(design["score_lose"])
        bits += rounds * Decimal(certified["kappa"]) - leak + 2
        bits += alpha / (alpha - 1) * _log2(Decimal(privacy))
        if not filtered:
            counts = [Decimal(count) for count in (wins, losses) if count]
            bits -= sum((count * _log2(tests / count) for count in counts), Decimal(0))
        return min(math.floor(bits), rounds)


# --- entropy accumulation, eq. 73 -----------------------------------------------------------------


def losses_max(rounds: int, test_probability: float, threshold: float) -> int:
    """floor(n gamma (1 - w_thr)): more lost tests than this, and there is no key."""
    return math.floor(rounds * Fraction(test_probability) * (1 - Fraction(threshold)))


def errors_left(epsilon: float, hashes: float, privacy: float) -> tuple[float, float]:
    """eps_EA and eps_s: the theorem takes a maximum, so that both may have all that is left."""
    with localcontext(EXACT):
        accumulation = Decimal(epsilon) - Decimal(hashes)
        return float(accumulation), float((accumulation - Decimal(privacy)) / 2)


def eat_bits(
    design: Mapping[str, Any], rounds: int, leak: int, epsilon: float, hashes: float
) -> int:
    """The key's length at the receipt's free parameters; ValueError if they are not allowed."""
    choice = {name: Decimal(value) for name, value in design["choice"].items()}
    t, privacy = choice["tangent"], choice["privacy_error"]
    first, second = choice["smoothing_prime"], choice["smoothing_double_prime"]
    with localcontext(EXACT):
        prime, double_prime = choice["alpha_prime"] - 1, choice["alpha_double_prime"] - 1
        accumulation = Decimal(epsilon) - Decimal(hashes)
        left = (accumulation - privacy) / 2 - first - 2 * second
        highest = (2 + Decimal(2).sqrt()) / 4
        if not (Decimal("0.75") < t < highest and 0 < prime < 1 and left > 0):
            raise ValueError("the free parameters are outside what the theorem allows")
        if not (0 < double_prime < 1 / _log2(Decimal(5)) and min(first, second, privacy) > 0):
            raise ValueError("the free parameters are outside what the theorem allows")
        gamma, slope = Decimal(design["test_probability"]), _eta_slope(t)
        if not (0 < gamma < 1 and 0 <= Decimal(design["threshold"]) <= highest + Decimal("1e-12")):
            raise ValueError("no device wins as often as the threshold demands")
        rare = -_log2(accumulation)
        each = slope * Decimal(design["threshold"]) + _least(slope, gamma, prime)
        each -= prime**2 * _third(slope, prime) + gamma + double_prime * _log2(Decimal(5)) ** 2
        entropy = rounds * each
        entropy -= (_theta(first) + (1 + prime) * rare) / prime
        entropy -= (_theta(second) + (1 + double_prime) * rare) / double_prime
        entropy -= 3 * _theta(left)
        bits = entropy - leak + 2 * _log2(privacy) - Decimal("1e-9")
        return max(0, min(math.floor(bits), rounds))


def _least(slope: Decimal, gamma: Decimal, prime: Decimal) -> Decimal:
    """min over w of eta(w) - slope w - (a'-1) V(w), a convex function, by narrowing in thirds."""
    low, high = (2 - Decimal(2).sqrt()) / 4, (2 + Decimal(2).sqrt()) / 4

    def score(w: Decimal) -> Decimal:
        variance = slope**2 * (1 - w) * (1 / gamma - 1 + w)
        spread = _log2(Decimal(33)) + (2 + variance).sqrt()
        return _eta(w) - slope * w - prime * Decimal(2).ln() / 2 * spread**2

    with localcontext() as context:
        context.prec = 36
        for _ in range(85):  # 15 digits of w: at a minimum the score's error goes as its square
            a, b = low + (high - low) / 3, high - (high - low) / 3
            if score(a) < score(b):
                high = b
            else:
                low = a
    return score((low + high) / 2)


def _third(slope: Decimal, prime: Decimal) -> Decimal:
    """K, with e = 2 + slope (1 - w_min)."""
    e, ln2 = 2 + slope * (2 + Decimal(2).sqrt()) / 4, Decimal(2).ln()
    grown = ((e * ln2).exp() + Decimal(2).exp()).ln()
    return (prime * e * ln2).exp() * grown**3 / (6 * (1 - prime) ** 3 * ln2)


def _eta(w: Decimal) -> Decimal:
    """1 - h((1 + x)/2), x = sqrt(16 w (w - 1) + 3); 0 below 3/4."""
    if w <= Decimal("0.75"):
        return Decimal(0)
    x = (16 * w * (w - 1) + 3).sqrt()
    halves = [(1 + x) / 2, (1 - x) / 2]
    return 1 + sum((half * _log2(half) for half in halves if half > 0), Decimal(0))


def _eta_slope(w: Decimal) -> Decimal:
    x = (16 * w * (w - 1) + 3).sqrt()
    return 4 * (2 * w - 1) * _log2((1 + x) / (1 - x)) / x


def _theta(error: Decimal) -> Decimal:
    """-log2(1 - sqrt(1 - x^2)), where 1 - sqrt(1 - x^2) = x^2 / (1 + sqrt(1 - x^2))."""
    return -_log2(error**2 / (1 + (1 - error**2).sqrt()))


def _log2(x: Decimal) -> Decimal:
    return x.ln() / Decimal(2).ln()
