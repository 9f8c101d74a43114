"""`bellhop pool provision`: a pool is taken once, whatever became of its file."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bellhop.node.cli.main import main
from bellhop.node.loopback import Layout, lay_out


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return lay_out(tmp_path / "net")


def provision(layout: Layout, own: str, peer: str, way: str, file: Path) -> Result:
    config = ["--config", str(layout.node(own)), "--peer", peer]
    return CliRunner().invoke(main, ["pool", "provision", *config, way, str(file), "--json"])


def test_both_ends_name_one_pool_by_its_public_id(layout: Layout) -> None:
    drawn = provision(layout, "alice", "bob", "--new", layout.pool)
    taken = provision(layout, "bob", "alice", "--from", layout.pool)
    pool_id = json.loads(layout.pool.read_bytes())["pool_id"]
    for result in (drawn, taken):
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["pool_id"] == pool_id


@pytest.mark.parametrize("spelling", [b"", b"\n", b" "])
def test_a_pool_is_taken_once(layout: Layout, tmp_path: Path, spelling: bytes) -> None:
    """Its masks would be spent twice; another pool in between changes nothing."""
    assert provision(layout, "alice", "bob", "--new", layout.pool).exit_code == 0
    kept, other = tmp_path / "kept", tmp_path / "other"
    shutil.copy(layout.pool, kept)
    kept.write_bytes(kept.read_bytes() + spelling)
    assert provision(layout, "alice", "bob", "--from", kept).exit_code != 0
    assert provision(layout, "alice", "bob", "--new", other).exit_code == 0
    again = provision(layout, "alice", "bob", "--from", kept)
    assert again.exit_code != 0
    assert ("damaged" if spelling else "taken this pool before") in again.output
