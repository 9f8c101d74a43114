"""The designs that ship with the program, each with a kappa that was proved beforehand.

A design is chosen before a run and is sound for whatever the run shows; which one is best depends
on the rounds and on S, little on the error rate.  So a grid of designs is made and certified once
(see `certify`), and a session takes the one whose expected key is longest.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from bellhop.stack.diqkd.bounds.chsh import binary_entropy, winning_probability
from bellhop.stack.diqkd.bounds.design import FILTERED, SCALE, CertifiedDesign, Design

FILE = "designs.json"
TAG_BITS = 64
"""Of the verification, in expectations."""


@cache
def certified_designs() -> tuple[CertifiedDesign, ...]:
    """All shipped designs, in the order of the file.  Raises ValueError if it was altered."""
    text = resources.files("bellhop.stack.diqkd.bounds").joinpath(FILE).read_text("utf-8")
    document = json.loads(text)
    if document["digest"] != digest_of(document["designs"]):
        raise ValueError(f"{FILE} is not what was shipped: its digest differs")
    return tuple(read_design(entry) for entry in document["designs"])


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
    counts below `rounds` are said too.  Raises ValueError unless 0 <= qber <= 1/2, |s| <= 4.
    """
    design = certified.design
    g, p, win = design.test_probability, design.flip_probability, winning_probability(s)
    test_entropy = g * binary_entropy(1.0 - win)
    said = efficiency * ((1.0 - g) * binary_entropy(qber + p - 2.0 * qber * p) + test_entropy)
    if certified.bound != FILTERED:
        said += test_entropy  # the string of test results is paid for
    score = g * (win * design.score_win + (1.0 - win) * design.score_lose)
    once = TAG_BITS + 2.0 * math.log2(rounds) - 2.0
    hashing = design.alpha / (design.alpha - 1.0) * math.log2(1.0 / epsilon)
    return math.floor(rounds * (score + certified.kappa - said) - once - hashing)


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
