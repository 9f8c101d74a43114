"""A receipt as people read it: in groups, rounded, and with every assumption."""

from tests.support.receipts import receipt

from bellhop.node.cli.output import table
from bellhop.node.cli.receipt import receipt_rows, source_of


def test_a_receipt_is_shown_in_groups() -> None:
    document = receipt()
    said = document["session"]
    text = table(receipt_rows(document))
    lines = text.splitlines()
    headings = [line for line in lines if not line.startswith(" ")]
    assert headings == ["What was measured", "The key", "The claim", "Alice", "Bob", "The session"]
    idealisations = document["ends"]["bob"]["statement"]["device"]["idealisations"]
    for sentence in (*said["assumptions"], *idealisations):
        assert any(line.endswith(f"  - {sentence}") for line in lines), sentence
    for shown in (
        f"{said['run']['s']:.4f}",
        f"{said['run']['qber']:.2%}",
        f"{said['key']['gross_bits']:,} bits",
        f"{said['leak']['total']:,} bits",
        f"{said['epsilon']['soundness']:.3g}",
        said["theorem"]["statement"],
        said["parameters"]["bound"],
        said["device_reuse"]["statement"],
        said["transcript"]["sha256"],
        said["parameters"]["link"],
    ):
        assert shown in text
    assert str(said["run"]["s"]) not in text, "sixteen digits are for machines"
    assert source_of(document) == "emulated"


def test_a_receipt_that_one_end_has_not_signed_says_so() -> None:
    document = receipt()
    document["ends"]["bob"] = None
    text = table(receipt_rows(document))
    assert "missing, with all that this end says" in text
