"""The verifier stands alone, meets the published vectors, and catches whatever is changed."""

import ast
import contextlib
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tests.support.receipts import (
    AUTHORITY,
    IDENTITIES,
    at,
    failing,
    leaves,
    outcome_of,
    places_of,
    receipt,
    signed_anew,
    with_leaf,
)

import bellhop.node.receipt_verifier as verifier
from bellhop.hal.operations import NodeName
from bellhop.node.cli.main import main
from bellhop.node.receipt_verifier import Unreadable, formulas, verify
from bellhop.node.sim.identities import simulated_identity
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI, CertifiedDesign, Design
from bellhop.stack.diqkd.bounds.eat import EatProblem, evaluate
from bellhop.stack.diqkd.bounds.eat_choice import optimise
from bellhop.stack.diqkd.bounds.library import FilteredBound, RenyiBound, Shown

FOLDER = Path(verifier.__file__).parent


# --- alone --------------------------------------------------------------------------------------


def test_it_imports_the_standard_library_and_cryptography_alone() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, "nothing above its own folder"
                names = [node.module or ""] if node.level == 0 else []
            for name in names:
                top = name.partition(".")[0]
                assert top in sys.stdlib_module_names or top == "cryptography", (path.name, name)


def test_copied_out_it_runs_alone(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "receipt_verifier")
    (tmp_path / "authority.pem").write_bytes(AUTHORITY)
    command = [sys.executable, "-m", "receipt_verifier", "r.json", "--authority", "authority.pem"]
    for text, code, last in (
        (json.dumps(receipt(), indent=2), 0, "The receipt holds.\n"),
        ('{"schema": "bellhop-receipt/2"}', 1, "THE RECEIPT DOES NOT HOLD.\n"),
        ("{}", 2, ""),
    ):
        (tmp_path / "r.json").write_text(text, encoding="utf-8")
        done = subprocess.run(
            command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert done.stdout.endswith(last)


# --- the formulas -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("design", "adaptive", "filtered", "kappa"),
    [
        ((1.0007, 0.10, 17, -78, 0), True, False, 0.56919321),
        ((1.0007, 0.10, 17, -78, 0), False, False, 0.56921690),
        ((1.001, 0.14, 12, -53, 0.01), True, False, 0.57615874),
        ((1.001, 0.14, 12, -53, 0.01), False, False, 0.57619058),
        ((1.001, 0.10, 16, -65, 0), True, False, 0.38226633),  # deterministic strategies decide
        ((1.001, 0.10, 16, -65, 0), False, False, 0.38230857),
        ((1.001, 0.10, 16, -65, 0), True, True, 0.36079875),
        ((1.001, 0.10, 16, -65, 0), False, True, 0.36237744),
        ((1.002, 0.18, 10, -36, 0), True, True, 0.21315289),
        ((1.002, 0.18, 10, -36, 0.02), True, True, 0.26985860),
    ],
)
def test_kappa_meets_the_vectors(
    design: tuple[float, ...], adaptive: bool, filtered: bool, kappa: float
) -> None:
    names = ("alpha", "test_probability", "score_win", "score_lose", "flip_probability")
    found = formulas.raw_kappa(dict(zip(names, design, strict=True)), adaptive, filtered)
    assert found == pytest.approx(kappa, abs=6e-9)


def as_document(certified: CertifiedDesign) -> dict[str, Any]:
    d = certified.design
    design = {"alpha": d.alpha, "score_win": d.score_win, "score_lose": d.score_lose}
    return {"kappa": certified.kappa, "design": design}


@given(
    tests=st.integers(1, 200_000),
    share=st.floats(0, 1),
    leak=st.integers(0, 10**6),
    epsilon=st.floats(1e-15, 0.9),
    filtered=st.booleans(),
)
def test_lengths_are_those_of_the_nodes_own_bound(
    tests: int, share: float, leak: int, epsilon: float, filtered: bool
) -> None:
    name = FILTERED if filtered else RENYI
    design = Design(1.001, 0.10009765625, 16.0, -65.0)
    certified = CertifiedDesign("a", name, design, True, 0.36, (1, 2.7, 0.01))
    bound = (FilteredBound if filtered else RenyiBound)(certified, epsilon)
    losses = round(share * tests)
    bits = formulas.renyi_bits(
        as_document(certified), 1_200_000, tests, losses, leak, epsilon, filtered
    )
    assert bits == bound.key_bits(Shown(1_200_000, tests, losses, leak))


