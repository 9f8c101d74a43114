"""Ports as facts: what a device said of itself outlives the device's absence."""

import json
from collections.abc import Iterable, Mapping

from bellhop.hal.operations import BLOCK_ROUNDS_MAX, LinkName, NodeName, Port, Side, Source
from bellhop.stack.core import Fact

PREFIX = "port/"

PORTS_MAX = 1_024
"""Ports remembered of a device, whatever it says in the course of time."""

LINK_CHARACTERS_MAX = 64
"""Peers take no longer name of a link."""


def port_fact(port: Port) -> Fact:
    content = {
        "side": port.side.value,
        "peer": port.peer,
        "settings": port.settings,
        "source": port.source.value,
        "description": port.description,
        "idealisations": list(port.idealisations),
        "rounds_max": port.rounds_max,
        "herald_is_measurement": port.herald_is_measurement,
    }
    return Fact(f"{PREFIX}{port.link}", json.dumps(content).encode())


def restore_ports(facts: Mapping[str, bytes]) -> dict[LinkName, Port]:
    ports = {}
    for name, payload in facts.items():
        if name.startswith(PREFIX):
            link, content = LinkName(name.removeprefix(PREFIX)), json.loads(payload)
            ports[link] = Port(
                link=link,
                side=Side(content["side"]),
                peer=NodeName(content["peer"]),
                settings=content["settings"],
                source=Source(content["source"]),
                description=content["description"],
                idealisations=tuple(content["idealisations"]),
                rounds_max=content.get("rounds_max", BLOCK_ROUNDS_MAX),
                herald_is_measurement=content.get("herald_is_measurement", False),
            )
    return ports


def usable(ports: Iterable[Port], known: Mapping[LinkName, Port]) -> dict[LinkName, Port]:
    """The ports that can be taken beside the known ones: named fit for a fact and for a peer."""
    taken = dict(known)
    for port in ports:
        named = 0 < len(port.link) <= LINK_CHARACTERS_MAX and port.link.isprintable()
        if named and (port.link in taken or len(taken) < PORTS_MAX):
            taken[port.link] = port
    return taken


def port_to(ports: Iterable[Port], peer: NodeName) -> Port | None:
    """The first port, by name of its link, that leads to `peer`."""
    return next((p for p in sorted(ports, key=lambda p: p.link) if p.peer == peer), None)


def holds(port: Port, block_rounds: int) -> bool:
    """Whether the device can hold a whole block: it heralds all pairs of one before any is
    measured."""
    return block_rounds <= port.rounds_max


def loophole(port: Port) -> str | None:
    """Why nothing measured on this link can be certified device-independently; None if it can be.

    P. M. Pearle, Phys. Rev. D 2, 1418 (1970): a device that answers only the rounds it likes, for
    the settings it is shown, violates any Bell inequality without entanglement.
    """
    if not port.herald_is_measurement:
        return None
    return (
        f"link {port.link} is heralded by the measurement itself, which knows the setting"
        " (detection loophole): nothing measured there certifies a key device-independently"
    )
