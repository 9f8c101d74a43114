"""Waiting for a state, in tests: on what a status says, never for a time."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 30.0
_LOOK_AGAIN_S = 0.01


async def until(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Return once `condition` holds; TimeoutError if it does not come to hold."""
    async with asyncio.timeout(patience_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is not ours to signal
            await asyncio.sleep(_LOOK_AGAIN_S)
