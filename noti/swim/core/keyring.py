"""The keys of a cluster's gossip: the first encrypts, all decrypt.

Enters: keys, orders to change them. Leaves: keys in the order in which they are tried, and word of
each change, so that somebody saves it.
Never: files; encryption itself (`sealing`); a key in a text.

Source: memberlist's key ring, whose rules Serf's key queries rely on.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Final

from noti.errors import ConfigInvalid, KeyRejected

KEY_BYTES: Final = (16, 24, 32)
"""Lengths of AES keys."""

KEYS_MAX: Final = 16
"""A rotation needs two; each packet under a foreign key is tried with all of them."""


class KeyRing:
    """The keys of this node, of which there is always one at least."""

    def __init__(self, keys: Sequence[bytes], changed: Callable[[], object] = lambda: None) -> None:
        """Take keys, the primary first; raises `ConfigInvalid` for none, too many or a bad one.

        `changed` is called when there are others, or they are in another order.
        """
        unique = tuple(dict.fromkeys(keys))
        if not 1 <= len(unique) <= KEYS_MAX:
            raise ConfigInvalid(f"{len(unique)} gossip keys; give from 1 to {KEYS_MAX}")
        for key in unique:
            _check_length(key)
        self._keys = unique
        self._changed = changed

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys, the primary first."""
        return self._keys

    @property
    def primary(self) -> bytes:
        """The key that encrypts."""
        return self._keys[0]

    def replace(self, keys: Sequence[bytes]) -> None:
        """Take these keys instead; raises as the constructor does, and then changes nothing."""
        self._put(KeyRing(keys).keys)

    def add(self, key: bytes) -> None:
        """Decrypt with this key, too; nothing happens when it is there.

        Raises `KeyRejected` when it is no key, or there are too many.
        """
        try:
            self.replace((*self._keys, key))
        except ConfigInvalid as error:
            raise KeyRejected(str(error)) from None

    def use(self, key: bytes) -> None:
        """Encrypt with this key from now on; raises `KeyRejected` when it is not installed."""
        if key not in self._keys:
            raise KeyRejected("this key is not installed; install it first, on all nodes")
        self._put(tuple(dict.fromkeys((key, *self._keys))))

    def remove(self, key: bytes) -> None:
        """Forget this key; nothing happens when it is not there.

        Raises `KeyRejected` for the primary: others still decrypt what it encrypts.
        """
        if key == self.primary:
            raise KeyRejected("this key encrypts; use another one first")
        self._put(tuple(each for each in self._keys if each != key))

    def _put(self, keys: tuple[bytes, ...]) -> None:
        if keys != self._keys:
            self._keys = keys
            self._changed()


def parse_key(text: str) -> bytes:
    """Return the key in base64, as `serf keygen` prints it; raises `ConfigInvalid`."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ConfigInvalid("a gossip key is not base64; `noti keys new` makes one") from None
    _check_length(key)
    return key


def format_key(key: bytes) -> str:
    """Return a key in base64."""
    return base64.b64encode(key).decode()


def _check_length(key: bytes) -> None:
    if len(key) not in KEY_BYTES:
        raise ConfigInvalid(
            f"a gossip key has {len(key)} bytes and must have 16, 24 or 32; "
            "`noti keys new` makes one"
        )
