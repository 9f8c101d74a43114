"""The errors of Bellhop, by who must act."""


class BellhopError(Exception):
    """Root of all errors raised on purpose.  Each child says who must act, with fields."""

    who_must_act: str = "the operator"

    def __init__(self, message: str, **fields: str | int | float) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class ConfigError(BellhopError):
    """The operator must change a file or an option; `field` names it."""

    who_must_act = "the operator of this node"

    def __init__(self, message: str, field: str = "", **fields: str | int | float) -> None:
        super().__init__(message, field=field, **fields)
        self.field = field


class PeerError(BellhopError):
    """The other side did it; ends that peer's session, never the daemon."""

    who_must_act = "the operator of the peer"


class HardwareError(BellhopError):
    """The device did it; ends those pairs."""

    who_must_act = "whoever runs the device"


class RequestError(BellhopError):
    """An application asked for what cannot be."""

    who_must_act = "the application"


class KeyStoreError(BellhopError):
    """The disk did it; the daemon stops rather than hand a key out twice."""

    who_must_act = "the operator of this node (its storage)"
