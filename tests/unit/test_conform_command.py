"""`bellhop hal conform` with options that no service need be asked about."""

import pytest
from click.testing import CliRunner

from bellhop.node.cli import main

LINK = ("--link", "fibre", "--a", "alice", "--b", "bob")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (("nonsense", *LINK), "ADDRESS"),
        (("127.0.0.1", *LINK), "ADDRESS"),
        (("127.0.0.1:99999", *LINK), "ADDRESS"),
        ((":7201", *LINK), "ADDRESS"),
        (("127.0.0.1:7201", "--peer-address", "bob", *LINK), "--peer-address"),
        (("127.0.0.1:7201", "--link", "fibre", "--a", "bob", "--b", "bob"), "--b"),
    ],
)
def test_what_cannot_be_dialled_is_refused_at_once(options: tuple[str, ...], field: str) -> None:
    done = CliRunner().invoke(main, ["hal", "conform", *options])
    assert done.exit_code == 2
    assert f"{field} is " in done.output
