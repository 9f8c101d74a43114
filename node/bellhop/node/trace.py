"""What a core was told and what it ordered, lately: names and times, never contents."""

import json
from collections import deque
from pathlib import Path

from bellhop.node.files import write_atomically
from bellhop.node.frames import frames_of
from bellhop.stack.core import Action, Asked, Event, PeerSaid, Reported

STEPS_MAX = 2000


class Trace:
    """The last steps of one core."""

    def __init__(self) -> None:
        self._steps: deque[tuple[int, str, tuple[str, ...]]] = deque(maxlen=STEPS_MAX)

    def stepped(self, now_ns: int, event: Event, actions: list[Action]) -> None:
        """The core took `event` and ordered `actions`."""
        self._steps.append(
            (now_ns, event_name(event), tuple(type(action).__name__ for action in actions))
        )

    def write(self, folder: Path, now_ns: int, event: Event | None, error: BaseException) -> Path:
        """A new file in `folder`: the steps, and where `error` came up after them."""
        path = folder / f"trace-{now_ns}.json"
        document = {
            "version": 1,
            "written_ns": now_ns,
            "event": event_name(event) if event is not None else "",
            "error": type(error).__name__,
            "frames": frames_of(error),
            "steps": list(self._steps),
        }
        write_atomically(path, json.dumps(document, indent=1).encode(), force=True)
        return path


def event_name(event: Event) -> str:
    """The event's type, and that of what it carries if it carries something of ours."""
    match event:
        case PeerSaid(_, inner) | Reported(inner) | Asked(_, inner):
            return f"{type(event).__name__}({type(inner).__name__})"
        case _:
            return type(event).__name__
