"""A node that draws from a hardware generator stops when it fails, and draws from nothing else."""

import os
from pathlib import Path

import pytest
from tests.support.processes import Processes

from bellhop.node.config import load_config
from bellhop.node.control_client import NodeStopped
from bellhop.node.device_chance import START_UP_BYTES
from bellhop.node.loopback import lay_out, network
from bellhop.node.session_client import run_session

pytestmark = pytest.mark.e2e

EXIT_HARDWARE = 5


def ended(processes: Processes, node: str) -> tuple[int, str]:
    """The exit code of a node that ends by itself, and its log."""
    code = processes.running.pop(node).wait(30)
    return code, processes.layout.log(node).read_text()


def test_a_node_stops_with_its_generator(tmp_path: Path) -> None:
    generator = tmp_path / "generator"
    os.mkfifo(generator)
    layout = lay_out(tmp_path / "net")
    own = layout.node("alice")
    section = f'\n[randomness]\nsource = "device"\npath = "{generator}"\n'
    own.write_text(own.read_text() + section)
    pipe = os.open(generator, os.O_RDWR)
    os.write(pipe, os.urandom(2 * START_UP_BYTES))
    with network(layout) as processes:
        whole = 2 * START_UP_BYTES
        status = processes.wait_for("alice", lambda s: s["randomness"]["read_bytes"] == whole)
        source = f"the device {generator}, exclusive or the operating system's generator"
        assert status["randomness"]["source"] == source
        os.close(pipe)  # The generator is gone.
        with pytest.raises(NodeStopped):
            run_session(load_config(own).control_socket, "bob", 1_500_000, lambda progress: None)
        code, log = ended(processes, "alice")
        assert code == EXIT_HARDWARE and f"{generator} ended" in log
        assert "whoever runs the random number generator of this node" in log
        assert "CoreFailed" not in log

        own.write_text(own.read_text().replace(str(generator), "/dev/zero"))
        processes.start("alice")
        code, log = ended(processes, "alice")
        assert code == EXIT_HARDWARE and "repetition count test" in log
        processes.wait_for("bob", lambda status: not status["connections"]["alice"]["connected"])
