"""A station's bookkeeping: which attempts both ends of a link offer, and which one goes.

For a laboratory whose two ends meet in one process.  One that has its station elsewhere does there
what this does.
"""

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field

from bellhop.hal.laboratory import LaboratoryError
from bellhop.hal.operations import Attempt, RequestId, Side

Block = tuple[Hashable, RequestId, int]


@dataclass(slots=True, eq=False)
class _Offer:
    order: Attempt
    go: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Rendezvous:
    """Both ends offer attempts; one that both offer goes, and all other offers are void."""

    def __init__(self) -> None:
        self._offers: dict[Side, dict[Block, _Offer]] = {side: {} for side in Side}

    async def offer(self, side: Side, order: Attempt) -> None:
        """Wait until the other end offers the same attempt.

        Raises LaboratoryError at both ends if the other end's has another number of rounds.  The
        offer ends if this is cancelled.
        """
        block = (order.link, order.request, order.block)
        theirs = self._offers[side.other].get(block)
        if theirs is not None and not theirs.go.done():
            self._meet(order, theirs)
            return
        offer = self._offers[side][block] = _Offer(order)
        try:
            await offer.go
        finally:
            if self._offers[side].get(block) is offer:
                del self._offers[side][block]

    def _meet(self, order: Attempt, theirs: _Offer) -> None:
        if theirs.order.rounds != order.rounds:
            few, many = sorted((theirs.order.rounds, order.rounds))
            why = f"the ends ordered {few} and {many} rounds"
            theirs.go.set_exception(LaboratoryError(why))
            raise LaboratoryError(why)
        for offers in self._offers.values():
            for block in [b for b, one in offers.items() if one.order.link == order.link]:
                del offers[block]
        theirs.go.set_result(None)
