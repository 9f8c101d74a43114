"""A node's configuration: one TOML file read into frozen structs, one struct a section.

Durations are written with a unit ("5ms", "30s") and become nanoseconds here; paths are relative to
the file's folder.  A field without a default must be given.  The text under each field is its
documentation; docs/configuration.md is made of it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, field

from bellhop.hal.configuration import read_text, require
from bellhop.hal.errors import ConfigError
from bellhop.hal.identity import valid_name
from bellhop.node.config_diqkd import DiqkdSection, check_diqkd
from bellhop.node.config_values import Address, Nanoseconds, Section, decode
from bellhop.node.tls import NAME_BYTES_MAX, PartyKind

PEERS_MAX = 64
SAES_MAX = 4096
SOCKET_PATH_BYTES_MAX = 107
"""The room for a path in a Unix socket's address on Linux (unix(7)), its closing zero apart."""

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
KeySize = Annotated[int, Meta(ge=8, le=1_000_000, multiple_of=8)]
SaeId = Annotated[str, Meta(min_length=1)]


class NodeSection(Section, frozen=True, kw_only=True):
    """Who this node is."""

    name: str
    """Its name: one lower-case DNS label, the name in its certificate."""
    state_dir: Path
    """Folder of everything that must outlive the process: keys, pools, receipts."""
    production: bool = False
    """Refuse to deliver keys whose source is an emulated memory."""


class TlsSection(Section, frozen=True, kw_only=True):
    """The node's identity towards other nodes and the memory service."""

    certificate: Path
    """Its certificate, PEM; its URI name says bellhop:node:NAME."""
    key: Path
    """Its private key, PEM; readable by its owner alone."""
    authority: Path
    """The certificates of the authorities it trusts, PEM."""


class PeersSection(Section, frozen=True, kw_only=True):
    """Where other nodes reach this one."""

    listen: Address
    """host:port of the peer service (gRPC); port 0 takes a free one."""
    port_file: Path | None = None
    """File into which the bound host:port is written once the service listens."""


class PeerSection(Section, frozen=True, kw_only=True):
    """One other node.  Of two nodes the one whose name sorts first dials."""

    name: str
    """The peer's name, as its certificate says it."""
    address: Address
    """host:port of its peer service."""


class MemorySection(Section, frozen=True, kw_only=True):
    """The service through which this node reaches its memories."""

    address: Address
    """host:port of the memory service (gRPC)."""
    emulator: str = "emulator"
    """The name of the service's party, as in its certificate bellhop:emulator:NAME."""
    server_name: str | None = None
    """DNS name that the service's certificate must have; without it EMULATOR.emulator.bellhop."""


class ControlSection(Section, frozen=True, kw_only=True):
    """The local command line's way in."""

    socket: Path | None = None
    """Unix socket of the control service; without it control.sock in node.state_dir."""


class KeysSection(Section, frozen=True, kw_only=True):
    """The key store."""

    key_encryption_key: Path | None = None
    """File of the 32 bytes under which keys are stored, mode 0600, made at the first start if
    absent; without this field key-encryption.key in node.state_dir."""


class EtsiSection(Section, frozen=True, kw_only=True):
    """Key delivery to applications: ETSI GS QKD 014 V1.1.1 over HTTPS."""

    listen: Address
    """host:port of the key delivery service (HTTPS); port 0 takes a free one."""
    port_file: Path | None = None
    """File into which the bound host:port is written once the service listens."""
    kme_id: str
    """This KME's identifier: one lower-case DNS label, the name in its certificate."""
    certificate: Path
    """Its certificate, PEM; its URI name says bellhop:kme:ID."""
    key: Path
    """Its private key, PEM; readable by its owner alone."""
    authority: Path
    """The certificates of the authorities whose SAEs it serves, PEM."""
    tls_min: Literal["1.2", "1.3"] = "1.2"
    """Oldest TLS version spoken to applications."""
    common_name_identity: bool = False
    """Know an SAE whose certificate has no bellhop: name by its common name."""
    key_size_bits: KeySize = 256
    """Size of a key when the application names none; a multiple of 8."""
    min_key_size_bits: KeySize = 64
    """Smallest size an application may ask for; a multiple of 8."""
    max_key_size_bits: KeySize = 1024
    """Largest size an application may ask for; a multiple of 8."""
    max_key_per_request: Count = 128
    """Most keys in one request."""
    max_key_count: Count = 100_000
    """Most keys kept deliverable for a pair of SAEs."""
    allocation_wait: Nanoseconds = Nanoseconds(2 * 10**9)
    """How long a request for keys waits for the other node's word on them; a duration."""


