"""Experiments as data: every figure with its value, source and grade."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import get_args, get_type_hints

import msgspec

from bellhop.hal import effects, preset_rules
from bellhop.hal.compose import ENDS, TWO_ENDED, Composition, Table, compose
from bellhop.hal.configuration import convert, decode_document, read_text, require
from bellhop.hal.errors import ConfigError
from bellhop.hal.figures import Figure
from bellhop.hal.sections import (
    Device,
    Devices,
    Fibre,
    Fibres,
    MeasuredState,
    Noise,
    Published,
    Settings,
    Station,
    Storage,
)

SETTABLE: dict[str, type[msgspec.Struct]] = {
    "device": Device,
    "fibre": Fibre,
    "station": Station,
    "storage": Storage,
    "noise": Noise,
}
"""The sections whose figures an override may set; what was published stays as it was."""

TEXT_BYTES_MAX = 65_536
"""No preset is longer."""


class Preset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An experiment: devices, fibres and a station, what is measured, and what was published."""

    name: str
    title: str
    device: Devices
    fibre: Fibres
    station: Station
    state: MeasuredState | None = None
    storage: Storage = Storage()
    settings: Settings = Settings()
    noise: Noise = Noise()
    published: Published = Published()

    @property
    def description(self) -> str:
        """The title, and every figure that an override set."""
        changed = ", ".join(f"{path}={value:g}" for path, value in _changed(self).items())
        return f"{self.title}; set: {changed}" if changed else self.title


def load_preset(name: str, overrides: dict[str, float] | None = None) -> Preset:
    """A preset that comes with Bellhop, by name.  Raises ConfigError."""
    return _loaded(name, tuple((overrides or {}).items()))


@lru_cache(maxsize=64)
def _loaded(name: str, overrides: tuple[tuple[str, float], ...]) -> Preset:
    """A topology may name one preset for thousands of links."""
    known = preset_names()
    require(name in known, "preset", f"is one of {', '.join(known)}, not {name!r}")
    return parse_preset(_shipped_text(name), f"preset {name}", dict(overrides))


def read_preset(path: Path, overrides: dict[str, float] | None = None) -> Preset:
    """A preset from the operator's own file.  Raises ConfigError."""
    return parse_preset(read_text(path), str(path), overrides)


def preset_names() -> tuple[str, ...]:
    names = (entry.name for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def parse_preset(text: str, origin: str, overrides: dict[str, float] | None = None) -> Preset:
    """Decode, put together, override and check, to whether the experiment can be run at all.

    `overrides`: "noise.white", "fibre.b.length_m", "device.memory.coherence_ns": a figure of one
    end, or of both; one end's wins, in any order.  Raises ConfigError naming the field as the file
    or the override does.
    """
    # What an experiment is made of imports presets.
    from bellhop.hal.experiment import Experiment

    if len(text.encode(errors="replace")) > TEXT_BYTES_MAX:
        raise ConfigError(f"{origin} is longer than {TEXT_BYTES_MAX} bytes", origin)
    composition = compose(decode_document(text, origin), _shipped)
    places = {path: _places(path) for path in overrides or {}}
    for path, value in sorted((overrides or {}).items(), key=lambda one: -len(places[one[0]])):
        _override(composition, path, places[path], value)
    try:
        preset = convert(composition.document, Preset, origin)
        preset_rules.check(preset)
        preset_rules.check_sources((path, figure.source) for path, figure in figures(preset))
        _check_effects(preset, places)
        Experiment(preset)
    except ConfigError as error:
        raise composition.rename(error) from error
    return preset


Place = tuple[str, ...]


def _check_effects(preset: Preset, places: Mapping[str, tuple[Place, ...]]) -> None:
    """Raises ConfigError for an override that another one hides, or that changes nothing."""
    alone = {one[0] for one in places.values() if len(one) == 1}
    idle = effects.without_effect(preset)
    for path, set_at in places.items():
        if len(set_at) > 1 and alone.issuperset(set_at):
            raise ConfigError(f"{path} has no effect: it is set for either end as well", path)
        reasons = [effects.reason_for(".".join(place), idle) for place in set_at]
        if all(reasons):
            raise ConfigError(f"{path} has no effect: {reasons[0]}", path)


def figures(struct: msgspec.Struct, path: str = "") -> Iterator[tuple[str, Figure]]:
    """Every figure below `struct` with its path, tables and lists of tables included."""
    for name in struct.__struct_fields__:
        yield from _figures_below(getattr(struct, name), f"{path}.{name}" if path else name)


def _figures_below(content: object, path: str) -> Iterator[tuple[str, Figure]]:
    if isinstance(content, Figure):
        yield path, content
    elif isinstance(content, msgspec.Struct):
        yield from figures(content, path)
    elif isinstance(content, dict):
        for name, below in content.items():
            yield from _figures_below(below, f"{path}.{name}")
    elif isinstance(content, tuple):
        for index, below in enumerate(content):
            yield from _figures_below(below, f"{path}[{index}]")


def _changed(preset: Preset) -> dict[str, float]:
    """What overrides set, by path; once where both ends have the same."""
    changed = {path: figure.value for path, figure in figures(preset) if figure.grade == "set"}
    for section in TWO_ENDED:
        for path in [path for path in changed if path.startswith(f"{section}.a.")]:
            name = path.removeprefix(f"{section}.a.")
            other = f"{section}.b.{name}"
            if changed.get(other) == changed[path]:
                changed[f"{section}.{name}"] = changed.pop(path)
                del changed[other]
    return changed


def _folder() -> resources.abc.Traversable:
    return resources.files("bellhop.hal").joinpath("presets")


def _shipped_text(name: str) -> str:
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def _shipped(name: str) -> Table | None:
    if name not in preset_names():
        return None
    return decode_document(_shipped_text(name), f"preset {name}")


def _places(path: str) -> tuple[Place, ...]:
    """Where an override stands in the tables that are put together.  Raises ConfigError."""
    section, *names = path.split(".")
    ends: tuple[str, ...] = ENDS
    if section in TWO_ENDED and names and names[0] in ENDS:
        ends = (names.pop(0),)
    if not _is_figure(section, names):
        raise ConfigError(f"{path} is not a figure that can be set", path)
    if section not in TWO_ENDED:
        return ((section, *names),)
    return tuple((section, end, *names) for end in ends)


def _override(composition: Composition, path: str, places: tuple[Place, ...], value: float) -> None:
    figure: Table = {"value": float(value), "source": "set by an override", "grade": "set"}
    for place in places:
        table = composition.document
        for depth, name in enumerate(place[:-1], start=1):
            if name not in table:
                # What is still missing from a table that is made here is missing from the path.
                composition.written[".".join(place[:depth])] = _above(path, len(place) - depth)
            below = table.setdefault(name, {})
            if not isinstance(below, dict):
                # The file is wrong there, and is refused by name when it is typed.
                return
            table = below
        table[place[-1]] = figure
        composition.written[".".join(place)] = path


def _above(path: str, levels: int) -> str:
    return path.rsplit(".", levels)[0]


def _is_figure(section: str, names: list[str]) -> bool:
    kinds: tuple[object, ...] = (SETTABLE.get(section),)
    for name in names:
        struct = next((kind for kind in kinds if _is_struct(kind)), None)
        if struct is None or struct is Figure:
            return False
        hint = get_type_hints(struct).get(name)
        kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    return Figure in kinds


def _is_struct(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
