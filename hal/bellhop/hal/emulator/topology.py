"""The emulator's TOML file: where it listens, its clock, its certificate, and the links it has."""

from pathlib import Path
from typing import Literal

import msgspec

from bellhop.hal.configuration import decode_toml, read_text, require
from bellhop.hal.door import Door, TlsSection, door_of
from bellhop.hal.emulator.clock import SCALE_MAX, Clock
from bellhop.hal.emulator.nature import Link
from bellhop.hal.errors import ConfigError
from bellhop.hal.identity import valid_name
from bellhop.hal.operations import LinkName, NodeName
from bellhop.hal.preset import Preset, load_preset, read_preset

LINKS_MAX = 4_096
"""No topology has more links."""


class ScaledClock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`scaled`: emulated seconds a second."""

    scaled: float


class EmulatorSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`listen`: address and port (0: any free one).  `clock`: "real", "fast" or { scaled = N }.

    `port_file`: where the bound address is written once nodes can connect, relative to this file.
    """

    listen: str
    tls: TlsSection
    clock: Literal["real", "fast"] | ScaledClock = "real"
    port_file: str | None = None


class LinkSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`a` and `b` name the nodes at its ends.

    One of `preset` (comes with Bellhop) and `preset_file` (your own) says which experiment it is;
    `set` changes its figures, as in { "noise.white" = 0.05 }, which takes S from 2.677 to 2.543.
    """

    name: str
    a: str
    b: str
    preset: str | None = None
    preset_file: str | None = None
    set: dict[str, float] = {}


class TopologyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    emulator: EmulatorSection
    link: tuple[LinkSection, ...]


class Topology(msgspec.Struct, frozen=True):
    """A topology file, checked, with its presets loaded and its paths made absolute."""

    door: Door
    clock: Clock
    links: tuple[Link, ...]


def read_topology(path: Path) -> Topology:
    """Raises ConfigError naming the field."""
    return parse_topology(read_text(path), path)


def parse_topology(text: str, path: Path) -> Topology:
    """As `read_topology`, for the text of a file that is, or would be, at `path`."""
    file = decode_toml(text, TopologyFile, str(path))
    emulator = file.emulator
    return Topology(
        door=door_of("emulator", emulator.listen, emulator.tls, emulator.port_file, path),
        clock=_clock(emulator.clock),
        links=read_links(file.link, path.resolve().parent),
    )


def _clock(clock: Literal["real", "fast"] | ScaledClock) -> Clock:
    if isinstance(clock, ScaledClock):
        rule = f"is above 0, at most {SCALE_MAX:g}"
        require(0.0 < clock.scaled <= SCALE_MAX, "emulator.clock.scaled", rule)
        return Clock(scale=clock.scaled)
    return Clock(fast=clock == "fast")


def read_links(sections: tuple[LinkSection, ...], folder: Path) -> tuple[Link, ...]:
    """The links of a file in `folder`, checked, with their presets.  Raises ConfigError."""
    require(1 <= len(sections) <= LINKS_MAX, "link", f"has 1 to {LINKS_MAX} entries")
    links = []
    names: set[str] = set()
    for index, section in enumerate(sections):
        where = f"link[{index}]"
        for field in ("name", "a", "b"):
            rule = "is made of lower-case letters, digits and hyphens, at most 63"
            require(valid_name(getattr(section, field)), f"{where}.{field}", rule)
        require(section.name not in names, f"{where}.name", "is another link's already")
        require(section.a != section.b, f"{where}.b", f"is the same node as {where}.a")
        names.add(section.name)
        ends = (NodeName(section.a), NodeName(section.b))
        links.append(Link(LinkName(section.name), *ends, _preset(section, where, folder)))
    return tuple(links)


def _preset(section: LinkSection, where: str, folder: Path) -> Preset:
    one = (section.preset is None) != (section.preset_file is None)
    require(one, f"{where}.preset", f"or {where}.preset_file is given, and not both")
    try:
        if section.preset_file is not None:
            return read_preset(folder / section.preset_file, section.set)
        assert section.preset is not None, "one of the two is given"
        return load_preset(section.preset, section.set)
    except ConfigError as error:
        field = f"{where}.set.{error.field}" if error.field in section.set else f"{where}.preset"
        raise ConfigError(f"{field}: {error.message}", field) from error
