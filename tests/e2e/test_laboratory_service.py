"""The example laboratory as it is run: a pretended experiment, two services, and the suite."""

import asyncio
import datetime
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.relay import OPERATE, calling
from tests.support.waiting import until

from bellhop.hal.conformance import CHECKS, Device, attach
from bellhop.hal.memory_client import MemoryServiceAccess, MemoryServiceClient
from bellhop.hal.operations import Attempt, LinkName, Measure, MemoryLost, Side
from bellhop.node import pki
from bellhop.node.loopback import COMMAND
from bellhop.node.tls import Party, PartyKind, grpc_channel_credentials, read_credentials

pytestmark = pytest.mark.e2e

LINK = LinkName("alice-bob")
EXAMPLE = Path(__file__).parents[2] / "deploy" / "example-laboratory.toml"
PATIENCE_SECONDS = 30.0
ROUNDS = 3_072
"""Of Werner pairs of visibility 0.95: S is then 10 standard deviations above 2."""


@dataclass
class Laboratories:
    """The processes: the experiment, and a service for each node."""

    folder: Path
    table: "subprocess.Popen[str]"
    services: "dict[str, subprocess.Popen[str]]"

    def address(self, node: str) -> str:
        return (self.folder / f"{node}.port").read_text().strip()

    def access(self, node: str) -> MemoryServiceAccess:
        home = self.folder / "pki" / "node" / node
        return MemoryServiceAccess(
            self.address(node),
            f"trap-{node}.emulator.bellhop",
            certificate=(home / f"{node}.crt.pem").read_bytes(),
            authority=(home / "authority.crt.pem").read_bytes(),
            key=(home / f"{node}.key.pem").read_bytes(),
        )

    @property
    def device(self) -> Device:
        return Device(
            LINK,
            lambda: MemoryServiceClient(self.access("alice")),
            lambda: MemoryServiceClient(self.access("bob")),
        )

    def conform(self, *more: str, link: str = LINK) -> "subprocess.CompletedProcess[str]":
        where = [self.address("alice"), "--peer-address", self.address("bob"), "--link", link]
        who = [
            "--service",
            "trap-alice",
            "--peer-service",
            "trap-bob",
            "--a",
            "alice",
            "--b",
            "bob",
        ]
        files = ["--pki", str(self.folder / "pki")]
        return subprocess.run(
            [*COMMAND, "hal", "conform", *where, *who, *files, *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip


def certify(folder: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    pki.init_authority(folder, now=now)
    for name in ("alice", "bob", "carol"):
        pki.issue(folder, Party(PartyKind.NODE, name), now=now)
        pki.issue(folder, Party(PartyKind.EMULATOR, f"trap-{name}"), now=now)


def laboratory_file(node: str, peer: str, side: Side, table: str) -> str:
    """The example as deployed, for either node."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in (
        ('"127.0.0.1:7500"', '"127.0.0.1:0"'),
        ('"127.0.0.1:7700"', f'"{table}"'),
        ('"laboratory.port"', f'"{node}.port"'),
        ("trap-alice", f"trap-{node}"),
        ('node = "alice"', f'node = "{node}"'),
        ('side = "a"', f'side = "{side.value}"'),
        ('peer = "bob"', f'peer = "{peer}"'),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


def started(folder: Path) -> Laboratories:
    table = subprocess.Popen(
        [sys.executable, "-m", "bellhop.hal.examples.optical_table", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert table.stdout is not None
    address = table.stdout.readline().strip()
    running = Laboratories(folder, table, {})
    for node, peer, side in (("alice", "bob", Side.A), ("bob", "alice", Side.B)):
        file = folder / f"{node}.toml"
        file.write_text(laboratory_file(node, peer, side, address), encoding="utf-8")
        with (folder / f"{node}.log").open("w") as log:
            running.services[node] = subprocess.Popen(
                [*COMMAND, "hal", "serve", str(file), "--json"], stderr=log, text=True
            )
    return running


def listens(running: Laboratories) -> bool:
    assert all(service.poll() is None for service in running.services.values()), "see the logs"
    return all((running.folder / f"{node}.port").exists() for node in running.services)


@pytest.fixture
def laboratories(tmp_path: Path) -> Iterator[Laboratories]:
    certify(tmp_path / "pki")
    running = started(tmp_path)
    assert running.table.stdout is not None
    try:
        asyncio.run(until(lambda: listens(running)))
        yield running
    finally:
        for process in (*running.services.values(), running.table):
            process.kill()
            process.wait()
        running.table.stdout.close()


def test_the_example_conforms_as_its_command_says(laboratories: Laboratories) -> None:
    done = laboratories.conform("--rounds", str(ROUNDS), "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    wrong = [check for check in document["checks"] if check["outcome"] != "passed"]
    assert wrong == [] and done.returncode == 0
    assert [check["title"] for check in document["checks"]] == [check.title for check in CHECKS]
    assert all(check.title in done.stderr for check in CHECKS), "progress is shown"
    # Stopped as an operator stops them: at once, and nothing left behind.
    for node, service in laboratories.services.items():
        service.send_signal(signal.SIGTERM)
        assert service.wait(PATIENCE_SECONDS) == 0
        assert not (laboratories.folder / f"{node}.port").exists()
        log = (laboratories.folder / f"{node}.log").read_text()
        records = [json.loads(line) for line in log.splitlines()]
        assert {record["level"] for record in records} == {"info"}, log


def test_what_fails_is_told_so_that_one_can_act(laboratories: Laboratories) -> None:
    """Exit code 5, and the report says what was seen and where to look."""
    done = laboratories.conform("--wait", "5", link="alice-carol")
    assert done.returncode == 5
    assert "no port on link alice-carol; there are: alice-bob" in done.stdout
    assert CHECKS[0].expected in done.stdout and CHECKS[0].look_at in done.stdout
    assert "not run" in done.stdout
    assert f"the end of alice at {laboratories.address('alice')}: no port" in done.stdout
    assert f"1 of {len(CHECKS)} checks failed: Ready comes first" in done.stderr


def test_why_an_end_is_not_ready_is_told_with_its_name(laboratories: Laboratories) -> None:
    address = laboratories.address("alice")
    service = laboratories.services["alice"]
    service.kill()
    service.wait()
    done = laboratories.conform("--wait", "2", "--json")
    seen = json.loads(done.stdout)["checks"][0]["seen"]
    assert done.returncode == 5
    assert re.match(rf"the end of alice at {address}: not ready within 2 seconds: .*refused", seen)


def test_nobody_but_its_node_is_served(laboratories: Laboratories) -> None:
    for name in ("bob", "carol"):
        home = laboratories.folder / "pki" / "node" / name
        own = read_credentials(
            home / f"{name}.crt.pem", home / f"{name}.key.pem", home / "authority.crt.pem"
        )
        credentials = grpc_channel_credentials(own)
        address = laboratories.address("alice")
        with calling(address, credentials, "trap-alice.emulator.bellhop", OPERATE) as stranger:
            code, detail = stranger.end()
        assert code == grpc.StatusCode.PERMISSION_DENIED.name
        assert f"node {name}" in detail and "must" in detail


def test_an_experiment_that_stops_is_named(laboratories: Laboratories) -> None:
    """What is ordered then is lost, with what is to be done; the service stays up."""

    async def order() -> list[MemoryLost]:
        ends = laboratories.device
        generator = np.random.default_rng(1)
        bench = await attach(ends.a, ends.b, LINK, generator, PATIENCE_SECONDS)
        herald = await bench.herald(bench.request(), 0, 4)
        laboratories.table.kill()
        laboratories.table.wait()
        settings = bench.settings(bench.a, 4)
        await bench.a.order(Measure(LINK, herald.request, 0, settings))
        lost = [await bench.a.expect(MemoryLost)]
        await bench.a.order(Attempt(LINK, herald.request, 1, 4))
        lost.append(await bench.a.expect(MemoryLost))
        await bench.close()
        return lost

    for lost in asyncio.run(order()):
        assert "the optical table is gone" in lost.reason
    assert laboratories.services["alice"].poll() is None


def test_a_laboratory_that_does_not_open_says_why(tmp_path: Path) -> None:
    """A device's failure: exit code 5."""
    certify(tmp_path / "pki")
    file = tmp_path / "alice.toml"
    file.write_text(laboratory_file("alice", "bob", Side.A, "127.0.0.1:1"), encoding="utf-8")
    done = subprocess.run(
        [*COMMAND, "hal", "serve", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert "no optical table at 127.0.0.1:1" in done.stderr
