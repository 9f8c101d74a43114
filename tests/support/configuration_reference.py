"""docs/configuration.md from the structs and their docstrings; run as a module to write it anew."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bellhop.node import config, config_diqkd
from bellhop.node.config_values import Nanoseconds

REFERENCE = Path("docs/configuration.md")

_HEAD = """# The configuration of a node

One TOML file a node: `bellhop run FILE`. `deploy/example-node.toml` shows every field.
A field that the program does not know is refused, and an error names the field and what to do.

* Durations are text with a unit: `"5ms"`, `"30s"`; units `ns`, `us`, `ms`, `s`, `min`, `h`.
* Addresses are `"host:port"`, an IPv6 host in brackets; port 0 takes a free port.
* Paths are relative to the folder of the file.
* `required` fields must be given; `-` has no default of its own, and its text says what then holds.

This page is made from `node/bellhop/node/config.py` and `config_diqkd.py`:
`python -m tests.support.configuration_reference`.
"""


@dataclass(frozen=True)
class Entry:
    """A field of a struct as its source has it."""

    name: str
    kind: str
    default: str
    text: str


def entries(struct: ast.ClassDef) -> Iterator[Entry]:
    """The annotated fields of a struct, each with the text that follows it."""
    for line, after in zip(struct.body, [*struct.body[1:], ast.Pass()], strict=True):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = str(after.value.value) if documented else ""  # type: ignore[attr-defined]  # checked in `documented`
            default = "required" if line.value is None else shown(line.value)
            name = line.target.id
            yield Entry(name, ast.unparse(line.annotation), default, " ".join(text.split()))


def shown(default: ast.expr) -> str:
    """A default as one would write it into the file."""
    value = eval(ast.unparse(default), vars(config) | vars(config_diqkd))
    if value is None:
        return "-"
    if isinstance(value, Nanoseconds):
        return f'`"{value / 10**9:g}s"`'
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if isinstance(value, (int, float)) else f'`"{value}"`'


def sections(lines: list[ast.stmt]) -> Iterator[tuple[str, ast.ClassDef]]:
    """The sections in the order of the file, headed as in the file."""
    structs = {node.name: node for node in lines if isinstance(node, ast.ClassDef)}
    for entry in entries(structs["NodeConfig"]):
        name = next(name for name in structs if name in entry.kind and name != "Section")
        yield (f"[[{entry.name}]]" if "tuple" in entry.kind else f"[{entry.name}]"), structs[name]


def reference() -> str:
    """The whole page.  Every field must have its text."""
    parts = [_HEAD]
    trees = (ast.parse(inspect.getsource(module)) for module in (config_diqkd, config))
    for heading, struct in sections([line for tree in trees for line in tree.body]):
        parts.append(f"\n## `{heading}`\n\n{ast.get_docstring(struct)}\n\n")
        parts.append("| field | default | meaning |\n|---|---|---|\n")
        for entry in entries(struct):
            assert entry.text, f"{struct.name}.{entry.name} has no docstring"
            meaning = entry.text.replace("|", "\\|")
            parts.append(f"| `{entry.name}` | {entry.default} | {meaning} |\n")
    return "".join(parts)


if __name__ == "__main__":
    REFERENCE.write_text(reference())
