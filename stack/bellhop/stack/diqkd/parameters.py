"""What is fixed before the first round of a session, and the sums that follow from it."""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache

from bellhop.hal.operations import LinkName, NodeName, RequestId
from bellhop.stack.diqkd.authenticate import forgery_probability
from bellhop.stack.diqkd.bounds.asymptotic import flipped
from bellhop.stack.diqkd.bounds.chsh import losses_max, winning_probability
from bellhop.stack.diqkd.bounds.design import EAT, RENYI, SCALE, CertifiedDesign
from bellhop.stack.diqkd.bounds.eat import EatChoice, EatProblem
from bellhop.stack.diqkd.bounds.library import Bound, EatBound, Shown, designed_bound
from bellhop.stack.diqkd.code import CodeDesign, expected_leak_bits
from bellhop.stack.diqkd.pool import FORGERIES_MAX
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS, undetected_error_probability
from bellhop.stack.ids import SessionId
from bellhop.stack.keys.ledger import BLOCK_BYTES_MIN, SLOT_BYTES
from bellhop.stack.messages import Stage
from bellhop.stack.strict import read_exact

PROTOCOL = "bellhop-diqkd/2"
KEY = "key"
CALIBRATION = "calibration"

ROUNDS_MAX = 4_000_000
TEST_SCALE = SCALE
"""Test and flip probabilities are multiples of one over this: drawn exactly from whole words."""

PARAMETERS_BYTES_MAX = 16_384

KEY_BITS_MIN = 8 * (BLOCK_BYTES_MIN + SLOT_BYTES)
"""A shorter key would not pay for its session's tags, its id key and one key."""

SPENT_BITS = 8 * BLOCK_BYTES_MIN
"""What a session costs: the masks of its tags, and the id key of its block."""


RANDOM_KEY_BASIS = (
    "Alice's key setting is fixed in a session: no theorem of finite size covers a random one, so"
    " it is for plans alone"
)

Classes = tuple[tuple[float, float], tuple[float, float]]
"""Share of the rounds, and error probability, of generation rounds and of test rounds."""


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """What a node proposes, and the least it agrees to.

    `test_probability` and `deviations` are for the theorem of fixed length alone.
    """

    bound: str = RENYI
    test_probability: Fraction = Fraction(13, 256)
    s_design: float = 2.67
    qber_design: float = 0.015
    deviations: float = 3.0
    epsilon: float = 1e-10
    net_bits_min: int = 0
    accept_losing_sessions: bool = False
    allow_unrefereed: bool = False
    plan_from_calibration: bool = False
    block_rounds: int = 4_096
    window: int = 3
    retry_ns: int = 2_000_000_000
    stall_ns: int = 600_000_000_000
    pause_limit_ns: int = 604_800_000_000_000
    pair_ns: int = 10_000_000_000


@dataclass(frozen=True, slots=True)
class EatDesign:
    """What the theorem of fixed length fixes: a run that loses more has no key, else this one."""

    test_probability: float
    deviations: float
    threshold: float
    choice: EatChoice
    key_bits: int

    def __post_init__(self) -> None:
        if not 0.0 < self.test_probability < 1.0:
            raise ValueError("test_probability is above 0 and below 1")


