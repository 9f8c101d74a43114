"""A laboratory's file: what is wrong names the field, and the example lists every field."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from click.testing import CliRunner

from bellhop.hal import serve_file
from bellhop.hal.door import TlsSection
from bellhop.hal.errors import ConfigError
from bellhop.hal.examples import two_traps
from bellhop.hal.examples.two_traps import Options, Trap
from bellhop.hal.laboratory import Laboratory
from bellhop.hal.operations import NodeName
from bellhop.hal.serve_file import find_driver, parse_laboratory
from bellhop.hal.serve_rules import DriverFault, Limits
from bellhop.node.cli import main

EXAMPLE = Path(__file__).parents[2] / "deploy" / "example-laboratory.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")


def test_the_example_is_read() -> None:
    served = parse_laboratory(TEXT, EXAMPLE)
    assert list(served.laboratories) == ["alice"]
    assert isinstance(served.laboratories[NodeName("alice")], Trap)
    assert served.door.listen == "127.0.0.1:7500"
    assert served.door.certificate.is_absolute()
    assert served.limits == Limits()


def fields_of(struct: type[msgspec.Struct]) -> set[str]:
    return set(struct.__struct_fields__)


def test_the_example_lists_every_field() -> None:
    file: dict[str, Any] = tomllib.loads(TEXT)
    (laboratory,) = file["laboratory"]
    assert set(file) == fields_of(serve_file.LaboratoryFile)
    assert set(file["service"]) == fields_of(serve_file.ServiceSection)
    assert set(file["service"]["tls"]) == fields_of(TlsSection)
    assert set(file["limits"]) == fields_of(serve_file.LimitsSection)
    assert set(laboratory) == fields_of(serve_file.LaboratorySection)
    assert set(laboratory["options"]) == fields_of(Options)
    defaults = serve_file.LimitsSection()
    assert file["limits"] == msgspec.structs.asdict(defaults)


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('listen = "127.0.0.1:7500"', 'listen = "127.0.0.1"', "service.listen"),
        ('listen = "127.0.0.1:7500"', 'listen = "127.0.0.1:65536"', "service.listen"),
        ('listen = "127.0.0.1:7500"', 'colour = "red"', "service.colour"),
        ("herald_seconds = 60.0", "herald_seconds = 0", "limits.herald_seconds"),
        ("measure_seconds = 5.0", "measure_seconds = nan", "limits.measure_seconds"),
        ('node = "alice"', 'node = "Alice"', "laboratory[0].node"),
        ("two_traps:Trap", "two_traps:Table", "laboratory[0].driver"),
        ("bellhop.hal.examples.two_traps:Trap", "no.such.module:Trap", "laboratory[0].driver"),
        ("bellhop.hal.examples.two_traps:Trap", "cold-atoms", "laboratory[0].driver"),
        ("bellhop.hal.examples.two_traps:Trap", "json:JSONDecoder", "laboratory[0].driver"),
        ("close_seconds = 20.0", "close_seconds = -1.0", "limits.close_seconds"),
        ("bellhop.hal.examples.two_traps:Trap", "evil:", "laboratory[0].driver"),
        ("bellhop.hal.examples.two_traps:Trap", ":Trap", "laboratory[0].driver"),
        ("bellhop.hal.examples.two_traps:Trap", "evil:Trap:x", "laboratory[0].driver"),
        (
            "bellhop.hal.examples.two_traps:Trap",
            "bellhop.hal.laboratory:Laboratory",
            "laboratory[0].driver",
        ),
        ('table = "127.0.0.1:7700"', 'table = "x"', "laboratory.options.table"),
        ('table = "127.0.0.1:7700"', 'table = "127.0.0.1:abc"', "laboratory.options.table"),
        ('table = "127.0.0.1:7700"', 'table = "127.0.0.1:99999"', "laboratory.options.table"),
        ('side = "a"', 'side = "left"', "laboratory.options"),
        ("ions = 8", "colour = 1", "laboratory.options"),
    ],
)
def test_what_is_wrong_names_the_field(old: str, new: str, field: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        parse_laboratory(TEXT.replace(old, new, 1), EXAMPLE)
    assert caught.value.field == field


def test_a_node_has_one_laboratory() -> None:
    again = TEXT[TEXT.index("[[laboratory]]") :]
    with pytest.raises(ConfigError) as caught:
        parse_laboratory(TEXT + again, EXAMPLE)
    assert caught.value.field == "laboratory[1].node"


DISTRIBUTION = {
    "METADATA": "Metadata-Version: 2.1\nName: a-trap\nVersion: 1\n",
    "entry_points.txt": f"[{serve_file.DRIVERS}]\na-trap = a_trap:Trap\n",
    "RECORD": "",
}


def test_an_installed_package_announces_its_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip would have put it there."""
    folder = tmp_path / "a_trap-1.dist-info"
    folder.mkdir()
    for name, text in DISTRIBUTION.items():
        (folder / name).write_text(text)
    (tmp_path / "a_trap.py").write_text(
        "from bellhop.hal.examples.two_traps import Trap as Base\n\n\nclass Trap(Base):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "a-trap" in [driver.name for driver in serve_file.drivers()]
    found = find_driver("a-trap", "laboratory[0].driver")
    assert found.__module__ == "a_trap" and issubclass(found, Trap)


def test_the_drivers_that_come_with_bellhop_are_laboratories() -> None:
    project = tomllib.loads((EXAMPLE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    announced = project["project"]["entry-points"][serve_file.DRIVERS]
    assert find_driver(announced["two-traps"], "driver") is Trap
    for place in announced.values():
        assert issubclass(find_driver(place, "driver"), Laboratory)


def test_the_command_lists_what_is_installed() -> None:
    done = CliRunner().invoke(main, ["hal", "drivers", "--json"])
    assert done.exit_code == 0
    found = {driver.name: driver.value for driver in serve_file.drivers()}
    assert json.loads(done.stdout) == {"drivers": found}


def test_a_driver_may_be_named_by_its_place() -> None:
    place = f"{Trap.__module__}:{Trap.__name__}"
    assert find_driver(place, "driver") is Trap


BROKEN = {
    "no_syntax": "class Trap(:\n",
    "fails": "raise ZeroDivisionError('as it is imported')\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").write_text(BROKEN[name])
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be loaded: (Syntax|ZeroDiv)") as caught:
        find_driver(f"{name}:Trap", "laboratory[0].driver")
    assert caught.value.field == "laboratory[0].driver"


def test_an_abstract_driver_is_told_what_it_lacks() -> None:
    with pytest.raises(ConfigError, match=r"lacks the methods attempt, close, .*synchronise"):
        find_driver("bellhop.hal.laboratory:Laboratory", "driver")


class Careless(Trap):
    @classmethod
    def from_options(cls, node: NodeName, options: Mapping[str, object]) -> Self:
        options["no such option"]
        raise AssertionError


class Nothing(Trap):
    @classmethod
    def from_options(cls, node: NodeName, options: Mapping[str, object]) -> Any:
        return None


@pytest.mark.parametrize(
    ("driver", "words"),
    [(Careless, "from_options of Careless raised KeyError"), (Nothing, "answered NoneType")],
)
def test_a_driver_that_is_not_made_is_the_drivers_fault(
    driver: type[Trap], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_traps, "Trap", driver)
    with pytest.raises(DriverFault, match=words):
        parse_laboratory(TEXT, EXAMPLE)
