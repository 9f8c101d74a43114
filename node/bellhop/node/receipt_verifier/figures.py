"""The figures of a receipt, each computed again from the others; what is wrong is told in words."""

import math
from collections.abc import Iterator
from typing import Any

from . import formulas
from .form import EAT, FILTERED, RENYI, STAGES
from .reading import canonical, sha256

Recomputed = dict[str, int | float]

SOURCES = {EAT: "2109.14600", RENYI: "2405.05912", FILTERED: "UNREFEREED"}
"""What the name of a bound's theorem must hold: the paper's number, or that no referee read it."""

TAG_BITS_MAX = 128
"""A hash over GF(2^128) cannot be cut to more."""

LUCK_BITS = 64
"""So many bits fewer than an error pattern needs find it with a chance of 2^-64."""


def run(said: dict[str, Any]) -> Iterator[str]:
    run = said["run"]
    rounds, tests = run["rounds"], run["tests"]
    if rounds != said["parameters"]["rounds"]:
        yield "rounds differ from those agreed"
    if not (0 < tests < rounds and run["losses"] <= tests and run["errors"] <= rounds - tests):
        yield "the counts contradict one another"
    elif not _likely(tests, rounds, said["parameters"]["design"]):
        yield "the tests are too many, or too few, for the probability that was agreed"
    elif run["s"] != 8 * (1 - run["losses"] / tests) - 4:
        yield "S does not follow from the counts"
    elif run["qber"] != run["errors"] / (rounds - tests):
        yield "the error rate does not follow from the counts"


def _likely(tests: int, rounds: int, design: dict[str, Any]) -> bool:
    """Whether so many tests come of drawing each round's with that probability: one run in 1e15
    lies eight deviations off."""
    g: float = design.get("design", design)["test_probability"]
    deviation = math.sqrt(rounds * g * (1 - g)) if 0 < g < 1 else 0.0
    return abs(tests - rounds * g) <= 8 * deviation


def leak(said: dict[str, Any]) -> Iterator[str]:
    leak, p = said["leak"], said["parameters"]
    code, steps = p["code"], leak["extra_steps"]
    each = code["step_rows"] * code["lifting"]
    kinds = ("syndrome", "extra_syndrome", "requests", "verification", "counts")
    for name, holds in {
        "code": code["rounds"] == p["rounds"],
        "syndrome for so many errors": _enough(said["run"], leak),
        "steps": steps <= p["steps_max"] <= code["steps_max"],
        "syndrome": leak["syndrome"] == code["syndrome_bits"],
        "extra_syndrome": leak["extra_syndrome"] == steps * each,
        "requests": leak["requests"] == p["steps_max"],
        "verification": leak["verification"] == said["epsilon"]["tag_bits"],
        "counts": leak["counts"] == formulas.count_bits(said["run"]["rounds"]),
        "total": leak["total"] == sum(leak[kind] for kind in kinds),
        "planned": leak["planned"] == leak["total"] + (p["steps_max"] - steps) * each,
        "published bits": said["device_reuse"]["published_bits"] == leak["total"] + 1,
    }.items():
        if not holds:
            yield f"leak: {name} is not what follows from the rest"


def _enough(run: dict[str, Any], leak: dict[str, Any]) -> bool:
    """Whether what was said can have told one pattern of so many errors from all the others.

    There are at least 2^(n h(k/n)) / (n + 1) patterns of k errors among n bits, and a decoder finds
    at most one for each syndrome.  Errors made for a code, which is public, could do with less: no
    honest device makes them.  A twentieth less is let pass.
    """
    generation, tests = run["rounds"] - run["tests"], run["tests"]
    needed = 0.95 * (
        formulas.pattern_bits(generation, run["errors"])
        + formulas.pattern_bits(tests, run["losses"])
    )
    said = leak["syndrome"] + leak["extra_syndrome"]
    return bool(said + LUCK_BITS >= needed - 2 * run["rounds"].bit_length())


