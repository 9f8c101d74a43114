"""Where an exception came up, without its text: that may show what it was about."""

import traceback
from pathlib import Path

FRAMES_MAX = 30


def frames_of(error: BaseException) -> list[str]:
    """The frames of `error`, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]


def raised_in(error: BaseException) -> str:
    """The same in a line, innermost first."""
    return " < ".join(reversed(frames_of(error)))