@dataclass(frozen=True, slots=True)
class Parameters:
    """A session's design, the same at both ends; its canonical bytes are in the transcript.

    `bound` names the theorem, `design` is what belongs to it.  `steps_max`: the
    steps of extra syndrome that may be asked for.  `even_at_a_loss`: it is run though it is not
    expected to gain what a node wants of a session.
    """

    protocol: str
    purpose: str
    session: SessionId
    link: LinkName
    alice: NodeName
    bob: NodeName
    pool: str
    rounds: int
    block_rounds: int
    window: int
    s_design: float
    qber_design: float
    epsilon: float
    bound: str
    design: EatDesign | CertifiedDesign
    code: CodeDesign
    steps_max: int
    even_at_a_loss: bool

    def __post_init__(self) -> None:
        design = self.design
        of = design.bound if isinstance(design, CertifiedDesign) else EAT
        if of != self.bound:
            raise ValueError(f"the design is for {of}, not for {self.bound}")

    @property
    def gamma(self) -> Fraction:
        """The test probability, exactly."""
        design = self.design
        of_a_round = design.design if isinstance(design, CertifiedDesign) else design
        return Fraction(of_a_round.test_probability)

    @property
    def flip_probability(self) -> Fraction:
        """With which Alice flips a key bit before it is used, exactly."""
        design = self.design
        if isinstance(design, EatDesign):
            return Fraction(0)
        return Fraction(design.design.flip_probability)

    @property
    def error_rate(self) -> float:
        """Expected share of unequal key bits, once Alice has flipped hers."""
        return flipped(self.qber_design, float(self.flip_probability))

    @property
    def request(self) -> RequestId:
        return RequestId(self.session)

    @property
    def losses_max(self) -> int | None:
        """Most lost tests with which the run is accepted, if that was fixed beforehand."""
        design = self.design
        if isinstance(design, CertifiedDesign):
            return None
        return losses_max(self.rounds, self.gamma, design.threshold)

    @property
    def count_bits(self) -> int:
        return count_bits(self.rounds)

    def leak_bits(self, steps: int) -> int:
        """All that is said about Alice's string: syndrome with these extra steps, the requests for
        them (for each possible one a bit), verification tag, exact counts."""
        syndrome = self.code.leak_bits(steps) + self.steps_max
        return syndrome + VERIFICATION_TAG_BITS + self.count_bits

    @property
    def leak_bits_max(self) -> int:
        return self.leak_bits(self.steps_max)

    def encode(self) -> bytes:
        """Canonical JSON: what is proposed, tagged and stored."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


def count_bits(rounds: int) -> int:
    """What publishing the exact counts of losses and errors costs: log2 of their ranges, each from
    0 to `rounds`, rounded up."""
    return 2 * rounds.bit_length()


def hash_error(rounds: int) -> float:
    """Undetected errors and forged tags together: no two strings differ but by this chance."""
    return undetected_error_probability(rounds) + forgery_error(rounds)


def forgery_error(rounds: int) -> float:
    """All wrong tags that are ever looked at under the pool's hash key count in every session."""
    return (len(Stage) + FORGERIES_MAX) * forgery_probability(tagged_bytes_max(rounds))


def tagged_bytes_max(rounds: int) -> int:
    """Each of the eight tags covers at most a Toeplitz seed of twice `rounds` bits."""
    return rounds // 4 + PARAMETERS_BYTES_MAX


def problem_of(
    rounds: int, gamma: Fraction, threshold: float, leak_bits: int, epsilon: float
) -> EatProblem:
    """The question of the theorem of fixed length in the form our sessions use."""
    return EatProblem(
        rounds, gamma, threshold, leak_bits, epsilon, "two-universal", hash_error(rounds)
    )


def bound_of(parameters: Parameters) -> Bound:
    """The theorem with all that it needs to know before the first round.

    ValueError if it does not allow these parameters.
    """
    p, design = parameters, parameters.design
    if isinstance(design, EatDesign):
        problem = problem_of(p.rounds, p.gamma, design.threshold, p.leak_bits_max, p.epsilon)
        return EatBound(problem, design.choice)
    return designed_bound(design, p.epsilon - hash_error(p.rounds))


def key_bits_of(parameters: Parameters, tests: int, losses: int, steps: int) -> int:
    """The key's length by what the run has shown; both ends find the same.  0 or less: none."""
    shown = Shown(parameters.rounds, tests, losses, parameters.leak_bits(steps))
    return bound_of(parameters).key_bits(shown)


@lru_cache(maxsize=16)
def expected_key_bits(parameters: Parameters) -> int:
    """The key that a run as good as the design's figures ends in; 0 or less: none."""
    p, lost = parameters, float(parameters.gamma) * (1 - winning_probability(parameters.s_design))
    losses = round(p.rounds * lost)
    if p.losses_max is not None:
        losses = min(losses, p.losses_max)
    classes = classes_of(p.gamma, p.s_design, p.error_rate)
    syndrome = min(expected_leak_bits(p.rounds, classes), float(p.code.leak_bits(p.steps_max)))
    said = syndrome + p.leak_bits(0) - p.code.leak_bits(0)
    return bound_of(p).key_bits(Shown(p.rounds, round(p.rounds * p.gamma), losses, said))


def classes_of(gamma: Fraction, s: float, error_rate: float) -> Classes:
    """Share and error rate of generation and of test rounds, for the code of both in one block."""
    test = float(gamma)
    return (1 - test, error_rate), (test, 1 - winning_probability(s))


def decoder_priors(parameters: Parameters) -> tuple[float, float]:
    """Error probabilities the decoder assumes: those of the design, in key and in test rounds."""
    return parameters.error_rate, 1 - winning_probability(parameters.s_design)


def decode_parameters(encoded: bytes) -> Parameters:
    """Parameters a peer proposes; ValueError says what is malformed."""
    if len(encoded) > PARAMETERS_BYTES_MAX:
        raise ValueError("the proposal is too long")
    try:
        parameters = read_exact(Parameters, json.loads(encoded))
    except (ValueError, RecursionError):
        raise ValueError("the proposal is not understood") from None
    if parameters.encode() != encoded:
        raise ValueError("the proposal is not canonical")
    return parameters
