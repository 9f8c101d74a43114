"""The file of a laboratory's service, and the drivers it can name."""

import asyncio
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from pathlib import Path
from typing import Any

import msgspec

from bellhop.hal.configuration import decode_toml, read_text, require, require_all
from bellhop.hal.door import Door, TlsSection, door_of
from bellhop.hal.errors import BellhopError, ConfigError
from bellhop.hal.identity import valid_name
from bellhop.hal.laboratory import Laboratory
from bellhop.hal.operations import NodeName
from bellhop.hal.serve import serve
from bellhop.hal.serve_rules import DriverFault, Limits

DRIVERS = "bellhop.hal.laboratories"
"""The group of entry points in which a package announces its drivers."""

PLACE = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
"""module:Class"""

LABORATORIES_MAX = 64
SECONDS_MAX = 7 * 86_400.0


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unknown fields are refused."""


class ServiceSection(_Section, frozen=True):
    """`listen`: address and port (0: any free one).  `port_file`: gets the bound address once
    nodes can connect, relative to this file."""

    listen: str
    tls: TlsSection
    port_file: str | None = None


class LimitsSection(_Section, frozen=True):
    """How long a device may take: to the next herald, to answer one round, and to close."""

    herald_seconds: float = Limits().herald_seconds
    measure_seconds: float = Limits().measure_seconds
    close_seconds: float = Limits().close_seconds


class LaboratorySection(_Section, frozen=True):
    """`node`: whom it serves.  `driver`: a name that `bellhop hal drivers` lists, or module:Class.
    `options`: handed to the driver as they are."""

    node: str
    driver: str
    options: dict[str, Any] = {}


class LaboratoryFile(_Section, frozen=True):
    service: ServiceSection
    laboratory: tuple[LaboratorySection, ...]
    limits: LimitsSection = LimitsSection()


@dataclass(frozen=True, slots=True)
class Served:
    """A laboratory's file, checked, with its drivers made."""

    door: Door
    limits: Limits
    laboratories: dict[NodeName, Laboratory]


def read_laboratory(path: Path) -> Served:
    """Raises ConfigError naming the field."""
    return parse_laboratory(read_text(path), path)


def parse_laboratory(text: str, path: Path) -> Served:
    """As `read_laboratory`, for the text of a file that is, or would be, at `path`."""
    file = decode_toml(text, LaboratoryFile, str(path))
    service = file.service
    door = door_of("service", service.listen, service.tls, service.port_file, path)
    seconds = msgspec.structs.asdict(file.limits)
    named = {f"limits.{name}": value for name, value in seconds.items()}
    rule = f"is above 0, at most {SECONDS_MAX:g} seconds"
    require_all(named, lambda value: 0.0 < value <= SECONDS_MAX, rule)
    return Served(door, Limits(**seconds), _laboratories(file.laboratory))


def _laboratories(sections: tuple[LaboratorySection, ...]) -> dict[NodeName, Laboratory]:
    rule = f"has 1 to {LABORATORIES_MAX} entries"
    require(1 <= len(sections) <= LABORATORIES_MAX, "laboratory", rule)
    made: dict[NodeName, Laboratory] = {}
    for index, section in enumerate(sections):
        where = f"laboratory[{index}]"
        named = valid_name(section.node)
        require(named, f"{where}.node", "is made of lower-case letters, digits and hyphens")
        node = NodeName(section.node)
        require(node not in made, f"{where}.node", "has a laboratory already")
        driver = find_driver(section.driver, f"{where}.driver")
        made[node] = _made(driver, node, section.options, where)
    return made


def _made(
    driver: type[Laboratory], node: NodeName, options: dict[str, Any], where: str
) -> Laboratory:
    """Raises ConfigError as the driver does, and DriverFault for all else it does."""
    try:
        laboratory: object = driver.from_options(node, options)
    except BellhopError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise DriverFault(
            f"{where}: from_options of {driver.__name__} raised {kind}: {error}; for options that"
            " cannot be it must raise ConfigError"
        ) from error
    if not isinstance(laboratory, Laboratory):
        kind = type(laboratory).__name__
        raise DriverFault(
            f"{where}: from_options of {driver.__name__} answered {kind} instead of a laboratory"
        )
    return laboratory


def drivers() -> tuple[EntryPoint, ...]:
    """What the installed packages announce, by name."""
    return tuple(sorted(entry_points(group=DRIVERS), key=lambda found: found.name))


def find_driver(name: str, field: str) -> type[Laboratory]:
    """The class of a driver.  Raises ConfigError naming `field`."""
    if ":" in name:
        require(PLACE.fullmatch(name) is not None, field, "is a driver's name, or module:Class")
        place = EntryPoint(name, name, DRIVERS)
    else:
        found = [driver for driver in drivers() if driver.name == name]
        known = ", ".join(driver.name for driver in drivers()) or "none"
        if not found:
            raise ConfigError(
                f"{field}: no installed package has the driver {name!r} (there are: {known}); "
                "install it, or give module:Class",
                field,
            )
        place = found[0]
    try:
        loaded = place.load()
    except Exception as error:  # A module does what it likes while it is imported.
        why = f"{type(error).__name__}: {error}"
        hint = "; for a module in this folder, set PYTHONPATH=." if ":" in name else ""
        raise ConfigError(f"{field}: {name} cannot be loaded: {why}{hint}", field) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Laboratory)):
        raise ConfigError(f"{field}: {name} is no bellhop.hal.laboratory.Laboratory", field)
    if isabstract(loaded):
        missing = ", ".join(sorted(loaded.__abstractmethods__))
        raise ConfigError(f"{field}: {name} lacks the methods {missing}", field)
    return loaded


def run_laboratory(path: Path, on_listening: Callable[[str], None] = lambda _: None) -> None:
    """Serve the laboratories of the file at `path` until SIGTERM or SIGINT.

    Raises ConfigError, and HardwareError for a laboratory that does not open.
    """
    served = read_laboratory(path)

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(served.laboratories, served.door, served.limits, on_listening, stop)

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(until_signalled())
    finally:
        try:
            loop.run_until_complete(_ended(served.limits.grace_seconds))
        finally:
            loop.close()


async def _ended(grace: float) -> None:
    """End what is left in this loop.  asyncio.run would wait for ever for a method of a driver that
    does not end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    generators = asyncio.ensure_future(asyncio.get_running_loop().shutdown_asyncgens())
    await asyncio.wait({generators, *tasks}, timeout=grace)
