"""A whole network on this machine: certificates, pool, files, and its processes.

For the demonstration and for tests.  Every process is this program's own command line; what they
say goes to files in the network's folder.
"""

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from bellhop.hal.errors import BellhopError, ConfigError
from bellhop.node import pki
from bellhop.node.tls import Party, PartyKind

HOST = "127.0.0.1"
EMULATOR = "emulator"
NODES = ("alice", "bob")
PRESET = "oxford"
COMMAND = (sys.executable, "-P", "-c", "from bellhop.node.cli import main; main()")
_TIED = (
    "import sys; from bellhop.node.process import die_with_parent; "
    "die_with_parent(int(sys.argv.pop(1))); from bellhop.node.cli import main; main()"
)

LOOK_AGAIN_S = 0.1
START_S = 60.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everybody listens."""

    emulator: int
    peers: dict[str, int]
    etsi: dict[str, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the files of a network are."""

    folder: Path

    def node(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def application(self, name: str) -> Path:
        """The profile of the application at node `name`."""
        return self.folder / f"sae-{name}.toml"

    def log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    @property
    def emulator(self) -> Path:
        return self.folder / "emulator.toml"

    @property
    def pool(self) -> Path:
        return self.folder / "pool.json"


def lay_out(
    folder: Path,
    presets: dict[str, float] | None = None,
    sections: str = "",
    clock: str = '"fast"',
    preset: str = PRESET,
) -> Layout:
    """Make the certificates and files of an emulator and two nodes in `folder`, new or empty.

    `presets` changes figures of the preset; `sections` is added to both nodes' files.
    Raises ConfigError if something is there already.
    """
    _take_folder(folder)
    layout = Layout(folder)
    layout.log("any").parent.mkdir()
    _certify(folder / "pki")
    ports = free_ports()
    changed = "".join(f'set."{name}" = {value}\n' for name, value in (presets or {}).items())
    layout.emulator.write_text(
        _EMULATOR.format(port=ports.emulator, clock=clock, preset=preset, changed=changed),
        encoding="utf-8",
    )
    for own, peer in (NODES, NODES[::-1]):
        text = _NODE.format(
            own=own,
            peer=peer,
            memory_port=ports.emulator,
            peers_port=ports.peers[own],
            peer_port=ports.peers[peer],
            etsi_port=ports.etsi[own],
        )
        layout.node(own).write_text(text + sections, encoding="utf-8")
        layout.application(own).write_text(
            _APPLICATION.format(own=own, etsi_port=ports.etsi[own]), encoding="utf-8"
        )
    return layout


def _take_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"cannot use {folder}: {error.strerror or error}", "--dir") from error
    if taken:
        raise ConfigError(
            f"{folder} is not empty, and nothing is overwritten: name another folder, or remove it",
            field="--dir",
        )


def free_ports() -> Ports:
    """Ports that are free now.  They are asked for together, so that they differ."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(5):
            listener = held.enter_context(socket.socket())
            listener.bind((HOST, 0))
            ports.append(listener.getsockname()[1])
    emulator, *others = ports
    return Ports(emulator, dict(zip(NODES, others[:2])), dict(zip(NODES, others[2:])))  # noqa: B905


def _certify(folder: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    pki.init_authority(folder, now=now)
    parties = [Party(PartyKind.EMULATOR, EMULATOR)]
    for node in NODES:
        parties += [
            Party(PartyKind.NODE, node),
            Party(PartyKind.KME, f"kme-{node}"),
            Party(PartyKind.SAE, f"sae-{node}"),
        ]
    for party in parties:
        pki.issue(folder, party, now=now)


# --- processes ------------------------------------------------------------------------------------


class ProcessEnded(BellhopError):
    """A process ended that was to go on; its log says why."""


class CommandFailed(BellhopError):
    """A command ended with another exit code than it should."""


@dataclass(slots=True)
class Processes:
    """The long-running processes of one network.

    `tied`: they are killed when this process ends without stopping them.
    """

    layout: Layout
    environment: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    tied: bool = False

    def start(self, name: str) -> None:
        """Start the emulator or a node; its log goes on where it was."""
        assert name not in self.running, "one process of a name at a time"
        is_emulator = name == EMULATOR
        file = self.layout.emulator if is_emulator else self.layout.node(name)
        with self.layout.log(name).open("ab") as log:
            self.running[name] = self._spawn(
                ["emulator" if is_emulator else "run", str(file), "--json"], log
            )

    def _spawn(self, arguments: Sequence[str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
        command = (*COMMAND[:-1], _TIED, str(os.getpid())) if self.tied else COMMAND
        return subprocess.Popen(  # noqa: S603 - our own command line
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **self.environment},
            start_new_session=True,  # Ctrl-C is for us; we stop them in their order
        )

    def kill(self, name: str) -> None:
        """`kill -9`, as a crash would."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        """SIGTERM; returns the exit code.  A process that does not end in time is killed."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def stop_all(self) -> None:
        """Stop the nodes, then the emulator: nothing is left running."""
        for name in sorted(self.running, key=lambda name: name == EMULATOR):
            self.stop(name)

    def command(self, *arguments: str, exit_codes: Sequence[int] = (0,)) -> dict[str, Any]:
        """Run a command of one go with --json; returns its document."""
        done = subprocess.run(  # noqa: S603 - our own command line
            [*COMMAND, *arguments, "--json"],
            capture_output=True,
            env={**os.environ, **self.environment},
            check=False,
        )
        if done.returncode not in exit_codes:
            raise CommandFailed(
                f"bellhop {arguments[0]} ended with exit code {done.returncode}: "
                f"{done.stderr.decode(errors='replace').strip()}",
                code=done.returncode,
            )
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def status(self, name: str) -> dict[str, Any] | None:
        """What the node says of itself; None while it does not answer."""
        if (code := self.running[name].poll()) is not None:
            raise ProcessEnded(
                f"{name} ended with exit code {code}: see {self.layout.log(name)}", code=code
            )
        from bellhop.node.cli.status import node_status
        from bellhop.node.control_client import NotRunning

        try:
            return node_status(self.layout.node(name))
        except NotRunning:
            return None

    def _pause(self) -> None:
        """A little time, or until a process ends: its exit is what a status call cannot tell."""
        first = next(iter(self.running.values()))
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(LOOK_AGAIN_S)

    def wait_for(
        self, name: str, holds: Callable[[dict[str, Any]], bool], within_s: float = START_S
    ) -> dict[str, Any]:
        """Until `holds` of the node's status; returns it.  Raises ProcessEnded, TimeoutError."""
        give_up = time.monotonic() + within_s
        while True:
            status = self.status(name)
            if status is not None and holds(status):
                return status
            if time.monotonic() > give_up:
                raise TimeoutError(f"{name} does not come to it: {status}")
            self._pause()

    def wait_for_an_end(self) -> None:
        """Until one of the processes ends, which none should.  Raises ProcessEnded."""
        while True:
            for name, process in self.running.items():
                if (code := process.poll()) is not None:
                    raise ProcessEnded(
                        f"{name} ended with exit code {code}: see {self.layout.log(name)}",
                        code=code,
                    )
            self._pause()

    def wait_ready(self) -> None:
        """Until both nodes see their memory and one another."""
        for name in NODES:
            self.wait_for(name, _is_ready)


