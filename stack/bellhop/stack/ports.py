"""Ports as facts: what a device said of itself outlives the device's absence."""

import json
from collections.abc import Iterable, Mapping

from bellhop.hal.operations import LinkName, NodeName, Port, Side, Source
from bellhop.stack.core import Fact

PREFIX = "port/"


def port_fact(port: Port) -> Fact:
    content = {
        "side": port.side.value,
        "peer": port.peer,
        "settings": port.settings,
        "source": port.source.value,
        "description": port.description,
        "idealisations": list(port.idealisations),
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
            )
    return ports


def port_to(ports: Iterable[Port], peer: NodeName) -> Port | None:
    """The first port, by name of its link, that leads to `peer`."""
    return next((p for p in sorted(ports, key=lambda p: p.link) if p.peer == peer), None)
