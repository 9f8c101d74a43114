"""`bellhop diqkd plan`: where its figures come from, what it answers and refuses, its picture."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from bellhop.hal.experiment import Experiment
from bellhop.hal.preset import load_preset
from bellhop.node.cli.main import main
from bellhop.node.cli.plan import duration
from bellhop.node.cli.plan_plots import PUBLISHED, plan_figure
from bellhop.node.config_diqkd import DiqkdSection
from bellhop.node.planning import block, expected_of
from bellhop.stack.diqkd.bounds.design import EAT, FILTERED, RENYI
from bellhop.stack.diqkd.plan import PlannedSession, plan

LINK = ("--s", "2.612", "--qber", "0.03", "--rate", "0.534")


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["diqkd", "plan", *arguments])


def document(*arguments: str) -> dict[str, Any]:
    result = asked(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_plan_of_figures() -> None:
    found = document(*LINK, "--rounds", "1200000")
    assert found["key_bits_per_round"] > 0.26 and found["refereed"]
    assert found["seconds"] == pytest.approx(1_200_000 / 0.534)
    assert found["net_bits_per_s"] == pytest.approx(0.534 * found["net_bits"] / 1_200_000)
    complete = found["completeness"]
    parts = complete["no_key_probability"] + complete["reconciliation_failure_taken"]
    assert complete["error"] == pytest.approx(parts)
    first = found["first_key"]
    assert 60_000 < first["rounds"] < 120_000
    assert first["seconds"] == pytest.approx(first["rounds"] / 0.534)
    accepted = found["acceptance"]
    assert accepted["losses_expected"] < accepted["losses_most"] < accepted["tests_expected"]
    assert accepted["s_least"] < 2.612
    assert 0.0 <= found["loses"]["to_the_optimum_design"] < 0.005
    beside = found["beside"]
    assert beside[EAT]["key_bits"] == 0
    assert beside[FILTERED]["key_bits"] > found["key_bits"] and not beside[FILTERED]["refereed"]
    assert "no finite-size theorem" in beside["random-key-basis"]["sessions"]
    assert found["design"]["name"].startswith(RENYI)
    section = msgspec.convert(found["configuration"], DiqkdSection)  # as a node's file would say it
    assert (section.rounds, section.s_design, section.block_rounds) == (1_200_000, 2.612, 32)


def test_a_plan_of_a_preset_takes_its_exact_figures_and_its_rounds() -> None:
    found = document("--preset", "liu-10km")
    experiment = Experiment(load_preset("liu-10km"))
    assert found["link"]["s"] == experiment.chsh()
    assert found["link"]["qber"] == experiment.qber()
    assert found["link"]["pairs_per_s"] == experiment.pairs_per_s_with_pauses
    assert found["rounds"] == 405_145 and found["key_bits_per_round"] > 0.13
    longer = Experiment(load_preset("liu-10km", {"fibre.length_m": 40_000}))
    changed = document("--preset", "liu-10km", "--set", "fibre.length_m=40000")
    assert changed["link"]["pairs_per_s"] == longer.pairs_per_s_with_pauses


def test_a_link_without_violation_has_no_key_and_says_so() -> None:
    found = document("--s", "1.9", "--qber", "0.2", "--rounds", "1000000")
    assert found["key_bits"] == found["net_bits"] == 0 and found["first_key"] is None
    assert found["completeness"]["error"] == 1.0
    assert found["loses"]["optimum"] is None


@pytest.mark.parametrize(
    ("s", "qber", "rounds"),
    [
        ("0", "0.499", "4000000"),
        ("2.8284271247461903", "0", "1000"),
        ("2.001", "0", "4000000"),
        ("2", "0.11", "2000"),
    ],
)
def test_any_link_gets_an_answer(s: str, qber: str, rounds: str) -> None:
    found = document("--s", s, "--qber", qber, "--rounds", rounds)
    assert found["key_bits"] == 0
    assert (found["code"]["none"] is None) == ("table" in found["code"])


def test_a_link_that_sessions_refuse_is_named() -> None:
    result = asked("--preset", "innsbruck-50km", "--rounds", "1000000")
    assert result.exit_code == 0, result.output
    assert "detection loophole" in result.stdout


def test_for_so_much_key_and_for_so_long() -> None:
    bits = document(*LINK, "--key-bits", "50000")
    assert 50_000 <= bits["net_bits"] < 51_000 and bits["sessions"] == 1
    hours = document("--s", "2.677", "--qber", "0.0144", "--rate", "1000", "--hours", "3")
    assert hours["sessions"] == 3
    assert hours["sessions"] * hours["rounds"] <= 3 * 3600 * 1000
    assert hours["seconds"] <= 3 * 3600


def test_people_read_it() -> None:
    result = asked(*LINK, "--rounds", "1200000", "--bound", FILTERED)
    assert result.exit_code == 0, result.output
    assert "(UNREFEREED)" in result.stdout
    assert "there is no threshold" in result.stdout
    assert "26.0 days" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "--preset"),
        (("--s", "2.6"), "--s"),
        (("--s", "2.6", "--qber", "0.03"), "--rounds"),
        (("--s", "2.9", "--qber", "0.03", "--rounds", "5"), "--s"),
        (("--s", "nan", "--qber", "0.03", "--rounds", "5"), "--s"),
        (("--s", "2.6", "--qber", "0.5", "--rounds", "5"), "--qber"),
        (("--s", "2.6", "--qber", "nan", "--rounds", "5"), "--qber"),
        ((*LINK, "--preset", "oxford"), "--preset"),
        (("--preset", "oxford", "--rate", "5"), "--rate"),
        (("--s", "2.6", "--qber", "0.03", "--rate", "0", "--rounds", "5"), "--rate"),
        ((*LINK, "--rounds", "999"), "--rounds"),
        (("--s", "2.6", "--qber", "0.03", "--hours", "5"), "--rate"),
        ((*LINK, "--hours", "nan"), "--hours"),
        ((*LINK, "--hours", "0.001"), "--hours"),
        ((*LINK, "--hours", "5", "--key-bits", "5"), "--hours"),
        ((*LINK, "--rounds", "5000", "--key-bits", "5"), "exclude"),
        ((*LINK, "--rounds", "5000", "--hours", "5"), "exclude"),
        ((*LINK, "--key-bits", "999999999"), "--key-bits"),
        ((*LINK, "--rounds", "4000001"), "--rounds"),
        ((*LINK, "--rounds", "1000", "--epsilon", "1e-20"), "epsilon"),
        ((*LINK, "--rounds", "1000", "--epsilon", "2"), "--epsilon"),
        ((*LINK, "--set", "fibre.length_m=1", "--rounds", "5"), "--set"),
        (("--config", "nowhere.toml", "--rounds", "5"), "--peer"),
        ((*LINK, "--rounds", "1200000", "--plot", "picture.txt"), "--plot"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[str, ...], named: str) -> None:
    result = asked(*arguments)
    assert result.exit_code == 2, result.output
    assert named in result.stderr


def test_durations() -> None:
    shown = [duration(seconds) for seconds in (None, 0.5, 90.0, 600.0, 7300.0, 2e5)]
    assert shown[1:] == ["0.5 seconds", "90 seconds", "10.0 minutes", "2.0 hours", "2.3 days"]


def test_blocks_take_a_minute_and_no_more_than_is_held() -> None:
    assert block(0.534)["block_rounds"] == 32
    assert block(1e6)["block_rounds"] == 4096
    assert block(1e-9)["block_rounds"] == 1
    assert block(None, held_max=1)["block_rounds"] == 1


# --- pictures ---


def nobody(_name: str, _done: float) -> None:
    pass


def test_what_is_drawn() -> None:
    preset = load_preset("lu-11km")
    link = expected_of(preset)
    session = plan(1_200_000, link.s, link.qber)
    assert isinstance(session, PlannedSession)
    figure = plan_figure(preset, link, session, nobody, points=4)
    seconds, pairs, rounds = figure.axes
    without_rate = sum(one.per_s is None for one in PUBLISHED)
    curves = 4
    assert len(pairs.lines) == len(rounds.lines) - 1 == curves + len(PUBLISHED)
    assert len(seconds.lines) == curves + len(PUBLISHED) - without_rate
    by_name = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in rounds.lines}
    assert by_name["this plan"] == pytest.approx([session.key_bits / session.rounds])
    endless = by_name["run without end"]
    assert (np.nan_to_num(by_name[RENYI]) < endless).all()
    per_s = {str(line.get_label()): np.asarray(line.get_ydata(), float) for line in seconds.lines}
    assert (np.diff(per_s["run without end"]) < 0).all()
    assert np.isfinite(per_s[RENYI][0])
    assert "QBER of Lu's run is not published" in " ".join(figure.get_supxlabel().split())


def test_a_picture_is_written_without_a_preset_too(tmp_path: Path) -> None:
    file = tmp_path / "plan.png"
    result = asked("--s", "2.1", "--qber", "0.2", "--rounds", "100000", "--plot", str(file))
    assert result.exit_code == 0, result.output
    assert "none: the bound is not positive" in result.stdout
    assert "never: no session nets one at these figures" in result.stdout
    assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size > 20_000
    assert str(file) in result.stdout
