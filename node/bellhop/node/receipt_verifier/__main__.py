"""The verifier as a program of its own; exit codes as in `docs/receipt.md`."""

import argparse
import json
import sys
from pathlib import Path

from .reading import Unreadable
from .verify import report, verify

EXIT_UNREADABLE = 2


def main() -> int:
    """Check the receipt that is named on the command line."""
    arguments = argparse.ArgumentParser(description="Check a receipt of a DI-QKD session.")
    arguments.add_argument("receipt", type=Path)
    arguments.add_argument("--authority", type=Path, help="certificates (PEM) of the authority")
    arguments.add_argument("--json", action="store_true", help="one JSON document")
    given = arguments.parse_args()
    try:
        authority = given.authority.read_bytes() if given.authority else None
        outcome = verify(given.receipt.read_bytes(), authority)
    except (OSError, Unreadable) as error:
        sys.stderr.write(f"Error: {error}\n")
        return EXIT_UNREADABLE
    text = json.dumps(outcome.document(), indent=2) if given.json else report(outcome)
    sys.stdout.write(f"{text}\n")
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
