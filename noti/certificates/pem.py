"""Parses PEM files: certificates and private keys; nothing of a private key is in a message.

PEM is text around base64 (RFC 7468). Text between blocks is allowed, as `openssl x509 -text` and CA
bundles have it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from noti.certificates.decoding import decode_certificate
from noti.errors import ConfigInvalid

_BLOCK = re.compile(
    rb"-----BEGIN (?P<label>[A-Z0-9 ]+)-----\r?\n(?P<body>.*?)-----END (?P=label)-----", re.DOTALL
)
CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE")
KEY_LABEL_END = "PRIVATE KEY"
ENCRYPTED_KEY = "ENCRYPTED PRIVATE KEY"


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a PEM file."""

    label: str
    """Between BEGIN and the dashes, as `CERTIFICATE`."""
    pem: bytes

    @property
    def is_certificate(self) -> bool:
        """Whether the label says that it is a certificate."""
        return self.label in CERTIFICATE_LABELS

    @property
    def is_key(self) -> bool:
        """Whether the label says that it is a private key, encrypted or not."""
        return self.label.endswith(KEY_LABEL_END)

    @property
    def is_encrypted(self) -> bool:
        """Whether it is a key behind a password, in PKCS #8 or in the older form (RFC 1421)."""
        return self.label == ENCRYPTED_KEY or b"Proc-Type: 4,ENCRYPTED" in self.pem


def blocks(content: bytes, path: Path) -> list[Block]:
    """Return the blocks of a PEM file, at least one; raises `ConfigInvalid`."""
    found = [Block(match["label"].decode(), match[0]) for match in _BLOCK.finditer(content)]
    if not found and b"-----BEGIN " in content:
        raise ConfigInvalid(f"{path} is cut off: a PEM block has no end; copy the file again")
    if not found:
        binary = content[:1] == b"\x30"  # a DER sequence
        remedy = "convert it with: openssl x509 -inform der" if binary else "name a PEM file"
        raise ConfigInvalid(f"{path} is not PEM: it has no line -----BEGIN …-----; {remedy}")
    return found


def certificates(content: bytes, path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file in their order, at least one.

    Raises `ConfigInvalid` when there is none, or one does not decode.
    """
    found = blocks(content, path)
    chosen = [block for block in found if block.is_certificate]
    if not chosen:
        raise ConfigInvalid(
            f"{path} holds no certificate but {_article(found[0].label)}; name the certificate file"
        )
    return [_certificate(block, number, path) for number, block in enumerate(chosen, 1)]


def private_key(content: bytes, path: Path) -> tuple[PrivateKeyTypes, bytes]:
    """Return the one private key of a PEM file, and its PEM block; raises `ConfigInvalid`."""
    found = blocks(content, path)
    chosen = [block for block in found if block.is_key]
    if not chosen:
        raise ConfigInvalid(
            f"{path} holds no private key but {_article(found[0].label)}; name the key file"
        )
    if len(chosen) > 1:
        raise ConfigInvalid(f"{path} holds {len(chosen)} private keys; keep one")
    [block] = chosen
    if block.is_encrypted:
        raise ConfigInvalid(
            f"{path} is an encrypted key, and a node has no password for it;"
            f" decrypt it: openssl pkey -in {path} -out NEW"
        )
    try:
        return load_pem_private_key(block.pem, password=None), block.pem
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's words are dropped, as they may quote what it could not parse.
        raise ConfigInvalid(
            f"{path} holds a private key that does not decode; issue it again"
        ) from None


def is_pair(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    """Whether the key is that of the certificate."""
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _certificate(block: Block, number: int, path: Path) -> x509.Certificate:
    try:
        return decode_certificate(block.pem)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ConfigInvalid(
            f"{path} holds a certificate (number {number}) that does not decode: {reason};"
            " issue it again"
        ) from None


def _article(label: str) -> str:
    words = label.lower()
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
