"""Ports as facts: the same after a restart, and never more than a device has."""

import json
from dataclasses import replace

import pytest

from bellhop.hal.operations import BLOCK_ROUNDS_MAX, LinkName, NodeName, Port, Side, Source
from bellhop.stack.ports import (
    LINK_CHARACTERS_MAX,
    PORTS_MAX,
    holds,
    port_fact,
    port_to,
    restore_ports,
    usable,
)

PORT = Port(LinkName("fibre"), Side.A, NodeName("bob"), 2, Source.EMULATED, "a device", ("one",))


def named(link: str, port: Port = PORT) -> Port:
    return replace(port, link=LinkName(link))


@pytest.mark.parametrize(
    "port",
    [
        PORT,
        named("a/b"),
        replace(PORT, side=Side.B, source=Source.HARDWARE, settings=3, rounds_max=4),
        replace(PORT, herald_is_measurement=True),
    ],
)
def test_a_port_is_the_same_after_a_restart(port: Port) -> None:
    fact = port_fact(port)
    assert restore_ports({fact.name: fact.payload, "other/x": b"{"}) == {port.link: port}


def test_a_port_remembered_by_an_earlier_version_is_what_it_was() -> None:
    fact = port_fact(PORT)
    content = json.loads(fact.payload)
    del content["rounds_max"], content["herald_is_measurement"]
    (port,) = restore_ports({fact.name: json.dumps(content).encode()}).values()
    assert port == PORT and holds(port, BLOCK_ROUNDS_MAX)


def test_of_two_ports_to_a_peer_the_first_by_name_is_taken() -> None:
    ports = [named("z"), named("a"), replace(PORT, peer=NodeName("carol"))]
    found = port_to(ports, NodeName("bob"))
    assert found is not None and found.link == "a"
    assert port_to(ports, NodeName("dave")) is None


def test_a_port_replaces_its_link_and_others_stay() -> None:
    other = replace(PORT, side=Side.B)
    taken = usable([other], {LinkName("old"): named("old"), PORT.link: PORT})
    assert taken == {"old": named("old"), PORT.link: other}


@pytest.mark.parametrize("link", ["", "x" * (LINK_CHARACTERS_MAX + 1), "a\nb", "\U0010ffff"])
def test_a_link_nobody_could_name_is_passed_over(link: str) -> None:
    assert usable([named(link), PORT], {}) == {PORT.link: PORT}


def test_a_device_that_invents_ports_is_bounded() -> None:
    known: dict[LinkName, Port] = {}
    for life in range(3):
        known = usable([named(f"{life}-{k}") for k in range(PORTS_MAX)], known)
    assert len(known) == PORTS_MAX
    changed = replace(named("0-0"), settings=3)
    assert usable([changed], known)[changed.link] == changed, "known links may still change"
