"""What a store says of the rounds of a slot: in facts of its own, or in the page it is part of."""

from collections.abc import Mapping

import numpy as np

from bellhop.stack.codec import unpack
from bellhop.stack.diqkd.pages import Bits, Drawn, decode_drawn, decode_page
from bellhop.stack.diqkd.parameters import Parameters
from bellhop.stack.link.machine import MeasureDirectly

Facts = Mapping[str, bytes]

_ARRAYS = ("tests", "settings", "patterns", "flips")


def request_of(p: Parameters) -> MeasureDirectly:
    """How a session's rounds fall into slots and pages; of either end."""
    return MeasureDirectly(p.link, p.bob, p.request, p.rounds, p.block_rounds, p.window)


def drawn_of(facts: Facts, request: MeasureDirectly, slot: int) -> Drawn | None:
    """What was drawn for a slot; None if nothing was."""
    page, rounds = request.page(slot), request.slot_rounds(slot)
    alone = facts.get(f"session/{request.request}/drawn/{page}/{slot}")
    if alone is not None:
        return decode_drawn(alone, rounds)
    whole = facts.get(f"session/{request.request}/pages/{page}")
    if whole is None:
        return None
    drawn, _ = decode_page(whole, _page_rounds(request, page))
    return drawn.part(_within(request, slot))


def outcomes_of(facts: Facts, request: MeasureDirectly, slot: int) -> Bits | None:
    """What a slot's rounds gave, 0 where lost; None if they are not answered."""
    page, rounds = request.page(slot), request.slot_rounds(slot)
    alone = facts.get(f"session/{request.request}/outcomes/{page}/{slot}")
    if alone is not None:
        return unpack(alone, rounds)
    whole = facts.get(f"session/{request.request}/pages/{page}")
    if whole is None:
        return None
    return decode_page(whole, _page_rounds(request, page))[1][_within(request, slot)]


def is_true(facts: Facts, request: MeasureDirectly, page: int, payload: bytes) -> bool:
    """Whether a page says what the facts say that it is to take the place of."""
    said, outcomes = decode_page(payload, _page_rounds(request, page))
    for slot in request.slots_of(page):
        drawn, found = drawn_of(facts, request, slot), outcomes_of(facts, request, slot)
        if drawn is None or found is None:
            return False
        at = _within(request, slot)
        part = said.part(at)
        same = [np.array_equal(getattr(part, name), getattr(drawn, name)) for name in _ARRAYS]
        if not all(same) or not np.array_equal(outcomes[at], found):
            return False
    return True


def _page_rounds(request: MeasureDirectly, page: int) -> int:
    rounds = request.page_span(page)
    return int(rounds.stop - rounds.start)


def _within(request: MeasureDirectly, slot: int) -> slice:
    """The rounds of a slot among those of its page."""
    start = request.span(slot).start - request.page_span(request.page(slot)).start
    return slice(start, start + request.slot_rounds(slot))
