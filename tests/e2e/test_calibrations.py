"""Calibrations between real processes: asked for, listed, planned with, and warned of."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.processes import Processes, running_network

from bellhop.hal.experiment import Experiment
from bellhop.hal.preset import load_preset
from bellhop.node.demo import DEGRADED
from bellhop.node.loopback import CommandFailed

pytestmark = pytest.mark.e2e

ROUNDS = 40_000


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Of a link that phase noise has made worse than its nodes' design."""
    folder = tmp_path_factory.mktemp("calibrations") / "net"
    with running_network(folder, DEGRADED) as running:
        yield running


def config(processes: Processes, node: str) -> list[str]:
    return ["--config", str(processes.layout.node(node))]


def calibrated(processes: Processes, node: str = "alice", peer: str = "bob") -> dict[str, Any]:
    rounds = ["--peer", peer, "--rounds", str(ROUNDS)]
    return processes.command("diqkd", "calibrate", *config(processes, node), *rounds)


def figure(processes: Processes, node: str, name: str) -> float:
    status = processes.status(node)
    assert status is not None
    with urllib.request.urlopen(f"http://{status['listening']['metrics']}/metrics") as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_a_worse_link_is_measured_and_warned_of(processes: Processes) -> None:
    end = calibrated(processes)
    exact = Experiment(load_preset("oxford", DEGRADED))
    assert end["outcome"] == "calibrated" and end["rounds"] == ROUNDS
    assert abs(end["s"] - exact.chsh()) < 5 * end["s_error"]
    assert abs(end["qber"] - exact.qber()) < 5 * end["qber_error"]
    assert [(one["figure"], one["since"]) for one in end["drift"]] == [("s", "design")]
    assert end["drift"][0]["standard_errors"] < -3
    assert "plan_from" in end["drift"][0]["what_to_do"]
    for node, peer in (("alice", "bob"), ("bob", "alice")):
        listed = processes.command("diqkd", "calibrations", *config(processes, node))
        (known,) = listed["calibrations"]["alice-bob"]
        assert known["s"] == end["s"] and known["session"] == end["session"]
        status = processes.status(node)
        assert status is not None and status["core"]["drifts"]["alice-bob"]
        assert status["core"]["calibrations"]["alice-bob"] == [known]
        assert figure(processes, node, f'bellhop_link_chsh_s{{peer="{peer}"}}') == end["s"]
        assert figure(processes, node, f'bellhop_link_drifts{{peer="{peer}"}}') == 1
        assert '"calibration_drift"' in processes.layout.log(node).read_text()


def test_a_plan_is_made_of_the_last_calibration(processes: Processes) -> None:
    end = calibrated(processes, "bob", "alice")
    asked = ["diqkd", "plan", *config(processes, "alice"), "--peer", "bob", "--rounds", "1500000"]
    plan = processes.command(*asked)
    assert plan["link"]["pairs_per_s"] == end["pairs_per_s"]
    assert end["pairs_per_s"] == pytest.approx(63, rel=0.15)  # by its device's clock
    plan = processes.command(*asked, "--rate", "63")
    assert (plan["link"]["s"], plan["link"]["qber"]) == (end["s"], end["qber"])
    assert plan["link"]["s_error"] == end["s_error"]
    assert plan["seconds"] == pytest.approx(1_500_000 / 63)


def test_what_cannot_be_calibrated_is_refused(processes: Processes) -> None:
    nobody = ["--peer", "carol", "--rounds", "2000"]
    with pytest.raises(CommandFailed, match="is no \\[\\[peer\\]\\]"):
        processes.command("diqkd", "calibrate", *config(processes, "alice"), *nobody)
    with pytest.raises(CommandFailed, match="is not in the range"):
        few = ["--peer", "bob", "--rounds", "10"]
        processes.command("diqkd", "calibrate", *config(processes, "alice"), *few)


def test_calibrations_outlive_a_restart(processes: Processes, tmp_path: Path) -> None:
    before = processes.command("diqkd", "calibrations", *config(processes, "alice"))
    processes.kill("alice")
    processes.start("alice")
    processes.wait_ready()
    assert processes.command("diqkd", "calibrations", *config(processes, "alice")) == before
