"""Presets that borrow: sections put together from a file and the presets it names.

Works on decoded tables, before they are typed.  What a file writes itself always wins over the
preset that it names; for an end of the link, `[device.a]` wins over `[device]`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from bellhop.hal.configuration import require
from bellhop.hal.errors import ConfigError

Table = dict[str, object]

ENDS = ("a", "b")

TWO_ENDED = ("device", "fibre")
"""The sections of which either end of the link has its own."""

SHARED = ("station", "state", "storage", "settings", "noise")
"""The sections of which a link has one."""

MERGED = ("memory", "communication")
"""Tables of figures within a section: they are overridden figure by figure."""

OWN_SOURCE = "given in this file"

_DEPTH_MAX = 5
"""No table of a preset is nested deeper."""


@dataclass(slots=True)
class Composition:
    """The tables of a preset, and where the file has what stands at another path in them.

    `written`: path in `document` -> path in the file, for what is common to both ends.
    """

    document: Table
    written: dict[str, str] = field(default_factory=dict)

    def as_written(self, path: str) -> str:
        """`path`, or the one in the file that it, or the nearest table around it, comes from."""
        prefix = path
        while prefix:
            if prefix in self.written:
                return self.written[prefix] + path[len(prefix) :]
            prefix = prefix.rpartition(".")[0]
        return path

    def rename(self, error: ConfigError) -> ConfigError:
        """The same error, naming the field as the file does."""
        path = self.as_written(error.field)
        if path == error.field:
            return error
        return ConfigError(error.message.replace(error.field, path), path)


def compose(document: Table, presets: Callable[[str], Table | None]) -> Composition:
    """Every section complete, both ends of the two-ended ones apart.

    `presets` gives the tables of a preset that comes with Bellhop, None if there is none of that
    name.  Raises ConfigError.
    """
    composition = Composition({})
    for name, content in document.items():
        section = _Section(name, presets, composition.written)
        if name in TWO_ENDED:
            composition.document[name] = section.two_ended(content)
        elif name in SHARED:
            composition.document[name] = section.shared(content)
        else:
            composition.document[name] = _figures(content)
    return composition


@dataclass(frozen=True, slots=True)
class _Section:
    """One section as it is put together.

    `written`: as in `Composition`.  `above`: the presets that its content was reached by.
    """

    name: str
    presets: Callable[[str], Table | None]
    written: dict[str, str]
    above: tuple[str, ...] = ()

    def two_ended(self, content: object) -> Table:
        common = _table(content, self.name)
        ends = {end: _table(common.pop(end, {}), f"{self.name}.{end}") for end in ENDS}
        if not any(ends.values()):
            # The file does not tell them apart, so what is missing is missing from both.
            self.written.update({f"{self.name}.{end}": self.name for end in ENDS})
        base = self._bases(_take_reference(common, self.name), self.name)
        return {end: self._end(end, common, ends[end], base) for end in ENDS}

    def shared(self, content: object) -> Table:
        own = _table(content, self.name)
        preset, _ = _take_reference(own, self.name, with_side=False)
        base = {} if preset is None else self._borrowed(preset, self.name)
        return _overlaid(base, own, self.name, self.name, {})

    def _end(self, end: str, common: Table, own: Table, bases: Table) -> Table:
        """`bases`: the ends of the preset that the section names; an end's own name wins."""
        path = f"{self.name}.{end}"
        reference = _take_reference(own, path)
        if reference[0] is not None:
            bases = self._bases(reference, path)
        merged = _overlaid(_table(bases[end], path), common, path, self.name, self.written)
        return _overlaid(merged, own, path, path, self.written)

    def _bases(self, reference: tuple[str | None, str | None], where: str) -> Table:
        """What a reference at `where` in the file gives for either end."""
        preset, side = reference
        if preset is None:
            return {end: {} for end in ENDS}
        borrowed = self._borrowed(preset, where)
        return {end: borrowed[side or end] for end in ENDS}

    def _borrowed(self, preset: str, where: str) -> Table:
        """The complete section of a preset."""
        field_name = f"{where}.preset"
        require(preset not in self.above, field_name, f"leads back to {preset!r}")
        document = self.presets(preset)
        require(document is not None, field_name, f"names no preset that there is: {preset!r}")
        assert document is not None
        require(self.name in document, field_name, f"names {preset!r}, which has no [{self.name}]")
        section = _Section(self.name, self.presets, {}, (*self.above, preset))
        content = document[self.name]
        return section.two_ended(content) if self.name in TWO_ENDED else section.shared(content)


def _overlaid(base: Table, over: Table, path: str, source: str, written: dict[str, str]) -> Table:
    """`base` with the figures of `over`, which stands at `source` in the file."""
    result = dict(base)
    for name, content in over.items():
        here = f"{path}.{name}"
        if name in MERGED and isinstance(content, dict):
            below = _table(result.get(name, {}), here)
            result[name] = _overlaid(below, content, here, f"{source}.{name}", written)
            if not below:
                written[here] = f"{source}.{name}"
        else:
            result[name] = _figures(content)
            written[here] = f"{source}.{name}"
    return result


def _take_reference(
    table: Table, path: str, with_side: bool = True
) -> tuple[str | None, str | None]:
    """Removes `preset` and `side`, and returns them."""
    preset = table.pop("preset", None)
    require(preset is None or isinstance(preset, str), f"{path}.preset", "is a preset's name")
    side = table.pop("side", None) if with_side else None
    require(side is None or side in ENDS, f"{path}.side", 'is "a" or "b"')
    require(side is None or preset is not None, f"{path}.side", "is given without a preset")
    return (
        preset if isinstance(preset, str) else None,
        side if isinstance(side, str) else None,
    )


def _table(content: object, path: str) -> Table:
    """A copy, so that taking entries out leaves the original."""
    require(isinstance(content, dict), path, "is a table")
    assert isinstance(content, dict)
    return dict(content)


def _figures(content: object, depth: int = 0) -> object:
    """Bare numbers, and lists of them, become figures of the file's own."""
    if _is_bare(content):
        return {"value": content, "source": OWN_SOURCE, "grade": "own"}
    if depth == _DEPTH_MAX:
        return content
    if isinstance(content, dict) and "value" not in content:
        return {name: _figures(below, depth + 1) for name, below in content.items()}
    if isinstance(content, list):
        return [_figures(below, depth + 1) for below in content]
    return content


def _is_bare(content: object) -> bool:
    """A number, or what looks like a vector or a matrix of them."""
    if isinstance(content, list):
        rows = content if content and isinstance(content[0], list) else [content]
        return all(isinstance(row, list) and row and all(map(_is_number, row)) for row in rows)
    return _is_number(content)


def _is_number(content: object) -> bool:
    return isinstance(content, int | float) and not isinstance(content, bool)
