"""Certificates as text: what stands beside a design in the file of shipped designs."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bellhop.stack.diqkd.bounds.certify import Attack, Certificate, Proof
from bellhop.stack.diqkd.bounds.design import SCALE, CertifiedDesign
from bellhop.stack.diqkd.bounds.designs import digest_of, read_design


def certified_design(
    certificate: Certificate, name: str, made_for: tuple[int, float, float]
) -> CertifiedDesign:
    of = certificate
    return CertifiedDesign(name, of.bound, of.design, of.adaptive, of.kappa, made_for)


def entry_of(
    certificate: Certificate, name: str, made_for: tuple[int, float, float]
) -> dict[str, Any]:
    """A design and its certificate.  ValueError for a design that no session can draw."""
    design = certificate.design
    if not design.drawable:
        raise ValueError("probabilities of tests and flips are multiples of 2^-16")
    proof = certificate.proof
    return {
        "name": name,
        "bound": certificate.bound,
        "adaptive": certificate.adaptive,
        "alpha": design.alpha,
        "tests": round(design.test_probability * SCALE),
        "score_win": design.score_win,
        "score_lose": design.score_lose,
        "flips": round(design.flip_probability * SCALE),
        "kappa": certificate.kappa,
        "made_for": list(made_for),
        "certificate": {
            "attack": asdict(certificate.attack),
            "cells": proof.cells,
            "points": proof.points,
            "depth": proof.depth,
            "rounding": proof.rounding,
        },
    }


def certificate_of(entry: Mapping[str, Any]) -> Certificate:
    """The inverse of `entry_of`, but for the name and what it was made for."""
    certified = read_design(entry)
    said, attack = entry["certificate"], entry["certificate"]["attack"]
    return Certificate(
        design=certified.design,
        bound=certified.bound,
        adaptive=certified.adaptive,
        kappa=certified.kappa,
        attack=Attack(attack["alice"], attack["bob"], tuple(attack["logarithm"]), attack["kappa"]),
        proof=Proof(said["cells"], said["points"], said["depth"], said["rounding"]),
    )


def file_text(entries: list[dict[str, Any]]) -> str:
    """The file of these designs, a line each."""
    # Through JSON once, so that the digest is of what a reader finds.
    read: list[dict[str, Any]] = json.loads(json.dumps(entries))
    lines = ",\n".join(json.dumps(entry) for entry in read)
    return f'{{"digest": "{digest_of(read)}",\n"designs": [\n{lines}\n]}}\n'
