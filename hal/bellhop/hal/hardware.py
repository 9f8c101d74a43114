"""The interface of every memory, emulated or real."""

from collections.abc import AsyncIterator
from typing import Protocol

from bellhop.hal.operations import Operation, Report


class Hardware(Protocol):
    """A device that holds the memories of one node.

    An implementation reports `Ready` first.  If it loses its device it reports `DeviceGone`, tries
    again by itself, and reports `Ready` when it is back; orders given in between are lost, which
    the caller knows from the `DeviceGone` before them.
    """

    async def submit(self, operation: Operation) -> None:
        """Order `operation`.  Returns when it is on its way, not when it is done.

        Raises HardwareError if the operation is malformed (a caller's mistake), never because the
        device is away.
        """
        ...

    def reports(self) -> AsyncIterator[Report]:
        """What the device says, in order, until `close`."""
        ...

    async def close(self) -> None:
        """Give up all memories and disconnect."""
        ...
