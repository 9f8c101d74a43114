"""Is a receipt of a DI-QKD session what it claims to be?  Computed again, from the receipt alone.

Imports nothing of Bellhop: this folder can be copied out and run by itself,

    python -m receipt_verifier RECEIPT.json [--authority AUTHORITY.pem] [--json]

Signatures need the package `cryptography`; everything else is the standard library.
`docs/receipt.md` says what each field is.
"""

from .form import form
from .reading import Unreadable, parse
from .verify import Outcome, report, verify

__all__ = ["Outcome", "Unreadable", "form", "parse", "report", "verify"]
