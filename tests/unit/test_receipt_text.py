"""A receipt as people read it: in groups, rounded, and with every assumption."""

import json

from tests.support.two_cores import ALICE, BOB, TwoCores

from bellhop.node.cli.keystatus import receipt_rows
from bellhop.node.cli.output import table


def test_a_receipt_is_shown_in_groups() -> None:
    two = TwoCores(seed=12)
    two.meet()
    two.now_ns += 10**9
    two.ask(ALICE)
    two.go_on()
    (block,) = two.store[BOB].deliverable.values()
    receipt = json.loads(block.receipt)
    text = table(receipt_rows(receipt))
    lines = text.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == ["What was measured", "The key", "The claim", "The session"]
    for sentence in (*receipt["assumptions"], *receipt["idealisations"]):
        assert any(line.endswith(f"  - {sentence}") for line in lines), sentence
    for shown in (
        f"{receipt['s']:.4f}",
        f"{receipt['qber']:.2%}",
        f"{receipt['key_bits']:,} bits",
        f"{receipt['leak_bits']:,} bits",
        f"{receipt['epsilon']:.3g}",
        receipt["theorem"],
        receipt["source"],
        receipt["transcript_hash"],
        receipt["link"],
    ):
        assert shown in text
    assert str(receipt["s"]) not in text, "sixteen digits are for machines"
