"""Where a memory service listens and how it shows who it is, as its file says it."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from bellhop.hal.configuration import require


class TlsSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """PEM files, relative to the file they are named in.

    `authority` signs the nodes that may connect.  The certificate's URI is `bellhop:emulator:NAME`.
    """

    certificate: str
    key: str
    authority: str


@dataclass(frozen=True, slots=True)
class Door:
    """Where a service listens, and how it shows who it is.

    `listen`: HOST:PORT, port 0 for any free one.  `section` names the fields in errors.
    `port_file`: where the bound address is written once nodes can connect.
    """

    section: str
    listen: str
    certificate: Path
    key: Path
    authority: Path
    port_file: Path | None = None


def door_of(section: str, listen: str, tls: TlsSection, port_file: str | None, at: Path) -> Door:
    """With the paths of a file that is, or would be, at `at` made absolute.  Raises ConfigError."""
    require_address(f"{section}.listen", listen)
    folder = at.resolve().parent
    return Door(
        section=section,
        listen=listen,
        certificate=folder / tls.certificate,
        key=folder / tls.key,
        authority=folder / tls.authority,
        port_file=folder / port_file if port_file else None,
    )


def require_address(field: str, address: str, port_min: int = 0) -> None:
    """Raises ConfigError naming `field` unless `address` is HOST:PORT; port 0 is any free one."""
    host, _, port = address.rpartition(":")
    whole = port.isascii() and port.isdigit() and port_min <= int(port[:6]) <= 65_535
    rule = f"is HOST:PORT with a port from {port_min} to 65535, not {address}"
    require(bool(host) and whole, field, rule)
