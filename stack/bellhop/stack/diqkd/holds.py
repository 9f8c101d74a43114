"""Why a session gets no new pairs for now, since when, and when that has been too long.

Rules
  1. Either end may pause: then both order no new pairs, until each that paused has resumed.
  2. While an end is paused or has no device, and rounds are lacking, the session is held: nothing
     is expected, so it does not stall.
  3. It is held for no longer than a limit, whoever pauses it how often: that time begins anew only
     when something new has come while it was not held.
  4. A peer that changes its mind again and again is heard once a second; what is passed over, its
     next position says.
"""

from bellhop.hal.operations import NodeName
from bellhop.stack.core import Action, Note, Persist, Tell
from bellhop.stack.diqkd.measure import Measuring
from bellhop.stack.diqkd.pace import Pace
from bellhop.stack.diqkd.record import Record
from bellhop.stack.messages import Paused

CHANGE_NS = 1_000_000_000
CHANGES_BURST = 4
"""A peer pauses or resumes so often at once, and then once in so long: each goes to the disk."""

DAY_NS = 86_400_000_000_000


class Holds:
    """Of one end of a session.  `peer_device_away`: as the peer said last."""

    def __init__(self, record: Record, measuring: Measuring) -> None:
        self.peer_device_away = False
        self._record = record
        self._measuring = measuring
        self._changes = Pace(CHANGE_NS, CHANGES_BURST)
        self._seen_ns = 0  # when it was last found held
        self._noted = False

    @property
    def held(self) -> bool:
        away = self._measuring.device_away or self.peer_device_away
        return self._lacks_rounds and (away or self._record.on_hold)

    @property
    def _lacks_rounds(self) -> bool:
        return not (self._record.stored or self._measuring.all_done())

    @property
    def since_ns(self) -> int:
        """0 if it is not held."""
        return self._record.held_since_ns if self.held else 0

    # --- pauses ---------------------------------------------------------------------------------

    def pause(self, paused: bool) -> list[Action]:
        """This end orders no new pairs, or goes on if the peer does.  What is under way goes on."""
        record = self._record
        if record.paused == paused:
            return []
        record.paused = paused
        note = Note("session_paused" if paused else "session_resumed", {"session": record.session})
        told = Tell(record.peer, Paused(record.session, paused))
        return [Persist((record.pause_fact(),)), note, told, *self._measuring.hold()]

    def hear(self, now_ns: int, paused: bool) -> list[Action]:
        record = self._record
        if record.peer_paused == paused or record.stored or not self._changes.take(now_ns):
            return []
        record.peer_paused = paused
        return [Persist((record.pause_fact(),)), *self._measuring.hold()]

    @property
    def paused_by(self) -> list[NodeName]:
        """The ends that are paused; of a session that needs more pairs."""
        record = self._record
        return self._named(record.paused, record.peer_paused)

    @property
    def devices_away(self) -> list[NodeName]:
        """The ends without a device, as far as this end knows; likewise."""
        return self._named(self._measuring.device_away, self.peer_device_away)

    def _named(self, own: bool, peer: bool) -> list[NodeName]:
        if not self._lacks_rounds:
            return []
        ends = ((self._record.own, own), (self._record.peer, peer))
        return [name for name, so in ends if so]

    # --- time -----------------------------------------------------------------------------------

    def look(self, now_ns: int, moved_ns: int) -> list[Action]:
        """Take note of a hold that began or ended; something new came last at `moved_ns`."""
        record, since_ns = self._record, self._record.held_since_ns
        if self.held:
            self._seen_ns = now_ns
            record.held_since_ns = since_ns or now_ns
        elif moved_ns > self._seen_ns:
            record.held_since_ns = 0
        kept = [Persist((record.pause_fact(),))] if record.held_since_ns != since_ns else []
        return [*kept, *self._note(self.held)]

    def _note(self, held: bool) -> list[Action]:
        if held == self._noted:
            return []
        self._noted = held
        about: dict[str, str | int | float] = {
            "session": self._record.session,
            "peer": self._record.peer,
        }
        if not held:
            return [Note("session_goes_on", about)]
        about |= {"why": self._why(), "since_ns": self._record.held_since_ns}
        return [Note("session_held", about)]

    def ended(self) -> list[Action]:
        """The session is over."""
        return self._note(False)

    def _why(self) -> str:
        paused = [f"{name} is paused" for name in self.paused_by]
        return ", ".join(paused + [f"{name} has no device" for name in self.devices_away])

    def too_long(self, now_ns: int, limit_ns: int) -> str | None:
        """Why the session is given up, if it was held for longer than it may be."""
        since_ns = self.since_ns
        if not since_ns or now_ns - since_ns < limit_ns:
            return None
        days = (now_ns - since_ns) / DAY_NS
        return (
            f"paused too long: {self._why()}, {days:.3g} days without new rounds: run another"
            " session, and go on sooner or raise diqkd.pause_limit at both nodes"
        )