def test_the_vector_of_a_run() -> None:
    document = {"kappa": 0.38226633, "design": {"alpha": 1.001, "score_win": 16, "score_lose": -65}}
    said = 300_000 + 64 + 10
    bits = formulas.renyi_bits(document, 1_200_000, 120_000, 21_000, said, 1e-10, filtered=False)
    assert bits == 264_113


@pytest.mark.parametrize(("rounds", "leak"), [(1_500_000, 296_517), (4_000_000, 700_000)])
def test_entropy_accumulation_is_that_of_the_nodes_own_bound(rounds: int, leak: int) -> None:
    problem = EatProblem(rounds, Fraction(13, 256), 0.8255376, leak, 1e-10, "two-universal", 1e-12)
    choice = optimise(problem)
    design = {
        "test_probability": 13 / 256,
        "threshold": problem.threshold,
        "choice": {name: getattr(choice, name) for name in choice.__dataclass_fields__},
    }
    found = formulas.eat_bits(design, rounds, leak, 1e-10, 1e-12)
    assert found == evaluate(problem, choice).key_bits > 0


# --- what holds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["renyi", "eat"])
def test_a_receipt_of_a_session_holds(bound: str) -> None:
    outcome = outcome_of(receipt(bound))
    assert {check.result for check in outcome.checks} == {"holds"}
    assert outcome.recomputed["bound_bits"] == receipt(bound)["session"]["key"]["bound_bits"]
    assert outcome.claim["gross_bits"] == receipt(bound)["session"]["key"]["gross_bits"]


def test_without_an_authority_it_says_that_the_certificates_are_unchecked() -> None:
    outcome = outcome_of(receipt(), authority=None)
    assert outcome.exit_code == 3 and outcome.document()["holds"] is False
    unchecked = [check.name for check in outcome.checks if check.result == "not checked"]
    assert unchecked == ["certificate of alice", "certificate of bob"]
    text = verifier.report(outcome)
    assert "anybody can make certificates" in text and "WHO SIGNED THEM WAS NOT CHECKED" in text


def test_what_no_receipt_shows_is_always_said() -> None:
    text = verifier.report(outcome_of(receipt()))
    for words in ("sealed", "settings", "kappa", "device_reuse"):
        assert words in text.partition("No receipt can show:")[2], words


# --- what does not ------------------------------------------------------------------------------


