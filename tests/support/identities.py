"""Certificates for tests: an authority in a folder and parties of it."""

import datetime
from pathlib import Path

from bellhop.node import pki
from bellhop.node.tls import Credentials, Party, PartyKind, read_credentials


class Authority:
    """An authority made in `folder`, and what it issues."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._now = datetime.datetime.now(datetime.UTC)
        self._credentials: dict[tuple[str, str], Credentials] = {}
        pki.init_authority(folder, now=self._now)

    def issue(self, kind: PartyKind, name: str, dns: tuple[str, ...] = ()) -> pki.Issued:
        return pki.issue(self.folder, Party(kind, name), now=self._now, dns=dns)

    def credentials(self, kind: PartyKind, name: str) -> Credentials:
        """The files of a party, made when first asked for."""
        if (kind, name) not in self._credentials:
            issued = self.issue(kind, name)
            self._credentials[kind, name] = read_credentials(
                issued.certificate, issued.key, issued.authority
            )
        return self._credentials[kind, name]
