"""Random key basis: Alice draws which of her two settings makes a key bit.  For plans only.

R. Schwonnek et al., Nat. Commun. 12, 2880 (2021), arXiv:2005.02691.  Bob has a matching setting for
each; rounds whose settings do not match are lost.  Eve then has to know both of Alice's outcomes,
which costs her more of a violation.  Asymptotic: no finite-size theorem here covers it, so no
session uses it.
"""

from bellhop.stack.diqkd.bounds.asymptotic import conjugate_entropy, flipped, lower_hull
from bellhop.stack.diqkd.bounds.chsh import S_MAX, binary_entropy

REFUSAL = "no finite-size theorem covers a random key basis: it is for plans only"
"""What a session says that is asked for it."""


def random_basis_entropy(s: float, flip_probability: float = 0.0) -> float:
    """C(S), the least [H(A0'|E) + H(A1'|E)]/2 of any devices with this CHSH value.

    The lower hull of a deterministic strategy, with h(p) at S = 2, and the curve of
    `conjugate_entropy` at x = S/(2 sqrt 2), that the singlet with independent bit and phase flips
    attains when Alice's observables are orthogonal: a straight line up to S = 2.773 or so.
    That nothing lies below is found by global searches over two-qubit strategies, not proved here.
    """

    def curve(value: float) -> float:
        return conjugate_entropy(min(1.0, value / S_MAX), flip_probability)

    return lower_hull(curve, (2.0, binary_entropy(flip_probability)), s, S_MAX)


def random_basis_key_rate(
    s: float, qber: float, sifted: float = 0.5, flip_probability: float = 0.0
) -> float:
    """Secret bits a pair: s (C(S) - h(Q + p - 2 p Q)), of which `sifted` have matching settings.

    1/2 if both settings are equally likely; p0^2 + p1^2 in general, with the entropies weighted
    alike.  Below zero there is no key.
    """
    entropy = random_basis_entropy(s, flip_probability)
    return sifted * (entropy - binary_entropy(flipped(qber, flip_probability)))
