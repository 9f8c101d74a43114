"""`bellhop keyrate` by the Renyi bounds: of a design, of a run that was, of a run that is planned.

kappa is computed here, not certified: sessions use the certified designs that come with Bellhop.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import click

from bellhop.node.cli.design_option import figures_of
from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate, best_flip_probability
from bellhop.stack.diqkd.bounds.design import Design
from bellhop.stack.diqkd.bounds.expected import expected_shown, uncertified
from bellhop.stack.diqkd.bounds.library import FilteredBound, RenyiBound, Shown
from bellhop.stack.diqkd.bounds.optimise import optimise

Rows = list[tuple[str, object]]
AnyBound = RenyiBound | FilteredBound

RUN = ("wins", "losses", "leak")
LINK = ("s", "qber")
NEVER_CERTIFIED = "computed here, not certified: no session takes its key from it"


@dataclass(frozen=True, slots=True)
class RenyiOptions:
    """What was asked; `given`: the options that stood on the command line."""

    bound: str
    design: Design | None
    static: bool
    rounds: int | None
    wins: int | None
    losses: int | None
    leak: float | None
    s: float | None
    qber: float | None
    efficiency: float
    epsilon_pa: float
    tag_bits: int
    bins: int
    given: frozenset[str]


def answer(asked: RenyiOptions) -> tuple[dict[str, object], Rows, tuple[str, ...]]:
    """The document, the table's rows and the assumptions.  Raises click.UsageError."""
    run, link = (asked.given & set(names) for names in (RUN, LINK))
    if run and link:
        raise click.UsageError(
            "Either what a run has shown (--wins, --losses, --leak) or what a link gives "
            "(--s, --qber), not both."
        )
    if run:
        return _of_run(asked)
    if link or asked.design is None:
        return _of_link(asked)
    if idle := asked.given & {"rounds", "efficiency", "epsilon_pa", "tag_bits", "bins"}:
        raise click.UsageError(
            f"{_flag(min(idle))} has nothing to apply to: add what a run has shown (--rounds, "
            "--wins, --losses, --leak) or what a link gives (--rounds, --s, --qber)."
        )
    bound = uncertified(asked.bound, asked.design, asked.epsilon_pa, not asked.static)
    return _document(asked, bound), _rows(bound), bound.assumptions


def _of_run(asked: RenyiOptions) -> tuple[dict[str, object], Rows, tuple[str, ...]]:
    """The key of a run whose counts are known."""
    _need(asked, "design", "rounds", *RUN)
    if "efficiency" in asked.given:
        raise click.UsageError("--efficiency is for plans; a run's leak is --leak.")
    assert asked.design is not None and asked.rounds is not None
    assert asked.wins is not None and asked.losses is not None and asked.leak is not None
    said = asked.leak + asked.tag_bits + math.log2(asked.bins)
    try:
        shown = Shown(asked.rounds, asked.wins + asked.losses, asked.losses, said)
    except ValueError as error:
        message = "--wins and --losses together are more than --rounds."
        raise click.UsageError(message) from error
    bound = uncertified(asked.bound, asked.design, asked.epsilon_pa, not asked.static)
    document = _document(asked, bound) | _key(asked, bound, shown)
    return document, _rows(bound, shown), bound.assumptions


