"""The numbers of a preset: each with where it is from and how well that is known."""

from typing import Literal

import msgspec

Grade = Literal["P", "A", "S", "B", "I", "fitted", "assumed", "own", "set"]
"""P full text, A abstract, S secondary source, B public report, I inferred by arithmetic that the
source shows, fitted to what was published, assumed by us, own: a bare number in a user's file,
set by an override."""

Row = tuple[float, float, float]


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number of an experiment; `error` is its published standard error.

    `bound`: all that is known is that the experiment's own is above this.
    """

    value: float
    source: str
    grade: Grade
    error: float | None = None
    bound: Literal["above"] | None = None


class Figures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several numbers that belong together."""

    value: tuple[float, ...]
    source: str
    grade: Grade


class Matrix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Three rows of three numbers."""

    value: tuple[Row, Row, Row]
    source: str
    grade: Grade


def assumed(value: float, source: str = "not modelled unless a preset says so") -> Figure:
    """The default of a figure that an experiment need not give."""
    return Figure(value, source, "assumed")
