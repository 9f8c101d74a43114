"""`bench/published.py`: published runs by the bounds here, and what is printed beside them."""

import pytest
from bench.published import (
    LINKS,
    Figure,
    Link,
    ions_by_that_theorem,
    of_link,
    oxford_by_its_theorem,
    oxford_like_for_like,
)

from bellhop.stack.diqkd.bounds.design import FILTERED, RENYI


def complete(figure: Figure) -> bool:
    """Nothing is shown without what it rests on."""
    return all((figure.published, figure.held_equal, figure.assumed))


def test_oxford_by_its_theorem() -> None:
    figure = oxford_by_its_theorem()
    assert abs(figure.key_bits - 95_884) <= 20
    assert figure.met and complete(figure)


def test_no_key_from_the_ions_by_that_theorem() -> None:
    figure = ions_by_that_theorem()
    assert figure.key_bits == 0
    assert figure.met and complete(figure)


@pytest.mark.parametrize(("link", "least"), list(zip(LINKS, (0.44, 0.26, 0.16, 0.13), strict=True)))
def test_published_runs_by_the_default(link: Link, least: float) -> None:
    figure = of_link(link, RENYI)
    assert figure.key_bits_per_round >= least
    assert figure.met and complete(figure)
    assert "1.06 times Shannon's limit" in figure.assumed


@pytest.mark.parametrize(("bound", "key_bits"), [(RENYI, 437_000), (FILTERED, 457_013)])
def test_oxford_like_for_like(bound: str, key_bits: int) -> None:
    figure = oxford_like_for_like(bound)
    assert figure.key_bits == pytest.approx(key_bits, abs=200)
    assert ("UNREFEREED" in figure.verdict) is (bound == FILTERED)