def _of_link(asked: RenyiOptions) -> tuple[dict[str, object], Rows, tuple[str, ...]]:
    """The key to expect of a link, by the given design or by the best."""
    _need(asked, "rounds", *LINK)
    rounds, s, qber = asked.rounds, asked.s, asked.qber
    assert rounds is not None and s is not None and qber is not None
    if s <= 2.0:
        raise click.BadParameter("a CHSH value of at most 2 is worth no key", param_hint="--s")
    design = asked.design or optimise(
        asked.bound, rounds, s, qber, asked.efficiency, asked.epsilon_pa, not asked.static
    )
    bound = uncertified(asked.bound, design, asked.epsilon_pa, not asked.static)
    shown = expected_shown(design, rounds, s, qber, asked.efficiency, asked.tag_bits, asked.bins)
    limit = asymptotic_key_rate(s, qber, best_flip_probability(s, qber))
    document = {
        **_document(asked, bound),
        **_key(asked, bound, shown),
        "s": s,
        "qber": qber,
        "efficiency": asked.efficiency,
        "asymptotic_key_rate": limit,
    }
    rows = _rows(bound, shown)
    rows += [
        ("expected", f"S = {s:g}, QBER = {100 * qber:g} %, counts at their mean; error correction "
                     f"{asked.efficiency:g} times Shannon's limit"),
        ("endless run", f"{limit:.6f} bits a round at Shannon's limit, noisy preprocessing "
                        "included"),
    ]  # fmt: skip
    return document, rows, bound.assumptions


def _need(asked: RenyiOptions, *names: str) -> None:
    missing = [_flag(name) for name in names if getattr(asked, name) is None]
    if missing:
        raise click.UsageError(
            f"Missing option '{missing[0]}'. A kappa needs --design; a run's key needs --design, "
            "--rounds, --wins, --losses and --leak; a plan needs --rounds, --s and --qber."
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _document(asked: RenyiOptions, bound: AnyBound) -> dict[str, object]:
    certified = bound.certified
    return {
        "bound": bound.name,
        "theorem": bound.theorem,
        "refereed": bound.refereed,
        "design": asdict(certified.design),
        "design_option": figures_of(certified.design),
        "drawable": certified.design.drawable,
        "adaptive": certified.adaptive,
        "kappa": certified.kappa,
        "kappa_note": NEVER_CERTIFIED,
        "epsilon_pa": asked.epsilon_pa,
        "assumptions": list(bound.assumptions),
    }


def _key(asked: RenyiOptions, bound: AnyBound, shown: Shown) -> dict[str, object]:
    key_bits = bound.key_bits(shown)
    return {
        "rounds": shown.rounds,
        "wins": shown.wins,
        "losses": shown.losses,
        "leak_bits": shown.leak_bits,
        "tag_bits": asked.tag_bits,
        "bins": asked.bins,
        "key_bits": max(0, key_bits),
        "key_bits_per_round": max(0, key_bits) / shown.rounds,
        "shortfall_bits": max(0, -key_bits),
    }


def _rows(bound: AnyBound, shown: Shown | None = None) -> Rows:
    certified, design = bound.certified, bound.certified.design
    grade = "" if bound.refereed else " (UNREFEREED)"
    rows: Rows = []
    if shown is not None:
        rows.append(("key", _key_text(bound.key_bits(shown), shown.rounds) + grade))
    rows += [
        ("kappa", f"{certified.kappa:.8f} bits a round{grade}, {NEVER_CERTIFIED}"),
        ("bound", bound.name),
        ("theorem", bound.theorem),
        ("design", f"--design {figures_of(design)}"),
        ("", f"alpha = {design.alpha}, tests {design.test_probability:.6g}, a win scores "
             f"{design.score_win:g}, a loss {design.score_lose:g}, flips "
             f"{design.flip_probability:.6g}"),
        ("Eve", "may act between rounds" if certified.adaptive else "acts after the last round"),
    ]  # fmt: skip
    if shown is not None:
        rows += [
            ("rounds", f"{shown.rounds:,}, tests won {shown.wins:,}, lost {shown.losses:,}"),
            ("leaked", f"{shown.leak_bits:,.0f} bits, tag and announced counts included"),
            ("epsilon", f"{bound.epsilon_privacy:.3g} privacy amplification; what verification and "
                        "authentication let pass comes on top"),
        ]  # fmt: skip
    return rows


def _key_text(key_bits: int, rounds: int) -> str:
    if key_bits <= 0:
        return f"none: {-key_bits:,} bits are missing"
    return f"{key_bits:,} bits, {key_bits / rounds:.6f} a round"
