"""What is fixed before the first round of a session, and what makes a node agree to it."""

import json
import math
import re
from dataclasses import asdict, dataclass
from fractions import Fraction

from bellhop.hal.operations import BLOCK_ROUNDS_MAX, LinkName, NodeName, RequestId
from bellhop.stack.diqkd.authenticate import forgery_probability
from bellhop.stack.diqkd.bounds.chsh import losses_max, threshold_probability, winning_probability
from bellhop.stack.diqkd.bounds.eat import EatChoice, EatProblem, KeyLength, evaluate, objection
from bellhop.stack.diqkd.code import CodeDesign, design_code
from bellhop.stack.diqkd.pool import FORGERIES_MAX
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS, undetected_error_probability
from bellhop.stack.ids import SessionId
from bellhop.stack.keys.ledger import BLOCK_BYTES_MIN, SLOT_BYTES
from bellhop.stack.messages import Stage

PROTOCOL = "bellhop-diqkd/1"
BOUND = "eat-2109.14600/two-universal"
ROUNDS_MAX = 4_000_000
TEST_SCALE = 1 << 16
"""Test probabilities are multiples of one over this: drawn exactly from whole words."""

PARAMETERS_BYTES_MAX = 16_384

QBER_MIN = 1e-6
"""No design promises fewer errors; far below, the arithmetic of its code would overflow."""

KEY_BITS_MIN = 8 * (BLOCK_BYTES_MIN + SLOT_BYTES)
"""A session whose key would not pay for its tags, its id key and one key is not begun."""


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """What a node proposes, and the least it agrees to."""

    test_probability: Fraction = Fraction(13, 256)
    s_design: float = 2.64
    qber_design: float = 0.018
    deviations: float = 3.0
    epsilon: float = 1e-10
    block_rounds: int = 4_096
    window: int = 3
    retry_ns: int = 2_000_000_000
    stall_ns: int = 600_000_000_000


@dataclass(frozen=True, slots=True)
class Parameters:
    """A session's design, the same at both ends; its canonical bytes are in the transcript."""

    protocol: str
    session: SessionId
    link: LinkName
    alice: NodeName
    bob: NodeName
    pool: str
    rounds: int
    block_rounds: int
    window: int
    test_probability: str
    s_design: float
    qber_design: float
    deviations: float
    threshold: float
    epsilon: float
    bound: str
    choice: EatChoice
    code: CodeDesign
    key_bits: int

    @property
    def gamma(self) -> Fraction:
        return Fraction(self.test_probability)

    @property
    def request(self) -> RequestId:
        return RequestId(self.session)

    @property
    def losses_max(self) -> int:
        return losses_max(self.rounds, self.gamma, self.threshold)

    @property
    def count_bits(self) -> int:
        """What publishing the exact counts of losses and errors costs: log2 of their ranges."""
        return 2 * math.ceil(math.log2(self.rounds + 1))

    @property
    def leak_bits(self) -> int:
        """All that is said about Alice's string: syndrome, verification tag, exact counts."""
        return self.code.syndrome_bits + VERIFICATION_TAG_BITS + self.count_bits

    def encode(self) -> bytes:
        """Canonical JSON: what is proposed, tagged and stored."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def hash_error(rounds: int) -> float:
    """Undetected errors and forged tags together: no two strings differ but by this chance.

    Each of the eight tags covers at most a Toeplitz seed of twice `rounds` bits.  All wrong tags
    that are ever looked at under the pool's hash key are counted into every session.
    """
    tries = len(Stage) + FORGERIES_MAX
    tags = tries * forgery_probability(rounds // 4 + PARAMETERS_BYTES_MAX)
    return undetected_error_probability(rounds) + tags


def problem_of(
    rounds: int, gamma: Fraction, threshold: float, leak_bits: int, epsilon: float
) -> EatProblem:
    """The bound's question in the form our sessions use."""
    return EatProblem(
        rounds, gamma, threshold, leak_bits, epsilon, "two-universal", hash_error(rounds)
    )


