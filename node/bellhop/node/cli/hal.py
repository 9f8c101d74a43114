"""`bellhop hal`: a laboratory's devices, served and checked."""

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bellhop.hal.configuration import require
from bellhop.hal.door import require_address
from bellhop.node.cli.output import json_option, show, table, to_json
from bellhop.node.observe import note, service_logs

if TYPE_CHECKING:
    from bellhop.hal.conformance import Check, Verdict
    from bellhop.hal.hardware import Hardware

MARKS = {"passed": "ok", "failed": "FAILED", "not applicable": "n/a", "not run": "not run"}


@click.group("hal")
def hal() -> None:
    """Serve a laboratory's devices to a node, and check what any memory service does."""


@hal.command("serve")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def serve(file: Path, as_json: bool) -> None:
    """Serve the laboratory that FILE describes, until SIGTERM.

    Nodes attach to it as to an emulator. It logs to stderr, with --json one JSON object a line.
    """
    with service_logs(as_json):
        # Only now: grpc must find stderr as it is to stay.
        from bellhop.hal.serve_file import run_laboratory

        run_laboratory(file, lambda address: note("listening", {"address": address}))


@hal.command("drivers")
@json_option
def drivers(as_json: bool) -> None:
    """The drivers of laboratories that are installed: what `driver` in a file may name."""
    from bellhop.hal.serve_file import drivers as installed

    found = {driver.name: driver.value for driver in installed()}
    rows = list(found.items()) or [("none", "install a package that announces one")]
    show({"drivers": found}, rows, as_json)


@hal.command("conform")
@click.argument("address")
@click.option("--peer-address", help="Where side B is, if another service has it.")
@click.option("--link", required=True, help="The link's name, as both devices call it.")
@click.option("--a", "node_a", required=True, help="The node at the one end.")
@click.option("--b", "node_b", required=True, help="The node at the other end.")
@click.option(
    "--pki",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="pki",
    show_default=True,
    help="The authority's folder, with both nodes' certificates.",
)
@click.option(
    "--service",
    default="emulator",
    show_default=True,
    help="The name in the service's certificate bellhop:emulator:NAME.",
)
@click.option("--peer-service", help="The same of the service at --peer-address.")
@click.option(
    "--rounds",
    type=click.IntRange(1_024, 1_000_000),
    default=4_096,
    show_default=True,
    help="Rounds that statistics are made from, for either order of measurement.",
)
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0.1, 86_400.0),
    default=30.0,
    show_default=True,
    help="A report that takes longer has stalled, in seconds.",
)
@json_option
def conform(as_json: bool, **options: Any) -> None:
    """Check that the memory service at ADDRESS keeps to the interface, for both ends of a link.

    Connects as both nodes, which must be connected with nothing else meanwhile. Exit code 5 if a
    check fails.
    """  # fmt: skip
    from bellhop.hal.conformance import NotConforming

    require(options["node_a"] != options["node_b"], "--b", "is another node than --a")
    for name, field in (("address", "ADDRESS"), ("peer_address", "--peer-address")):
        if options[name] is not None:
            require_address(field, options[name], port_min=1)
    heard = _LastWord()
    logging.getLogger("bellhop").addHandler(heard)
    verdicts = asyncio.run(_conform(heard, **options))
    counts = Counter(verdict.outcome for verdict in verdicts)
    document = {
        "address": options["address"],
        "link": options["link"],
        "counts": dict(counts),
        "checks": [_document(verdict) for verdict in verdicts],
    }
    click.echo(to_json(document) if as_json else _text(verdicts))
    failed = [verdict.check.title for verdict in verdicts if verdict.outcome == "failed"]
    if failed:
        raise NotConforming(f"{len(failed)} of {len(verdicts)} checks failed: {'; '.join(failed)}")


async def _conform(
    heard: "_LastWord",
    address: str,
    peer_address: str | None,
    link: str,
    node_a: str,
    node_b: str,
    folder: Path,
    service: str,
    peer_service: str | None,
    rounds: int,
    wait_seconds: float,
) -> "list[Verdict]":
    import numpy as np

    from bellhop.hal.conformance import CHECKS, Device, Way, run_suite
    from bellhop.hal.memory_client import MemoryServiceAccess, MemoryServiceClient
    from bellhop.hal.operations import LinkName
    from bellhop.node.pki import AUTHORITY_CERTIFICATE, party_folder
    from bellhop.node.tls import Party, PartyKind, read_credentials

    def access(node: str, where: str, name: str) -> MemoryServiceAccess:
        home = party_folder(folder, Party(PartyKind.NODE, node))
        credentials = read_credentials(
            home / f"{home.name}.crt.pem",
            home / f"{home.name}.key.pem",
            home / AUTHORITY_CERTIFICATE,
            field_prefix="pki",
            kind=PartyKind.NODE,
        )
        return MemoryServiceAccess(
            address=where,
            server_name=f"{name}.{PartyKind.EMULATOR}.bellhop",
            certificate=credentials.certificate,
            authority=credentials.authority,
            key=credentials.key,
        )

    def way(node: str, where: str, name: str) -> Way:
        to = access(node, where, name)

        def connect() -> "Hardware":
            heard.text = ""  # What was heard before is of another connection.
            return MemoryServiceClient(to)

        return Way(connect, f"the end of {node} at {where}", lambda: heard.text)

    titles = [check.title for check in CHECKS]

    def begin(check: "Check") -> None:
        click.echo(f"{titles.index(check.title) + 1}/{len(titles)} {check.title}", err=True)

    device = Device(
        LinkName(link),
        way(node_a, address, service),
        way(node_b, peer_address or address, peer_service or service),
    )
    return await run_suite(
        device,
        np.random.default_rng(),
        wait_seconds=wait_seconds,
        rounds=rounds,
        begin=begin,
    )


class _LastWord(logging.Handler):
    """Keeps what the clients log to itself: checks end streams on purpose.

    Of a service that cannot be reached, the last since it was tried says why.
    """

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def _document(verdict: "Verdict") -> dict[str, str]:
    check = verdict.check
    document = {"name": check.name, "title": check.title, "outcome": verdict.outcome}
    if verdict.outcome != "passed":
        document["seen"] = verdict.seen
    if verdict.outcome == "failed":
        document |= {"expected": check.expected, "look_at": verdict.look_at or check.look_at}
    return document


def _text(verdicts: "list[Verdict]") -> str:
    """A line a check, what to do about those that failed, and why others were not run."""
    lines = [table([(verdict.check.title, MARKS[verdict.outcome]) for verdict in verdicts])]
    said: set[tuple[str, str]] = set()  # One reason keeps many checks from being run.
    for verdict in verdicts:
        if verdict.outcome == "failed":
            check = verdict.check
            rows = [
                ("  expected", check.expected),
                ("  seen", verdict.seen),
                ("  look at", verdict.look_at or check.look_at),
            ]
            lines += ["", check.title, table(rows)]
        elif verdict.seen and (verdict.outcome, verdict.seen) not in said:
            said.add((verdict.outcome, verdict.seen))
            mark = MARKS[verdict.outcome]
            lines += ["", verdict.check.title, table([(f"  {mark}", verdict.seen)])]
    return "\n".join(lines)
