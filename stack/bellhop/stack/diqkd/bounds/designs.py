"""The designs that ship with the program, each with a kappa that was proved beforehand.

A design is chosen before a run and is sound for whatever the run shows; which one is best depends
on the rounds and on S, little on the error rate.  So a grid of designs is made and certified once
(see `certify`), and a session takes the one whose expected key is longest.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from bellhop.stack.diqkd.bounds.design import SCALE, CertifiedDesign, Design
from bellhop.stack.diqkd.bounds.expected import TAG_BITS, expected_shown
from bellhop.stack.diqkd.bounds.library import designed_bound

FILE = "designs.json"


@cache
def certified_designs() -> tuple[CertifiedDesign, ...]:
    """All shipped designs, in the order of the file.  Raises ValueError if it was altered."""
    return tuple(read_design(entry) for entry in shipped_entries())


def shipped_entries() -> list[dict[str, Any]]:
    """The file's designs with their certificates, as JSON has them.  ValueError if altered."""
    text = resources.files("bellhop.stack.diqkd.bounds").joinpath(FILE).read_text("utf-8")
    return entries_in(text)


def entries_in(text: str) -> list[dict[str, Any]]:
    """Raises ValueError if the digest is not that of the designs."""
    document = json.loads(text)
    entries: list[dict[str, Any]] = document["designs"]
    if document["digest"] != digest_of(entries):
        raise ValueError(f"{FILE} is not what was shipped: its digest differs")
    return entries


def design_named(name: str) -> CertifiedDesign:
    """Raises ValueError for a name that no shipped design has."""
    for certified in certified_designs():
        if certified.name == name:
            return certified
    raise ValueError(f"no shipped design is called {name!r}")


def best_design(
    bound: str,
    rounds: int,
    s: float,
    qber: float,
    efficiency: float = 1.06,
    epsilon: float = 1e-10,
) -> tuple[CertifiedDesign, int] | None:
    """The shipped design of this bound with the longest expected key, and its bits; None if no
    shipped design promises a key."""
    best: tuple[CertifiedDesign, int] | None = None
    for certified in certified_designs():
        if certified.bound == bound:
            bits = expected_key_bits(certified, rounds, s, qber, efficiency, epsilon)
            if bits > (best[1] if best else 0):
                best = certified, bits
    return best


def expected_key_bits(
    certified: CertifiedDesign,
    rounds: int,
    s: float,
    qber: float,
    efficiency: float = 1.06,
    epsilon: float = 1e-10,
) -> int:
    """The key's length when S and QBER are seen as expected; at or below 0 there is no key.

    Error correction says `efficiency` times Shannon's limit; a tag of `TAG_BITS` and two exact
    counts below `rounds` are said too.  Raises ValueError unless 0 <= qber <= 1, |s| <= 4.
    """
    shown = expected_shown(
        certified.design, rounds, s, qber, efficiency, TAG_BITS, bins=float(rounds) ** 2
    )
    return designed_bound(certified, epsilon).key_bits(shown)


def read_design(entry: Mapping[str, Any]) -> CertifiedDesign:
    """A design as the file has it: probabilities of tests and flips in units of 2^-16."""
    design = Design(
        alpha=entry["alpha"],
        test_probability=entry["tests"] / SCALE,
        score_win=entry["score_win"],
        score_lose=entry["score_lose"],
        flip_probability=entry["flips"] / SCALE,
    )
    rounds, s, qber = entry["made_for"]
    return CertifiedDesign(
        name=entry["name"],
        bound=entry["bound"],
        design=design,
        adaptive=entry["adaptive"],
        kappa=entry["kappa"],
        made_for=(rounds, s, qber),
    )


def digest_of(entries: list[dict[str, Any]]) -> str:
    """SHA-256 of the entries as compact JSON with sorted keys."""
    text = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