class SaeSection(Section, frozen=True, kw_only=True):
    """One application (SAE) and the KME where it fetches its keys."""

    id: SaeId
    """Its identifier, as in its certificate; unique in the network."""
    kme: str
    """The KME that serves it: etsi.kme_id or the KME of a peer."""
    node: str
    """The node of that KME: node.name or the name of a peer."""


class RandomnessSection(Section, frozen=True, kw_only=True):
    """Where settings, test rounds and the seeds of hash functions are drawn from.

    The security proof takes them to be uniform and unknown to the devices.
    """

    source: Literal["os", "device"] = "os"
    """"os": the operating system's generator. "device": the hardware generator at path; if it
    fails, the node stops and draws from nothing else."""
    path: Path | None = None
    """The hardware generator: a character device such as /dev/hwrng, or a named pipe. 100 kB/s
    serve 47,000 rounds a second."""
    min_entropy_bits_per_byte: Annotated[float, Meta(ge=0.5, le=8)] = 7.0
    """What is claimed of the hardware generator; the health tests of NIST SP 800-90B fail one that
    is much worse, and another one a chunk of 4096 bytes that came before, among the last 4 MB. They
    see breakage: not a stuck bit of eight for up to megabytes, no pattern of longer period, and no
    generator that was made to pass. The bytes are used as they come: conditioned ones are asked
    for."""
    mix_os: bool = True
    """Mix the device's bytes with the operating system's by exclusive or: as unpredictable as
    either of the two. Without it the device's bytes are the settings, so 8 bits a byte must be
    claimed."""


class ObserveSection(Section, frozen=True, kw_only=True):
    """Logs and metrics."""

    metrics_listen: Address = Address("127.0.0.1:0")
    """host:port of the metrics for Prometheus (plain HTTP); port 0 takes a free one, "" none."""
    metrics_port_file: Path | None = None
    """File into which the bound host:port of the metrics is written."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe records that are logged."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or lines for people."""


class ComputeSection(Section, frozen=True, kw_only=True):
    """The worker processes for heavy arithmetic."""

    workers: Annotated[int, Meta(ge=1, le=64)] = 1
    """Worker processes."""
    memory_limit_bytes: Annotated[int, Meta(ge=2**28)] = 10**9
    """Most memory a worker may have before it is ended, bytes."""


class NodeConfig(Section, frozen=True, kw_only=True):
    """A node's whole configuration.  A core receives only its own section."""

    node: NodeSection
    tls: TlsSection
    peers: PeersSection
    peer: Annotated[tuple[PeerSection, ...], Meta(max_length=PEERS_MAX)] = ()
    memory: MemorySection
    control: ControlSection = field(default_factory=ControlSection)
    keys: KeysSection = field(default_factory=KeysSection)
    etsi: EtsiSection
    sae: Annotated[tuple[SaeSection, ...], Meta(max_length=SAES_MAX)] = ()
    diqkd: DiqkdSection = field(default_factory=DiqkdSection)
    randomness: RandomnessSection = field(default_factory=RandomnessSection)
    observe: ObserveSection = field(default_factory=ObserveSection)
    compute: ComputeSection = field(default_factory=ComputeSection)

    @property
    def control_socket(self) -> Path:
        """Where the control service listens."""
        return self.control.socket or self.node.state_dir / "control.sock"

    @property
    def key_encryption_key(self) -> Path:
        """Where the key-encryption key is kept."""
        return self.keys.key_encryption_key or self.node.state_dir / "key-encryption.key"

    @property
    def memory_server_name(self) -> str:
        """The DNS name that the memory service's certificate must have."""
        return self.memory.server_name or f"{self.memory.emulator}.{PartyKind.EMULATOR}.bellhop"

    def peer_named(self, name: str) -> PeerSection | None:
        """The peer of this name, if there is one."""
        return next((peer for peer in self.peer if peer.name == name), None)

    def sae_named(self, sae_id: str) -> SaeSection | None:
        """The application of this identifier, if there is one."""
        return next((sae for sae in self.sae if sae.id == sae_id), None)

    def dials(self, peer: str) -> bool:
        """Whether this node dials `peer`, rather than waiting for its call."""
        return self.node.name < peer


def load_config(path: Path) -> NodeConfig:
    """Read and check a node's file.  Raises ConfigError naming the field and what to do."""
    return parse_config(read_text(path), folder=path.resolve().parent, origin=str(path))


def parse_config(text: str, folder: Path, origin: str = "configuration") -> NodeConfig:
    """As `load_config`, from text; paths are relative to `folder`."""
    config = decode(text, NodeConfig, folder, origin)
    try:
        _check(config)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error.message}", field=error.field) from error
    return config


