"""Why streams end."""

from enum import Enum


class EndReason(Enum):
    """Why a stream ended."""

    DISCONNECTED = "disconnected"
    """The client hung up, or its connection broke."""
    BEHIND = "behind"
    """The client took what it was sent too slowly, and its share of the backlog is used up; or its
    cursor is not in a snapshot that this node got.
    """
    OVERRUN = "overrun"
    """This node could not send in time, though the client took all that it was sent."""
    STALLED = "stalled"
    """The client did not take what it was sent."""
    INVALID = "invalid"
    """The client of a WebSocket sent what is no frame, or too long a message."""
    AGED = "aged"
    """It was open as long as a stream may be."""
    EXPIRED = "expired"
    """Its token has expired."""
    REVOKED = "revoked"
    """An operator, or whoever revoked its token, has ended it."""
    SHED = "shed"
    """This node leads, and leaves browsers to the others."""
    DRAINED = "drained"
    """This node shuts down."""