def decode_parameters(encoded: bytes) -> Parameters:
    """Parameters a peer proposes; ValueError says what is malformed."""
    if len(encoded) > PARAMETERS_BYTES_MAX:
        raise ValueError("the proposal is too long")
    try:
        content = json.loads(encoded)
        choice = EatChoice(**{k: _number(v) for k, v in content.pop("choice").items()})
        code = content.pop("code")
        degrees = tuple((_count(d), _count(n)) for d, n in code.pop("degrees"))
        design = CodeDesign(degrees=degrees, **code)
        parameters = Parameters(choice=choice, code=design, **content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ValueError("the proposal is not understood") from None
    if wrong := _wrong_types(parameters):
        raise ValueError(f"{wrong} of the proposal is of another type")
    if parameters.encode() != encoded:
        raise ValueError("the proposal is not canonical")
    return parameters


_FRACTION = re.compile(r"[1-9][0-9]{0,4}/[1-9][0-9]{0,4}")
_INTEGERS = ("rounds", "block_rounds", "window", "key_bits")
_NUMBERS = ("s_design", "qber_design", "deviations", "threshold", "epsilon")
_TEXTS = ("protocol", "session", "link", "alice", "bob", "pool", "test_probability", "bound")


def _wrong_types(parameters: Parameters) -> str | None:
    """The first field that is not what it should be; JSON knows no types of ours."""
    for names, kind in ((_INTEGERS, int), (_NUMBERS, float), (_TEXTS, str)):
        for name in names:
            value = getattr(parameters, name)
            if type(value) is not kind or (isinstance(value, str) and len(value) > 256):
                return name
            if isinstance(value, float) and not math.isfinite(value):
                return name
    if _FRACTION.fullmatch(parameters.test_probability) is None:
        return "test_probability"  # never parsed: a power of ten could take all memory
    code = parameters.code
    counts = (code.rounds, code.syndrome_bits, code.seed, code.lifting)
    if any(type(count) is not int for count in counts) or type(code.table) is not str:
        return "code"
    return None


def _number(value: object) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise ValueError("not a number")
    return value


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ValueError("not a count")
    return value


def objections(parameters: Parameters, policy: SessionPolicy) -> str | None:
    """Why a node with this policy does not agree, or None.  Costs a few milliseconds.

    Everything security rests on is computed here again: nothing of it is believed.
    """
    p = parameters
    gamma = p.gamma
    checks = (
        (p.protocol == PROTOCOL, f"only {PROTOCOL} is spoken here"),
        (p.bound == BOUND, f"only the bound {BOUND} is used here"),
        (0 < p.rounds <= ROUNDS_MAX, f"a session has at most {ROUNDS_MAX} rounds"),
        (0 < p.block_rounds <= BLOCK_ROUNDS_MAX, f"a block has at most {BLOCK_ROUNDS_MAX} rounds"),
        (0 < p.window <= 16, "the window is 1 to 16 blocks"),
        (p.rounds <= 4096 * p.block_rounds, "a session has at most 4096 blocks"),
        (0 < gamma < 1 and TEST_SCALE % gamma.denominator == 0, "gamma is no multiple of 2**-16"),
        (str(gamma) == p.test_probability, "gamma is not in lowest terms"),
        (2 < p.s_design <= 2.8284272, "S of the design lies outside (2, 2.83)"),
        (1 <= p.deviations <= 10, "the margin of the threshold lies outside 1 to 10 deviations"),
        (0 < p.epsilon <= policy.epsilon, f"epsilon is above {policy.epsilon:g}, the most here"),
        (
            QBER_MIN <= p.qber_design < 0.5,
            f"the design's error rate lies outside [{QBER_MIN}, 0.5)",
        ),
        (0 <= p.code.seed < 1 << 32, "the code's seed is no 32-bit number"),
    )
    for holds, why in checks:
        if not holds:
            return why
    try:
        code = code_of(p.rounds, gamma, p.s_design, p.qber_design, p.code.seed)
    except ValueError as error:
        return str(error)
    if p.code != code:
        return "the code does not follow from the design"
    if p.code.syndrome_bits >= p.rounds:
        return "the syndrome is no shorter than the string: take more rounds"
    if p.threshold != threshold_probability(p.rounds, gamma, p.s_design, p.deviations):
        return "the threshold does not follow from the design"
    return _length_objection(p)


def code_of(rounds: int, gamma: Fraction, s: float, qber: float, seed: int) -> CodeDesign:
    """The code of a design: generation and test rounds in one block, each with its error rate."""
    test = float(gamma)
    classes = ((1 - test, qber), (test, 1 - winning_probability(s)))
    return design_code(rounds, classes, seed)


def _length_objection(p: Parameters) -> str | None:
    try:
        problem = problem_of(p.rounds, p.gamma, p.threshold, p.leak_bits, p.epsilon)
    except ValueError as error:
        return str(error)
    if why := objection(problem, p.choice):
        return why
    if p.key_bits != key_length_of(p).key_bits:
        return "the key length does not follow from the bound"
    if p.key_bits < KEY_BITS_MIN:
        return "no key can come of this: take more rounds, or a better link"
    return None


def key_length_of(parameters: Parameters) -> KeyLength:
    """The bound at a session's own choice; both ends find the same."""
    p = parameters
    problem = problem_of(p.rounds, p.gamma, p.threshold, p.leak_bits, p.epsilon)
    return evaluate(problem, p.choice)
