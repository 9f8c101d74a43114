"""What makes a node agree to a session: everything is computed again, nothing is believed."""

from bellhop.hal.operations import BLOCK_ROUNDS_MAX
from bellhop.stack.diqkd.bounds.chsh import threshold_probability
from bellhop.stack.diqkd.bounds.design import FILTERED, CertifiedDesign
from bellhop.stack.diqkd.bounds.eat import objection as eat_choice_objection
from bellhop.stack.diqkd.bounds.library import THEOREMS
from bellhop.stack.diqkd.code import design_code
from bellhop.stack.diqkd.parameters import (
    KEY,
    KEY_BITS_MIN,
    PROTOCOL,
    ROUNDS_MAX,
    SPENT_BITS,
    TEST_SCALE,
    EatDesign,
    Parameters,
    SessionPolicy,
    classes_of,
    expected_key_bits,
    hash_error,
    key_bits_of,
    problem_of,
)

QBER_MIN = 1e-6
"""No design promises fewer errors; far below, the arithmetic of its code would overflow."""

Check = tuple[bool, str]


def objections(parameters: Parameters, policy: SessionPolicy) -> str | None:
    """Why a node with this policy does not agree, or None.  Costs a few milliseconds."""
    p = parameters
    for holds, objection in (*_what_is_spoken(p, policy), *_ranges(p, policy)):
        if not holds:
            return objection
    if why := _code_objection(p):
        return why
    design = p.design
    why = _eat_objection(p, design) if isinstance(design, EatDesign) else _certified(p, design)
    return why or _gain_objection(p, policy)


def _what_is_spoken(p: Parameters, policy: SessionPolicy) -> tuple[Check, ...]:
    return (
        (p.protocol == PROTOCOL, f"only {PROTOCOL} is spoken here"),
        (p.purpose == KEY, f"sessions for {p.purpose[:32]} are not run here"),
        (p.bound in THEOREMS, f"the bound {p.bound[:64]} is not known here"),
        (
            p.bound != FILTERED or policy.allow_unrefereed,
            f"no referee has read {FILTERED}: diqkd.allow_unrefereed is false here",
        ),
    )


def _ranges(p: Parameters, policy: SessionPolicy) -> tuple[Check, ...]:
    gamma, flips, rounds = p.gamma, p.flip_probability, max(0, min(p.rounds, ROUNDS_MAX))
    return (
        (0 < p.rounds <= ROUNDS_MAX, f"a session has at most {ROUNDS_MAX} rounds"),
        *block_checks(p),
        (TEST_SCALE % gamma.denominator == 0, "the test probability is no multiple of 2**-16"),
        (TEST_SCALE % flips.denominator == 0, "the flip probability is no multiple of 2**-16"),
        (
            2 < p.s_design <= 2.8284272,
            "S of the design lies outside (2, 2.83): no key comes of it; realign the link,"
            " calibrate it, plan with what it shows",
        ),
        (0 < p.epsilon <= policy.epsilon, f"epsilon is above {policy.epsilon:g}, the most here"),
        (p.epsilon > hash_error(rounds), "epsilon is below that of the tags"),
        (
            QBER_MIN <= p.qber_design < 0.5,
            f"the design's error rate lies outside [{QBER_MIN}, 0.5): plan with what the link has",
        ),
        (0 <= p.code.seed < 1 << 32, "the code's seed is no 32-bit number"),
    )


def block_checks(p: Parameters) -> tuple[Check, ...]:
    """How rounds are measured, whatever they are for."""
    return (
        (0 < p.block_rounds <= BLOCK_ROUNDS_MAX, f"a block has at most {BLOCK_ROUNDS_MAX} rounds"),
        (0 < p.window <= 16, "the window is 1 to 16 blocks"),
    )


def _code_objection(p: Parameters) -> str | None:
    try:
        classes = classes_of(p.gamma, p.s_design, p.error_rate)
        code = design_code(p.rounds, classes, p.code.seed)
    except ValueError as error:
        return str(error)
    if p.code != code:
        return "the code does not follow from the design"
    if not 0 <= p.steps_max <= code.steps_max:
        return f"the code has {code.steps_max} steps of extra syndrome"
    if p.leak_bits_max >= p.rounds:
        return "the syndrome is no shorter than the string: take more rounds"
    return None


def _eat_objection(p: Parameters, design: EatDesign) -> str | None:
    if not 1 <= design.deviations <= 10:
        return "the margin of the threshold lies outside 1 to 10 deviations"
    if design.threshold != threshold_probability(p.rounds, p.gamma, p.s_design, design.deviations):
        return "the threshold does not follow from the design"
    try:
        problem = problem_of(p.rounds, p.gamma, design.threshold, p.leak_bits_max, p.epsilon)
    except ValueError as error:
        return str(error)
    if why := eat_choice_objection(problem, design.choice):
        return why
    if design.key_bits != key_bits_of(p, tests=0, losses=0, steps=p.steps_max):
        return "the key length does not follow from the bound"
    if design.key_bits < KEY_BITS_MIN:
        return "no key can come of this: take more rounds, or a better link"
    return None


def _certified(p: Parameters, design: CertifiedDesign) -> str | None:
    from bellhop.stack.diqkd.bounds.designs import design_named

    try:
        known = design_named(design.name)
    except ValueError:
        return f"the design {design.name[:64]} is not shipped with this node"
    if design != known:
        return f"the design {design.name[:64]} has other figures here"
    if not design.adaptive:
        return "the design does not hold when test rounds are announced during the run"
    return None


def _gain_objection(p: Parameters, policy: SessionPolicy) -> str | None:
    """A session that is expected to net less than it should is not started unless told, at this
    node: what the proposer's operator wants is no word of ours."""
    if p.even_at_a_loss and policy.accept_losing_sessions:
        return None
    expected = expected_key_bits(p)
    least = max(KEY_BITS_MIN, SPENT_BITS + policy.net_bits_min)
    if expected >= least:
        return None
    gained = f"a key of {expected:,} bits" if expected > 0 else "no key"
    promised = f"expected {gained}, wanted at least {least:,} ({SPENT_BITS} of them are spent)"
    if p.even_at_a_loss:
        return (
            f"{promised}: --even-at-a-loss speaks for one node, the other agrees if its"
            " configuration has diqkd.accept_losing_sessions = true"
        )
    return (
        f"not started unless told: {promised}: take more rounds, a better link, or --even-at-a-loss"
    )
