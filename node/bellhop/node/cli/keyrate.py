"""`bellhop keyrate`: how many secret bits a run is worth, and by which theorem."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, get_args

import click
from click.core import ParameterSource

from bellhop.node.cli import keyrate_eat, keyrate_renyi
from bellhop.node.cli.design_option import METAVAR, design_figures
from bellhop.node.cli.output import json_option, to_json
from bellhop.stack.diqkd.bounds.chsh import S_MAX
from bellhop.stack.diqkd.bounds.design import EAT
from bellhop.stack.diqkd.bounds.entropy import ROUNDS_MAX, Form
from bellhop.stack.diqkd.bounds.expected import BINS, TAG_BITS
from bellhop.stack.diqkd.bounds.library import DEFAULT, THEOREMS

FORMS: tuple[Form, ...] = get_args(Form)

OF_BOTH = ("rounds", "s", "qber")
OF_EAT = ("gamma", "epsilon", "form", "leak_bits")


def _fraction(
    _context: click.Context, parameter: click.Parameter, value: str | None
) -> Fraction | None:
    if value is None:
        return None
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
) -> Callable[[click.Context, click.Parameter, float | None], float | None]:
    """A callback rather than click.FloatRange, which lets NaN pass and cannot say why."""

    def check(
        _context: click.Context, parameter: click.Parameter, value: float | None
    ) -> float | None:
        if value is not None and not low <= value <= high:
            raise click.BadParameter(f"{value} is not {meaning}", param=parameter)
        return value

    return check


@click.command()
@click.option(
    "--bound",
    type=click.Choice(list(THEOREMS)),
    default=DEFAULT,
    show_default=True,
    help="Security theorem.",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, ROUNDS_MAX),
    help="Heralded pairs in the run, test rounds included.",
)
@click.option(
    "--s",
    "s",
    type=float,
    callback=_within(0.0, S_MAX, "a CHSH value from 0 to 2 sqrt(2) = 2.828427"),
    help=f"CHSH value the run is designed for; by {EAT} the threshold lies 3 deviations below.",
)
@click.option(
    "--qber",
    type=float,
    callback=_within(0.0, 0.5, "an error rate from 0 to 0.5"),
    help="Key-basis error rate the run is designed for.",
)
@click.option(
    "--design",
    metavar=METAVAR,
    callback=design_figures,
    help="Order, test probability, scores of a won and a lost test round, flip probability; "
    "decimals or fractions. Without it the best design for --rounds, --s and --qber is found.",
)
@click.option(
    "--static", is_flag=True, help="Nothing about a round is announced before the last has ended."
)
@click.option("--wins", type=click.IntRange(min=0), help="Test rounds that were won.")
@click.option("--losses", type=click.IntRange(min=0), help="Test rounds that were lost.")
@click.option(
    "--leak",
    type=float,
    callback=_within(0.0, 1e15, "a number of bits"),
    help="Bits that error correction said about Alice's string.",
)
@click.option(
    "--efficiency",
    type=float,
    default=1.06,
    show_default=True,
    callback=_within(1.0, 100.0, "an efficiency from 1, Shannon's limit, to 100"),
    help="In a plan: what error correction says, over Shannon's limit.",
)
@click.option(
    "--epsilon-pa",
    type=float,
    default=1e-10,
    show_default=True,
    callback=_within(math.ulp(0.0), math.nextafter(1.0, 0.0), "above 0 and below 1"),
    help="Error of privacy amplification.",
)
@click.option(
    "--tag-bits",
    type=click.IntRange(0, 1 << 20),
    default=TAG_BITS,
    show_default=True,
    help="Bits of the verification tag.",
)
@click.option(
    "--bins",
    type=click.IntRange(min=1),
    default=BINS,
    show_default=True,
    help="How many values the announced counts could have taken.",
)
@click.option(
    "--gamma", metavar="FRACTION", callback=_fraction, help=f"{EAT}: test probability, as 13/256."
)
@click.option(
    "--epsilon",
    type=float,
    default=1e-10,
    show_default=True,
    help=f"{EAT}: soundness error of the whole session.",
)
@click.option(
    "--form",
    type=click.Choice(FORMS),
    default="trevisan",
    show_default=True,
    help=f"{EAT}: the paper's own extractor, or the 2-universal hashing of a session.",
)
@click.option(
    "--leak-bits",
    type=click.IntRange(min=0),
    help=f"{EAT}: bits said about Alice's string. Default: the published code's syndrome, and "
    "in the two-universal form the verification tag and two announced counts too.",
)
@json_option
@click.pass_context
def keyrate(context: click.Context, /, *, bound: str, as_json: bool, **options: Any) -> None:
    """Finite-size key length of a device-independent run.

    By a Renyi bound: --design alone gives its entropy kappa; with --rounds, --wins, --losses and
    --leak the key of a run that was; --rounds, --s and --qber give the key to expect, by --design
    or by the best there is. By eat-2109.14600 (--rounds, --gamma, --s, --qber): the key of a fixed
    length, for a threshold fixed beforehand.

    No key is an answer too (0 bits). The figure holds under the assumptions that are printed.
    """
    given = frozenset(
        name
        for name in options
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    )
    _refuse_foreign(bound, given)
    if bound == EAT:
        chosen = {name: options[name] for name in (*OF_BOTH, *OF_EAT)}
        document, rows, assumptions = keyrate_eat.answer(chosen)
    else:
        chosen = {name: value for name, value in options.items() if name not in OF_EAT}
        asked = keyrate_renyi.RenyiOptions(bound=bound, given=given, **chosen)
        document, rows, assumptions = keyrate_renyi.answer(asked)
    click.echo(to_json(document) if as_json else _table(rows, assumptions))


def _refuse_foreign(bound: str, given: frozenset[str]) -> None:
    """An option that the bound does not know would be ignored in silence."""
    if bound == EAT:
        foreign, meant = given - {*OF_BOTH, *OF_EAT}, "the Renyi bounds"
    else:
        foreign, meant = given & set(OF_EAT), f"--bound {EAT}"
    if foreign:
        flag = f"--{min(foreign).replace('_', '-')}"
        raise click.UsageError(f"{flag} is for {meant}, not for {bound}.")


def _table(rows: keyrate_renyi.Rows, assumptions: tuple[str, ...]) -> str:
    lines = [f"{name:<13} {value}" for name, value in rows]
    return "\n".join([*lines, "assumes", *(f"  - {each}" for each in assumptions)])