def _check(config: NodeConfig) -> None:
    """The relations between fields, in one place; raises ConfigError naming both."""
    for name, label in _labels(config):
        require(
            valid_name(label),
            name,
            f"= {label!r} is not one lower-case DNS label (letters, digits, inner hyphens)",
        )
    _check_peers(config)
    _check_saes(config)
    etsi = config.etsi
    require(
        etsi.min_key_size_bits <= etsi.key_size_bits <= etsi.max_key_size_bits,
        "etsi.key_size_bits",
        f"= {etsi.key_size_bits} must lie between etsi.min_key_size_bits = "
        f"{etsi.min_key_size_bits} and etsi.max_key_size_bits = {etsi.max_key_size_bits}",
    )
    require(
        etsi.max_key_per_request <= etsi.max_key_count,
        "etsi.max_key_per_request",
        f"= {etsi.max_key_per_request} exceeds etsi.max_key_count = {etsi.max_key_count}",
    )
    check_diqkd(config.diqkd)
    require(
        len(bytes(config.control_socket)) <= SOCKET_PATH_BYTES_MAX,
        "control.socket",
        f"(by default in node.state_dir) is longer than {SOCKET_PATH_BYTES_MAX} bytes, "
        "the most for a Unix socket; choose a shorter path",
    )
    _check_randomness(config.randomness)
    _check_listeners(config)


def _check_randomness(randomness: RandomnessSection) -> None:
    if randomness.source == "device":
        rule = 'must be given, as randomness.source = "device"'
        require(randomness.path is not None, "randomness.path", rule)
        claimed = randomness.min_entropy_bits_per_byte
        require(
            randomness.mix_os or claimed == 8,
            "randomness.mix_os",
            f"= false makes the device's bytes the settings, which must be uniform, and "
            f"randomness.min_entropy_bits_per_byte = {claimed:g} claims less than 8",
        )


def _labels(config: NodeConfig) -> Iterator[tuple[str, str]]:
    yield "node.name", config.node.name
    yield "memory.emulator", config.memory.emulator
    yield "etsi.kme_id", config.etsi.kme_id
    yield from ((f"peer[{i}].name", peer.name) for i, peer in enumerate(config.peer))
    yield from ((f"sae[{i}].kme", sae.kme) for i, sae in enumerate(config.sae))


def _check_peers(config: NodeConfig) -> None:
    seen = {config.node.name: "node.name"}
    for i, peer in enumerate(config.peer):
        here = f"peer[{i}].name"
        require(peer.name not in seen, here, f"= {peer.name!r} is also {seen.get(peer.name)}")
        _check_dialled(peer.address, f"peer[{i}].address")
        seen[peer.name] = here
    _check_dialled(config.memory.address, "memory.address")


def _check_dialled(address: Address, name: str) -> None:
    require(address != "" and address.port != 0, name, "needs host and port of what is dialled")


def _check_saes(config: NodeConfig) -> None:
    names = {config.node.name, *(peer.name for peer in config.peer)}
    kmes = {config.node.name: (config.etsi.kme_id, "etsi.kme_id")}
    seen: dict[str, str] = {}
    for i, sae in enumerate(config.sae):
        here = f"sae[{i}]"
        require(
            sae.id.isprintable() and len(sae.id.encode()) <= NAME_BYTES_MAX,
            f"{here}.id",
            f"is not at most {NAME_BYTES_MAX} bytes of printable UTF-8",
        )
        require(sae.id not in seen, f"{here}.id", f"= {sae.id!r} is also {seen.get(sae.id)}")
        require(
            sae.node in names, f"{here}.node", f"= {sae.node!r} is neither node.name nor a peer"
        )
        kme, origin = kmes.setdefault(sae.node, (sae.kme, f"{here}.kme"))
        require(
            sae.kme == kme,
            f"{here}.kme",
            f"= {sae.kme!r}, but the KME of node {sae.node!r} is {kme!r} ({origin})",
        )
        seen[sae.id] = f"{here}.id"
    by_kme: dict[str, str] = {}
    for node, (kme, origin) in kmes.items():
        require(kme not in by_kme, origin, f"= {kme!r} is given to {by_kme.get(kme)!r} as well")
        by_kme[kme] = node


def _check_listeners(config: NodeConfig) -> None:
    taken: dict[str, str] = {}
    listeners = {
        "peers.listen": config.peers.listen,
        "etsi.listen": config.etsi.listen,
        "observe.metrics_listen": config.observe.metrics_listen,
    }
    for name, address in listeners.items():
        optional = name == "observe.metrics_listen"
        require(address != "" or optional, name, "must be given: nobody could reach this node")
        if address and address.port != 0:
            require(address not in taken, name, f"= {address!r} is also {taken.get(address)}")
            taken[address] = name
