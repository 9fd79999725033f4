"""Encrypts what is sent and decrypts what is received, under the keys of the cluster.

Enters: plain bytes, sealed bytes from anywhere, nonces. Leaves: sealed bytes, or plain ones that
somebody with a key and our label has sealed.
Never: a key in an error; protection against replay, or from somebody who has the key.

AES-GCM. A sealed payload is its version, a nonce of 12 bytes, the ciphertext and a tag of 16 bytes.
Version 1 is what everybody sends; version 0, of old agents, is padded to blocks of 16 bytes as
PKCS #7 does. A packet is one payload, without a type; on a stream a header of type and length
precedes it. The header and the label are authenticated, too. Source: memberlist's security layer.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from noti.errors import MessageInvalid, Undecryptable
from noti.swim.core.encoding import MessageType
from noti.swim.core.keyring import KeyRing
from noti.swim.core.labels import label_header, label_of, without_label

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
SEALED_BYTES_MIN: Final = 1 + NONCE_BYTES + TAG_BYTES
"""What sealing adds in version 1; nothing shorter is sealed."""

STREAM_HEADER_BYTES: Final = 5
"""Type and length in front of what is sealed on a stream."""

_BLOCK_BYTES: Final = 16
_PADDED, _UNPADDED = 0, 1
"""The versions."""


class Encryption(StrEnum):
    """What a node with keys sends and takes: a cluster becomes encrypted in these steps."""

    UNDERSTOOD = "understood"
    """Sends plain, takes both: the first step, on every node."""
    SENT = "sent"
    """Sends encrypted, takes both: the second step."""
    REQUIRED = "required"
    """Sends encrypted and takes nothing else."""


class Sealing:
    """How one node seals what it sends, and opens what it receives."""

    def __init__(
        self,
        keys: KeyRing | None,
        encryption: Encryption,
        label: str,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        """`keys` is asked each time, so it may change; None: nothing is encrypted.

        `random_bytes` returns so many: a nonce must never come twice under one key. Raises
        `ConfigInvalid` when the label is too long.
        """
        self._keys = keys
        self._ciphers: dict[bytes, AESGCM] = {}
        self._encryption = encryption
        self._label = label_of(label)
        self._random_bytes = random_bytes

    @property
    def label(self) -> bytes:
        """The label; empty for none."""
        return self._label

    @property
    def has_keys(self) -> bool:
        """Whether sealed bytes can be opened at all."""
        return self._keys is not None

    @property
    def sends_sealed(self) -> bool:
        """Whether what is sent unasked is sealed."""
        return self._keys is not None and self._encryption is not Encryption.UNDERSTOOD

    @property
    def takes_plain(self) -> bool:
        """Whether what is not sealed counts."""
        return self._keys is None or self._encryption is not Encryption.REQUIRED

    @property
    def packet_overhead_bytes(self) -> int:
        """How much longer a packet becomes at most."""
        sealed = SEALED_BYTES_MIN if self._keys is not None else 0
        return sealed + len(label_header(self._label))

    def seal_packet(self, packet: bytes) -> bytes:
        """Return a packet as it is sent."""
        if self.sends_sealed:
            packet = self._seal(packet, self._label)
        return label_header(self._label) + packet

    def open_packet(self, data: bytes) -> bytes:
        """Return the packet in a datagram.

        Raises `LabelForeign` and `Undecryptable`. Where both are taken, what is under none of our
        keys is returned as it is.
        """
        data = without_label(data, self._label)
        if self._keys is None:
            return data
        try:
            return self._open(data, self._label)
        except MessageInvalid:
            if self.takes_plain:
                return data
            raise

    def seal_stream(self, message: bytes) -> bytes:
        """Return one side of a stream sealed, with its header; the label is sent before it."""
        size = SEALED_BYTES_MIN + len(message)
        header = bytes([MessageType.ENCRYPT]) + size.to_bytes(STREAM_HEADER_BYTES - 1, "big")
        return header + self._seal(message, header + self._label)

    def open_stream(self, header: bytes, sealed: bytes) -> bytes:
        """Return what was sealed on a stream; raises `Undecryptable`."""
        return self._open(sealed, header + self._label)

    def _seal(self, plain: bytes, authenticated: bytes) -> bytes:
        assert self._keys is not None
        nonce = self._random_bytes(NONCE_BYTES)
        cipher = self._cipher(self._keys.primary)
        return bytes([_UNPADDED]) + nonce + cipher.encrypt(nonce, plain, authenticated)

    def _open(self, sealed: bytes, authenticated: bytes) -> bytes:
        assert self._keys is not None
        if len(sealed) < SEALED_BYTES_MIN or sealed[0] > _UNPADDED:
            raise Undecryptable("not encrypted, or in no way that we know")
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        for key in self._keys.keys:
            try:
                plain = self._cipher(key).decrypt(nonce, ciphertext, authenticated)
            except InvalidTag:
                continue
            return plain if sealed[0] == _UNPADDED else _without_padding(plain)
        raise Undecryptable("encrypted under none of our keys, or changed on its way")

    def _cipher(self, key: bytes) -> AESGCM:
        """Return the cipher of a key; those of keys that were removed are forgotten."""
        assert self._keys is not None
        if key not in self._ciphers:
            self._ciphers = {each: AESGCM(each) for each in self._keys.keys}
        return self._ciphers[key]


def _without_padding(padded: bytes) -> bytes:
    count = padded[-1] if padded else 0
    whole = len(padded) % _BLOCK_BYTES == 0 and 1 <= count <= _BLOCK_BYTES
    if not whole or padded[-count:] != bytes([count]) * count:
        raise Undecryptable("decrypted, but padded in no valid way")
    return padded[:-count]
