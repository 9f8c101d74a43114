"""A laboratory in the emulator's place: the nodes' files, and all above hal, stay as they are."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.small_session import BLOCK_ROUNDS, ROUNDS, lay_out_small

from bellhop.node.config import load_config
from bellhop.node.loopback import EMULATOR, Layout, Processes, running
from bellhop.node.session_client import Progress, run_session

pytestmark = pytest.mark.e2e

SERVICE = """
[service]
listen = "{listen}"

[service.tls]
certificate = "pki/emulator/emulator/emulator.crt.pem"
key = "pki/emulator/emulator/emulator.key.pem"
authority = "pki/emulator/emulator/authority.crt.pem"
"""
TRAP = """
[[laboratory]]
node = "{node}"
driver = "bellhop.hal.examples.two_traps:Trap"

[laboratory.options]
table = "{table}"
link = "alice-bob"
side = "{side}"
peer = "{peer}"
ions = {ions}
"""


@dataclass
class WithLaboratory(Processes):
    """The processes of a network whose memories are a laboratory's."""

    def start(self, name: str) -> None:
        if name != EMULATOR:
            super().start(name)
            return
        with self.layout.log(name).open("ab") as log:
            self.running[name] = self._spawn(
                ["hal", "serve", str(self.layout.emulator), "--json"], log
            )


@contextmanager
def optical_table() -> Iterator[str]:
    """Where the pretended experiment is; its pairs are pure."""
    table = subprocess.Popen(
        [sys.executable, "-m", "bellhop.hal.examples.optical_table", "127.0.0.1:0", "1.0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert table.stdout is not None
    try:
        yield table.stdout.readline().strip()
    finally:
        table.kill()
        table.wait()
        table.stdout.close()


def put_laboratory(layout: Layout, table: str, ions: int) -> None:
    """In the emulator's place, at its address and with its certificate, for both nodes."""
    emulator = layout.emulator.read_text(encoding="utf-8")
    listen = emulator.split('listen = "')[1].split('"')[0]
    traps = [
        TRAP.format(node=node, peer=peer, side=side, table=table, ions=ions)
        for node, peer, side in (("alice", "bob", "a"), ("bob", "alice", "b"))
    ]
    layout.emulator.write_text(SERVICE.format(listen=listen) + "".join(traps), encoding="utf-8")


def session_over(layout: Layout, rounds: int) -> dict[str, object]:
    moved: list[Progress] = []
    end: dict[str, object] = run_session(
        load_config(layout.node("alice")).control_socket, "bob", rounds, moved.append
    )
    return end


def test_a_laboratory_makes_keys_in_the_emulators_place(tmp_path: Path) -> None:
    """Each trap holds four blocks: further ones wait for room."""
    layout = lay_out_small(tmp_path / "net")
    with optical_table() as table:
        put_laboratory(layout, table, ions=4 * BLOCK_ROUNDS)
        with running(WithLaboratory(layout)):
            end = session_over(layout, ROUNDS)
    assert end["outcome"] == "stored", end


def test_a_laboratory_that_holds_fewer_pairs_than_a_block_is_refused(tmp_path: Path) -> None:
    layout = lay_out_small(tmp_path / "net")
    with optical_table() as table:
        put_laboratory(layout, table, ions=BLOCK_ROUNDS - 1)
        with running(WithLaboratory(layout)):
            end = session_over(layout, ROUNDS)
    assert end["outcome"] == "refused"
    reason = str(end["reason"])
    assert (
        f"diqkd.block_rounds = {BLOCK_ROUNDS}" in reason and f"{BLOCK_ROUNDS - 1} pairs" in reason
    )