def another(value: Any) -> Any:
    """Something else of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * (1 + 2**-50) if value else 1e-300
        case str():
            return value[:-1] + ("A" if value[-1:] != "A" else "B")
    return "something"


@pytest.mark.parametrize(("bound", "least"), [("renyi", 120), ("eat", 10)])
def test_no_leaf_can_be_changed(bound: str, least: int) -> None:
    document = receipt(bound)
    places = places_of(bound)
    assert len(places) >= least
    for place in places:
        changed = with_leaf(document, place, another(at(document, place)))
        assert outcome_of(changed, authority=None).exit_code == 1, place


@given(data=st.data())
def test_no_leaf_can_become_anything_else(data: st.DataObject) -> None:
    document = receipt()
    place = data.draw(st.sampled_from(list(leaves(document))))
    old = at(document, place)
    numbers = st.integers() | st.floats()
    values: st.SearchStrategy[Any] = st.none() | st.booleans() | st.text() | st.just([]) | numbers
    new = data.draw(values.filter(lambda new: type(new) is not type(old) or new != old))
    with contextlib.suppress(Unreadable):
        assert outcome_of(with_leaf(document, place, new)).exit_code == 1


def test_no_field_can_be_taken_away_or_added() -> None:
    document = receipt()
    for place in leaves(document):
        if isinstance(place[-1], str) and place != ("schema",):  # without that it is no receipt
            changed = copy.deepcopy(document)
            del at(changed, place[:-1])[place[-1]]
            assert outcome_of(changed).exit_code == 1, place
        changed = copy.deepcopy(document)
        holder = at(changed, place[:-1])
        holder.update(more=1) if isinstance(holder, dict) else holder.append(holder[-1])
        assert outcome_of(changed).exit_code == 1, place


def remove_signature(document: dict[str, Any]) -> None:
    document["ends"]["bob"] = None


def swap_ends(document: dict[str, Any]) -> None:
    ends = document["ends"]
    ends["alice"], ends["bob"] = ends["bob"], ends["alice"]


def one_end_twice(document: dict[str, Any]) -> None:
    document["ends"]["bob"] = document["ends"]["alice"]


def the_others_certificate(document: dict[str, Any]) -> None:
    ends = document["ends"]
    ends["bob"]["certificates"] = ends["alice"]["certificates"]


def another_schema(document: dict[str, Any]) -> None:
    document["schema"] = "bellhop-receipt/3"


@pytest.mark.parametrize(
    "tamper",
    [remove_signature, swap_ends, one_end_twice, the_others_certificate, another_schema],
)
def test_ends_cannot_be_exchanged(tamper: Callable[[dict[str, Any]], None]) -> None:
    document = receipt()
    tamper(document)
    assert outcome_of(document).exit_code == 1


def test_another_nodes_certificate_is_refused() -> None:
    carol = simulated_identity(NodeName("carol"))
    document = signed_anew(receipt(), lambda said: None, {**IDENTITIES, "bob": carol})
    found = failing(outcome_of(document))
    assert found == {"signature of bob": "the certificate is not that of the node 'bob'"}


RECEIPT = b'{"schema": "bellhop-receipt/2", '


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"\xff",
        b"{}",
        b'{"schema": 1}',
        b'{"schema": "another/1"}',
        RECEIPT + b'"schema": "bellhop-receipt/2"}',
        RECEIPT + b'"more": NaN}',
        RECEIPT + b'"more": 1e999}',
        RECEIPT + b'"more": ' + b"9" * 30 + b"}",
        RECEIPT + b'"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        RECEIPT + b'"more": ' + b"[" * 985 + b"]" * 985 + b"}",
        RECEIPT + b'"more": ' + b"[" * 32 + b"]" * 32 + b"}",
        b" " * (1 << 20) + b"{}",
    ],
)
def test_what_is_no_receipt_is_unreadable(text: bytes) -> None:
    with pytest.raises(Unreadable):
        verify(text)


# --- the command --------------------------------------------------------------------------------


def test_the_command_says_so_in_words_and_exit_codes(tmp_path: Path) -> None:
    good, bad, none = (tmp_path / name for name in ("good", "bad", "none"))
    authority = tmp_path / "authority.pem"
    authority.write_bytes(AUTHORITY)
    good.write_text(json.dumps(receipt(), indent=2), encoding="utf-8")
    changed = with_leaf(receipt(), ("session", "run", "losses"), 0)
    bad.write_text(json.dumps(changed), encoding="utf-8")
    none.write_text("no receipt", encoding="utf-8")
    run = CliRunner().invoke
    command = ["receipt", "verify"]
    held = run(main, [*command, str(good), "--authority", str(authority), "--json"])
    assert held.exit_code == 0 and json.loads(held.stdout)["holds"] is True
    failed = run(main, [*command, str(bad)])
    assert failed.exit_code == 1 and "THE RECEIPT DOES NOT HOLD." in failed.stdout
    unreadable = run(main, [*command, str(none)])
    assert unreadable.exit_code == 2 and "no JSON" in unreadable.stderr
    none.write_text("{}", encoding="utf-8")
    unreadable = run(main, [*command, str(none)])
    assert unreadable.exit_code == 2 and "names its schema" in unreadable.stderr
    shown = run(main, ["receipt", "show", str(good)])
    assert shown.exit_code == 0 and "What was measured" in shown.stdout
    assert run(main, ["receipt", "show", str(none)]).exit_code == 2
