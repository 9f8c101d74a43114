"""`bellhop keyrate` as a user meets it."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bellhop.node.cli.keyrate import keyrate

OXFORD = {"--rounds": "1500000", "--gamma": "13/256", "--s": "2.64", "--qber": "0.018"}


def run(*extra: str, **changed: str) -> Result:
    options = OXFORD | {f"--{name.replace('_', '-')}": text for name, text in changed.items()}
    arguments = [word for pair in options.items() for word in pair]
    return CliRunner().invoke(keyrate, [*arguments, *extra])


def document(*extra: str, **changed: str) -> dict[str, Any]:
    result = run("--json", *extra, **changed)
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.output)
    return parsed


def test_the_published_run() -> None:
    answer = document(bound="eat-2109.14600", epsilon="1e-10")
    assert answer["leak_bits"] == 296_517
    assert isinstance(answer["leak_bits"], int)
    assert answer["threshold"] == pytest.approx(0.825538, abs=1e-6)
    assert abs(answer["key_bits"] - 95_884) <= 20
    assert answer["epsilon"] == answer["errors"]["soundness"] == 1e-10
    assert answer["gamma"] == "13/256"
    assert answer["form"] == "trevisan"
    assert "2109.14600v2" in answer["theorem"]
    assert answer["false_abort_probability"] == pytest.approx(0.00139, abs=1e-5)


def test_gamma_may_be_a_decimal() -> None:
    assert document(gamma="0.05078125")["key_bits"] == document()["key_bits"]


def test_a_leak_of_ones_own() -> None:
    planned = document(form="two-universal")
    assert planned["leak_bits"] == 296_517 + 64 + 2 * 21
    less = document(form="two-universal", leak_bits=str(planned["leak_bits"] - 1000))
    assert less["key_bits"] == planned["key_bits"] + 1000


def test_the_table_says_what_the_claim_rests_on() -> None:
    result = run()
    assert result.exit_code == 0
    for text in ("bits", "2109.14600v2", "Prop. 2", "1e-10 soundness", "0.825538", "296,517"):
        assert text in result.output
    for assumption in document()["assumptions"]:
        assert assumption in result.output


def test_no_key_is_an_answer() -> None:
    poor = {"rounds": "405145", "s": "2.5758", "qber": "0.036"}
    result = run(**poor)
    assert result.exit_code == 0
    assert "none" in result.output
    assert document(**poor)["key_bits"] == 0


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("bound", "magic"),
        ("rounds", "0"),
        ("rounds", "many"),
        ("gamma", "0"),
        ("gamma", "1"),
        ("gamma", "13/0"),
        ("gamma", "often"),
        ("gamma", "nan"),
        ("s", "2.83"),
        ("s", "-1"),
        ("s", "nan"),
        ("qber", "0.51"),
        ("qber", "-0.01"),
        ("qber", "nan"),
        ("epsilon", "0"),
        ("epsilon", "1"),
        ("epsilon", "nan"),
        ("epsilon", "1e-18"),
        ("form", "sha"),
        ("leak_bits", "-1"),
    ],
)
def test_bad_input_names_its_option(option: str, text: str) -> None:
    result = run(**{option: text})
    assert result.exit_code == 2
    assert f"--{option.replace('_', '-')}" in result.output.splitlines()[-1]


@pytest.mark.parametrize("option", ["--rounds", "--gamma", "--s", "--qber"])
def test_a_missing_option_is_named(option: str) -> None:
    arguments = [word for pair in OXFORD.items() if pair[0] != option for word in pair]
    result = CliRunner().invoke(keyrate, arguments)
    assert result.exit_code == 2
    assert option in result.output
