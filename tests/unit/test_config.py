"""The node's configuration file: the example is complete, and what is wrong names its field."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from tests.support.configuration_reference import REFERENCE, reference

from bellhop.hal.door import TlsSection
from bellhop.hal.emulator.topology import (
    EmulatorSection,
    LinkSection,
    TopologyFile,
    parse_topology,
    read_topology,
)
from bellhop.hal.errors import ConfigError
from bellhop.node.config import NodeConfig, load_config, parse_config
from bellhop.node.config_values import Address, Nanoseconds, parse_duration

EXAMPLE = Path("deploy/example-node.toml")
EMULATOR_EXAMPLE = Path("deploy/example-emulator.toml")
OPTIONAL = re.compile(r"^# (?=\w+ = )", re.MULTILINE)


def example(*changes: tuple[str, str]) -> str:
    text = EXAMPLE.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def sections(struct: type[msgspec.Struct]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """The sections of a file and the struct of each."""
    for name, hint in get_type_hints(struct).items():
        kind = get_args(hint)[0] if get_origin(hint) is tuple else hint
        yield name, kind


def test_the_example_lists_every_field() -> None:
    given = msgspec.toml.decode(OPTIONAL.sub("", EXAMPLE.read_text()))
    assert set(given) == {name for name, _ in sections(NodeConfig)}
    for name, struct in sections(NodeConfig):
        rows = given[name] if isinstance(given[name], list) else [given[name]]
        for row in rows:
            assert set(row) == set(struct.__struct_fields__), name


def test_the_example_shows_every_default() -> None:
    shown = msgspec.toml.decode(EXAMPLE.read_text())
    config = load_config(EXAMPLE)
    compared = 0
    for name, struct in sections(NodeConfig):
        for field in msgspec.structs.fields(struct):
            if field.required or isinstance(shown[name], list):
                continue
            if field.default is None:
                assert field.name not in shown[name], f"{name}.{field.name} has no default"
            else:
                assert field.name in shown[name], f"{name}.{field.name} must show its default"
                assert getattr(getattr(config, name), field.name) == field.default
                compared += 1
    assert compared > 20


def test_the_example_loads_with_its_optional_fields_too() -> None:
    text = OPTIONAL.sub("", EXAMPLE.read_text())
    config = parse_config(text, Path("/etc/bellhop"))
    assert config.peers.port_file == Path("/etc/bellhop/state/alice/peers.port")
    assert config.control_socket == Path("/etc/bellhop/state/alice/control.sock")


def test_the_emulator_example_lists_every_field() -> None:
    text = EMULATOR_EXAMPLE.read_text()
    topology = read_topology(EMULATOR_EXAMPLE)
    assert topology.door.listen == load_config(EXAMPLE).memory.address
    assert (
        topology.door.certificate == Path("deploy/pki/emulator/emulator/emulator.crt.pem").resolve()
    )
    given = msgspec.toml.decode(OPTIONAL.sub("", text))
    assert set(given) == set(TopologyFile.__struct_fields__)
    assert set(given["emulator"]) == set(EmulatorSection.__struct_fields__)
    assert set(given["emulator"]["tls"]) == set(TlsSection.__struct_fields__)
    assert set(given["link"][0]) == set(LinkSection.__struct_fields__)
    set_ = OPTIONAL.sub("", text).replace("preset_file", "# preset_file")
    assert parse_topology(set_, EMULATOR_EXAMPLE).links[0].name == "alice-bob"


def test_values_become_what_a_program_computes_with() -> None:
    config = parse_config(example(('"2s"', '"1.5ms"')), Path("/etc/bellhop"))
    assert config.etsi.allocation_wait == 1_500_000
    assert config.diqkd.test_probability == Fraction(13, 256)
    assert config.tls.certificate == Path("/etc/bellhop/pki/node/alice/alice.crt.pem")
    assert (config.peers.listen.host, config.peers.listen.port) == ("127.0.0.1", 7101)
    assert config.key_encryption_key == Path("/etc/bellhop/state/alice/key-encryption.key")
    assert config.memory_server_name == "emulator.emulator.bellhop"
    assert config.dials("bob") and not config.dials("aaron")
    assert config.peer_named("bob") is config.peer[0] and config.peer_named("carol") is None
    assert config.sae_named("sae-bob") is config.sae[1] and config.sae_named("eve") is None


def test_sections_with_defaults_may_be_left_out() -> None:
    text = EXAMPLE.read_text()
    for section in ("control", "keys", "diqkd", "randomness", "observe", "compute"):
        text = re.sub(rf"^\[{section}\][^\[]*", "", text, flags=re.MULTILINE)
    assert parse_config(text, EXAMPLE.resolve().parent) == load_config(EXAMPLE)


def test_metrics_may_be_switched_off_and_nothing_else() -> None:
    text = example(('metrics_listen = "127.0.0.1:0"', 'metrics_listen = ""'))
    assert not parse_config(text, Path()).observe.metrics_listen


@pytest.mark.parametrize(
    ("old", "new", "field", "other"),
    [
        ("production = false", "produktion = false", "node.produktion", "no such field"),
        ("production = false", "production = 1", "node.production", "bool"),
        ('name = "alice"', "", "node.name", "must be given"),
        ('name = "alice"', 'name = "Alice"', "node.name", "DNS label"),
        ('kme_id = "kme-alice"', 'kme_id = "a.b"', "etsi.kme_id", "DNS label"),
        ("[node]", "[nodes]", "nodes", "no such field"),
        ('"2s"', '"2"', "etsi.allocation_wait", "5ms"),
        ('"2s"', "2", "etsi.allocation_wait", "quotes"),
        ('"13/256"', '"13/0"', "diqkd.test_probability", "13/256"),
        ('"13/256"', '"256/13"', "diqkd.test_probability", "between 0 and 1"),
        ("key_size_bits = 256", "key_size_bits = 257", "etsi.key_size_bits", "multiple of 8"),
        ("key_size_bits = 256", "key_size_bits = 2048", "etsi.key_size_bits", "etsi.max_key_size"),
        ("= 128", "= 100001", "etsi.max_key_per_request", "etsi.max_key_count"),
        ("block_rounds = 4096", "block_rounds = 65537", "diqkd.block_rounds", "65536"),
        ("rounds = 1500000", "rounds = 1000", "diqkd.block_rounds", "diqkd.rounds"),
        ("s_design = 2.67", "s_design = nan", "diqkd.s_design", ""),
        ('bound = "renyi-2405.05912"', 'bound = "eat"', "diqkd.bound", "'eat-2109.14600'"),
        (
            'bound = "renyi-2405.05912"',
            'bound = "renyi-filtered-unrefereed"',
            "diqkd.bound",
            "diqkd.allow_unrefereed",
        ),
        ('key_basis = "fixed"', 'key_basis = "random"', "diqkd.key_basis", "no theorem"),
        ("net_bits_min = 0", "net_bits_min = -1", "diqkd.net_bits_min", ">= 0"),
        ("epsilon = 1e-10", "epsilon = 0.0", "diqkd.epsilon", "> 0"),
        (":7102", ":7101", "etsi.listen", "peers.listen"),
        ('listen = "127.0.0.1:7101"', 'listen = ""', "peers.listen", "must be given"),
        (":7102", ":71020", "etsi.listen", "host:port"),
        ('"127.0.0.1:7201"', '"127.0.0.1:0"', "peer[0].address", "dialled"),
        ('name = "bob"', 'name = "alice"', "peer[0].name", "node.name"),
        ('id = "sae-bob"', 'id = "sae-alice"', "sae[1].id", "sae[0].id"),
        ('node = "bob"', 'node = "carol"', "sae[1].node", "node.name"),
        ('kme = "kme-alice"', 'kme = "kme-carol"', "sae[0].kme", "etsi.kme_id"),
        ('kme = "kme-bob"', 'kme = "kme-alice"', "sae[1].kme", "alice"),
        ('"state/alice"', f'"{"x" * 100}/{"y" * 100}"', "control.socket", "node.state_dir"),
        ('log_level = "info"', 'log_level = "loud"', "observe.log_level", "loud"),
        ('"sae-bob"', f'"{"ü" * 33}"', "sae[1].id", "64 bytes"),
        ('"1.2"', '"1.1"', "etsi.tls_min", "1.1"),
        ('source = "os"', 'source = "device"', "randomness.path", "randomness.source"),
        ('source = "os"', 'source = "dice"', "randomness.source", "'device', 'os'"),
        (
            'source = "os"\n# path = "/dev/hwrng"\nmin_entropy_bits_per_byte = 7.0\nmix_os = true',
            'source = "device"\npath = "/dev/hwrng"\nmix_os = false',
            "randomness.mix_os",
            "randomness.min_entropy_bits_per_byte",
        ),
        ("_byte = 7.0", "_byte = 9.0", "randomness.min_entropy_bits_per_byte", "8"),
    ],
)
def test_what_is_wrong_names_its_field(old: str, new: str, field: str, other: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(example((old, new)), Path("/etc"), origin="node.toml")
    assert caught.value.field == field
    assert field in caught.value.message and other in caught.value.message
    assert caught.value.message.startswith("node.toml")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[node", "is not TOML"),
        (None, "cannot be read"),
        (b"\xff", "UTF-8"),
        (b"a = " + b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b"a = 1\n" * 200_000, "longer than"),
    ],
)
@pytest.mark.parametrize("read", [load_config, read_topology])
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, read: Callable[[Path], object], content: bytes | None, why: str
) -> None:
    file = tmp_path / "some.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=why) as caught:
        read(file)
    assert caught.value.field == str(file) and str(file) in caught.value.message


@pytest.mark.parametrize(
    ("text", "ns"),
    [("0s", 0), ("7ns", 7), ("5ms", 5_000_000), ("1.5us", 1500), ("2 min", 120 * 10**9)],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == Nanoseconds(ns)


@pytest.mark.parametrize("text", ["", "5", "ms", "-1s", "1e3s", "0.5ns", "1d", "1s2ms", "inf s"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|nanoseconds"):
        parse_duration(text)


def test_an_ipv6_address() -> None:
    address = parse_config(example(("127.0.0.1:7101", "[::1]:7101")), Path()).peers.listen
    assert (address, address.host, address.port) == (Address("[::1]:7101"), "::1", 7101)


def test_a_section_is_read_only() -> None:
    config: Any = load_config(EXAMPLE)
    with pytest.raises(AttributeError):
        config.node.name = "mallory"


def test_the_reference_is_what_the_structs_say() -> None:
    assert REFERENCE.read_text() == reference(), (
        "run: python -m tests.support.configuration_reference"
    )
