"""`bellhop`, its lazy commands, its errors, and `bellhop pki` as a user meets it."""

import json
import subprocess
import sys
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from bellhop.hal import errors
from bellhop.hal.errors import (
    BellhopError,
    ConfigError,
    HardwareError,
    KeyStoreError,
    PeerError,
    RequestError,
)
from bellhop.node.cli.main import COMMANDS, LazyGroup, load_attribute, main
from bellhop.node.errors import MEANINGS, grpc_status_of, meaning_of
from bellhop.node.tls import PartyKind, read_credentials


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def document(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


@pytest.mark.parametrize("kind", list(PartyKind))
def test_an_authority_and_a_party_of_each_role(here: Path, kind: PartyKind) -> None:
    authority = document("pki", "init")
    assert Path(authority["certificate"]).exists()
    files = document("pki", kind, "alice")
    paths = [Path(files[name]) for name in ("certificate", "key", "authority")]
    party = read_credentials(*paths, kind=kind).party
    assert party is not None and party.uri == files["uri"] == f"bellhop:{kind}:alice"


def test_the_options_reach_the_certificate(here: Path) -> None:
    run("pki", "init", "elsewhere", "--curve", "p384")
    options = ["--dir", "elsewhere", "--dns", "kme.example.org", "--ip", "::1", "--days", "2"]
    files = document("pki", "kme", "kme-a", *options)
    certificate = x509.load_pem_x509_certificate(Path(files["certificate"]).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kme-a.kme.bellhop", "kme.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("::1")]
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA384)


def test_an_identifier_of_any_letters(here: Path) -> None:
    run("pki", "init")
    assert document("pki", "sae", "Zürich/1")["uri"] == "bellhop:sae:Z%C3%BCrich%2F1"


def test_people_get_a_table(here: Path) -> None:
    run("pki", "init")
    rows = dict(line.split(maxsplit=1) for line in run("pki", "node", "bob").stdout.splitlines())
    assert rows["party"] == "bellhop:node:bob"
    assert Path(rows["key"]).exists()


def test_errors_say_what_and_who_and_leave_stdout_empty(here: Path) -> None:
    people = run("pki", "node", "alice")
    assert people.exit_code == 2
    assert people.stdout == ""
    assert "bellhop pki init" in people.stderr
    assert "who must act: the operator of this node" in people.stderr
    machines = run("pki", "node", "alice", "--json")
    assert (machines.exit_code, machines.stdout) == (2, "")
    assert json.loads(machines.stderr)["error"] == "ConfigError"


def test_help_loads_no_command() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from bellhop.node.cli import main;"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0;"
        "print([m for m in ('numpy', 'grpc', 'aiohttp', 'cryptography') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert ended.stdout.strip() == b"[]"


def test_commands_that_are_there_are_commands_and_have_json() -> None:
    there = {
        name: place for name, (place, _) in COMMANDS.items() if find_spec(place.partition(":")[0])
    }
    assert {"keyrate", "keys", "open", "pki", "seal"} <= set(there)
    for name, place in there.items():
        command = load_attribute(place)
        assert isinstance(command, click.Command), name
        assert command.name == name
        for leaf in leaves(command):
            assert "--json" in {o for p in leaf.params for o in p.opts}, f"{name} {leaf.name}"


def leaves(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    context = click.Context(command)
    found = [command.get_command(context, name) for name in command.list_commands(context)]
    return [leaf for sub in found if sub for leaf in leaves(sub)]


@pytest.mark.parametrize(
    ("error", "code", "status", "http"),
    [
        (BellhopError("x"), 1, "UNKNOWN", 503),
        (ConfigError("x"), 2, "FAILED_PRECONDITION", 503),
        (RequestError("x"), 3, "INVALID_ARGUMENT", 400),
        (PeerError("x"), 4, "UNAVAILABLE", 503),
        (HardwareError("x"), 5, "UNAVAILABLE", 503),
        (KeyStoreError("x"), 6, "DATA_LOSS", 503),
    ],
)
def test_one_table_of_meanings(error: BellhopError, code: int, status: str, http: int) -> None:
    @click.group(cls=LazyGroup, lazy={})
    def group() -> None: ...

    @group.command()
    def fail() -> None:
        raise error

    assert CliRunner().invoke(group, ["fail"]).exit_code == code
    assert grpc_status_of(error).name == status
    assert meaning_of(error).http_status == http


def test_a_child_means_what_its_parent_means() -> None:
    class Unheard(PeerError):
        """A peer's fault without a row of its own."""

    assert meaning_of(Unheard("x")) == MEANINGS[PeerError]
    tree = {kind for kind in BellhopError.__subclasses__() if kind.__module__ == errors.__name__}
    assert {kind for kind in MEANINGS if kind.__module__ == errors.__name__} == {
        BellhopError,
        *tree,
    }
