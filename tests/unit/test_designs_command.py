"""`bellhop diqkd designs`: what is printed, and how a design that is not proved ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bellhop.node.cli.main import main
from bellhop.stack.diqkd.bounds.certificates import file_text
from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI
from bellhop.stack.diqkd.bounds.designs import certified_designs, shipped_entries

NAME = f"{RENYI}/1.2e6/2.60"


def designs(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["diqkd", "designs", *arguments])


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_list_prints_all_or_those_of_a_bound() -> None:
    listed = document(designs("list", "--json"))["designs"]
    assert [entry["name"] for entry in listed] == [one.name for one in certified_designs()]
    of_one = document(designs("list", "--bound", FILTERED, "--json"))["designs"]
    assert {entry["bound"] for entry in of_one} == {FILTERED}
    lines = designs("list").stdout.splitlines()
    assert len(lines) == len(listed)  # to a pipe, no heading
    assert any(line.startswith(NAME) and "1,200,000 rounds, S = 2.6" in line for line in lines)


def test_check_proves_what_is_named() -> None:
    [row] = document(designs("check", NAME, "--json"))["designs"]
    assert row["name"] == NAME
    assert row["holds"]
    assert row["cells"] > 500
    text = designs("check", NAME).stdout
    assert text.startswith(NAME)
    assert "proved" in text


def test_check_refuses_a_forged_file(tmp_path: Path) -> None:
    [entry] = [entry for entry in shipped_entries() if entry["name"] == NAME]
    forged = tmp_path / "forged.json"
    forged.write_text(file_text([{**entry, "kappa": entry["kappa"] + 1e-4}]))
    result = designs("check", "--file", str(forged), "--json")
    assert result.exit_code == 3
    [row] = json.loads(result.stdout)["designs"]
    assert not row["holds"]
    assert "an attack leaves" in row["why"]
    assert NAME in json.loads(result.stderr)["message"]


@pytest.mark.parametrize("content", ["", "{}", '{"designs": [], "digest": "0"}', "[1]"])
def test_check_refuses_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "designs.json"
    file.write_text(content)
    result = designs("check", "--file", str(file))
    assert result.exit_code == 3
    assert str(file) in result.stderr


def test_an_unknown_name_is_a_wrong_option() -> None:
    result = designs("check", "renyi/none")
    assert result.exit_code == 2
    assert "renyi/none" in result.stderr


def test_certify_proves_a_design_of_ones_own() -> None:
    found = document(designs("certify", "1.001,0.14,12,-53,0", "--json"))
    assert found["bound"] == RENYI
    assert found["adaptive"]
    assert not found["drawable"]
    assert 0.0 <= found["attack"]["kappa"] - found["kappa"] - 1e-5 < 1.1e-8
    text = designs("certify", "1.001,9175/65536,12,-53,0", "--bound", FILTERED, "--static").stdout
    assert "proved against every strategy" in text
    assert "cannot act between rounds" in text


@pytest.mark.parametrize("wrong", ["1.001,0.1,12", "2,0.1,12,-53,0", "1.001,0.1,x,-53,0"])
def test_a_design_that_is_none_is_a_wrong_option(wrong: str) -> None:
    assert designs("certify", wrong).exit_code == 2
