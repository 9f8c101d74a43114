"""Dataclasses from a peer's JSON: exactly their fields and types, or a ValueError names one."""

from dataclasses import asdict, dataclass
from typing import Any, NewType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellhop.stack.strict import ITEMS_MAX, TEXT_CHARACTERS_MAX, read_exact

Name = NewType("Name", str)


@dataclass(frozen=True)
class Inner:
    share: float
    flag: bool


@dataclass(frozen=True)
class Other:
    count: int


@dataclass(frozen=True)
class Whole:
    name: Name
    count: int
    inner: Inner
    either: Inner | Other
    pairs: tuple[tuple[int, int], ...]
    triple: tuple[int, float, float]


WHOLE = Whole(Name("x"), 3, Inner(0.5, True), Other(4), ((1, 2), (3, 4)), (1, 2.0, 3.0))


def listed(value: Any) -> Any:
    """As JSON reads it back."""
    if isinstance(value, dict):
        return {name: listed(item) for name, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, tuple) else value


def content(**changes: object) -> dict[str, object]:
    known: dict[str, object] = listed(asdict(WHOLE))
    return known | changes


def test_what_was_written_is_read() -> None:
    assert read_exact(Whole, content()) == WHOLE
    other = read_exact(Whole, content(either={"share": 1.0, "flag": False}))
    assert other.either == Inner(1.0, False)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"more": 1}, "more"),
        ({"name": 1}, "name"),
        ({"name": "x" * (TEXT_CHARACTERS_MAX + 1)}, "name"),
        ({"count": True}, "count"),
        ({"count": 3.0}, "count"),
        ({"count": 1 << 63}, "count"),
        ({"inner": None}, "inner"),
        ({"inner": {"share": 1, "flag": True}}, "inner.share"),
        ({"inner": {"share": float("nan"), "flag": True}}, "inner.share"),
        ({"inner": {"share": 0.5, "flag": 1}}, "inner.flag"),
        ({"inner": {"share": 0.5}}, "inner.flag"),
        ({"either": {}}, "either"),
        ({"either": []}, "either"),
        ({"either": {"count": "4"}}, "either.count"),
        ({"pairs": {}}, "pairs"),
        ({"pairs": [[1, 2, 3]]}, "pairs"),
        ({"pairs": [[1, 2]] * (ITEMS_MAX + 1)}, "pairs"),
        ({"triple": [1, 2.0]}, "triple"),
        ({"triple": [1, 2, 3.0]}, "triple"),
    ],
)
def test_what_is_not_exactly_that_names_its_field(changes: dict[str, object], where: str) -> None:
    with pytest.raises(ValueError, match=where):
        read_exact(Whole, content(**changes))


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


CHANGES = st.dictionaries(st.sampled_from(sorted(content())), ANY)


@given(ANY | CHANGES.map(lambda changes: content(**changes)))
def test_whatever_it_is_it_is_read_or_a_value_error(value: object) -> None:
    try:
        assert isinstance(read_exact(Whole, value), Whole)
    except ValueError as error:
        assert len(str(error)) < 400
