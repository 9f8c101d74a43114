"""A plan as a document: what is expected of a link, the session for it, and what stands beside it.

Loaded by commands alone; everything in it is computed by `stack.diqkd.plan` and its neighbours.
"""

from dataclasses import asdict, dataclass
from typing import Any

from bellhop.hal.experiment import Experiment
from bellhop.hal.operations import BLOCK_ROUNDS_MAX, Side
from bellhop.hal.preset import Preset
from bellhop.stack.diqkd.beside import DEVIATIONS, eat_plan, endless_rate, optimum
from bellhop.stack.diqkd.bounds.asymptotic import best_flip_probability
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED
from bellhop.stack.diqkd.bounds.key_basis import REFUSAL, random_basis_key_rate
from bellhop.stack.diqkd.chances import losses_most, no_key_probability, s_least
from bellhop.stack.diqkd.code import design_code
from bellhop.stack.diqkd.parameters import SPENT_BITS, hash_error
from bellhop.stack.diqkd.plan import PlannedSession, shannon_bits
from bellhop.stack.diqkd.plan_search import Link, first_key

BLOCK_S = 60.0
"""What a block should take: so much of a run is lost if a node stops in the middle of one."""

RECONCILIATION_FAILURE = 1e-3
"""Share of honest blocks that are taken to be abandoned: what `bench/reconcile.py` holds codes to,
not a figure of the session's own code."""

DETECTION_LOOPHOLE = (
    "heralded by the measurement itself, which knows the setting (detection loophole): no session "
    "is run on such a link"
)


@dataclass(frozen=True, slots=True)
class ExpectedLink:
    """What a link is expected to give, and how that is known; None where it is not.

    `pairs_per_s`: heralded, all pauses counted.  `refused`: why no session is run on it.
    """

    source: str
    s: float
    qber: float
    pairs_per_s: float | None
    s_error: float | None = None
    qber_error: float | None = None
    refused: str | None = None


def expected_of(preset: Preset) -> ExpectedLink:
    """The exact figures of an emulated link; drift, if it has any, is left out."""
    experiment = Experiment(preset)
    return ExpectedLink(
        source=f"preset {preset.name}, exact",
        s=experiment.chsh(),
        qber=experiment.qber(),
        pairs_per_s=experiment.pairs_per_s_with_pauses,
        refused=None if all(map(experiment.has_memory, Side)) else DETECTION_LOOPHOLE,
    )


def plan_document(link: ExpectedLink, session: PlannedSession, sessions: int) -> dict[str, Any]:
    """Everything that `bellhop diqkd plan` says, in plain values.

    Takes seconds: designs are searched for beside the certified one.
    """
    rounds, rate = session.rounds, link.pairs_per_s
    no_key = no_key_probability(session)
    searched = {name: _searched(session, name) for name in {session.certified.bound, FILTERED}}
    return {
        "link": asdict(link),
        "rounds": rounds,
        "sessions": sessions,
        "seconds": None if rate is None else sessions * rounds / rate,
        "bound": session.certified.bound,
        "theorem": session.bound.theorem,
        "refereed": session.bound.refereed,
        "key_bits": max(0, session.key_bits),
        "net_bits": session.net_bits if session.keyed else 0,
        "key_bits_per_round": max(0, session.key_bits) / rounds,
        "net_bits_per_s": _per_s(session, rate),
        "spent_bits": SPENT_BITS,
        "design": _design(session),
        "code": _code(session),
        "epsilon": {
            "soundness": session.epsilon,
            "privacy": session.bound.epsilon_privacy,
            "hashes": hash_error(rounds),
        },
        "acceptance": {
            "tests_expected": session.tests,
            "losses_expected": session.losses,
            "losses_most": losses_most(session),
            "s_least": s_least(session),
        },
        "completeness": {
            "error": min(1.0, no_key + RECONCILIATION_FAILURE),
            "no_key_probability": no_key,
            "reconciliation_failure_taken": RECONCILIATION_FAILURE,
        },
        "first_key": _first_key(link, session),
        "block": block(rate),
        "configuration": _configuration(session, block(rate)["block_rounds"]),
        "loses": _loses(session, searched[session.certified.bound]),
        "beside": _beside(session, searched[FILTERED]),
        "assumptions": list(session.bound.assumptions),
    }


