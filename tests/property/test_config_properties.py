"""Whatever stands in a configuration file, it is a configuration or an error that names a field."""

import datetime
import json
import re
from fractions import Fraction
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal.errors import ConfigError
from bellhop.node.config import parse_config
from bellhop.node.config_values import parse_duration

LINES = Path("deploy/example-node.toml").read_text().splitlines()
FIELDS = [i for i, line in enumerate(LINES) if re.match(r"(# )?\w+ = ", line)]
FOLDER = Path("/etc/bellhop")

ODD = ["", "0", "127.0.0.1:0", "[::1]:1", "1/0", "1e9", "9" * 30, "5ms", "\0", "..", "alice"]
scalars = st.one_of(
    st.booleans().map(lambda value: str(value).lower()),
    st.integers().map(str),
    st.floats().map(repr),
    st.text(max_size=70).map(json.dumps),
    st.sampled_from(ODD).map(json.dumps),
    st.datetimes().map(datetime.datetime.isoformat),
)
values = scalars | st.lists(scalars, max_size=3).map(lambda items: f"[{', '.join(items)}]")


@given(st.sampled_from(FIELDS), values)
def test_any_value_in_any_field(at: int, value: str) -> None:
    name = LINES[at].removeprefix("# ").partition(" ")[0]
    text = "\n".join([*LINES[:at], f"{name} = {value}", *LINES[at + 1 :]])
    try:
        parse_config(text, FOLDER)
    except ConfigError as error:
        assert error.field or "TOML" in error.message
        assert error.field in error.message


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    try:
        parse_config(text, FOLDER)
    except ConfigError:
        return
    raise AssertionError("no text this short holds the required fields")


@given(st.fractions(0, 10**6, max_denominator=1000), st.sampled_from(["us", "ms", "s"]))
def test_durations_are_exact(number: Fraction, unit: str) -> None:
    thousandths = number.limit_denominator(1) + Fraction(int(number * 1000) % 1000, 1000)
    text = f"{float(thousandths):.3f}{unit}"
    scale = {"us": 10**3, "ms": 10**6, "s": 10**9}[unit]
    assert parse_duration(text) == Fraction(text.removesuffix(unit)) * scale
