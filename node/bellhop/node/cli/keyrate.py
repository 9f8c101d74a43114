"""`bellhop keyrate`: how many secret bits a planned run would be worth, and by which theorem."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import get_args

import click

from bellhop.stack.diqkd.bounds.chsh import (
    S_MAX,
    false_abort_probability,
    losses_max,
    published_syndrome_bits,
    threshold_probability,
    winning_probability,
)
from bellhop.stack.diqkd.bounds.entropy import (
    BOUNDS,
    PAPER_HASH_ERROR,
    ROUNDS_MAX,
    SESSION_HASH_ERROR,
    Form,
    KeyLength,
    key_length,
)
from bellhop.stack.diqkd.verify import VERIFICATION_TAG_BITS

FORMS: tuple[Form, ...] = get_args(Form)


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


def _fraction(_context: click.Context, parameter: click.Parameter, value: str) -> Fraction:
    try:
        gamma = Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        message = f"{value!r} is neither a fraction such as 13/256 nor a decimal"
        raise click.BadParameter(message, param=parameter) from error
    if not 0 < gamma < 1:
        raise click.BadParameter("must lie strictly between 0 and 1", param=parameter)
    return gamma


def _within(
    low: float, high: float, meaning: str
) -> Callable[[click.Context, click.Parameter, float], float]:
    """A callback rather than click.FloatRange, which lets NaN pass and cannot say why."""

    def check(_context: click.Context, parameter: click.Parameter, value: float) -> float:
        if not low <= value <= high:
            raise click.BadParameter(f"{value} is not {meaning}", param=parameter)
        return value

    return check


@click.command()
@click.option(
    "--bound",
    type=click.Choice(BOUNDS),
    default=BOUNDS[0],
    show_default=True,
    help="Security theorem.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, ROUNDS_MAX),
    required=True,
    help="Heralded pairs in the run, test rounds included.",
)
@click.option(
    "--gamma",
    metavar="FRACTION",
    callback=_fraction,
    required=True,
    help="Test probability, as 13/256 or 0.05.",
)
@click.option(
    "--s",
    "s",
    type=float,
    required=True,
    callback=_within(0.0, S_MAX, "a CHSH value from 0 to 2 sqrt(2) = 2.828427"),
    help="CHSH value the run is designed for; the threshold lies 3 deviations below.",
)
@click.option(
    "--qber",
    type=float,
    required=True,
    callback=_within(0.0, 0.5, "an error rate from 0 to 0.5"),
    help="Key-basis error rate the code is designed for.",
)
@click.option(
    "--epsilon",
    type=float,
    default=1e-10,
    show_default=True,
    help="Soundness error of the whole session.",
)
@click.option(
    "--form",
    type=click.Choice(FORMS),
    default="trevisan",
    show_default=True,
    help="Extractor: the paper's own, or the 2-universal hashing of a session.",
)
@click.option(
    "--leak-bits",
    type=click.IntRange(min=0),
    help="Bits said about Alice's string. Default: the published code's syndrome, and "
    "in the two-universal form the verification tag and two announced counts too.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def keyrate(
    *,
    bound: str,
    rounds: int,
    gamma: Fraction,
    s: float,
    qber: float,
    epsilon: float,
    form: Form,
    leak_bits: int | None,
    as_json: bool,
) -> None:
    """Finite-size key length of a device-independent run, for a threshold fixed beforehand.

    No key is an answer too (0 bits). The figure holds under the assumptions that are printed.
    """
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
    plan = Plan(bound, form, rounds, gamma, s, qber, epsilon, threshold, leak_bits)
    length = key_length(
        rounds=rounds,
        gamma=gamma,
        threshold=threshold,
        leak_bits=leak_bits,
        epsilon=epsilon,
        form=form,
    )
    click.echo(json.dumps(_document(plan, length), indent=2) if as_json else _table(plan, length))


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
        "errors": asdict(length.errors),
        "choice": asdict(length.choice),
        "assumptions": list(length.assumptions),
    }


def _table(plan: Plan, length: KeyLength) -> str:
    document = _document(plan, length)
    errors = length.errors
    rows = [
        ("key", f"{length.key_bits:,} bits, {length.key_bits / plan.rounds:.6f} a round"),
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
    if length.key_bits == 0:
        rows[0] = ("key", "none: the bound is not positive at these values")
    lines = [f"{name:<13} {text}" for name, text in rows]
    lines += ["assumes", *(f"  - {assumption}" for assumption in length.assumptions)]
    return "\n".join(lines)
