"""docs/artiq.md as it stands: its controller, served, and checked by the conformance suite.

Without sipyco a server of our own takes its place, in a process of its own, in either version.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bellhop.node.loopback import free_ports

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "artiq.md"
STOP = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"
STAND_IN = """
from functools import partial
from tests.support.sipyco_server import simple_server_loop
simple_server_loop = partial(simple_server_loop, version={version!r})
"""

pytestmark = pytest.mark.e2e


def blocks(kind: str) -> list[str]:
    page = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("version", ["v1", "v2", "sipyco"])
def test_the_page_on_artiq(tmp_path: Path, version: str) -> None:
    path = [str(ROOT)]
    if version != "sipyco":
        stand_in = tmp_path / "stand-in"
        (stand_in / "sipyco").mkdir(parents=True)
        (stand_in / "sipyco" / "pc_rpc.py").write_text(STAND_IN.format(version=version))
        path.insert(0, str(stand_in))
    elif importlib.util.find_spec("sipyco") is None:
        pytest.skip("sipyco is not installed")
    else:
        path.append(os.environ.get("PYTHONPATH", ""))
    ports = free_ports()

    def on_free_ports(text: str) -> str:
        return text.replace("7500", str(ports.emulator)).replace("3280", str(ports.etsi["bob"]))

    [controller] = blocks("python trap_controller.py")
    (tmp_path / "trap_controller.py").write_text(on_free_ports(controller))
    done = subprocess.run(
        ["bash", "-c", "set -euo pipefail -m\n" + STOP + on_free_ports("\n".join(blocks("sh")))],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    log = tmp_path / "traps.log"
    told = done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    assert done.returncode == 0, told
    assert re.search(r"^sipyco +bellhop.hal.drivers.sipyco:SipycoLaboratory$", told, re.MULTILINE)
    assert re.search(r"^Outcomes violate the Bell inequality +ok$", told, re.MULTILINE)
    assert "FAILED" not in told and "not run" not in told
