"""The bar that shows how far a session is, on stderr."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bellhop.node.session_client import Progress as SessionProgress

STAGES = (
    "proposed",
    "heralding",
    "transcript_a",
    "transcript_b",
    "inputs_a",
    "inputs_b",
    "syndrome",
    "verification",
    "decision",
    "amplification",
    "amplifying",
    "stored",
)
_AFTER_ROUNDS = STAGES.index("heralding") + 1


class SessionBar:
    """A bar over a session's rounds, then over the stages that follow them."""

    def __init__(self, shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} {task.fields[unit]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._rounds: TaskID | None = None
        self._stages: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def tell(self, step: str) -> None:
        """A line above the bars."""
        if not self._progress.disable:
            self._progress.console.print(f"- {step}", highlight=False)

    def moved(self, session: SessionProgress) -> None:
        """Show that the session is there."""
        bar = self._progress
        if self._rounds is None:
            self._rounds = bar.add_task("rounds", total=session.rounds, unit="rounds")
        if session.stage not in STAGES:  # the peer is waited for; the bars stay where they are
            bar.update(
                self._rounds if self._stages is None else self._stages, description=session.stage
            )
            return
        bar.update(self._rounds, completed=session.rounds_done, description="rounds")
        done = STAGES.index(session.stage)
        if done < _AFTER_ROUNDS:
            return
        if self._stages is None:
            total = len(STAGES) - _AFTER_ROUNDS - 1
            self._stages = bar.add_task("distilling", total=total, unit="stages")
        bar.update(self._stages, description=session.stage, completed=done - _AFTER_ROUNDS)
