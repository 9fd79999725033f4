"""Changes the keys of gossip on all members at once, by queries.

Enters: requests about keys, the key ring. Leaves: what was done, or why not.
Never: a key in a text; a change where packets are taken without encryption.

Whoever can send such a request can change the keys, and read them; so there must be a key that he
knew before. Source: Serf's key manager, whose commands print these answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from noti.errors import KeyRejected, MessageInvalid
from noti.swim.core.encoding import MessageFields, raw_of, text_of, unpack
from noti.swim.core.keyring import KeyRing, format_key
from noti.swim.core.serf.messages import SerfType, pack_serf

_TEXT_CHARACTERS_MAX: Final = 300
"""Of what a member says about keys."""

_KEYS_MAX: Final = 64
"""Keys in one member's answer: more than fit into one."""


class KeyOperation(Enum):
    """What can be asked about gossip keys, under the name of its query."""

    LIST = "_serf_list-keys"
    INSTALL = "_serf_install-key"
    USE = "_serf_use-key"
    REMOVE = "_serf_remove-key"


KEY_OPERATIONS: Final = {operation.value.encode(): operation for operation in KeyOperation}
"""By name of the query."""


@dataclass(frozen=True, slots=True)
class KeyResponse:
    """What one member did, and has."""

    done: bool
    text: str = ""
    """Why it did not do it, or that not all keys are listed."""
    keys: tuple[str, ...] | None = field(default=None, repr=False)
    """In base64, as asked for."""
    primary: str = field(default="", repr=False)


def carry_out(operation: KeyOperation, request: bytes, ring: KeyRing | None) -> KeyResponse:
    """Do what a request asks; `ring` is None where keys cannot be changed by requests."""
    if ring is None:
        # In an agent's words, as its commands print it.
        what = "Keyring is empty" if operation is KeyOperation.LIST else "No keyring to modify"
        return KeyResponse(False, f"{what} (encryption not enabled, or not required)")
    if operation is KeyOperation.LIST:
        return KeyResponse(True, "", tuple(map(format_key, ring.keys)), format_key(ring.primary))
    try:
        key = _key_of(request)
        match operation:
            case KeyOperation.INSTALL:
                ring.add(key)
            case KeyOperation.USE:
                ring.use(key)
            case KeyOperation.REMOVE:
                ring.remove(key)
    except (KeyRejected, MessageInvalid) as error:
        return KeyResponse(False, str(error))
    return KeyResponse(True)


def encode_request(key: bytes) -> bytes:
    """Return the payload of a query about a key."""
    return pack_serf(SerfType.KEY_REQUEST, {"Key": key})


def encode_response(response: KeyResponse) -> bytes:
    """Return the payload of an answer."""
    return pack_serf(
        SerfType.KEY_RESPONSE,
        {
            "Keys": None if response.keys is None else list(response.keys),
            "Message": response.text,
            "PrimaryKey": response.primary,
            "Result": response.done,
        },
    )


def truncations(response: KeyResponse) -> Sequence[KeyResponse]:
    """Return the answer, and then ever shorter ones that list fewer of its keys, and say so."""
    keys = response.keys or ()
    shorter = [
        KeyResponse(
            response.done,
            f"truncated key list response, showing first {count} of {len(keys)} keys",
            keys[:count],
            response.primary,
        )
        for count in reversed(range(len(keys)))
    ]
    return [response, *shorter]


def decode_response(payload: bytes) -> KeyResponse:
    """Return what a member answered; raises `MessageInvalid`."""
    if payload[:1] != bytes([SerfType.KEY_RESPONSE]):
        raise MessageInvalid("an answer that is not about keys")
    raw = unpack(payload[1:])
    fields = MessageFields(raw)
    keys = raw.get(b"Keys") or []
    if not isinstance(keys, list):
        raise MessageInvalid("keys that are no list")
    text = (fields.raw("Message") or b"").decode(errors="replace")[:_TEXT_CHARACTERS_MAX]
    return KeyResponse(
        done=fields.flag("Result"),
        text="".join(each if each.isprintable() else " " for each in text),
        keys=tuple(text_of(raw_of(key)) for key in keys[:_KEYS_MAX]),
        primary=fields.text("PrimaryKey"),
    )


def _key_of(request: bytes) -> bytes:
    if request[:1] != bytes([SerfType.KEY_REQUEST]):
        raise MessageInvalid("a request about keys without a key")
    return MessageFields(unpack(request[1:])).raw("Key") or b""
