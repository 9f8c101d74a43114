"""`bellhop diqkd designs`: the shipped designs, and the proofs of their entropy, done again."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bellhop.hal.errors import RequestError
from bellhop.node.cli.design_option import METAVAR, design_figures, figures_of
from bellhop.node.cli.output import Rows, json_option, show, to_json
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI, SCALE, Design

if TYPE_CHECKING:
    from bellhop.stack.diqkd.bounds.certify import Certificate, Progress

_BOUNDS = click.Choice([RENYI, FILTERED])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class NotProved(RequestError):
    """An entropy that is claimed cannot be proved."""

    who_must_act = "whoever made the design"


@click.group()
def designs() -> None:
    """The designs that sessions use, and the proofs of their entropy."""


@designs.command("list")
@click.option("--bound", type=_BOUNDS, help="Only the designs of this bound.")
@json_option
def list_designs(bound: str | None, as_json: bool) -> None:
    """Print the shipped designs: what they are made for, and their certified kappa."""
    entries = [entry for entry in _entries(None) if bound in {None, entry["bound"]}]
    if as_json:
        click.echo(to_json({"designs": entries}))
        return
    width = max(len(entry["name"]) for entry in entries)
    if sys.stdout.isatty():  # what reads a pipe wants designs alone
        click.echo(f"{'name':<{width}}  {'kappa':>10}  {'tests':>7}  {'flips':>7}  made for")
    for entry in entries:
        rounds, s, qber = entry["made_for"]
        click.echo(
            f"{entry['name']:<{width}}  {entry['kappa']:.8f}  {entry['tests'] / SCALE:7.2%}  "
            f"{entry['flips'] / SCALE:7.2%}  {rounds:,} rounds, S = {s:g}, QBER = {qber:.2%}"
        )


@designs.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--file", "file", type=_FILE, help="Check this file of designs, not the shipped one.")
@json_option
def check_designs(names: tuple[str, ...], file: Path | None, as_json: bool) -> None:
    """Prove the kappa of shipped designs anew: of those named, or of all.

    A second for each, several with noisy preprocessing.  Exit code 3 if one is not proved.
    """
    from bellhop.stack.diqkd.bounds.certificates import certificate_of
    from bellhop.stack.diqkd.bounds.certify import check

    entries = _named(_entries(file), names)
    checked: list[dict[str, Any]] = []
    with _bar(len(entries), shown=not as_json) as advance:
        for entry in entries:
            proof = check(certificate_of(entry))
            checked.append(
                {
                    "name": entry["name"],
                    "kappa": entry["kappa"],
                    "holds": proof.holds,
                    "why": proof.why,
                    "cells": proof.cells,
                    "points": proof.points,
                    "depth": proof.depth,
                    "rounding": proof.rounding,
                }
            )
            advance(entry["name"])
    rows: Rows = [(row["name"], _verdict(row)) for row in checked]
    show({"designs": checked}, rows, as_json)
    failed = [row["name"] for row in checked if not row["holds"]]
    if failed:
        raise NotProved(f"no proof for {', '.join(failed)}", failed=len(failed))


@designs.command("certify")
@click.argument("design", metavar=METAVAR, callback=design_figures)
@click.option("--bound", type=_BOUNDS, default=RENYI, show_default=True, help="Security theorem.")
@click.option("--static", is_flag=True, help="Eve cannot act between rounds.")
@json_option
def certify_design(design: Design, bound: str, static: bool, as_json: bool) -> None:
    """Find the kappa of a design of your own, and prove it against every strategy."""
    from bellhop.stack.diqkd.bounds.certify import NotCertified, certify

    try:
        with _depth_bar(shown=not as_json) as progress:
            certificate = certify(design, bound, not static, progress)
    except NotCertified as error:
        raise NotProved(str(error)) from error
    rows = _rows(certificate)
    show(_document(certificate), rows, as_json)


def _document(certificate: "Certificate") -> dict[str, Any]:
    from dataclasses import asdict

    of = certificate
    return {
        "design": asdict(of.design),
        "design_option": figures_of(of.design),
        "drawable": of.design.drawable,
        "bound": of.bound,
        "adaptive": of.adaptive,
        "kappa": of.kappa,
        "attack": asdict(of.attack),
        "cells": of.proof.cells,
        "points": of.proof.points,
        "depth": of.proof.depth,
        "rounding": of.proof.rounding,
    }


def _rows(certificate: "Certificate") -> Rows:
    of, proof = certificate, certificate.proof
    drawable = "" if of.design.drawable else "; no session can draw it: multiples of 2^-16 only"
    return [
        ("kappa", f"{of.kappa:.8f} bits a round, proved against every strategy"),
        ("bound", of.bound + ("" if of.adaptive else ", Eve cannot act between rounds")),
        ("design", figures_of(of.design) + drawable),
        ("attack", f"leaves {of.attack.kappa:.8f} bits; A1 at {of.attack.alice:.6f} rad of A0, "
                   f"B1 at {of.attack.bob:.6f} rad of B0"),
        ("proof", f"{proof.cells:,} cells of angles, {proof.points:,} corners, cut {proof.depth} "
                  f"times; {proof.rounding:.2g} of the value allowed for rounding"),
    ]  # fmt: skip


def _verdict(row: dict[str, Any]) -> str:
    verdict = "proved" if row["holds"] else f"NOT PROVED: {row['why']}"
    return f"{row['kappa']:.8f}  {verdict} ({row['cells']:,} cells)"


def _entries(file: Path | None) -> list[dict[str, Any]]:
    from bellhop.stack.diqkd.bounds.designs import entries_in, shipped_entries

    try:
        return shipped_entries() if file is None else entries_in(file.read_text("utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise NotProved(f"{file or 'the shipped designs'}: {error}") from error


def _named(entries: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    if not names:
        return entries
    by_name = {entry["name"]: entry for entry in entries}
    for name in names:
        if name not in by_name:
            raise click.BadParameter(f"no design is called {name!r}", param_hint="NAME")
    return [by_name[name] for name in names]


@contextmanager
def _bar(total: int, shown: bool) -> "Iterator[Any]":
    """A bar over designs, on stderr."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True, disable=not shown) as bar:
        task = bar.add_task("proving", total=total)
        yield lambda name: bar.update(task, advance=1, description=name)


@contextmanager
def _depth_bar(shown: bool) -> "Iterator[Progress]":
    """How many cells are open, on stderr; nobody knows beforehand how often they must be cut."""
    from rich.console import Console

    with Console(stderr=True).status("searching attacks") as status:
        if not shown:
            status.stop()
        yield lambda depth, cells: status.update(f"cut {depth} times, {cells:,} cells open")
