"""The parts of a node as they are made from its file."""

import stat
from pathlib import Path

import pytest

from bellhop.hal.errors import ConfigError
from bellhop.node.assembly import open_store
from bellhop.node.clock import RealClock
from bellhop.node.config import NodeConfig, parse_config

EXAMPLE = Path("deploy/example-node.toml")


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return parse_config(EXAMPLE.read_text(encoding="utf-8"), tmp_path)


async def test_a_new_state_folder_is_closed_to_others(config: NodeConfig) -> None:
    await (await open_store(config, RealClock())).close()
    assert stat.S_IMODE(config.node.state_dir.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o720])
async def test_a_state_folder_that_is_open_to_others_is_refused(
    config: NodeConfig, mode: int
) -> None:
    state_dir = config.node.state_dir
    state_dir.mkdir(parents=True)
    state_dir.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 700 {state_dir}") as caught:
        await open_store(config, RealClock())
    assert caught.value.field == "node.state_dir"
    assert not list(state_dir.iterdir())
    state_dir.chmod(0o700)
    await (await open_store(config, RealClock())).close()
