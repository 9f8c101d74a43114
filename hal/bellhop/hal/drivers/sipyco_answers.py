"""What a controller answers, checked: nothing but what these functions return goes further.

No error repeats what may be an outcome.
"""

from typing import Annotated, Literal

import msgspec
import numpy as np

from bellhop.hal.drivers.pyon import ControllerNonsense, printable
from bellhop.hal.identity import valid_name
from bellhop.hal.laboratory import Herald, LabPort
from bellhop.hal.memory_wire import PORTS_MAX, TEXT_CHARACTERS_MAX
from bellhop.hal.operations import (
    BLOCK_ROUNDS_MAX,
    SETTINGS_MAX,
    BellState,
    LinkName,
    NodeName,
    Side,
    Source,
)

NUMBER_MAX = 2**63 - 1
"""Numbers of attempts and times in ns fit 64 bits."""

IDEALISATIONS_MAX = 16

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
_SIDES_SETTINGS_MIN = {Side.A: 2, Side.B: 3}


class _PortAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    link: _Text
    side: Literal["a", "b"]
    peer: _Text
    settings: Annotated[int, msgspec.Meta(ge=2, le=SETTINGS_MAX)]
    description: _Text
    idealisations: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=IDEALISATIONS_MAX)] = ()
    pairs_held_max: Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)] = 1
    source: Literal["hardware", "emulated"] = "hardware"
    herald_is_measurement: bool = False


def ports_of(answer: object, node: NodeName) -> tuple[LabPort, ...]:
    """The ports of `node`.  Raises ControllerNonsense."""
    try:
        told = msgspec.convert(answer, tuple[_PortAnswer, ...])
    except msgspec.ValidationError as error:
        raise ControllerNonsense(
            f"the controller's ports are none: {printable(str(error), TEXT_CHARACTERS_MAX)}"
        ) from None
    except UnicodeEncodeError:
        raise ControllerNonsense("the controller's ports have a text that is no Unicode") from None
    _require(0 < len(told) <= PORTS_MAX, f"ports are {len(told)}: from 1 to {PORTS_MAX} can be")
    _require(len({one.link for one in told}) == len(told), "ports are two of one link")
    return tuple(_port(one, node) for one in told)


def _port(told: _PortAnswer, node: NodeName) -> LabPort:
    side = Side(told.side)
    _require(told.link.isascii(), "ports have a link whose name is not ASCII")
    for text in (told.link, told.description, *told.idealisations):
        _require(text.isprintable(), "ports have a text that cannot be printed")
    _require(valid_name(told.peer), "ports have a peer that is no name of a node")
    _require(told.peer != node, f"ports lead to {node} itself: is this the target of {told.peer}?")
    least = _SIDES_SETTINGS_MIN[side]
    _require(
        told.settings >= least, f"ports have a side {told.side} of fewer than {least} settings"
    )
    return LabPort(
        LinkName(told.link),
        side,
        NodeName(told.peer),
        told.settings,
        told.description,
        told.idealisations,
        min(told.pairs_held_max, BLOCK_ROUNDS_MAX),
        Source(told.source),
        told.herald_is_measurement,
    )


def clock_of(answer: object) -> int:
    """A time of the controller's clock, ns.  Raises ControllerNonsense."""
    _require(_whole(answer), "clock is no number of nanoseconds from 0 to 2**63 - 1")
    assert isinstance(answer, int)
    return answer


def heralds_of(answer: object) -> list[Herald]:
    """Heralds in the order told.  Raises ControllerNonsense."""
    if isinstance(answer, np.ndarray):
        answer = answer.tolist()
    rule = "heralds are no list of at most one a round"
    _require(isinstance(answer, (list, tuple)) and len(answer) <= BLOCK_ROUNDS_MAX, rule)
    assert isinstance(answer, (list, tuple))
    return [_herald(one) for one in answer]


def outcome_of(answer: object) -> int | None:
    """An outcome.  Raises ControllerNonsense."""
    known = answer is None or (isinstance(answer, (bool, int)) and answer in (0, 1))
    _require(known, "measure answered neither 0, 1 nor None")
    return int(answer) if isinstance(answer, int) else None


def _herald(told: object) -> Herald:
    if isinstance(told, (list, tuple)) and len(told) == 3:
        attempt, announces, at_ns = told
        state = _state(announces)
        if _whole(attempt) and _whole(at_ns) and state is not None:
            return Herald(attempt, state, at_ns)
    raise ControllerNonsense("the controller's herald is not (attempt, announces, at_ns)")


def _state(told: object) -> BellState | None:
    if isinstance(told, str):
        return BellState.__members__.get(told.upper())
    return BellState(told) if type(told) is int and 0 <= told < len(BellState) else None


def _whole(told: object) -> bool:
    return type(told) is int and 0 <= told <= NUMBER_MAX


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ControllerNonsense(f"the controller's {what}")
