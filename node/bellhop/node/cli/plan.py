"""`bellhop diqkd plan`: the session that a link deserves, and what it would be worth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bellhop.hal.configuration import require
from bellhop.hal.errors import ConfigError
from bellhop.node.cli.output import Rows, json_option, show

if TYPE_CHECKING:
    from bellhop.node.planning import ExpectedLink
    from bellhop.stack.diqkd.plan import PlannedSession
    from bellhop.stack.diqkd.plan_search import Link

_FILE = click.Path(dir_okay=False, path_type=Path)
SESSION_BOUNDS = ("renyi-2405.05912", "renyi-filtered-unrefereed")
DAY_S = 86_400.0


@click.command("plan")
@click.option("--s", "s", type=float, help="CHSH value that the link is expected to show.")
@click.option("--qber", type=float, help="Error rate of its key setting.")
@click.option(
    "--rate",
    "rate_hz",
    type=float,
    help="Heralded pairs a second, pauses counted; in place of the calibration's.",
)
@click.option("--preset", "preset_name", metavar="NAME", help="A link as an experiment had it.")
@click.option("--preset-file", type=_FILE, help="A preset of your own.")
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a figure of the preset, as in --set fibre.length_m=25000.",
)
@click.option(
    "--config",
    "config_file",
    type=_FILE,
    help="A node's file: plan with the last calibration of its link to --peer.",
)
@click.option("--peer", help="The other node of that link.")
@click.option("--rounds", type=click.IntRange(1), help="Heralded rounds of the session.")
@click.option(
    "--key-bits", type=click.IntRange(1), help="Instead: the fewest rounds for so much key, net."
)
@click.option("--hours", type=float, help="Instead: what makes the most key in so long.")
@click.option(
    "--bound",
    type=click.Choice(SESSION_BOUNDS),
    default=SESSION_BOUNDS[0],
    show_default=True,
    help="Security theorem.",
)
@click.option(
    "--epsilon", type=float, default=1e-10, show_default=True, help="Soundness error of a session."
)
@click.option(
    "--plot",
    type=_FILE,
    metavar="FILE.png",
    help="Draw key rates against distance and against rounds.",
)
@json_option
def plan(
    *,
    bound: str,
    epsilon: float,
    plot: Path | None,
    as_json: bool,
    rounds: int | None,
    key_bits: int | None,
    hours: float | None,
    **of_the_link: Any,
) -> None:
    """Choose a session for a link: design, block, code, and what they are expected to give.

    The link is given by --s, --qber and --rate, by --preset (exact figures of its physics), or by
    --config and --peer. No key is an answer too. All figures are expectations for honest devices.
    """
    from bellhop.node.planning import plan_document
    from bellhop.stack.diqkd.agreement import QBER_MIN
    from bellhop.stack.diqkd.plan_search import Link

    require(0.0 < epsilon < 1.0, "--epsilon", f"is above 0 and below 1, not {epsilon}")
    preset = _preset(of_the_link)
    link = _link(of_the_link, preset)
    _check_figures(link)
    if plot is not None:
        from bellhop.node.cli.characterise import check_picture

        check_picture("--plot", plot)
    wanted = Link(link.s, max(link.qber, QBER_MIN), bound, epsilon)
    _check_lengths(rounds, key_bits, hours)
    sessions, session = _session(wanted, link, _rounds_of(rounds, preset), key_bits, hours)
    document = plan_document(link, session, sessions)
    if plot is not None:
        _draw(plot, preset, link, session, hidden=as_json)
        document["plot"] = str(plot)
    show(document, _rows(document), as_json)


def _draw(
    file: Path, preset: Any, link: ExpectedLink, session: PlannedSession, *, hidden: bool
) -> None:
    from bellhop.node.cli.characterise import progress_bar
    from bellhop.node.cli.plan_plots import plot_plan

    with progress_bar(hidden=hidden) as told:
        plot_plan(file, preset, link, session, told)


# The link


def _preset(given: dict[str, Any]) -> Any:
    """The preset that is asked for, or None."""
    name, file = given.pop("preset_name"), given.pop("preset_file")
    overrides = given.pop("overrides")
    if name is None and file is None:
        require(not overrides, "--set", "changes a figure of a preset: give --preset as well")
        return None
    from bellhop.node.cli.characterise import preset_of

    return preset_of(name, file, overrides)


def _link(given: dict[str, Any], preset: Any) -> ExpectedLink:
    """From the one of three ways that was taken."""
    from bellhop.node.planning import ExpectedLink, expected_of

    s, qber, rate_hz = given["s"], given["qber"], given["rate_hz"]
    config_file, peer = given["config_file"], given["peer"]
    ways = [preset is not None, config_file is not None, s is not None or qber is not None]
    require(sum(ways) == 1, "--preset", "or --config, or --s and --qber are given, and one alone")
    if preset is not None:
        require(rate_hz is None, "--rate", "belongs to --s and --qber; a preset has its own")
        return expected_of(preset)
    require(rate_hz is None or 0 < rate_hz < math.inf, "--rate", "is above 0")
    if config_file is not None:
        require(peer is not None, "--peer", "names the link of --config to plan for")
        return _calibrated(config_file, peer, rate_hz)
    require(s is not None and qber is not None, "--s", "and --qber are given together")
    return ExpectedLink("as given", s, qber, rate_hz)


def _calibrated(config_file: Path, peer: str, rate_hz: float | None) -> ExpectedLink:
    from bellhop.node.cli.calibrate import last_calibration
    from bellhop.node.planning import ExpectedLink

    last = last_calibration(config_file, peer)
    source = f"calibration of {last['rounds']:,} rounds on link {last['link']}"
    rate_hz = rate_hz or last["pairs_per_s"] or None
    return ExpectedLink(
        source, last["s"], last["qber"], rate_hz, last["s_error"], last["qber_error"]
    )


def _check_figures(link: ExpectedLink) -> None:
    from bellhop.stack.diqkd.bounds.chsh import S_MAX

    require(0.0 <= link.s <= S_MAX, "--s", f"is from 0 to 2 sqrt(2) = {S_MAX:.7f}, not {link.s}")
    require(0.0 <= link.qber < 0.5, "--qber", f"is from 0 to below 0.5, not {link.qber}")


# The session


def _check_lengths(*given: float | None) -> None:
    asked = sum(length is not None for length in given)
    require(asked <= 1, "--rounds", "and --key-bits and --hours exclude each other")


def _rounds_of(rounds: int | None, preset: Any) -> int | None:
    """As given, or as the experiment's own run."""
    if rounds is None and preset is not None and preset.published.rounds is not None:
        return int(preset.published.rounds.value)
    return rounds


