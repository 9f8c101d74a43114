"""`bellhop keyrate` as a user meets it."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bellhop.node.cli.keyrate import keyrate

EAT = "eat-2109.14600"
OXFORD = {
    "--bound": EAT,
    "--rounds": "1500000",
    "--gamma": "13/256",
    "--s": "2.64",
    "--qber": "0.018",
}
RENYI, FILTERED = "renyi-2405.05912", "renyi-filtered-unrefereed"
RUN = ["--rounds", "1200000", "--wins", "99000", "--losses", "21000", "--leak", "300000"]
SAID = ["--epsilon-pa", "1e-10", "--tag-bits", "64", "--bins", "1024"]
LINK = ["--rounds", "1200000", "--s", "2.612", "--qber", "0.03"]


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
    answer = document(epsilon="1e-10")
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


def test_announced_values_may_be_as_many_as_two_exact_counts_have() -> None:
    design = ["--design", "1.001,0.10,16,-65,0"]
    few, many = (renyi(*design, *RUN, "--bins", str(bins)) for bins in (1, (10**12 + 1) ** 2))
    assert few["key_bits"] - many["key_bits"] in (79, 80)
    told = CliRunner().invoke(keyrate, ["--help"]).output
    assert "x>=1]" in told and "107150860" not in told, "limits are for people to read"


@pytest.mark.parametrize("option", ["--rounds", "--gamma", "--s", "--qber"])
def test_a_missing_option_is_named(option: str) -> None:
    arguments = [word for pair in OXFORD.items() if pair[0] != option for word in pair]
    result = CliRunner().invoke(keyrate, arguments)
    assert result.exit_code == 2
    assert option in result.output


def renyi(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(keyrate, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.output)
    return parsed


@pytest.mark.parametrize(
    ("bound", "design", "adaptive", "static"),
    [
        (RENYI, "1.0007,0.10,17,-78,0", 0.56919321, 0.56921690),
        (RENYI, "1.001, 0.14, 12, -53, 0.01", 0.57615874, 0.57619058),
        (RENYI, "1.001,1/10,16,-65,0", 0.38226633, 0.38230857),
        (FILTERED, "1.001,0.10,16,-65,0", 0.36079875, 0.36237744),
    ],
)
def test_kappa_of_a_design(bound: str, design: str, adaptive: float, static: float) -> None:
    told = renyi("--bound", bound, "--design", design)
    assert told["kappa"] == pytest.approx(adaptive, abs=1e-8)
    assert told["adaptive"] is True and told["design"]["test_probability"] in (0.10, 0.14)
    assert "key_bits" not in told
    told = renyi("--bound", bound, "--design", design, "--static")
    assert told["kappa"] == pytest.approx(static, abs=1e-8)
    assert told["adaptive"] is False


@pytest.mark.parametrize(("bound", "key_bits"), [(RENYI, 264_113), (FILTERED, 318_633)])
def test_the_key_of_a_run(bound: str, key_bits: int) -> None:
    told = renyi("--bound", bound, "--design", "1.001,0.10,16,-65,0", *RUN, *SAID)
    assert told["key_bits"] == key_bits
    assert told["refereed"] is (bound == RENYI)


def test_the_best_design_of_a_link() -> None:
    told = renyi(*LINK)
    assert told["bound"] == RENYI
    assert told["key_bits_per_round"] >= 0.26
    assert told["key_bits_per_round"] == told["key_bits"] / 1_200_000
    assert told["drawable"] is True
    again = renyi(*LINK, "--design", told["design_option"])
    assert again["key_bits"] == told["key_bits"] and again["kappa"] == told["kappa"]
    worse = renyi(*LINK, "--design", "1.0007,0.10,17,-78,0")
    assert worse["key_bits"] < told["key_bits"] < 1_200_000 * told["asymptotic_key_rate"]


def test_a_link_without_a_key() -> None:
    result = CliRunner().invoke(keyrate, ["--rounds", "10000", "--s", "2.5", "--qber", "0.05"])
    assert result.exit_code == 0
    assert "none: " in result.output
    told = renyi("--rounds", "10000", "--s", "2.5", "--qber", "0.05")
    assert told["key_bits"] == 0 and told["shortfall_bits"] > 0


def test_what_no_referee_has_read_is_said_beside_each_figure() -> None:
    design = ["--design", "1.001,0.10,16,-65,0"]
    result = CliRunner().invoke(keyrate, ["--bound", FILTERED, *design, *RUN])
    rows = {line.split()[0]: line for line in result.output.splitlines() if line[:1] > " "}
    for name in ("key", "kappa", "theorem"):
        assert "UNREFEREED" in rows[name]
    assert "UNREFEREED" not in CliRunner().invoke(keyrate, [*design, *RUN]).output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--rounds"),
        (["--gamma", "0.1"], "--gamma is for --bound eat"),
        (["--bound", EAT, "--design", "1.001,0.1,16,-65,0"], "--design is for the Renyi bounds"),
        (["--design", "1.001,0.1,16,-65"], "five figures"),
        (["--design", "1.001,0.1,sixteen,-65,0"], "'sixteen' is not a finite number"),
        (["--design", "1.001,1/0,16,-65,0"], "'1/0' is not a finite number"),
        (["--design", "1.001,0.1,nan,-65,0"], "'nan' is not a finite number"),
        (["--design", "1.001,0.1,16,-65,1e999"], "'1e999' is not a finite number"),
        (["--design", "1.6,0.1,16,-65,0"], "alpha is above 1"),
        (["--design", "1.4,0.1,1e9,-65,0"], "mean nothing"),
        (["--design", "1.001,0.1,16,-65,0", "--bins", "7"], "--bins has nothing to apply to"),
        (["--design", "1.001,0.1,16,-65,0", "--rounds", "7"], "--rounds has nothing"),
        (RUN, "--design"),
        (["--design", "1.001,0.1,16,-65,0", *RUN[:-2]], "--leak"),
        (["--design", "1.001,0.1,16,-65,0", *RUN, "--s", "2.6"], "not both"),
        (["--design", "1.001,0.1,16,-65,0", *RUN, "--efficiency", "1.1"], "--efficiency"),
        (["--design", "1.001,0.1,16,-65,0", *RUN, "--wins", "1200000"], "more than --rounds"),
        ([*LINK, "--s", "2.0"], "--s"),
        ([*LINK, "--epsilon-pa", "0"], "--epsilon-pa"),
        ([*LINK, "--epsilon-pa", "nan"], "--epsilon-pa"),
        ([*LINK, "--bins", "0"], "--bins"),
        ([*LINK, "--efficiency", "0.99"], "Shannon's limit"),
        (LINK[:-2], "--qber"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(keyrate, arguments)
    assert result.exit_code == 2
    assert told in result.output.splitlines()[-1]
