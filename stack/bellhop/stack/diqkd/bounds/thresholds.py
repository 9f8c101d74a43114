"""The error rate at which each protocol's asymptotic key ends, on a singlet with white noise.

S = 2 sqrt(2) (1 - 2 Q).  The yardstick by which protocols are compared; see `asymptotic` for what
an asymptotic rate is not.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bellhop.stack.diqkd.bounds.asymmetric import best_weight, depolarised_key_rate
from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate, best_flip
from bellhop.stack.diqkd.bounds.chsh import S_MAX
from bellhop.stack.diqkd.bounds.key_basis import random_basis_key_rate

FLIP_MAX = 0.499
"""Where a key ends the best flip probability may tend to 1/2, and both terms of the rate to 1.
Here their difference is still known to many digits, and the end moves by less than 1e-6."""


@dataclass(frozen=True, slots=True)
class Threshold:
    protocol: str
    noisy: bool
    critical_qber: float
    published_qber: float
    source: str


def _chsh(qber: float, p: float) -> float:
    return asymptotic_key_rate(S_MAX * (1.0 - 2.0 * qber), qber, p)


def _asymmetric(qber: float, p: float) -> float:
    return depolarised_key_rate(qber, best_weight(qber, p), p)


def _random_basis(qber: float, p: float) -> float:
    return random_basis_key_rate(S_MAX * (1.0 - 2.0 * qber), qber, flip_probability=p)


_PROTOCOLS: tuple[tuple[str, Callable[[float, float], float], tuple[tuple[float, str], ...]], ...]
_PROTOCOLS = (
    (
        "CHSH",
        _chsh,
        ((0.0715, "Phys. Rev. Lett. 98, 230501 (2007)"), (0.0808, "arXiv:2005.13015")),
    ),
    (
        "asymmetric CHSH",
        _asymmetric,
        ((0.0742, "arXiv:2007.16146"), (0.0834, "arXiv:2007.16146")),
    ),
    (
        "random key basis",
        _random_basis,
        ((0.082, "arXiv:2005.02691, a lower bound"), (0.0933, "arXiv:2012.08714")),
    ),
)


def thresholds() -> tuple[Threshold, ...]:
    """Each protocol without and with noisy preprocessing.  About two seconds."""
    found = []
    for protocol, rate, published in _PROTOCOLS:
        for noisy, (qber, source) in enumerate(published):
            critical = critical_qber(rate, bool(noisy))
            found.append(Threshold(protocol, bool(noisy), critical, qber, source))
    return tuple(found)


def critical_qber(rate: Callable[[float, float], float], noisy: bool) -> float:
    """Where rate(Q, p), falling in Q, reaches zero: at p = 0 or at the best p; to 2e-6."""
    low, high = 0.05, 0.12
    while high - low > 2e-6:
        qber = (low + high) / 2.0

        def of_flip(p: float, qber: float = qber) -> float:
            return rate(qber, p)

        p = best_flip(of_flip, FLIP_MAX) if noisy else 0.0
        low, high = (qber, high) if of_flip(p) > 0.0 else (low, qber)
    return low
