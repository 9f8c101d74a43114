"""What other designs and other bounds would make of a planned run: figures to set beside it.

For people who choose, never for a session: designs are searched for and not certified, and rates
without end are the limit of what no run reaches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate, best_flip_probability
from bellhop.stack.diqkd.bounds.chsh import threshold_probability, winning_probability
from bellhop.stack.diqkd.bounds.design import FILTERED, CertifiedDesign
from bellhop.stack.diqkd.bounds.eat import evaluate
from bellhop.stack.diqkd.bounds.eat_choice import optimise as best_choice
from bellhop.stack.diqkd.bounds.expected import KAPPA
from bellhop.stack.diqkd.bounds.optimise import optimise
from bellhop.stack.diqkd.code import expected_leak_bits
from bellhop.stack.diqkd.parameters import problem_of
from bellhop.stack.diqkd.plan import PlannedSession, announced_bits, planned, shannon_bits

EAT_TESTS = tuple(Fraction(number, 256) for number in (8, 13, 20, 28))
"""Test probabilities that are tried; the experiment's own is among them."""

DEVIATIONS = 3.0
"""By which a fixed threshold lies below what is expected, as in the experiment."""

UNCERTIFIED = "searched, not certified"


@dataclass(frozen=True, slots=True)
class EatPlan:
    """A run by the theorem of fixed length and threshold; at most 0 bits if it has no key."""

    test_probability: Fraction
    threshold_s: float
    key_bits: int


def eat_plan(
    rounds: int,
    s: float,
    qber: float,
    epsilon: float,
    tests: Sequence[Fraction] = EAT_TESTS,
) -> EatPlan:
    """The best of a few test probabilities, at the leak that our own codes are expected to have.

    The same epsilon, 2-universal hashing, the threshold `DEVIATIONS` below `s`.
    """
    plans = [_eat_plan(rounds, s, qber, epsilon, one) for one in tests]
    return max(plans, key=lambda one: one.key_bits)


def _eat_plan(rounds: int, s: float, qber: float, epsilon: float, tests: Fraction) -> EatPlan:
    classes = ((1.0 - float(tests), qber), (float(tests), 1.0 - winning_probability(s)))
    leak = round(expected_leak_bits(rounds, classes) + announced_bits(rounds))
    threshold = threshold_probability(rounds, tests, s, DEVIATIONS)
    problem = problem_of(rounds, tests, threshold, leak, epsilon)
    key = evaluate(problem, best_choice(problem)).key_bits
    return EatPlan(tests, 8.0 * threshold - 4.0, key)


def optimum(session: PlannedSession, bound: str | None = None) -> PlannedSession:
    """The same run with the best design that a search finds: its kappa is not certified.

    About a second.  `bound`: another than the session's own.
    """
    name = session.certified.bound if bound is None else bound
    efficiency = session.syndrome_bits / shannon_bits(session.rounds, session.classes)
    privacy = session.bound.epsilon_privacy
    design = optimise(name, session.rounds, session.s, session.qber, efficiency, privacy)
    made_for = (session.rounds, session.s, session.qber)
    kappa = KAPPA[name](design, True)
    found = CertifiedDesign(UNCERTIFIED, name, design, True, kappa, made_for)
    return planned(found, session.rounds, session.s, session.qber, session.epsilon)


def filtered(session: PlannedSession) -> PlannedSession:
    """The same run by the tighter bound that no referee has read."""
    return optimum(session, FILTERED)


def endless_rate(s: float, qber: float) -> float:
    """Secret bits a round of a run without end, with the best noisy preprocessing; 0 if none."""
    return max(0.0, asymptotic_key_rate(s, qber, best_flip_probability(s, qber)))
