"""All checks of a receipt, in their order, and what they found."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from . import figures, signatures
from .form import FILTERED, ROLES, form
from .reading import parse

HOLDS, FAILS, WARNING, UNCHECKED = "holds", "fails", "warning", "not checked"

NOT_CHECKABLE = (
    "that the laboratories were sealed, and the devices did not signal to each other in a round",
    "that the settings came from the generators that the ends name, and nobody knew them before",
    "that both ends measured what they say: the outcomes themselves are secret and gone",
    "that no strategy does better than kappa allows: 'bellhop diqkd designs' checks a design",
    "that what the devices remember does not come out in later sessions (device_reuse)",
)
"""What no receipt can show."""

UNREFEREED = "no referee has read the proof of this bound"
NO_AUTHORITY = (
    "no authority was named: anybody can make certificates with these names (--authority FILE)"
)


@dataclass(frozen=True)
class Check:
    """`result` is one of the four words above."""

    name: str
    result: str
    detail: str = ""


@dataclass
class Outcome:
    """What came of the checks of a `claim`; `recomputed`: figures that were found in them."""

    claim: dict[str, Any] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    recomputed: figures.Recomputed = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0: all holds; 1: something does not; 3: it is not known who signed."""
        if any(check.result == FAILS for check in self.checks):
            return 1
        return 3 if any(check.result == UNCHECKED for check in self.checks) else 0

    def document(self) -> dict[str, Any]:
        return {
            "holds": self.exit_code == 0,
            "claim": self.claim,
            "checks": [asdict(check) for check in self.checks],
            "recomputed": self.recomputed,
            "cannot_be_checked": list(NOT_CHECKABLE),
        }

    def add(self, name: str, faults: Iterator[str]) -> None:
        """A check holds unless faults are found; the first is told."""
        fault = next(faults, None)
        self.checks.append(Check(name, FAILS if fault else HOLDS, fault or ""))


def verify(content: bytes, authority: bytes | None = None) -> Outcome:
    """Check a receipt; `authority`: certificates (PEM) that may issue those of the two ends.

    Raises Unreadable for what is no receipt.
    """
    receipt = parse(content)
    outcome = Outcome()
    outcome.add("form", form(receipt))
    if outcome.exit_code:
        return outcome  # the rest reads fields that are not there
    said = receipt["session"]
    outcome.claim = _claim(said)
    outcome.add("run: counts, S, error rate", figures.run(said))
    outcome.add("leak: every bit said about the string", figures.leak(said))
    outcome.add("epsilon: the errors and their sum", figures.epsilon(said))
    outcome.add("theorem: named, with its assumptions", figures.theorem(said))
    outcome.add("key: its length by the theorem", figures.length(said, outcome.recomputed))
    outcome.add("key: where its bits went", figures.account(said))
    outcome.add("transcript: digests and sizes", figures.transcript(said))
    if said["parameters"]["bound"] == FILTERED:
        outcome.checks.append(Check("theorem: refereed", WARNING, UNREFEREED))
    _check_ends(outcome, receipt, authority)
    return outcome


def _claim(said: dict[str, Any]) -> dict[str, Any]:
    """What the receipt is about, to be read beside the verdict."""
    p, run, key = said["parameters"], said["run"], said["key"]
    return {
        **{name: p[name] for name in ("session", "link", "alice", "bob", "bound", "epsilon")},
        **{name: run[name] for name in ("rounds", "tests", "s", "qber")},
        **{name: key[name] for name in ("gross_bits", "net_bits", "deliverable_bits")},
    }


def _check_ends(outcome: Outcome, receipt: dict[str, Any], authority: bytes | None) -> None:
    for role in ROLES:
        end, name = receipt["ends"][role], f"signature of {role}"
        if end is None:
            outcome.checks.append(Check(name, FAILS, "this end's word is missing"))
        elif why := signatures.missing():
            outcome.checks.append(Check(name, UNCHECKED, why))
        else:
            outcome.add(name, signatures.of_end(receipt["session"], role, end))
            certificate = f"certificate of {role}"
            if authority is None:
                outcome.checks.append(Check(certificate, UNCHECKED, NO_AUTHORITY))
            else:
                outcome.add(certificate, signatures.of_authority(end, authority))


def report(outcome: Outcome) -> str:
    """For people: each check, what was found, and what no receipt can show."""
    width = max(len(check.name) for check in outcome.checks)
    lines = [
        f"{check.result:<12}{check.name:<{width}}  {check.detail}".rstrip()
        for check in outcome.checks
    ]
    claimed = [f"  {name} {value}" for name, value in outcome.claim.items()]
    found = [f"  {name} {value}" for name, value in outcome.recomputed.items()]
    verdicts = {
        0: "The receipt holds.",
        1: "THE RECEIPT DOES NOT HOLD.",
        3: "The figures hold; WHO SIGNED THEM WAS NOT CHECKED.",
    }
    return "\n".join(
        [
            *(["The receipt claims:", *claimed, ""] if claimed else []),
            *lines,
            *(["", "Computed again:", *found] if found else []),
            "",
            "No receipt can show:",
            *(f"  - {text}" for text in NOT_CHECKABLE),
            "",
            verdicts[outcome.exit_code],
        ]
    )
