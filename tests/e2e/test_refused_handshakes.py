"""A gRPC server with mutual TLS whose stderr is adopted says who was refused, as records."""

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

# A process of its own: it gives up its file descriptor 2, and grpc reads its environment at import.
PROGRAM = """
import asyncio, dataclasses, datetime, os, pathlib, sys, tempfile, threading
from bellhop.node.observe import adopt_stderr, configure_logs

counted = []
changed = threading.Condition()

def count(refusal):
    with changed:
        counted.append(refusal.reason)
        changed.notify()

adopted = adopt_stderr(count)
configure_logs("info", "json", adopted.stream)

import grpc
from bellhop.node import pki, tls
from bellhop.node.tls import Party, PartyKind

now = datetime.datetime.now(datetime.UTC)
ALICE, BOB = Party(PartyKind.NODE, "alice"), Party(PartyKind.NODE, "bob")

def credentials(folder, party):
    issued = pki.issue(folder, party, now=now)
    return tls.read_credentials(issued.certificate, issued.key, issued.authority)

async def dial(port, channel_credentials):
    options = tls.channel_options("bob.node.bellhop")
    address = f"127.0.0.1:{port}"
    async with grpc.aio.secure_channel(address, channel_credentials, options) as channel:
        try:
            await channel.unary_unary("/bellhop.Nothing/Ask")(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code().name

def wait_for(n):
    with changed:
        assert changed.wait_for(lambda: len(counted) >= n, timeout=20), counted

async def main(root):
    for name in ("ours", "foreign"):
        pki.init_authority(root / name, now=now)
    server = grpc.aio.server()
    bob = credentials(root / "ours", BOB)
    port = server.add_secure_port("127.0.0.1:0", tls.grpc_server_credentials(bob))
    await server.start()
    foreign = credentials(root / "foreign", ALICE)
    foreign = dataclasses.replace(foreign, authority=bob.authority)
    codes = [await dial(port, tls.grpc_channel_credentials(foreign))]
    await asyncio.to_thread(wait_for, 1)
    codes.append(await dial(port, grpc.ssl_channel_credentials(bob.authority)))
    await asyncio.to_thread(wait_for, 2)
    codes.append(await dial(port, tls.grpc_channel_credentials(credentials(root / "ours", ALICE))))
    await server.stop(None)
    print("not a record", file=sys.stderr, flush=True)
    os.write(2, b"nor this\\n")
    print(codes, counted)

with tempfile.TemporaryDirectory() as root:
    asyncio.run(main(pathlib.Path(root)))
adopted.close()
print("stderr is back", file=sys.stderr)
"""


def run(verbosity: str | None) -> tuple[str, list[str]]:
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_VERBOSITY"}
    if verbosity is not None:
        environment["GRPC_VERBOSITY"] = verbosity
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr.splitlines()


@pytest.mark.parametrize("verbosity", [None, "ERROR"])
def test_refused_handshakes_become_records(verbosity: str | None) -> None:
    out, lines = run(verbosity)
    # The last call, with a certificate of ours, got as far as a method that is not there.
    assert "['UNAVAILABLE', 'UNAVAILABLE', 'UNIMPLEMENTED']" in out
    assert "['foreign_authority', 'no_certificate']" in out
    assert lines.pop() == "stderr is back"
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    refused = [record for record in records if record["event"] == "tls_handshake_refused"]
    assert [record["reason"] for record in refused] == ["foreign_authority", "no_certificate"]
    assert {record["who_must_act"] for record in refused} == {"the operator of the peer"}
    others = [record["text"] for record in records if record["event"] == "stderr"]
    assert others[-2:] == ["not a record", "nor this"]


DYING = """
import os
from bellhop.node.observe import adopt_stderr, configure_logs

configure_logs("info", "json", adopt_stderr().stream)
{death}
"""


def test_a_traceback_at_the_end_is_not_lost() -> None:
    program = DYING.format(death="raise SystemError('the last words')")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    records = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert records[-1]["text"] == "SystemError: the last words"


def test_a_crash_in_c_is_not_lost() -> None:
    program = DYING.format(death="os.abort()")
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode == -signal.SIGABRT
    assert b"Fatal Python error: Aborted" in ended.stderr
