"""The options of the sipyco driver, from the `[laboratory.options]` of a laboratory's file."""

import ipaddress
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from bellhop.hal.configuration import convert_options, require
from bellhop.hal.errors import ConfigError

SECTION = "laboratory.options"

Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
MethodName = Annotated[str, msgspec.Meta(pattern="^[A-Za-z][A-Za-z0-9_]{0,63}$")]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Methods(_Section, frozen=True, kw_only=True):
    """How the controller calls its methods; `bellhop.hal.drivers.sipyco` says what each does."""

    ping: MethodName = "ping"
    ports: MethodName = "ports"
    offer: MethodName = "offer"
    attempt: MethodName = "attempt"
    heralds: MethodName = "heralds"
    measure: MethodName = "measure"
    abandon: MethodName = "abandon"
    release: MethodName = "release"

    def all(self) -> frozenset[str]:
        """All names."""
        return frozenset(getattr(self, field) for field in self.__struct_fields__)


class Tls(_Section, frozen=True, kw_only=True):
    """Both ends show a certificate, as in sipyco's SimpleSSLConfig; PEM, absolute paths.

    Host names are not compared: the authority is to be the controller's certificate itself.
    """

    certificate: str
    """This end's certificate."""
    key: str
    """Its private key."""
    authority: str
    """The controller's certificate."""


class Options(_Section, frozen=True, kw_only=True):
    """Where the controller is and how it is spoken to."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    """The machine of the sipyco server."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    """Its TCP port."""
    target: Annotated[str, msgspec.Meta(pattern="^[!-~]{1,256}$")] | None = None
    """The target; without it the server's only one."""
    connect_seconds: Seconds = 5.0
    """How long a connection may take."""
    call_seconds: Seconds = 10.0
    """How long a method may take to answer; after that the connection is given up."""
    attempt_seconds: Seconds = 600.0
    """The same for `attempt`, of a controller that answers when all heralds have come."""
    poll_seconds: Seconds = 0.02
    """The pause before `offer` or `heralds` is asked again."""
    tls: Tls | None = None
    """How the connection is encrypted."""
    clear_text: bool = False
    """Allow a controller on another machine without `tls`.  Whoever can read that network sees all
    settings and outcomes, and with them every key."""
    methods: Methods = msgspec.field(default_factory=Methods)

    def context(self) -> ssl.SSLContext | None:
        """What TLS is spoken with, None for clear text.  Raises ConfigError."""
        tls = self.tls
        if tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # The one certificate that is trusted is the controller's.
        _loading("authority", lambda: context.load_verify_locations(tls.authority))
        _loading("certificate", lambda: context.load_cert_chain(tls.certificate, tls.key))
        return context


def options_from(options: Mapping[str, object]) -> Options:
    """Raises ConfigError naming the option."""
    read = convert_options(options, Options, SECTION)
    try:
        read.host.encode("idna")
    except UnicodeError:
        raise ConfigError(f"{SECTION}.host is no name of a machine", f"{SECTION}.host") from None
    near = read.tls is not None or read.clear_text or _this_machine(read.host)
    rule = "is another machine: give tls, or allow clear_text if nobody else reads that network"
    require(near, f"{SECTION}.host", rule)
    for name, path in () if read.tls is None else msgspec.structs.asdict(read.tls).items():
        require(Path(path).is_absolute(), f"{SECTION}.tls.{name}", "is not an absolute path")
    names = read.methods
    require(
        len(names.all()) == len(names.__struct_fields__),
        f"{SECTION}.methods",
        "has one name for two methods",
    )
    return read


def _loading(field: str, load: Callable[[], None]) -> None:
    name = f"{SECTION}.tls.{field}"
    try:
        load()
    except OSError as error:
        raise ConfigError(f"{name} cannot be used: {error.strerror}", name) from error


def _this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
