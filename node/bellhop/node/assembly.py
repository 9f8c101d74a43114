"""The parts of a node, each made from its section of the configuration."""

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bellhop.hal.errors import ConfigError
from bellhop.hal.hardware import Hardware
from bellhop.hal.memory_client import MemoryServiceAccess, MemoryServiceClient
from bellhop.hal.operations import NodeName
from bellhop.node.chance import OsRng, check_chance
from bellhop.node.clock import RealClock
from bellhop.node.config import NodeConfig
from bellhop.node.device_chance import DeviceRng
from bellhop.node.driver import Stepped
from bellhop.node.etsi014 import EtsiSettings
from bellhop.node.keystore import KeyStore, create_kek, read_kek
from bellhop.node.keystore.schema import DATABASE_NAME
from bellhop.node.tls import Credentials, Party, PartyKind, read_credentials
from bellhop.stack.diqkd.parameters import SessionPolicy
from bellhop.stack.identity import Identity
from bellhop.stack.node import NodeCore, NodeSettings, Restored
from bellhop.stack.rng import Rng

CoreOf = Callable[[NodeConfig, Restored, Rng, Identity], Stepped]


def open_chance(config: NodeConfig) -> OsRng | DeviceRng:
    """What this node draws from; waits for a hardware generator's start-up test.

    Raises ConfigError, or RandomnessFailed: nothing takes its place.
    """
    randomness = config.randomness
    if randomness.source == "os":
        return OsRng()
    assert randomness.path is not None, "checked with the configuration"
    return DeviceRng(randomness.path, randomness.min_entropy_bits_per_byte, randomness.mix_os)


def node_core(config: NodeConfig, restored: Restored, rng: Rng, identity: Identity) -> Stepped:
    """The core of this node: its chance, its name's key, and only its own section."""
    diqkd = config.diqkd
    policy = SessionPolicy(
        bound=diqkd.bound,
        allow_unrefereed=diqkd.allow_unrefereed,
        net_bits_min=diqkd.net_bits_min,
        accept_losing_sessions=diqkd.accept_losing_sessions,
        test_probability=diqkd.test_probability,
        s_design=diqkd.s_design,
        qber_design=diqkd.qber_design,
        deviations=diqkd.threshold_deviations,
        plan_from_calibration=diqkd.plan_from == "calibration",
        epsilon=diqkd.epsilon,
        block_rounds=diqkd.block_rounds,
        stall_ns=diqkd.stall,
        pause_limit_ns=diqkd.pause_limit,
        pair_ns=diqkd.pair,
    )
    peers = tuple(NodeName(peer.name) for peer in config.peer)
    settings = NodeSettings(NodeName(config.node.name), peers, policy)
    return NodeCore(settings, check_chance(rng, RealClock.kind), restored, identity)


@dataclass(frozen=True, slots=True)
class Identities:
    """The two faces of a node: towards nodes and memories, and towards applications."""

    node: Credentials
    kme: Credentials


def read_identities(config: NodeConfig) -> Identities:
    """Both identities.  ConfigError if a file is wrong or names somebody else."""
    tls, etsi = config.tls, config.etsi
    node = read_credentials(tls.certificate, tls.key, tls.authority, kind=PartyKind.NODE)
    kme = read_credentials(
        etsi.certificate, etsi.key, etsi.authority, field_prefix="etsi", kind=PartyKind.KME
    )
    for credentials, party, field in (
        (node, Party(PartyKind.NODE, config.node.name), "tls.certificate"),
        (kme, Party(PartyKind.KME, etsi.kme_id), "etsi.certificate"),
    ):
        if credentials.party != party:
            raise ConfigError(
                f"{credentials.certificate_file} is the certificate of {credentials.party}, "
                f"and this is {party}",
                field=field,
            )
    return Identities(node, kme)


def etsi_settings(config: NodeConfig) -> EtsiSettings:
    """What key delivery needs to know."""
    etsi = config.etsi
    return EtsiSettings(
        kme_id=etsi.kme_id,
        node=NodeName(config.node.name),
        key_size_bits=etsi.key_size_bits,
        min_key_size_bits=etsi.min_key_size_bits,
        max_key_size_bits=etsi.max_key_size_bits,
        max_key_per_request=etsi.max_key_per_request,
        max_key_count=etsi.max_key_count,
        allocation_wait_ns=etsi.allocation_wait,
        common_name_identity=etsi.common_name_identity,
        production=config.node.production,
    )


def memory_client(config: NodeConfig, credentials: Credentials) -> Hardware:
    """The way to this node's memories."""
    return MemoryServiceClient(
        MemoryServiceAccess(
            address=config.memory.address,
            server_name=config.memory_server_name,
            certificate=credentials.certificate,
            authority=credentials.authority,
            key=credentials.key,
        )
    )


async def open_store(config: NodeConfig, clock: RealClock) -> KeyStore:
    """The store of this node; its key-encryption key is made with it, and never later."""
    path, state_dir = config.key_encryption_key, config.node.state_dir
    _make_closed(state_dir)
    fresh = not path.exists() and not (state_dir / DATABASE_NAME).exists()
    kek = create_kek(path) if fresh else read_kek(path)
    return await KeyStore.open(state_dir, kek, NodeName(config.node.name), clock.now_ns)


def _make_closed(state_dir: Path) -> None:
    """A folder that nobody but this user can look into; an open one is not silently closed."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(state_dir.stat().st_mode)
    except OSError as error:
        raise ConfigError(
            f"cannot use {state_dir}: {error.strerror or error}", field="node.state_dir"
        ) from error
    if mode & 0o077:
        raise ConfigError(
            f"others may look into {state_dir}, which holds keys (its mode is {mode:04o}): "
            f"chmod 700 {state_dir}",
            field="node.state_dir",
        )


async def restore(store: KeyStore, peers: Iterable[NodeName]) -> Restored:
    """What the store remembers, for a new core."""
    facts = {fact.name: fact.payload for fact in await store.load_facts()}
    held = tuple(await store.held_sessions())
    outbox = {peer: tuple(await store.outbox(peer)) for peer in peers}
    return Restored(facts, held, outbox)