@contextlib.contextmanager
def network(layout: Layout, tied: bool = False) -> Iterator[Processes]:
    """A network that is ready; nothing of it is left running, whatever happens.

    `tied`: not even if this process is killed.
    """
    with running(Processes(layout, tied=tied)) as processes:
        yield processes


@contextlib.contextmanager
def running(processes: Processes) -> Iterator[Processes]:
    """Provision the pool, start everything, wait until it is ready; stop it whatever happens."""
    layout = processes.layout
    alice, bob = NODES
    for own, peer, way in ((alice, bob, "--new"), (bob, alice, "--from")):
        config = str(layout.node(own))
        processes.command(
            "pool", "provision", "--config", config, "--peer", peer, way, str(layout.pool)
        )
    layout.pool.unlink()
    try:
        for name in (EMULATOR, *NODES):
            processes.start(name)
        processes.wait_ready()
        yield processes
    finally:
        processes.stop_all()


def _is_ready(status: dict[str, Any]) -> bool:
    joined = all(connection["connected"] for connection in status["connections"].values())
    return joined and bool(status["core"]["device_ready"])


_EMULATOR = """\
[emulator]
listen = "127.0.0.1:{port}"
clock = {clock}

[emulator.tls]
certificate = "pki/emulator/emulator/emulator.crt.pem"
key = "pki/emulator/emulator/emulator.key.pem"
authority = "pki/emulator/emulator/authority.crt.pem"

[[link]]
name = "alice-bob"
a = "alice"
b = "bob"
preset = "{preset}"
{changed}"""

_NODE = """\
[node]
name = "{own}"
state_dir = "state/{own}"

[tls]
certificate = "pki/node/{own}/{own}.crt.pem"
key = "pki/node/{own}/{own}.key.pem"
authority = "pki/node/{own}/authority.crt.pem"

[peers]
listen = "127.0.0.1:{peers_port}"

[[peer]]
name = "{peer}"
address = "127.0.0.1:{peer_port}"

[memory]
address = "127.0.0.1:{memory_port}"

[etsi]
listen = "127.0.0.1:{etsi_port}"
kme_id = "kme-{own}"
certificate = "pki/kme/kme-{own}/kme-{own}.crt.pem"
key = "pki/kme/kme-{own}/kme-{own}.key.pem"
authority = "pki/kme/kme-{own}/authority.crt.pem"

[[sae]]
id = "sae-alice"
kme = "kme-alice"
node = "alice"

[[sae]]
id = "sae-bob"
kme = "kme-bob"
node = "bob"
"""

_APPLICATION = """\
kme = "https://127.0.0.1:{etsi_port}"
kme_id = "kme-{own}"
certificate = "pki/sae/sae-{own}/sae-{own}.crt.pem"
key = "pki/sae/sae-{own}/sae-{own}.key.pem"
authority = "pki/sae/sae-{own}/authority.crt.pem"
"""
