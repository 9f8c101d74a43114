"""The documented commands, run as they stand on the page, in their order."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bellhop.node.loopback import free_ports

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A shell block, and the program it needs that is not on every machine."""

PAGES = [ROOT / "README.md", ROOT / "hal" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PERFORMED = {
    "README.md",
    "artiq.md",
    "bounds.md",
    "designs.md",
    "laboratory.md",
    "planning.md",
    "receipt.md",
    "two-nodes.md",
}
"""Pages whose shell blocks are run: `artiq.md` in `test_artiq`, the others here."""

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PICTURE_BYTES_MAX = 60_000

pytestmark = pytest.mark.e2e


def script_of(page: Path) -> str:
    """All shell blocks of a page, one after the other, but those whose program is not here."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    blocks = [text for program, text in found if not program or shutil.which(program)]
    assert blocks, f"{page.name} has commands"
    return "\n".join(blocks)


def on_free_ports(script: str) -> str:
    """The page's ports are fixed, the test's are free ones."""
    ports = free_ports()
    fixed = {
        "7001": ports.emulator,
        "7101": ports.peers["alice"],
        "7201": ports.peers["bob"],
        "7102": ports.etsi["alice"],
        "7202": ports.etsi["bob"],
        "7500": ports.peers["alice"],
        "7501": ports.peers["bob"],
        "7700": ports.emulator,
    }
    return re.sub("|".join(fixed), lambda found: str(fixed[found.group()]), script)


def performed(
    page: Path, folder: Path, after: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """All commands of a page, run in `folder`, and those of the page that follows on it; what they
    started in the background is stopped."""
    pages = [page] if after is None else [page, after]
    script = on_free_ports("\n".join(script_of(each) for each in pages))
    stop = "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n"
    return subprocess.run(
        ["bash", "-c", "set -euo pipefail -m\n" + stop + script],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_a_laboratory_step_by_step(tmp_path: Path) -> None:
    done = performed(ROOT / "docs" / "laboratory.md", tmp_path)
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert "Each pattern announces its state           ok" in done.stdout
    assert "FAILED" not in done.stdout


def test_two_nodes_step_by_step(tmp_path: Path) -> None:
    done = performed(ROOT / "docs" / "two-nodes.md", tmp_path, after=ROOT / "docs" / "receipt.md")
    logs = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert (tmp_path / "opened.txt").read_text() == "meet me at the midpoint\n"
    assert "stored_key_count" in done.stdout or shutil.which("curl") is None
    assert "arXiv:2405.05912" in done.stdout
    assert done.stdout.count("The receipt holds.") == 2, "by the node's command, before and after"
    assert '"holds": true' in done.stdout, "by the verifier alone"
    assert done.stdout.count("THE RECEIPT DOES NOT HOLD.") == 1, "the one that was edited"


def test_bounds_are_as_documented(tmp_path: Path) -> None:
    done = performed(ROOT / "docs" / "bounds.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for figure in ("0.56919321", '"key_bits": 264113', "0.262", "UNREFEREED", "95,885 bits"):
        assert figure in done.stdout


def test_plans_and_calibrations_as_documented(tmp_path: Path) -> None:
    done = performed(ROOT / "docs" / "planning.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "certified kappa" in done.stdout and "there is no threshold" in done.stdout
    assert "WARNING: s is 2." in done.stdout
    assert "calibration of 100,000 rounds on link alice-bob" in done.stdout
    drawn = (tmp_path / "plan.png").read_bytes()
    shown = (ROOT / "docs" / "pictures" / "plan-lu-11km.png").read_bytes()
    assert drawn[16:24] == shown[16:24], "width and height: letters depend on the machine's fonts"


def test_designs_are_proved_as_documented(tmp_path: Path) -> None:
    done = performed(ROOT / "docs" / "designs.md", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT PROVED" not in done.stdout
    assert done.stdout.count("proved") == 2
    assert '"bound": "renyi-filtered-unrefereed"' in done.stdout


def test_the_readme_in_two_terminals(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    first, second = (
        re.findall(rf"^```sh terminal-{n}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)[0]
        for n in (1, 2)
    )
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    hold = ["bash", "-c", f"exec {first}"]
    with subprocess.Popen(hold, cwd=tmp_path, stderr=subprocess.PIPE) as held:
        try:
            assert held.stderr is not None
            assert any(b"are up" in line for line in held.stderr)
            use = ["bash", "-euo", "pipefail", "-c", second]
            done = subprocess.run(use, cwd=tmp_path, capture_output=True, timeout=120, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert (tmp_path / "net" / "letter.md").read_text(encoding="utf-8") == readme
        finally:
            held.terminate()
            assert held.wait(30) == 0


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link: lower case, spaces as hyphens, no other signs."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_leads_to_every_page() -> None:
    links = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"}
    assert pages <= links


def test_no_page_has_shell_blocks_that_are_not_run() -> None:
    with_blocks = {page.name for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))}
    assert with_blocks == PERFORMED


def test_the_picture_is_what_the_readmes_command_draws(tmp_path: Path) -> None:
    """Of the same size: what letters look like depends on the fonts of the machine."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^```sh characterise\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = (tmp_path / "decay.png").read_bytes()
    shown = (ROOT / "docs" / "pictures" / "liu-decay.png").read_bytes()
    header = slice(0, 24)  # The signature, and the width and height of the first chunk.
    assert drawn[header] == shown[header]
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert picture.stat().st_size < PICTURE_BYTES_MAX
