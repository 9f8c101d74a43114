"""`bellhop keyrate` by the theorem of the Oxford experiment: a length and a threshold, fixed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import click

from bellhop.stack.diqkd.bounds.chsh import (
    false_abort_probability,
    losses_max,
    published_syndrome_bits,
    threshold_probability,
    winning_probability,
)
from bellhop.stack.diqkd.bounds.design import EAT
from bellhop.stack.diqkd.bounds.entropy import (
    PAPER_HASH_ERROR,
    SESSION_HASH_ERROR,
    Form,
    KeyLength,
    key_length,
)
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS

Rows = list[tuple[str, object]]
NEEDED = ("rounds", "gamma", "s", "qber")


@dataclass(frozen=True, slots=True)
class Plan:
    """A run as it is planned, before its key length is known. S and QBER are design values."""

    bound: str
    form: Form
    rounds: int
    gamma: Fraction
    s: float
    qber: float
    epsilon: float
    threshold: float
    leak_bits: int


def answer(options: dict[str, Any]) -> tuple[dict[str, object], Rows, tuple[str, ...]]:
    """The document, the table's rows and the assumptions.  Raises click.UsageError."""
    for name in NEEDED:
        if options[name] is None:
            raise click.UsageError(f"Missing option '--{name}', which {EAT} needs.")
    plan = _plan(**options)
    length = key_length(
        rounds=plan.rounds,
        gamma=plan.gamma,
        threshold=plan.threshold,
        leak_bits=plan.leak_bits,
        epsilon=plan.epsilon,
        form=plan.form,
    )
    return _document(plan, length), _rows(plan, length), length.assumptions


def _plan(
    *,
    rounds: int,
    gamma: Fraction,
    s: float,
    qber: float,
    epsilon: float,
    form: Form,
    leak_bits: int | None,
) -> Plan:
    hash_error = PAPER_HASH_ERROR if form == "trevisan" else SESSION_HASH_ERROR
    if not hash_error < epsilon < 1.0:
        raise click.BadParameter(
            f"{epsilon} is not between the {hash_error:.2g} that the hashes take and 1",
            param_hint="--epsilon",
        )
    if leak_bits is None:
        leak_bits = _planned_leak_bits(
            form, rounds, published_syndrome_bits(rounds, gamma, s, qber)
        )
    threshold = threshold_probability(rounds, gamma, s)
    return Plan(EAT, form, rounds, gamma, s, qber, epsilon, threshold, leak_bits)


def _planned_leak_bits(form: Form, rounds: int, syndrome_bits: int) -> int:
    """Syndrome, and what a session announces besides it: a tag, lost test rounds, errors."""
    if form == "trevisan":
        return syndrome_bits
    return syndrome_bits + VERIFICATION_TAG_BITS + 2 * rounds.bit_length()


def _document(plan: Plan, length: KeyLength) -> dict[str, object]:
    abort = false_abort_probability(
        plan.rounds, plan.gamma, winning_probability(plan.s), plan.threshold
    )
    return {
        **asdict(plan),
        "gamma": str(plan.gamma),
        "losses_max": losses_max(plan.rounds, plan.gamma, plan.threshold),
        "false_abort_probability": abort,
        "entropy_bits": length.entropy_bits,
        "key_bits": length.key_bits,
        "key_bits_per_round": length.key_bits / plan.rounds,
        "theorem": length.theorem,
        "refereed": True,
        "errors": asdict(length.errors),
        "choice": asdict(length.choice),
        "assumptions": list(length.assumptions),
    }


def _rows(plan: Plan, length: KeyLength) -> Rows:
    document = _document(plan, length)
    errors = length.errors
    key = f"{length.key_bits:,} bits, {length.key_bits / plan.rounds:.6f} a round"
    if length.key_bits == 0:
        key = "none: the bound is not positive at these values"
    return [
        ("key", key),
        ("theorem", length.theorem),
        ("form", f"{plan.form} ({plan.bound})"),
        ("rounds", f"{plan.rounds:,}, of which {plan.gamma} tests"),
        ("design", f"S = {plan.s:g}, QBER = {100 * plan.qber:g} %"),
        ("threshold", f"winning probability {plan.threshold:.6f}, S = {8 * plan.threshold - 4:.4f};"
                      f" at most {document['losses_max']:,} lost test rounds"),
        ("false aborts", f"{document['false_abort_probability']:.3g} at the design values"
                         " (reconciliation not counted)"),
        ("entropy", f"{length.entropy_bits:,.0f} bits before leakage"),
        ("leaked", f"{plan.leak_bits:,} bits"),
        ("epsilon", f"{errors.soundness:.3g} soundness = max(accumulation "
                    f"{errors.accumulation:.3g}, privacy {errors.privacy:.3g} + 2 x smoothing "
                    f"{errors.smoothing:.3g}) + hashes {errors.hash:.3g}"),
    ]  # fmt: skip
