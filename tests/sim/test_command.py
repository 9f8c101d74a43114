"""`bellhop sim`: what it prints, that its seed decides everything, and what it refuses."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bellhop.node.cli.main import main
from bellhop.node.sim.checkers import Violation
from bellhop.node.sim.run import run_scenario
from bellhop.node.sim.scenario import read_scenario, two_nodes

SCENARIOS = Path(__file__).parents[1] / "scenarios"
SMALL = SCENARIOS / "small.toml"


def run_in_process_of_its_own(hash_seed: int, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", "from bellhop.node.cli import main; main()",
         "sim", str(SMALL), "--json", *options],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_seed_decides_everything_in_any_process() -> None:
    options = ("--seed", "5", "--sessions", "1")
    runs = [run_in_process_of_its_own(hash_seed, *options) for hash_seed in (1, 2)]
    for run in runs:
        assert run.pop("cpu_s") > 0
    assert runs[0] == runs[1]
    other = run_in_process_of_its_own(1, "--seed", "6", "--sessions", "1")
    assert other["trace_sha256"] != runs[0]["trace_sha256"]


def test_a_run_without_faults_says_what_it_made() -> None:
    options = ["sim", str(SMALL), "--faults", "none", "--sessions", "2", "--seed", "4", "--json"]
    document = json.loads(CliRunner().invoke(main, options, catch_exceptions=False).stdout)
    assert document["pairs"] == 2 * 32_000
    assert 2_000 < document["pairs_per_s"] < 10_000, "the link heralds at most 10,000 a second"
    assert [session["outcome"] for session in document["sessions"]] == ["stored", "stored"]
    for session in document["sessions"]:
        assert session["s"] == pytest.approx(2.828, abs=0.12), "about 3,000 test rounds"
        assert 0 < session["net_bits"] < session["gross_bits"]
    assert document["faults"] == {} and document["refusals"] == {}


def test_people_get_a_table() -> None:
    options = ["sim", str(SMALL), "--faults", "none", "--sessions", "1", "--seed", "4"]
    text = CliRunner().invoke(main, options, catch_exceptions=False).stdout
    assert "invariants  hold" in text and "stored: S 2." in text


def test_the_example_is_the_scenario_without_a_name() -> None:
    example, built_in = read_scenario(SCENARIOS / "two-nodes.toml"), two_nodes()
    assert example.policy == built_in.policy
    assert example.links == built_in.links
    assert (example.rounds, example.sessions, example.faults) == (
        built_in.rounds,
        built_in.sessions,
        built_in.faults,
    )


def test_an_error_says_what_repeats_it() -> None:
    def interrupted(_pairs: int) -> None:
        raise Violation("shown to be found")

    scenario = replace(read_scenario(SMALL), sessions=1)
    with pytest.raises(Violation) as raised:
        run_scenario(scenario, 3, interrupted)
    (note,) = raised.value.__notes__
    assert note.startswith(f"repeat it with: bellhop sim {SMALL} ")
    assert "--seed 3 --rounds 32000 --sessions 1 --faults swarm" in note


def test_too_few_rounds_are_refused_before_anything_is_run() -> None:
    refused = CliRunner().invoke(main, ["sim", str(SMALL), "--rounds", "1000", "--json"])
    assert refused.exit_code == 2
    assert json.loads(refused.stderr)["fields"]["field"] == "rounds"


LINK = '[[link]]\nname = "fibre"\na = "alice"\nb = "bob"\npreset = "oxford"\n'


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (LINK + "colour = 1\n", "link[0].colour"),
        ("round = 1\n" + LINK, "round"),
        ("rounds = 0\n" + LINK, "rounds"),
        ("sessions = 1000000\n" + LINK, "sessions"),
        ('faults = "some"\n' + LINK, "faults"),
        (LINK.replace('"bob"', '"alice"'), "link[0].b"),
        (LINK.replace('"bob"', '"Bob!"'), "link[0].b"),
        (LINK.replace('preset = "oxford"\n', ""), "link[0].preset"),
        (LINK + '\n[session]\ntest_probability = "1/3"\n', "session.test_probability"),
        (LINK + "\n[session]\nepsilon = 2.0\n", "session.epsilon"),
        (LINK + "\n[session]\ns_design = 1.0\n", "session.s_design"),
        (LINK + "\n[session]\nstall_s = 0.0\n", "session.stall_s"),
        (LINK + "\n" + LINK, "link[1].name"),
        (LINK + "\n" + LINK.replace('"fibre"', '"other"'), "link"),
    ],
)
def test_a_wrong_scenario_is_refused_by_its_field(tmp_path: Path, text: str, field: str) -> None:
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(text)
    refused = CliRunner().invoke(main, ["sim", str(scenario), "--json"])
    assert refused.exit_code == 2
    error = json.loads(refused.stderr)
    assert error["fields"]["field"] == field
