"""The fields of a receipt, all of them: nothing may be missing, and nothing be there unread.

What the two nodes agreed before the first round (`parameters`) may have fields beside those that
the key's length follows from: they are signed and shown, and nothing is computed from them.
"""

from collections.abc import Iterator
from typing import Any

SCHEMA = "bellhop-receipt/2"
PROTOCOL = "bellhop-diqkd/2"
"""Says which messages there are, and how long."""
EAT, RENYI, FILTERED = "eat-2109.14600", "renyi-2405.05912", "renyi-filtered-unrefereed"
ROLES = ("alice", "bob")
CERTIFICATES_MAX = 8
STAGES = {
    "transcript_a": "alice",
    "transcript_b": "bob",
    "inputs_a": "alice",
    "inputs_b": "bob",
    "syndrome": "alice",
    "verification": "alice",
    "decision": "bob",
    "amplification": "alice",
}
"""The eight tagged messages in their order, and who says each."""


def _each(kind: type, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


_CHOICE = (
    "tangent alpha_prime alpha_double_prime smoothing_prime smoothing_double_prime privacy_error"
)
_DESIGNS: dict[bool, dict[str, Any]] = {
    True: {
        "test_probability": float,
        "deviations": float,
        "threshold": float,
        "key_bits": int,
        "choice": _each(float, _CHOICE),
    },
    False: {
        "name": str,
        "bound": str,
        "adaptive": bool,
        "kappa": float,
        "made_for": list,
        "design": _each(float, "alpha test_probability score_win score_lose flip_probability"),
    },
}
_MESSAGE = {"stage": str, "sender": str, "bytes": int, "body_sha256": str, "tag_sha256": str}
_PARAMETERS = {
    "protocol": str, "purpose": str, "session": str, "link": str, "alice": str, "bob": str,
    "rounds": int, "epsilon": float, "bound": str, "design": dict, "steps_max": int,
}  # fmt: skip
_CODE = {"rounds": int, "syndrome_bits": int, "lifting": int, "step_rows": int, "steps_max": int}
_SESSION: dict[str, Any] = {
    "parameters": dict,
    "theorem": {"statement": str, "refereed": bool},
    "run": {"rounds": int, "tests": int, "losses": int, "errors": int, "s": float, "qber": float},
    "leak": _each(
        int, "syndrome extra_steps extra_syndrome requests verification counts total planned"
    ),
    "epsilon": {
        **_each(float, "soundness privacy accumulation smoothing verification forgery"),
        **_each(int, "tag_bits forgery_tries tagged_bytes_max"),
    },
    "key": _each(
        int,
        "bound_bits gross_bits tag_bits_spent id_key_bits net_bits deliverable_bits discarded_bits",
    ),
    "transcript": {
        **_each(
            str,
            "parameters_sha256 tests_sha256 heralds_sha256 code_sha256 "
            "extra_syndrome_sha256 sha256",
        ),
        "messages": [_MESSAGE],
    },
    "assumptions": [str],
    "device_reuse": {"published_bits": int, "statement": str},
}
_STATEMENT: dict[str, Any] = {
    "node": str,
    "role": str,
    "device": {
        "source": str,
        "description": str,
        "idealisations": [str],
        "sessions_before": int,
        "aborted_before": int,
        "published_bits_before": int,
    },
    "randomness": {"source": str, "health": str},
    "stored_ns": int,
}
_END = {"statement": _STATEMENT, "certificates": [str], "signature": str}


def form(receipt: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a receipt's fields, whatever they say."""
    if receipt.get("schema") != SCHEMA:
        yield f"the schema is not {SCHEMA}"
        return
    yield from misshapen(receipt, {"schema": str, "session": _SESSION, "ends": dict}, "receipt")
    parameters = receipt["session"]["parameters"]
    yield from misshapen(parameters, _PARAMETERS, "parameters", more=True)
    yield from misshapen(parameters.get("code"), _CODE, "code", more=True)
    if (parameters["protocol"], parameters["purpose"]) != (PROTOCOL, "key"):
        yield f"the session is not one of {PROTOCOL} that makes a key"
    if parameters["alice"] == parameters["bob"]:
        yield "both ends are one node"
    if parameters["bound"] not in (EAT, RENYI, FILTERED):
        yield "the bound is none that is known here"
    yield from misshapen(parameters["design"], _DESIGNS[parameters["bound"] == EAT], "design")
    yield from misshapen(receipt["ends"], {"alice": object, "bob": object}, "ends")
    for role in ROLES:
        end = receipt["ends"][role]
        if end is not None:
            yield from misshapen(end, _END, role)
            if len(end["certificates"]) > CERTIFICATES_MAX:
                yield f"{role} has more than {CERTIFICATES_MAX} certificates"


def misshapen(value: Any, shape: Any, name: str, *, more: bool = False) -> Iterator[str]:
    """What is not of its shape; `more`: an object may have names beside those of its shape."""
    match shape:
        case dict():
            if not isinstance(value, dict):
                yield f"{name} is no object"
            elif missing := set(shape) - set(value) or (set() if more else set(value) - set(shape)):
                yield f"{name}: {min(missing)[:60]!r} is missing or not known"
            else:
                for inner, wanted in shape.items():
                    yield from misshapen(value[inner], wanted, f"{name}.{inner}")
        case list():
            if not isinstance(value, list):
                yield f"{name} is no list"
            else:
                for item in value:
                    yield from misshapen(item, shape[0], name)
        case _:
            yield from _unfit(value, shape, name)


def _unfit(value: Any, shape: Any, name: str) -> Iterator[str]:
    """What is wrong with a value that holds no others; texts may be shown on any screen."""
    if shape is object:
        return
    if type(value) is not shape:
        yield f"{name} is not what it should be"
    elif type(value) is int and value < 0:
        yield f"{name} is negative"
    elif type(value) is str and not value.isprintable():
        yield f"{name} is not fit to be shown"
