"""Key rate of a device-independent run that never ends: what a link's S and QBER are worth.

A figure for comparing links, never a claim about a session: a session's key is what a finite-size
bound leaves of it (see `entropy`), which may be nothing where this rate is well above zero.
"""

import math

from bellhop.stack.diqkd.bounds.chsh import S_MAX, binary_entropy, entropy_rate, winning_probability


def asymptotic_key_rate(s: float, qber: float) -> float:
    """Secret bits a heralded pair, r(S, Q) = 1 - h((1 + sqrt(S^2/4 - 1))/2) - h(Q).

    The limit of infinitely many rounds of one-way distillation from the CHSH value `s` and the key
    setting's error rate `qber`, when error correction leaks Shannon's least and next to no rounds
    are tests; no noisy preprocessing.  S. Pironio et al., New J. Phys. 11, 045021 (2009),
    against collective attacks; entropy accumulation extends it to general ones (R. Arnon-Friedman
    et al., Nat. Commun. 9, 459 (2018)).  Below zero no key can be had this way: the deficit is
    shown.  Raises ValueError unless 0 <= qber <= 1.
    """
    return entropy_rate(winning_probability(s)) - binary_entropy(qber)


def asymptotic_key_rate_error(s: float, s_error: float, qber: float, qber_error: float) -> float:
    """Standard error of the rate from those of S and QBER, which are independent.

    Half the difference between one standard error more and one less, of either: unlike the
    derivative this stays finite at Q = 0 and at the quantum maximum.
    """
    least, most = max(0.0, qber - qber_error), min(1.0, qber + qber_error)
    by_s = asymptotic_key_rate(min(S_MAX, s + s_error), qber)
    by_s -= asymptotic_key_rate(s - s_error, qber)
    by_qber = binary_entropy(most) - binary_entropy(least)
    return math.hypot(by_s, by_qber) / 2.0