def _session(
    wanted: Link, link: ExpectedLink, rounds: int | None, key_bits: int | None, hours: float | None
) -> tuple[int, PlannedSession]:
    """How many sessions, and of what kind each."""
    from bellhop.stack.diqkd.code import ROUNDS_MIN
    from bellhop.stack.diqkd.parameters import ROUNDS_MAX
    from bellhop.stack.diqkd.plan_search import run_for, sessions_within

    if hours is not None:
        require(0.0 < hours < math.inf, "--hours", "is above 0")
        require(link.pairs_per_s is not None, "--rate", "is needed to fill --hours")
        assert link.pairs_per_s is not None
        found = sessions_within(wanted, int(3600.0 * hours * link.pairs_per_s))
        require(found is not None, "--hours", "is too short for a session to make a key in")
        assert found is not None
        return found
    if key_bits is not None:
        run = run_for(wanted, key_bits)
        rule = f"is more than a session of {ROUNDS_MAX:,} rounds makes: see --hours for several"
        require(run is not None, "--key-bits", rule)
        assert run is not None
        return 1, run
    require(rounds is not None, "--rounds", "is given, or --key-bits, or --hours")
    assert rounds is not None
    rule = f"is from {ROUNDS_MIN:,} to {ROUNDS_MAX:,} in a session"
    require(ROUNDS_MIN <= rounds <= ROUNDS_MAX, "--rounds", rule)
    session = wanted.plan(rounds)
    if isinstance(session, str):
        raise ConfigError(session, "--bound")
    return 1, session


# People