def epsilon(said: dict[str, Any]) -> Iterator[str]:
    e, rounds = said["epsilon"], said["run"]["rounds"]
    agreed = len(canonical(said["parameters"]))
    one = formulas.hash_error(e["tagged_bytes_max"], e["tag_bits"])
    secrecy = max(e["accumulation"], e["privacy"] + 2 * e["smoothing"])
    for name, holds in {
        "tag_bits": 0 < e["tag_bits"] <= TAG_BITS_MAX and e["tag_bits"] % 8 == 0,
        "soundness": e["soundness"] == said["parameters"]["epsilon"] and 0 < e["soundness"] < 1,
        "verification": e["verification"] == formulas.hash_error(-(-rounds // 8), e["tag_bits"]),
        "forgery": e["forgery"] == e["forgery_tries"] * one,
        "tries": e["forgery_tries"] >= len(STAGES),
        # The first two tags cover what was agreed, and a bit for each round.
        "tagged_bytes_max": all(
            covered <= e["tagged_bytes_max"]
            for covered in (
                agreed + -(-rounds // 8),
                *(message["bytes"] for message in said["transcript"]["messages"]),
            )
        ),
        "privacy": e["privacy"] > 0 and min(e["accumulation"], e["smoothing"]) >= 0,
        "sum of the parts": secrecy + e["verification"] + e["forgery"]
        <= e["soundness"] * (1 + 1e-12),
    }.items():
        if not holds:
            yield f"epsilon: {name} is not what follows from the rest"


def length(said: dict[str, Any], recomputed: Recomputed) -> Iterator[str]:
    """The theorem's own arithmetic, done again."""
    p, run, leak, key = said["parameters"], said["run"], said["leak"], said["key"]
    design, e = p["design"], said["epsilon"]
    try:
        if p["bound"] == EAT:
            hashes = e["verification"] + e["forgery"]
            left = formulas.errors_left(p["epsilon"], hashes, e["privacy"])
            bits = formulas.eat_bits(design, run["rounds"], leak["planned"], p["epsilon"], hashes)
            allowed = formulas.losses_max(
                run["rounds"], design["test_probability"], design["threshold"]
            )
            recomputed["losses_max"] = allowed
            if run["losses"] > allowed:
                yield f"{run['losses']} lost tests, and only {allowed} were allowed: no key"
            if design["key_bits"] != bits:
                yield f"the theorem gives {bits} bits, not the {design['key_bits']} agreed"
            if e["privacy"] != design["choice"]["privacy_error"]:
                yield "the error of privacy amplification is not the one agreed"
            if not all(map(math.isclose, left, (e["accumulation"], e["smoothing"]))):
                yield "the errors of accumulation and smoothing are not those of the theorem"
        else:
            if e["accumulation"] or e["smoothing"]:
                yield "this theorem has no errors of accumulation and smoothing"
            yield from _kappa(design, p["bound"], recomputed)
            bits = formulas.renyi_bits(
                design, run["rounds"], run["tests"], run["losses"], leak["total"], e["privacy"],
                p["bound"] == FILTERED,
            )  # fmt: skip
    except (ArithmeticError, ValueError) as error:
        yield f"the theorem does not take these parameters: {error}"
        return
    recomputed["bound_bits"] = bits
    if key["bound_bits"] != bits:
        yield f"the theorem gives {bits} bits, not {key['bound_bits']}"


def _kappa(certified: dict[str, Any], bound: str, recomputed: Recomputed) -> Iterator[str]:
    d = certified["design"]
    sound = 1 < d["alpha"] < 1.5 and 0 < d["test_probability"] < 1
    if not (sound and 0 <= d["flip_probability"] <= 0.5 and d["score_win"] > d["score_lose"]):
        yield "the design is none that the theorem takes"
        return
    raw = formulas.raw_kappa(d, certified["adaptive"], bound == FILTERED)
    recomputed["raw_kappa"] = raw
    if certified["bound"] != bound:
        yield "the design is for another bound"
    if not certified["adaptive"]:
        yield "the design does not hold when test rounds are announced during the run"
    if certified["kappa"] > raw:
        yield f"kappa is {certified['kappa']}, and a known strategy allows at most {raw:.8f}"


def account(said: dict[str, Any]) -> Iterator[str]:
    key, slot = said["key"], 256
    tags = len(STAGES) * said["epsilon"]["tag_bits"]
    left = key["gross_bits"] - tags - key["id_key_bits"]
    for name, holds in {
        "gross_bits": key["gross_bits"] == key["bound_bits"] // 8 * 8,
        "least key": key["deliverable_bits"] >= slot,
        "tag_bits_spent": key["tag_bits_spent"] == tags,
        "id_key_bits": key["id_key_bits"] == 256,
        "net_bits": key["net_bits"] == left,
        "deliverable_bits": key["deliverable_bits"] == left // slot * slot,
        "discarded_bits": key["discarded_bits"] == left % slot,
    }.items():
        if not holds:
            yield f"key: {name} is not what follows from the rest"


def transcript(said: dict[str, Any]) -> Iterator[str]:
    transcript, run, key = dict(said["transcript"]), said["run"], said["key"]
    if transcript.pop("sha256") != sha256(canonical(transcript)):
        yield "the digest is not that of its parts"
    if transcript["parameters_sha256"] != sha256(canonical(said["parameters"])):
        yield "the parameters are not those that were agreed and tagged"
    said_by = [(message["stage"], message["sender"]) for message in transcript["messages"]]
    if said_by != list(STAGES.items()):
        yield "the messages are not the eight of a session in their order"
        return
    decision = run["losses"].to_bytes(8, "big") + run["errors"].to_bytes(8, "big")
    inputs, tag = -(-run["tests"] // 8), said["epsilon"]["tag_bits"] // 8
    seed = -(-(run["rounds"] + key["gross_bits"] - 1) // 8)
    sizes = [0, 0, inputs, inputs, 32 + -(-said["leak"]["syndrome"] // 8), 17 + tag, 16, seed]
    for message, size in zip(transcript["messages"], sizes, strict=True):
        if message["bytes"] != size:
            yield f"{message['stage']} has {message['bytes']} bytes, and must have {size}"
    contents = {"transcript_a": b"", "transcript_b": b"", "decision": decision}
    for message in transcript["messages"]:
        content = contents.get(message["stage"])
        if content is not None and message["body_sha256"] != sha256(content):
            yield f"{message['stage']} did not say what the receipt says"


def theorem(said: dict[str, Any]) -> Iterator[str]:
    if said["theorem"]["refereed"] == (said["parameters"]["bound"] == FILTERED):
        yield "whether referees have read the theorem is told wrongly"
    if SOURCES[said["parameters"]["bound"]] not in said["theorem"]["statement"]:
        yield "the theorem that is named is not that of the bound"
    if not said["assumptions"] or not said["device_reuse"]["statement"]:
        yield "it names no assumptions"
