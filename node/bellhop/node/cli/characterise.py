"""`bellhop emulator characterise`: a link's figures as counted, beside those published."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bellhop.hal.configuration import require
from bellhop.node.cli.output import json_option, to_json

if TYPE_CHECKING:
    from bellhop.hal.characterise import Characterisation
    from bellhop.hal.estimates import Estimate
    from bellhop.hal.preset import Preset

PAIRS_MAX = 1_000_000_000
AFTER_MS_MAX = 1e9
TABLE_COLUMNS = 112
"""How wide the table is where there is no terminal."""

KEY_RATE = "key_rate_asymptotic"
KEY_RATE_DEFINITION = (
    "1 - h((1 + sqrt(S^2/4 - 1))/2) - h(QBER) secret bits a pair: the limit of endless runs, not "
    "what a session's key is"
)

Told = Callable[[str, float], None]


@click.command()
@click.argument("preset_name", metavar="[PRESET]", required=False)
@click.option(
    "--preset-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A preset of your own instead of one that comes with Bellhop.",
)
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change a figure, as in --set fibre.length_m=25000 (both ends) or device.a.ions=4.",
)
@click.option(
    "--pairs",
    type=int,
    help="Pairs of the CHSH run; other runs go by them.  [default: 2 million]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="All chance comes of it.")
@click.option(
    "--after-ms",
    metavar="T",
    type=float,
    multiple=True,
    help="A storage time to give the fidelity for.  [default: those that were published]",
)
@click.option(
    "--plot",
    metavar="FILE.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw rate and fidelity against fibre length.",
)
@click.option(
    "--plot-storage",
    metavar="FILE.png",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the fidelity against storage time.",
)
@json_option
def characterise(
    *,
    preset_name: str | None,
    preset_file: Path | None,
    overrides: tuple[str, ...],
    pairs: int | None,
    seed: int,
    after_ms: tuple[float, ...],
    plot: Path | None,
    plot_storage: Path | None,
    as_json: bool,
) -> None:
    """Measure the emulated link of PRESET, beside what was published.

    Every value is counted: heralds come by their law, outcomes by Born's rule, as in the emulator.
    Beside it stand its standard error, the exact value where there is one, and the experiment's.
    """
    from bellhop.hal.characterise import PAIRS, PAIRS_MIN
    from bellhop.hal.characterise import characterise as measure

    pairs = PAIRS if pairs is None else pairs
    require(
        PAIRS_MIN <= pairs <= PAIRS_MAX,
        "--pairs",
        f"is from {PAIRS_MIN} to {PAIRS_MAX}, not {pairs}",
    )
    require(seed >= 0, "--seed", f"is at least 0, not {seed}")
    for ms in after_ms:
        require(0.0 <= ms <= AFTER_MS_MAX, "--after-ms", f"is from 0 to {AFTER_MS_MAX:g}, not {ms}")
    pictures = {"--plot": plot, "--plot-storage": plot_storage}
    for option, file in pictures.items():
        check_picture(option, file)
    preset = preset_of(preset_name, preset_file, overrides)
    if plot_storage is not None:
        from bellhop.hal.curves import storage_span_ms

        rule = f"needs an end that stores its half of a pair; {preset.name} has none"
        require(storage_span_ms(preset) is not None, "--plot-storage", rule)
    with progress_bar(hidden=as_json) as told:
        found = measure(preset, pairs=pairs, seed=seed, after_ms=after_ms, told=told)
        if plot is not None:
            from bellhop.node.cli.plots import plot_by_length

            plot_by_length(plot, preset, seed, told)
        if plot_storage is not None:
            from bellhop.node.cli.plots import plot_by_storage

            plot_by_storage(plot_storage, preset, seed, told)
    drawn = [str(file) for file in pictures.values() if file is not None]
    if as_json:
        click.echo(to_json(document(found) | {"plots": drawn}))
    else:
        _print(found, drawn)


def preset_of(name: str | None, file: Path | None, overrides: tuple[str, ...]) -> Preset:
    from bellhop.hal.preset import load_preset, preset_names, read_preset

    one = (name is None) != (file is None)
    known = ", ".join(preset_names())
    require(one, "PRESET", f"or --preset-file is given, and not both; presets are {known}")
    values = _overrides(overrides)
    if file is not None:
        return read_preset(file, values)
    assert name is not None, "one of the two is given"
    return load_preset(name, values)


def _overrides(texts: tuple[str, ...]) -> dict[str, float]:
    """Figures of one end come after those of both, whatever their order was: they say more."""
    values: dict[str, float] = {}
    for path, value in map(_override, texts):
        require(path not in values, "--set", f"is given twice for {path}")
        values[path] = value
    return dict(sorted(values.items(), key=lambda item: item[0].split(".")[1:2] in (["a"], ["b"])))


def _override(text: str) -> tuple[str, float]:
    path, separator, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        separator = ""
    require(bool(path and separator), "--set", f"is KEY=NUMBER, not {text!r}")
    return path.strip(), value


def check_picture(option: str, file: Path | None) -> None:
    """Before minutes of work, not after them."""
    if file is None:
        return
    require(file.suffix in (".png", ".svg", ".pdf"), option, "ends in .png, .svg or .pdf")
    require(
        file.absolute().parent.is_dir(), option, f"is in a folder that exists, not {file.parent}"
    )


@contextmanager
def progress_bar(*, hidden: bool) -> Iterator[Told]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<22}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=hidden, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, done: bar.update(task, description=name, completed=done)


# The figure that the hardware layer does not know


def key_rate(found: Characterisation) -> Estimate:
    """The asymptotic rate of the counted S and QBER, its exact and its published value."""
    from bellhop.hal.estimates import Estimate
    from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate, asymptotic_key_rate_error

    s, qber = found.estimates["s"], found.estimates["qber"]
    value = stderr = exact = None
    if s.exact is not None and qber.exact is not None:
        exact = asymptotic_key_rate(s.exact, qber.exact)
    if s.value is not None and qber.value is not None:
        assert s.stderr is not None and qber.stderr is not None
        value = asymptotic_key_rate(s.value, qber.value)
        stderr = asymptotic_key_rate_error(s.value, s.stderr, qber.value, qber.stderr)
    published = found.published.key_rate_asymptotic
    return Estimate(value, stderr, exact, published, s.reason or qber.reason)


def key_rate_at_published(found: Characterisation) -> float | None:
    """The formula at the published S and QBER, which says how far those agree with its result."""
    from bellhop.stack.diqkd.bounds.asymptotic import asymptotic_key_rate

    s, qber = found.published.s, found.published.qber
    return None if s is None or qber is None else asymptotic_key_rate(s.value, qber.value)


def all_estimates(found: Characterisation) -> dict[str, Estimate]:
    return {**found.estimates, KEY_RATE: key_rate(found)}


# Machines


def document(found: Characterisation) -> dict[str, Any]:
    """What --json prints; `published` and what is known of it only where something was, `reason`
    only where there is no value, or no exact one."""
    key = _entry(key_rate(found)) | {"at_published": key_rate_at_published(found)}
    return {
        "preset": found.preset,
        "title": found.title,
        "seed": found.seed,
        "pairs": found.pairs,
        **{name: _entry(one) for name, one in found.estimates.items()},
        KEY_RATE: key,
        "fidelity_after_ms": {ms: _entry(one) for ms, one in found.fidelity_after_ms.items()},
        "coherence_after_ms": {ms: _entry(one) for ms, one in found.coherence_after_ms.items()},
        "correlators": {name: _entry(one) for name, one in found.correlators.items()},
        "assumptions": [
            {"figure": a.path, "value": a.value, "grade": a.grade, "source": a.source}
            for a in found.assumptions
        ],
    }


def _entry(one: Estimate) -> dict[str, Any]:
    entry: dict[str, Any] = {"value": one.value, "stderr": one.stderr, "exact": one.exact}
    if one.reason is not None:
        entry["reason"] = one.reason
    if one.published is not None:
        entry["published"] = one.published.value
        entry["published_stderr"] = one.published.error
        entry["published_bound"] = one.published.bound
        entry["published_grade"] = one.published.grade
        entry["published_source"] = one.published.source
        entry["standard_errors_apart"] = one.apart
    return entry


# People


def _print(found: Characterisation, drawn: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from bellhop.hal.characterise import DEFINITIONS

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=TABLE_COLUMNS)
    table = Table(
        title=Text(printable(found.title)), title_justify="left", caption_justify="left", box=None
    )
    for name in ("figure", "counted", "exact", "published", "apart"):
        table.add_column(name, no_wrap=True)
    for name, one in _rows(found):
        table.add_row(name, _counted(one), _number(one.exact), _published(one), _apart(one))
    console.print(table)
    at_published = key_rate_at_published(found)
    if at_published is not None:
        console.print(f"\n{KEY_RATE} at the published S and QBER: {at_published:.4f}")
    console.print(f"\nseed {found.seed}, {found.pairs:,} pairs in the CHSH run\n")
    definitions = {**DEFINITIONS, KEY_RATE: KEY_RATE_DEFINITION}
    for name, _ in _rows(found):
        if name in definitions:
            console.print(f"[bold]{name}[/bold]: {definitions[name]}")
    console.print("[bold]xx, yy, zz[/bold]: turned so that the announced Bell state has 1")
    console.print("[bold]coherence[/bold]: the mean of xx and yy")
    console.print("\nno value, or no exact one, and why:")
    for reason, names in _reasons(found).items():
        console.print(f"  {', '.join(names)}: {reason}", markup=False)
    console.print("\nassumed, inferred, fitted or set in the preset:")
    for a in found.assumptions:
        source = printable(a.source)
        console.print(f"  {a.path} = {a.value:g} ({a.grade}: {source})", markup=False)
    for file in drawn:
        console.print(f"drawn: {file}", markup=False)


def _rows(found: Characterisation) -> Iterator[tuple[str, Estimate]]:
    """What there is for this link."""
    for name, one in all_estimates(found).items():
        if one.value is not None or one.published is not None:
            yield name, one
        if name == "fidelity":
            yield from found.correlators.items()
    for ms, one in found.fidelity_after_ms.items():
        if one.value is not None:
            yield f"fidelity after {ms} ms", one
            yield f"coherence after {ms} ms", found.coherence_after_ms[ms]


def _reasons(found: Characterisation) -> dict[str, list[str]]:
    """The figures that something is missing of, by why."""
    named = all_estimates(found) | found.correlators
    named |= {f"fidelity after {ms} ms": one for ms, one in found.fidelity_after_ms.items()}
    reasons: dict[str, list[str]] = {}
    for name, one in named.items():
        if one.reason is not None:
            reasons.setdefault(one.reason, []).append(name)
    return reasons


def printable(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(one if one.isprintable() else " " for one in text)


def _counted(one: Estimate) -> str:
    return "-" if one.value is None else with_error(one.value, one.stderr)


def _published(one: Estimate) -> str:
    if one.published is None:
        return ""
    above = "above " if one.published.bound == "above" else ""
    return f"{above}{with_error(one.published.value, one.published.error)} ({one.published.grade})"


def _apart(one: Estimate) -> str:
    """In standard errors; where no error was published, in parts of the value."""
    if one.apart is not None:
        return f"{one.apart:+.1f} s.e."
    if one.value is None or one.published is None:
        return ""
    if one.published.bound == "above":
        return "above" if one.value > one.published.value else "not above"
    if one.published.value == 0.0:
        return ""
    return f"{100.0 * (one.value / one.published.value - 1.0):+.2g} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def with_error(value: float, error: float | None) -> str:
    """To the error's second digit, as 2.5714 ± 0.0022."""
    if not error:
        return f"{value:.6g}"
    if error >= 1e5 * abs(value) or error < 1e-6 * abs(value) or abs(value) < 1e-4:
        return f"{value:.6g} ± {error:.2g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{decimals}f} ± {error:.{decimals}f}"
