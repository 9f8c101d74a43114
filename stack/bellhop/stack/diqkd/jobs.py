"""The heavy arithmetic of a session, as jobs for a worker process.

What they import (compiled kernels, transforms) is loaded where they run, never in the daemon.
"""

import functools
import math
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bellhop.hal.operations import LinkName, NodeName
from bellhop.stack.codec import pack, unpack
from bellhop.stack.diqkd.bounds.asymptotic import flipped
from bellhop.stack.diqkd.bounds.chsh import threshold_probability
from bellhop.stack.diqkd.bounds.design import EAT, CertifiedDesign
from bellhop.stack.diqkd.bounds.eat import EatChoice, EatProblem
from bellhop.stack.diqkd.code import (
    Code,
    CodeDesign,
    build_code,
    design_code,
    expected_leak_bits,
    mean_dispersion,
)
from bellhop.stack.diqkd.parameters import (
    KEY,
    PROTOCOL,
    Classes,
    EatDesign,
    Parameters,
    SessionPolicy,
    classes_of,
    expected_key_bits,
    problem_of,
)
from bellhop.stack.diqkd.plan import plan
from bellhop.stack.ids import SessionId

Bits = NDArray[np.uint8]

TOO_MANY_ERRORS = (
    "there are more errors than the code of this design corrects: calibrate the link, and plan with"
    " the error rate that it shows"
)

STEPS_MARGIN = 1.01
STEPS_DEVIATIONS = 3.0
"""By the theorem of fixed length a session pays beforehand for so much more syndrome than is
expected, and for so many standard deviations of what its errors need."""


@functools.lru_cache(maxsize=8)
def _code(design: CodeDesign) -> Code:
    """Sessions with several peers take turns at one worker.

    A code of 1.2e6 bits takes half a second to build, and its matrix 300 kB to keep.
    """
    return build_code(design)


@functools.lru_cache(maxsize=8)
def _choice(problem: EatProblem) -> EatChoice:
    """Sessions of one design ask the same question again and again.

    A flat optimum found in floating point differs from one mathematical library to the next; what
    is left of it here does not, costs a bit or two of key, and is as admissible (errors are cut).
    """
    from bellhop.stack.diqkd.bounds.eat_choice import optimise

    best = optimise(problem)
    return EatChoice(
        tangent=max(math.floor(best.tangent * 1e6), 750_001) / 1e6,
        alpha_prime=1.0 + float(f"{best.alpha_prime - 1.0:.3e}"),
        alpha_double_prime=1.0 + float(f"{best.alpha_double_prime - 1.0:.3e}"),
        smoothing_prime=_cut(best.smoothing_prime),
        smoothing_double_prime=_cut(best.smoothing_double_prime),
        privacy_error=_cut(best.privacy_error),
    )


def _cut(error: float) -> float:
    """Three digits of an error, and never more than it."""
    return float(f"{0.9994 * error:.3e}")


@dataclass(frozen=True, slots=True)
class Plan:
    """Choose everything that is fixed before a session: threshold, code, bound, key length."""

    session: SessionId
    link: LinkName
    alice: NodeName
    bob: NodeName
    pool: str
    rounds: int
    seed: int
    policy: SessionPolicy
    even_at_a_loss: bool = False

    @property
    def name(self) -> str:
        return "plan"

    def run(self) -> Parameters | str:
        """The parameters, or why there are none."""
        try:
            return self._by_eat() if self.policy.bound == EAT else self._by_design()
        except ValueError as error:
            return str(error)

    def _by_design(self) -> Parameters | str:
        """The shipped design that promises most, whatever that is, and the code for it."""
        policy = self.policy
        planned = plan(
            self.rounds,
            policy.s_design,
            policy.qber_design,
            bound=policy.bound,
            epsilon=policy.epsilon,
        )
        if isinstance(planned, str):
            return planned
        best = planned.certified
        of_a_round = best.design
        errors = flipped(policy.qber_design, of_a_round.flip_probability)
        gamma = Fraction(of_a_round.test_probability)
        classes = classes_of(gamma, policy.s_design, errors)
        code = design_code(self.rounds, classes, self.seed)
        return self._draft(policy.bound, best, code, code.steps_max)

    def _by_eat(self) -> Parameters:
        """Threshold and key length are fixed now, with the choice that is best for them."""
        policy = self.policy
        gamma = policy.test_probability
        threshold = threshold_probability(self.rounds, gamma, policy.s_design, policy.deviations)
        classes = classes_of(gamma, policy.s_design, policy.qber_design)
        code = design_code(self.rounds, classes, self.seed)
        # The leak is the parameters' own sum; the choice that is best for it comes after.
        guess = problem_of(self.rounds, gamma, threshold, code.syndrome_bits, policy.epsilon)
        design = EatDesign(float(gamma), policy.deviations, threshold, _choice(guess), 0)
        draft = self._draft(EAT, design, code, _steps_paid(code, self.rounds, classes))
        return replace(draft, design=replace(design, key_bits=expected_key_bits(draft)))

    def _draft(
        self, bound: str, design: EatDesign | CertifiedDesign, code: CodeDesign, steps: int
    ) -> Parameters:
        policy = self.policy
        return Parameters(
            protocol=PROTOCOL,
            purpose=KEY,
            session=self.session,
            link=self.link,
            alice=self.alice,
            bob=self.bob,
            pool=self.pool,
            rounds=self.rounds,
            block_rounds=policy.block_rounds,
            window=policy.window,
            s_design=policy.s_design,
            qber_design=policy.qber_design,
            epsilon=policy.epsilon,
            bound=bound,
            design=design,
            code=code,
            steps_max=steps,
            even_at_a_loss=self.even_at_a_loss,
        )


