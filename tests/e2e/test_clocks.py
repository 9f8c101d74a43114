"""Whole sessions whose heralds take their time."""

from pathlib import Path

import pytest
from tests.support.processes import NODES
from tests.support.small_session import ROUNDS, lay_out_small

from bellhop.node.config import load_config
from bellhop.node.demo import both_have_it
from bellhop.node.loopback import network
from bellhop.node.session_client import run_session

pytestmark = pytest.mark.e2e

COHERENCE_NS = 100_000.0
"""Ten thousand times what light takes over the fibre, and no processor answers a block in that."""


@pytest.mark.parametrize("clock", ['"real"', "{ scaled = 10.0 }"])
def test_what_the_processor_takes_ages_no_pair(tmp_path: Path, clock: str) -> None:
    """Five emulated seconds of heralds.  Aged by the host, XX would be gone and S be 1.41."""
    alice, bob = NODES
    layout = lay_out_small(tmp_path / "net", {"device.memory.coherence_ns": COHERENCE_NS}, clock)
    with network(layout) as processes:
        end = run_session(load_config(layout.node(alice)).control_socket, bob, ROUNDS, _unheard)
        assert end["outcome"] == "stored", end
        both_have_it(processes)


def _unheard(_: object) -> None:
    """How far the session is."""
