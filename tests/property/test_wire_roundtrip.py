"""What one end of a peer stream encodes, the other decodes to the same."""

from hypothesis import given
from tests.support.envelopes import envelopes, same

from bellhop.node.envelope import Envelope
from bellhop.node.wire import decode, encode


@given(envelopes)
def test_decoding_undoes_encoding(envelope: Envelope) -> None:
    assert same(decode(encode(envelope)), envelope)


@given(envelopes)
def test_one_envelope_has_one_spelling(envelope: Envelope) -> None:
    data = encode(envelope)
    assert encode(decode(data)) == data
