"""Two liars: receipts that both ends signed, and that say what is not so."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.receipts import (
    IDENTITIES,
    at,
    failing,
    outcome_of,
    places_of,
    receipt,
    signed_anew,
    with_leaf,
)

import bellhop.node.receipt_verifier as verifier
from bellhop.node.receipt_verifier import formulas
from bellhop.stack.diqkd.receipt import canonical

Path_ = tuple[str, ...]

LIES: dict[str, tuple[Path_, Callable[[Any], Any], str]] = {
    "a longer key": (("key", "bound_bits"), lambda n: n + 8, "key: its length"),
    "another purpose": (("parameters", "purpose"), lambda p: "calibration", "form"),
    "another protocol": (("parameters", "protocol"), lambda p: "bellhop-diqkd/3", "form"),
    "more tests than are drawn": (("run", "tests"), lambda n: n + 500, "run"),
    "fewer losses": (("run", "losses"), lambda n: n - 1, "run"),
    "a better S": (("run", "s"), lambda s: 2.8, "run"),
    "less leak": (("leak", "syndrome"), lambda n: n - 64, "leak"),
    "counts for nothing": (("leak", "counts"), lambda n: 0, "leak"),
    "requests for nothing": (("leak", "requests"), lambda n: 0, "leak"),
    "a leak that is not summed": (("leak", "total"), lambda n: n - 1, "leak"),
    "a plan that is too small": (("leak", "planned"), lambda n: n - 64, "leak"),
    "less device reuse": (("device_reuse", "published_bits"), lambda n: 0, "leak"),
    "smaller errors": (("epsilon", "verification"), lambda e: e / 2, "epsilon"),
    "fewer forgeries": (("epsilon", "forgery_tries"), lambda n: 1, "epsilon"),
    "shorter messages": (("epsilon", "tagged_bytes_max"), lambda n: 16, "epsilon"),
    "another soundness": (("epsilon", "soundness"), lambda e: e / 2, "epsilon"),
    "more privacy error than there is": (("epsilon", "privacy"), lambda e: 0.95, "epsilon"),
    "a greater net": (("key", "net_bits"), lambda n: n + 512, "key: where"),
    "tags for nothing": (("key", "tag_bits_spent"), lambda n: 0, "key: where"),
    "other parameters": (("parameters", "window"), lambda n: n + 1, "transcript"),
    "another epsilon agreed": (("parameters", "epsilon"), lambda e: e / 2, "epsilon"),
    "another digest": (("transcript", "sha256"), lambda d: "0" * 64, "transcript"),
    "no assumptions": (("assumptions",), lambda a: [], "theorem"),
    "another theorem": (("theorem", "statement"), lambda s: "Proved elsewhere.", "theorem"),
    "tags of no length": (("epsilon", "tag_bits"), lambda n: 0, "epsilon"),
    "tags longer than their hash": (("epsilon", "tag_bits"), lambda n: 1 << 20, "epsilon"),
    "tags of less than was agreed": (("epsilon", "tagged_bytes_max"), lambda n: 5_000, "epsilon"),
    "errors of another theorem": (("epsilon", "smoothing"), lambda e: 1e-20, "key: its length"),
    "refereed or not": (("theorem", "refereed"), lambda r: not r, "theorem"),
}


def lie(path: Path_, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def told(said: dict[str, Any]) -> None:
        holder = at(said, path[:-1])
        holder[path[-1]] = change(holder[path[-1]])

    return told


@pytest.mark.parametrize("name", LIES)
def test_figures_that_do_not_follow_fail_whoever_signs_them(name: str) -> None:
    path, change, check = LIES[name]
    found = failing(outcome_of(signed_anew(receipt(), lie(path, change), IDENTITIES)))
    assert any(failed.startswith(check) for failed in found), found
    assert not any(failed.startswith("signature") for failed in found), found


def design_lie(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """A design with other figures, told consistently: the length and the digests follow it."""

    def told(said: dict[str, Any]) -> None:
        certified = said["parameters"]["design"]
        for name, value in changes.items():
            (certified if name in certified else certified["design"])[name] = value
        run, e = said["run"], said["epsilon"]
        bits = formulas.renyi_bits(
            certified, run["rounds"], run["tests"], run["losses"],
            said["leak"]["total"], e["privacy"], filtered=False,
        )  # fmt: skip
        said["key"]["bound_bits"] = bits
        transcript = said["transcript"]
        transcript["parameters_sha256"] = verifier.reading.sha256(canonical(said["parameters"]))
        del transcript["sha256"]
        transcript["sha256"] = verifier.reading.sha256(canonical(transcript))

    return told


def test_a_kappa_above_what_a_known_strategy_allows_is_found() -> None:
    kappa = receipt()["session"]["parameters"]["design"]["kappa"]
    lied = signed_anew(receipt(), design_lie(kappa=kappa + 2e-5), IDENTITIES)
    found = failing(outcome_of(lied))
    assert "a known strategy allows at most" in found["key: its length by the theorem"]


def test_a_design_that_no_theorem_takes_is_found() -> None:
    for changes in ({"score_lose": 40.0}, {"alpha": 1.6}, {"adaptive": False}):
        lied = signed_anew(receipt(), design_lie(**changes), IDENTITIES)
        assert "key: its length by the theorem" in failing(outcome_of(lied)), changes


@pytest.mark.parametrize("value", [1e300, -1e300, 5e-324, 0.0])
@pytest.mark.parametrize("bound", ["renyi", "eat"])
def test_numbers_of_any_size_are_refused_and_never_raise(bound: str, value: float) -> None:
    document = receipt(bound)
    tried = 0
    for place in places_of(bound):
        old = at(document, place)
        if type(old) is float and old not in (0.0, value):
            outcome = outcome_of(with_leaf(document, place, value))
            signed = [c.name for c in outcome.checks if c.name.startswith("signature")]
            assert len(signed) == 2 and len(failing(outcome)) > 2, "caught by more than signatures"
            tried += 1
    assert tried >= 5


def retold(
    name: str, change: Callable[[dict[str, Any]], None], identities: dict[str, Any] = IDENTITIES
) -> dict[str, str]:
    """What fails in a receipt whose account was changed and all that follows from it."""

    def told(said: dict[str, Any]) -> None:
        change(said)
        p, run, leak, e, key = (
            said[part] for part in ("parameters", "run", "leak", "epsilon", "key")
        )
        if name == "eat":
            hashes = e["verification"] + e["forgery"]
            bits = formulas.eat_bits(
                p["design"], run["rounds"], leak["planned"], p["epsilon"], hashes
            )
            p["design"]["key_bits"] = bits
        else:
            bits = formulas.renyi_bits(
                p["design"], run["rounds"], run["tests"], run["losses"],
                leak["total"], e["privacy"], filtered=False,
            )  # fmt: skip
        gross = bits // 8 * 8
        left = gross - key["tag_bits_spent"] - key["id_key_bits"]
        key |= {"bound_bits": bits, "gross_bits": gross, "net_bits": left}
        key |= {"deliverable_bits": left // 256 * 256, "discarded_bits": left % 256}
        messages = {message["stage"]: message for message in said["transcript"]["messages"]}
        counts = (run["losses"].to_bytes(8, "big"), run["errors"].to_bytes(8, "big"))
        messages["decision"]["body_sha256"] = verifier.reading.sha256(b"".join(counts))
        messages["amplification"]["bytes"] = -(-(run["rounds"] + gross - 1) // 8)
        messages["syndrome"]["bytes"] = 32 + -(-leak["syndrome"] // 8)
        said["transcript"]["parameters_sha256"] = verifier.reading.sha256(canonical(p))
        del said["transcript"]["sha256"]
        said["transcript"]["sha256"] = verifier.reading.sha256(canonical(said["transcript"]))

    return failing(outcome_of(signed_anew(receipt(name), told, identities)))


@pytest.mark.parametrize("name", ["renyi", "eat"])
def test_an_account_that_is_retold_as_it_was_holds(name: str) -> None:
    assert retold(name, lambda said: None) == {}


def test_a_syndrome_too_short_for_its_errors_is_found() -> None:
    def none(said: dict[str, Any]) -> None:
        gone = said["leak"]["syndrome"]
        said["parameters"]["code"]["syndrome_bits"] = said["leak"]["syndrome"] = 0
        said["leak"]["total"] -= gone
        said["leak"]["planned"] -= gone
        said["device_reuse"]["published_bits"] -= gone

    assert set(retold("renyi", none)) == {"leak: every bit said about the string"}


def test_a_code_for_other_rounds_is_found() -> None:
    def other(said: dict[str, Any]) -> None:
        said["parameters"]["code"]["rounds"] -= 1

    assert set(retold("renyi", other)) == {"leak: every bit said about the string"}


def test_a_threshold_that_no_device_meets_is_found() -> None:
    """The formula alone would give a key for it, if no test was lost."""
    told = receipt("eat")["session"]
    design = told["parameters"]["design"] | {"threshold": 1.0}
    with pytest.raises(ValueError, match="no device wins as often"):
        formulas.eat_bits(design, told["run"]["rounds"], told["leak"]["planned"], 0.9, 1e-12)


def test_errors_that_are_not_those_of_the_theorem_are_found() -> None:
    def smaller(said: dict[str, Any]) -> None:
        said["epsilon"] |= {"accumulation": 0.0, "smoothing": 0.0}

    assert set(retold("eat", smaller)) == {"key: its length by the theorem"}


def test_both_ends_are_not_one_node() -> None:
    """Whoever has one node's key would need no other."""
    document = receipt()
    document["ends"]["bob"]["statement"]["node"] = "alice"
    document["session"]["parameters"]["bob"] = "alice"
    assert failing(outcome_of(document)) == {"form": "both ends are one node"}


def test_certificates_are_few() -> None:
    document = receipt()
    document["ends"]["bob"]["certificates"] *= 9
    assert failing(outcome_of(document)) == {"form": "bob has more than 8 certificates"}


@pytest.mark.parametrize(
    ("bits", "errors", "least", "most"), [(8, 2, 3.0, 9.0), (10_000, 200, 1_400, 1_420)]
)
def test_patterns_are_counted(bits: int, errors: int, least: float, most: float) -> None:
    said = formulas.pattern_bits(bits, errors)
    true = math.log2(math.comb(bits, errors))
    assert least <= said <= most and said - math.log2(bits + 1) <= true <= said
    assert formulas.pattern_bits(bits, 0) == formulas.pattern_bits(0, 0) == 0
    assert formulas.pattern_bits(bits, bits + 1) == math.inf
