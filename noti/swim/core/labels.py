"""Labels: a name in front of all that a cluster sends, so that two clusters do not mix by mistake.

Enters: bytes to be sent with a label, or received ones. Leaves: bytes with, or without it.
Never: secrecy; a label is no key, though it is bound into what is encrypted (`sealing`).

The header is a byte that is no message's type, the length of the label and the label. It precedes
every packet, and a stream once, from the side that dials (memberlist, since 0.3).
"""

from typing import Final

from noti.errors import ConfigInvalid, LabelForeign

LABEL_TYPE: Final = 244
"""The first byte of a label header; see `encoding.MessageType`."""

LABEL_BYTES_MAX: Final = 255
"""The length of a label is one byte."""

_HEADER_BYTES: Final = 2


def label_of(text: str) -> bytes:
    """Return a label as it is sent; raises `ConfigInvalid` when it is too long."""
    label = text.encode()
    if len(label) > LABEL_BYTES_MAX:
        raise ConfigInvalid(
            f"the gossip label has {len(label)} bytes and may have {LABEL_BYTES_MAX}"
        )
    return label


def label_header(label: bytes) -> bytes:
    """Return what precedes a packet, or a dialled stream; nothing without a label."""
    return bytes([LABEL_TYPE, len(label)]) + label if label else b""


def label_header_length(start: bytes) -> int | None:
    """Return how many bytes at the start of something are its label header, perhaps none.

    None when more than `start` is needed to know. Raises `LabelForeign` for an empty label.
    """
    if not start:
        return None
    if start[0] != LABEL_TYPE:
        return 0
    if len(start) < _HEADER_BYTES:
        return None
    if start[1] == 0:
        raise LabelForeign("an empty label")
    return _HEADER_BYTES + start[1]


def without_label(data: bytes, label: bytes) -> bytes:
    """Return what follows the label header, which must be that of our label.

    Raises `LabelForeign` for another one, for none where we have one, and for one cut off.
    """
    length = label_header_length(data)
    header_bytes = len(data) if length is None else length
    if data[:header_bytes] != label_header(label):
        raise LabelForeign(
            "another gossip label than ours"
            if data[:1] == bytes([LABEL_TYPE])
            else "no gossip label, but this node has one"
        )
    return data[header_bytes:]
