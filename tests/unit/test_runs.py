"""Sets of numbers as runs, beside Python's own sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bellhop.hal import runs as module
from bellhop.hal.runs import Reasons, Runs

numbers = st.lists(st.integers(0, 40), max_size=60)


@given(numbers)
def test_runs_hold_what_a_set_holds(added: list[int]) -> None:
    runs, twin = Runs(), set[int]()
    for number in added:
        runs.add(number)
        twin.add(number)
        assert [k for k in range(-1, 42) if k in runs] == sorted(twin)
    gaps = [k for k in twin if k - 1 not in twin]
    assert len(runs) == len(gaps)


def test_a_million_numbers_nearly_in_order_make_few_runs() -> None:
    runs = Runs()
    order = np.arange(100_000).reshape(-1, 4)[:, ::-1].ravel()
    most = 0
    for number in order.tolist():
        runs.add(number)
        most = max(most, len(runs))
    assert most == 2 and len(runs) == 1


def test_gaps_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUNS_MAX", 3)
    runs = Runs()
    for number in (0, 10, 20):
        assert not runs.scattered(number)
        runs.add(number)
    assert runs.scattered(30)
    assert not any(runs.scattered(number) for number in (0, 1, 9, 11, 21))


def test_a_number_has_its_reason() -> None:
    reasons = Reasons()
    reasons[3], reasons[4], reasons[9] = "lost", "lost", "released"
    assert [reasons.get(number) for number in (2, 3, 4, 9)] == [None, "lost", "lost", "released"]
    assert 4 in reasons and 5 not in reasons
