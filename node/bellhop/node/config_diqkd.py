"""The `[diqkd]` section of a node's configuration: how device-independent sessions are run.

The text under each field is its documentation; docs/configuration.md is made of it.
"""

from fractions import Fraction
from typing import Annotated, Literal

from msgspec import Meta

from bellhop.hal.configuration import require
from bellhop.hal.operations import BLOCK_ROUNDS_MAX
from bellhop.node.config_values import Nanoseconds, Section
from bellhop.stack.diqkd.bounds.design import FILTERED
from bellhop.stack.diqkd.parameters import RANDOM_KEY_BASIS, ROUNDS_MAX


class DiqkdSection(Section, frozen=True, kw_only=True):
    """What a device-independent session is run with unless its request says otherwise."""

    bound: Literal["renyi-2405.05912", "eat-2109.14600", "renyi-filtered-unrefereed"] = (
        "renyi-2405.05912"
    )
    """Theorem that a key's length is claimed by: "renyi-2405.05912" computes it from what the run
    has shown, "eat-2109.14600" fixes it beforehand, with a threshold; no referee has read
    "renyi-filtered-unrefereed", which allow_unrefereed must permit."""
    allow_unrefereed: bool = False
    """Propose and agree to sessions by the bound that no referee has read."""
    key_basis: Literal["fixed", "random"] = "fixed"
    """Alice's setting in key rounds. "random" is refused: no theorem of finite size covers it."""
    rounds: Annotated[int, Meta(ge=1, le=ROUNDS_MAX)] = 1_500_000
    """Heralded rounds a session, test rounds included."""
    s_design: Annotated[float, Meta(gt=2, le=2.8284271247461903)] = 2.67
    """CHSH value S that is expected. With the Renyi bounds it only chooses design and code: a
    weaker run makes a shorter key. With "eat-2109.14600" the threshold follows from it."""
    qber_design: Annotated[float, Meta(gt=0, lt=0.5)] = 0.015
    """Error rate of the key basis that is expected, for which the code is made; more errors cost
    more syndrome, and many more cost the session."""
    net_bits_min: Annotated[int, Meta(ge=0, le=ROUNDS_MAX)] = 0
    """Bits that a session is to gain: one that is expected to gain less is only run when told."""
    accept_losing_sessions: bool = False
    """Agree when a peer whose operator says --even-at-a-loss proposes a session that is expected to
    gain less than net_bits_min here: it may spend more of the authentication pool than it
    brings."""
    plan_from: Literal["configuration", "calibration"] = "configuration"
    """"configuration": sessions are planned with s_design and qber_design. "calibration": with the
    last calibration of their link, two standard errors worse than it was found, where there is
    one; a link much worse than s_design and qber_design is still warned of."""
    epsilon: Annotated[float, Meta(gt=0, lt=1)] = 1e-10
    """Soundness error of a session; under the assumptions that its receipt lists."""
    block_rounds: Annotated[int, Meta(ge=1, le=BLOCK_ROUNDS_MAX)] = 4_096
    """Rounds that are measured between two announcements."""
    stall: Nanoseconds = Nanoseconds(600_000_000_000)
    """How long a session waits for anything new before it ends. The time runs only while the peer
    is connected, both devices are there and neither end is paused: a day of maintenance ends no
    run."""
    pause_limit: Nanoseconds = Nanoseconds(604_800_000_000_000)
    """How long a session may be paused, by either node, or without a device at either node, before
    it ends; the time starts anew with rounds that are done after it went on. 604800 seconds are
    seven days; of two nodes the shorter limit counts."""
    pair: Nanoseconds = Nanoseconds(10_000_000_000)
    """The longest that a pair may take, on average over a block: while the device owes a block of n
    pairs, a session waits n times as long beside stall; after the first one, four times as long as
    the slowest that came, if that is less."""
    test_probability: Fraction = Fraction(13, 256)
    """For "eat-2109.14600": probability that a round is a test, between 0 and 1; a fraction such as
    "13/256". A Renyi bound's design has its own."""
    threshold_deviations: Annotated[float, Meta(ge=1, le=10)] = 3.0
    """For "eat-2109.14600": standard deviations by which the threshold lies below s_design."""


def check_diqkd(diqkd: DiqkdSection) -> None:
    """The relations between its fields; raises ConfigError naming both."""
    probability = diqkd.test_probability
    require(
        0 < probability < 1, "diqkd.test_probability", f"= {probability} is not between 0 and 1"
    )
    require(diqkd.key_basis == "fixed", "diqkd.key_basis", f'= "random": {RANDOM_KEY_BASIS}')
    require(
        diqkd.bound != FILTERED or diqkd.allow_unrefereed,
        "diqkd.bound",
        f'= "{diqkd.bound}": no referee has read it; diqkd.allow_unrefereed = true permits it',
    )
    require(
        diqkd.block_rounds <= diqkd.rounds,
        "diqkd.block_rounds",
        f"= {diqkd.block_rounds} exceeds diqkd.rounds = {diqkd.rounds}",
    )
