"""A design on the command line: five figures with commas between them."""

from fractions import Fraction

import click

from bellhop.stack.diqkd.bounds.design import Design

METAVAR = "ALPHA,GAMMA,FWIN,FLOSE,P"
EXPONENT_MAX = 100.0
"""Scores enter as powers of two of (alpha - 1) times them; useful ones stay below 1."""


def design_figures(
    _context: click.Context, parameter: click.Parameter, value: str | None
) -> Design | None:
    """A click callback."""
    if value is None:
        return None
    figures = value.split(",")
    if len(figures) != 5:
        message = f"{value!r} is not five figures with commas between them"
        raise click.BadParameter(message, param=parameter)
    try:
        design = Design(*(_number(figure.strip()) for figure in figures))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}", param=parameter) from error
    if (design.alpha - 1.0) * max(abs(design.score_win), abs(design.score_lose)) > EXPONENT_MAX:
        raise click.BadParameter(f"{value!r}: scores this large mean nothing", param=parameter)
    return design


def _number(text: str) -> float:
    """A decimal or a fraction.  ValueError for anything else."""
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{text!r} is not a finite number") from None


def figures_of(design: Design) -> str:
    """The inverse of `design_figures`."""
    figures = (
        design.alpha,
        design.test_probability,
        design.score_win,
        design.score_lose,
        design.flip_probability,
    )
    return ",".join(str(figure) for figure in figures)