def block(pairs_per_s: float | None, held_max: int = BLOCK_ROUNDS_MAX) -> dict[str, Any]:
    """Rounds of a block, and what they take."""
    most = min(4096, held_max)
    if pairs_per_s is None:
        return {"block_rounds": most, "seconds": None}
    rounds = min(max(1, int(BLOCK_S * pairs_per_s)), most)
    return {"block_rounds": rounds, "seconds": rounds / pairs_per_s}


def _configuration(session: PlannedSession, block_rounds: int) -> dict[str, Any]:
    """The section [diqkd] of both nodes' files that plans this session."""
    return {
        "bound": session.certified.bound,
        "rounds": session.rounds,
        "s_design": round(session.s, 5),
        "qber_design": round(session.qber, 6),
        "epsilon": session.epsilon,
        "block_rounds": min(block_rounds, session.rounds),
    }


def _per_s(session: PlannedSession, pairs_per_s: float | None) -> float | None:
    if pairs_per_s is None:
        return None
    return pairs_per_s * session.net_bits / session.rounds if session.keyed else 0.0


def _design(session: PlannedSession) -> dict[str, Any]:
    certified = session.certified
    return {
        "name": certified.name,
        **asdict(certified.design),
        "kappa": certified.kappa,
        "adaptive": certified.adaptive,
        "made_for": list(certified.made_for),
    }


def _code(session: PlannedSession) -> dict[str, Any]:
    """Of another seed the bits are the same.  `none`: why there is no such code, or None."""
    classes = session.classes
    limit = shannon_bits(session.rounds, classes)
    document = {
        "none": None,
        "error_probabilities": [error for _, error in classes],
        "expected_bits": session.syndrome_bits,
        "expected_over_shannon": session.syndrome_bits / limit,
        "leak_bits": session.leak_bits,
    }
    try:
        design = design_code(session.rounds, classes, seed=0)
    except ValueError as error:
        return document | {"none": str(error)}
    return document | {
        "table": design.table,
        "syndrome_bits": design.syndrome_bits,
        "step_bits": design.step_bits if design.steps_max else 0,
        "steps_max": design.steps_max,
    }


def _first_key(link: ExpectedLink, session: PlannedSession) -> dict[str, Any] | None:
    wanted = Link(session.s, session.qber, session.certified.bound, session.epsilon)
    first = first_key(wanted)
    if first is None:
        return None
    rate = link.pairs_per_s
    return {
        "rounds": first.rounds,
        "net_bits": first.net_bits,
        "design": first.certified.name,
        "no_key_probability": no_key_probability(first),
        "seconds": None if rate is None else first.rounds / rate,
    }


def _loses(session: PlannedSession, best: dict[str, Any] | None) -> dict[str, Any]:
    """Bits a round, to the best design that a search finds and to a run without end."""
    own = session.key_bits / session.rounds
    rate = endless_rate(session.s, session.qber)
    return {
        "to_the_optimum_design": None if best is None else best["key_bits_per_round"] - own,
        "to_a_run_without_end": rate - own,
        "run_without_end": rate,
        "its_flip_probability": best_flip_probability(session.s, session.qber),
        "optimum": best,
    }


def _beside(session: PlannedSession, filtered: dict[str, Any] | None) -> dict[str, Any]:
    """The same run by other bounds, and what sessions do not offer."""
    rounds, s, qber = session.rounds, session.s, session.qber
    eat = eat_plan(rounds, s, qber, session.epsilon)
    return {
        EAT: {
            "key_bits": max(0, eat.key_bits),
            "key_bits_per_round": max(0, eat.key_bits) / rounds,
            "test_probability": str(eat.test_probability),
            "threshold_s": eat.threshold_s,
            "deviations": DEVIATIONS,
            "refereed": True,
        },
        FILTERED: filtered,
        "random-key-basis": {
            "key_bits_per_round_without_end": max(0.0, random_basis_key_rate(s, qber)),
            "sessions": REFUSAL,
        },
    }


def _searched(session: PlannedSession, bound: str) -> dict[str, Any] | None:
    """None where not even a run without end has a key: there is nothing to search for."""
    if endless_rate(session.s, session.qber) <= 0.0:
        return None
    found = optimum(session, bound)
    return {
        "key_bits": max(0, found.key_bits),
        "key_bits_per_round": max(0, found.key_bits) / found.rounds,
        **asdict(found.certified.design),
        "kappa": found.certified.kappa,
        "certified": False,
        "refereed": found.bound.refereed,
    }
