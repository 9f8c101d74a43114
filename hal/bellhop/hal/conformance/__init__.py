"""The checks every `Hardware` must pass, emulated or real, given both ends of one link.

What cannot be seen from outside is not checked here: that a device is shown one setting at a time,
and that nothing but light and the station's public announcements leaves a device, are properties of
the implementation.
"""

from bellhop.hal.conformance.bench import (
    Bench,
    End,
    NotApplicable,
    NotConforming,
    Way,
    attach,
)
from bellhop.hal.conformance.suite import CHECKS, Check, Device, Verdict, run_suite

__all__ = [
    "CHECKS",
    "Bench",
    "Check",
    "Device",
    "End",
    "NotApplicable",
    "NotConforming",
    "Verdict",
    "Way",
    "attach",
    "run_suite",
]