def _rows(d: dict[str, Any]) -> Rows:
    link, design, code = d["link"], d["design"], d["code"]
    accepted, complete = d["acceptance"], d["completeness"]
    refused = [("  but", link["refused"])] if link["refused"] else []
    several = f"{d['sessions']} sessions of " if d["sessions"] > 1 else ""
    return [
        ("link", f"{link['source']}: S = {link['s']:.4f}, QBER = {100 * link['qber']:.3f} %, "
                 f"{_rate(link['pairs_per_s'])}"),
        *refused,
        ("run", f"{several}{d['rounds']:,} rounds, {duration(d['seconds'])}"),
        ("key", _key(d)),
        ("net", f"{d['net_bits']:,} bits a session, after {d['spent_bits']} for its tags and key "
                f"ids; {_per_s(d['net_bits_per_s'])}"),
        ("bound", f"{d['bound']}{'' if d['refereed'] else ' (UNREFEREED)'}"),
        ("design", f"{design['name']}: certified kappa {design['kappa']:.8f}"),
        ("  tests", f"{100 * design['test_probability']:.3f} % of the rounds, scores "
                    f"{design['score_win']:g} won, {design['score_lose']:g} lost"),
        ("  flips", f"{100 * design['flip_probability']:.3g} % of Alice's key bits"),
        ("code", code["none"] or f"{code['table']}, {code['expected_bits']:,.0f} bits expected, "
                 f"{code['expected_over_shannon']:.3f} of Shannon's limit"),
        ("epsilon", f"{d['epsilon']['soundness']:g}, {d['epsilon']['hashes']:.2g} of it for tags"),
        ("accepted", _accepted(accepted)),
        ("completeness", f"{complete['error']:.2g}: an honest run makes no key with "
                         f"probability {complete['no_key_probability']:.2g}, its block abandoned "
                         f"with {complete['reconciliation_failure_taken']:g} (taken)"),
        ("first key", _first(d["first_key"])),
        ("block", f"{d['block']['block_rounds']} rounds, {duration(d['block']['seconds'])}"),
        ("[diqkd]", ", ".join(f"{name} = {_toml(value)}"
                              for name, value in d["configuration"].items())),
        *(_lost(d["loses"]) if d["key_bits"] > 0 else []),
        *_others(d["beside"]),
        *([("drawn", d["plot"])] if "plot" in d else []),
    ]  # fmt: skip


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _key(d: dict[str, Any]) -> str:
    if d["key_bits"] == 0:
        return "none: the bound is not positive at these figures"
    return f"{d['key_bits']:,} bits expected, {d['key_bits_per_round']:.4f} a round"


def _accepted(accepted: dict[str, Any]) -> str:
    if accepted["losses_most"] < 0:
        return "never: nothing is left of any run"
    return (
        f"there is no threshold; of {accepted['tests_expected']:,} tests "
        f"{accepted['losses_expected']:,} are expected to be lost, and nothing is left beyond "
        f"{accepted['losses_most']:,} (S = {accepted['s_least']:.4f})"
    )


def _first(first: dict[str, Any] | None) -> str:
    if first is None:
        return "never: no session nets one at these figures 99 times in 100"
    return f"from {first['rounds']:,} rounds ({duration(first['seconds'])}), {first['design']}"


def _lost(loses: dict[str, Any]) -> Rows:
    end = f"{loses['to_a_run_without_end']:.4f} bit a round to a run without end"
    best = loses["to_the_optimum_design"]
    if best is None:
        return [("loses", end)]
    return [("loses", f"{best:.4f} bit a round to the optimum design, {end}")]


def _others(beside: dict[str, Any]) -> Rows:
    rows: list[tuple[str, object]] = []
    for name, found in beside.items():
        if found is None:
            continue
        if "sessions" in found:
            endless = found["key_bits_per_round_without_end"]
            rows.append((name, f"{endless:.4f} a round without end; {found['sessions']}"))
            continue
        unread = "" if found.get("refereed", True) else ", UNREFEREED and not certified"
        rows.append((name, f"{found['key_bits_per_round']:.4f} a round{unread}"))
    return rows


def _rate(pairs_per_s: float | None) -> str:
    return "rate not given" if pairs_per_s is None else f"{pairs_per_s:.4g} pairs a second"


def _per_s(bits_per_s: float | None) -> str:
    return "no rate given" if bits_per_s is None else f"{bits_per_s:.4g} a second"


def duration(seconds: float | None) -> str:
    """Seconds, minutes, hours or days, whichever says it shortest."""
    if seconds is None:
        return "for a time that is not known without a rate"
    for unit, length in (("days", DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2.0 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.3g} seconds"
