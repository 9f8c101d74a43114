"""The demonstration's network: its folder, and that nothing of it outlives a killed command."""

import asyncio
import json
import os
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.waiting import until

from bellhop.hal.errors import ConfigError
from bellhop.node.cli import main
from bellhop.node.cli.demo import free_folder
from bellhop.node.loopback import COMMAND, lay_out

pytestmark = pytest.mark.e2e


def test_a_killed_demonstration_leaves_no_process(tmp_path: Path) -> None:
    hold = [*COMMAND, "demo", "--hold", "--dir", str(tmp_path / "net")]
    with subprocess.Popen(hold, stderr=subprocess.PIPE) as held:
        assert held.stderr is not None
        assert any(b"are up" in line for line in held.stderr)
        children = Path(f"/proc/{held.pid}/task/{held.pid}/children").read_text(encoding="ascii")
        pids = [int(pid) for pid in children.split()]
        assert len(pids) == 3
        held.send_signal(signal.SIGKILL)
    for pid in pids:
        asyncio.run(until(partial(_has_ended, pid)))


def _has_ended(pid: int) -> bool:
    """Gone, or dead and not yet waited for by whoever inherited it (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except FileNotFoundError:
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def test_a_named_folder_is_used_or_refused(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "mine").touch()
    arguments = ["demo", "--hold", "--dir", str(tmp_path / "net"), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert json.loads(result.stderr)["fields"] == {"field": "--dir"}
    assert os.listdir(tmp_path) == ["net"] and os.listdir(tmp_path / "net") == ["mine"]
    with pytest.raises(ConfigError):
        lay_out(tmp_path / "net")


def test_an_unnamed_folder_is_a_new_one(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "demo") == tmp_path / "demo"
    (tmp_path / "demo").mkdir()
    assert free_folder(tmp_path / "demo") == tmp_path / "demo-2"


def test_an_emulator_is_changed_only_where_asked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    plain = lay_out(tmp_path / "empty").emulator.read_text(encoding="utf-8")
    assert plain.endswith('preset = "oxford"\n')
    changed = lay_out(tmp_path / "spoilt", {"noise.phase": 0.06}).emulator
    assert 'set."noise.phase" = 0.06\n' in changed.read_text(encoding="utf-8")