def _steps_paid(code: CodeDesign, rounds: int, classes: Classes) -> int:
    """Steps of extra syndrome that a key of fixed length pays for whether it needs them or not."""
    spread = math.sqrt(rounds * mean_dispersion(classes))
    enough = STEPS_MARGIN * expected_leak_bits(rounds, classes) + STEPS_DEVIATIONS * spread
    return next((k for k in range(code.steps_max) if code.leak_bits(k) >= enough), code.steps_max)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Build the code and load the decoder while pairs are still coming."""

    design: CodeDesign

    @property
    def name(self) -> str:
        return "prepare"

    def run(self) -> bytes:
        import bellhop.stack.diqkd.reconcile  # noqa: F401 - loads the compiled kernels

        return _code(self.design).digest


@dataclass(frozen=True, slots=True, eq=False)
class Encode:
    """Alice's syndrome."""

    design: CodeDesign
    bits: Bits = field(repr=False)

    @property
    def name(self) -> str:
        return "encode"

    def run(self) -> "Encoded":
        from bellhop.stack.diqkd.reconcile import syndrome

        code = _code(self.design)
        return Encoded(code.digest, pack(syndrome(code, self.bits)))


@dataclass(frozen=True, slots=True)
class Encoded:
    code_digest: bytes
    syndrome: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class EncodeExtra:
    """What the first `steps` steps reveal more of Alice's string."""

    design: CodeDesign
    bits: Bits = field(repr=False)
    steps: int

    @property
    def name(self) -> str:
        return "encode_extra"

    def run(self) -> "ExtraEncoded":
        from bellhop.stack.diqkd.reconcile import extra_syndrome

        code = _code(self.design)
        return ExtraEncoded(self.steps, pack(extra_syndrome(code, self.bits, self.steps)))


@dataclass(frozen=True, slots=True)
class ExtraEncoded:
    steps: int
    bits: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Received:
    """All that Alice has said of her string: of her code the digest, the syndrome, and the bits of
    so many steps more."""

    code_digest: bytes
    syndrome: bytes = field(repr=False)
    steps: int = 0
    extra: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """Alice's string from Bob's guess of it and what she has said of it."""

    design: CodeDesign
    guess: Bits = field(repr=False)
    tests: NDArray[np.bool_]
    error_probabilities: tuple[float, float]
    received: Received
    steps_max: int

    @property
    def name(self) -> str:
        return "decode"

    def run(self) -> "Corrected | ExtraWanted | str":
        """The corrected string, how much must be said more, or why neither would help."""
        from bellhop.stack.diqkd.reconcile import decode

        code = _code(self.design)
        if self.received.code_digest != code.digest:
            return "the two ends built different codes: run the same version of bellhop at both"
        generation, test = (np.float32(q) for q in self.error_probabilities)
        probability = np.where(self.tests, test, generation).astype(np.float32)
        decoded = decode(code, self.guess, self._syndrome(), probability, self._extra())
        if decoded.converged:
            return Corrected(decoded.bits)
        if decoded.wanted_steps is None or decoded.wanted_steps > self.steps_max:
            return TOO_MANY_ERRORS
        return ExtraWanted(decoded.wanted_steps)

    def _syndrome(self) -> Bits:
        return unpack(self.received.syndrome, self.design.syndrome_bits)

    def _extra(self) -> tuple[int, Bits] | None:
        steps = self.received.steps
        bits = self.design.leak_bits(steps) - self.design.syndrome_bits
        return (steps, unpack(self.received.extra, bits)) if steps else None


@dataclass(frozen=True, slots=True, eq=False)
class Corrected:
    bits: Bits = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExtraWanted:
    """The decoder needs so many steps in all."""

    steps: int


@dataclass(frozen=True, slots=True, eq=False)
class Amplify:
    """The key: the Toeplitz hash of the corrected string, whole bytes of it."""

    bits: Bits = field(repr=False)
    seed: bytes = field(repr=False)
    key_bits: int

    @property
    def name(self) -> str:
        return "amplify"

    def run(self) -> "Amplified":
        from bellhop.stack.diqkd.amplify import seed_bits_needed, toeplitz_hash

        seed = unpack(self.seed, seed_bits_needed(len(self.bits), self.key_bits))
        return Amplified(pack(toeplitz_hash(self.bits, seed, self.key_bits)))


@dataclass(frozen=True, slots=True)
class Amplified:
    key: bytes = field(repr=False)
