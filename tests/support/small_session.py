"""A network whose sessions end in a key within seconds: ideal pairs, few rounds, an epsilon of 0.9.

Such a key is worth nothing; what is exercised is everything around it.  1.5 % of errors are
corrected where the link has none: a session that loses a window of slots in a crash, whose outcomes
then count as 0, can still end in a key, if a shorter one.
"""

from pathlib import Path

from bellhop.node.loopback import Layout, lay_out

IDEAL = Path(__file__).parents[1] / "scenarios" / "ideal.toml"

ROUNDS = 50_000
BLOCK_ROUNDS = 500
SLOTS = ROUNDS // BLOCK_ROUNDS

_DIQKD = """
[diqkd]
rounds = {rounds}
s_design = 2.77
qber_design = 0.015
epsilon = 0.9
block_rounds = {block_rounds}
"""


def diqkd(block_rounds: int = BLOCK_ROUNDS) -> str:
    """The sections of a node's file that make its sessions small."""
    return _DIQKD.format(rounds=ROUNDS, block_rounds=block_rounds)


def lay_out_small(
    folder: Path, presets: dict[str, float] | None = None, clock: str = '"fast"'
) -> Layout:
    """The files of an emulator of ideal pairs and of two nodes, in the new `folder`.

    `presets` changes figures of the ideal preset.
    """
    layout = lay_out(folder, presets, diqkd(), clock)
    text = layout.emulator.read_text(encoding="utf-8")
    assert 'preset = "oxford"' in text
    text = text.replace('preset = "oxford"', f'preset_file = "{IDEAL}"')
    layout.emulator.write_text(text, encoding="utf-8")
    return layout
