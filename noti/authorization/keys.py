"""Reads keys that check tokens: secrets, PEM, JSON Web Keys; and knows what each is for.

Enters: the content of a file, or an issuer's answer; the algorithm that the operator named.
Leaves: keys, each with its algorithms; what an operator should know about them.
Never: a secret or a key in an error; an algorithm that does not fit the kind of key: a public key
is no secret that whoever knows it may sign with (RFC 8725, 2.1).

Sources: RFC 7517 (JWK), RFC 7518 (JWA), RFC 8037 (EdDSA).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import Algorithm as JwtAlgorithm
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from noti.authorization.grant import Action
from noti.errors import ConfigInvalid

HMAC: Final = ("HS256", "HS384", "HS512")
RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
EDDSA: Final = "EdDSA"

KEYS_MAX: Final = 64
"""Of one set; issuers have two or three, and each without a name may have to be tried."""
SECRET_BYTES_MIN: Final = 32
"""A shorter secret can be guessed (RFC 7518, 3.2); it is used, with a warning."""
RSA_BITS_MIN: Final = 2048
"""RFC 7518, 3.3."""

_BY_NAME: Final = {
    name: algorithm
    for name, algorithm in get_default_algorithms().items()
    if name in {*HMAC, *RSA, *CURVES.values(), EDDSA}
}


@dataclass(frozen=True, slots=True, eq=False)
class VerificationKey:
    """A key that tokens may be signed with."""

    key_id: str | None
    """`kid`; None for a key that any token may mean."""
    key: Any
    """As PyJWT's algorithms take it; public, unless it is a secret."""
    algorithms: Mapping[str, JwtAlgorithm]
    """By name."""

    def __repr__(self) -> str:
        return f"VerificationKey({'/'.join(self.algorithms)})"


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one file or address."""

    keys: tuple[VerificationKey, ...]
    notices: tuple[str, ...] = ()
    """What is weak or odd about them, for the log."""

    @property
    def has_secret(self) -> bool:
        """Whether who reads them can sign tokens."""
        return any(name in HMAC for key in self.keys for name in key.algorithms)


class TrustedKeys:
    """All keys in use, by who may sign with them; they change while they are used."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[frozenset[Action], tuple[VerificationKey, ...]]] = {}
        self._of: dict[Action, tuple[VerificationKey, ...]] = {}
        self._digests: dict[str, bytes] = {}
        self.generation = 0
        """Changes whenever the keys do: what was checked before may not be trusted any more."""

    def put(self, source: str, actions: Iterable[Action], keys: Sequence[VerificationKey]) -> None:
        """Take these keys instead of those that came from `source` before."""
        self._sources[source] = frozenset(actions), tuple(keys)
        self._of = {
            action: tuple(
                key for actions, keys in self._sources.values() if action in actions for key in keys
            )
            for action in Action
        }
        self.generation += 1

    def put_if_changed(
        self,
        source: str,
        actions: Iterable[Action],
        keys: Sequence[VerificationKey],
        content: bytes,
    ) -> bool:
        """Do what `put` does, unless `content`, which the keys were read from, is what it was."""
        digest = sha256(content).digest()
        if self._digests.get(source) == digest:
            return False
        self._digests[source] = digest
        self.put(source, actions, keys)
        return True

    def follow(self, older: "TrustedKeys", *sources: str) -> None:
        """Take the place of other keys, and go on with those that came from `sources`."""
        for source in sources:
            if source in older._sources:
                self.put(source, *older._sources[source])
                self._digests[source] = older._digests.get(source, b"")
        self.generation += older.generation + 1

    def of(self, action: Action) -> tuple[VerificationKey, ...]:
        """Return the keys that tokens for this action are signed with."""
        return self._of.get(action, ())


def read_keys(content: bytes, name: str, algorithm: str | None = None) -> KeySet:
    """Return the keys of a file: a secret, PEM, a JWK or a JWK set.

    `algorithm` is the one that tokens are signed with; None for HS256 with a secret, and whatever
    fits another key. `name` is where the content is from. Raises `ConfigInvalid`.
    """
    if b"-----BEGIN " in content:
        return _pem(content, name, algorithm)
    if content.lstrip()[:1] == b"{":
        return read_jwks(content, name, algorithm)
    # Editors end a file with a newline, which is no part of the secret.
    return _secret(content.rstrip(b"\r\n"), name, algorithm)


def read_jwks(
    content: bytes, name: str, algorithm: str | None = None, *, secrets: bool = True
) -> KeySet:
    """Return the usable keys of a JWK or a JWK set; raises `ConfigInvalid` when there is none.

    Without `secrets`, keys of kind `oct` are left out: what anybody can fetch is no secret.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ConfigInvalid(f"{name} is not JSON; it should be a JWK set") from None
    found = document.get("keys", [document]) if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ConfigInvalid(f"{name} is not a JWK set: an object with a list of keys")
    if len(found) > KEYS_MAX:
        raise ConfigInvalid(f"{name} has more than {KEYS_MAX} keys; leave out those not in use")
    keys, problems = [], []
    for number, jwk in enumerate(found, 1):
        try:
            keys.append(_jwk(jwk, algorithm, secrets=secrets))
        except ConfigInvalid as error:
            problems.append(f"{name}: key {number} is not used: {error}")
    if not keys:
        raise ConfigInvalid(problems[0] if problems else f"{name} has no keys")
    notices = [notice for key in keys if (notice := _weakness(key.key, name)) is not None]
    return KeySet(tuple(keys), (*problems, *notices))


def algorithms_of(key: object) -> list[str]:
    """Return the algorithms that a public key or a secret is for, the usual one first."""
    match key:
        case bytes():
            return list(HMAC)
        case RSAPublicKey():
            return list(RSA)
        case EllipticCurvePublicKey() if key.curve.name in CURVES:
            return [CURVES[key.curve.name]]
        case Ed25519PublicKey() | Ed448PublicKey():
            return [EDDSA]
        case _:
            return []


def _jwk(jwk: dict[str, Any], algorithm: str | None, *, secrets: bool) -> VerificationKey:
    key_id, use = jwk.get("kid"), jwk.get("use")
    if use not in (None, "sig"):
        raise ConfigInvalid("its use is not sig")
    if jwk.get("kty") == "oct" and not secrets:
        raise ConfigInvalid("it is a secret that anybody can fetch")
    reader = {"oct": HMAC[0], "RSA": RSA[0], "EC": "ES256", "OKP": EDDSA}.get(str(jwk.get("kty")))
    if reader is None:
        raise ConfigInvalid("its kty is not oct, RSA, EC or OKP")
    try:
        key = _public(_BY_NAME[reader].from_jwk(jwk))
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        raise ConfigInvalid("it does not decode") from None
    named = jwk.get("alg", algorithm)
    fitting = algorithms_of(key)
    if named is not None and named not in fitting:
        raise ConfigInvalid(f"its algorithm does not fit it; it is for {' or '.join(fitting)}")
    names = fitting if named is None else [named]
    return VerificationKey(
        key_id if isinstance(key_id, str) else None, key, {name: _BY_NAME[name] for name in names}
    )


def _pem(content: bytes, name: str, algorithm: str | None) -> KeySet:
    notices = []
    try:
        if b"PRIVATE KEY-----" in content:
            key: Any = load_pem_private_key(content, None).public_key()
            notices.append(
                f"{name} holds a private key: this node needs only its public half (openssl pkey"
                " -pubout), and should not have the other"
            )
        elif b"BEGIN CERTIFICATE" in content:
            key = x509.load_pem_x509_certificate(content).public_key()
        else:
            key = load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigInvalid(
            f"{name} is not a PEM file of a public key; write one with: openssl pkey -pubout"
        ) from None
    fitting = algorithms_of(key)
    if not fitting:
        raise ConfigInvalid(
            f"{name} has a kind of key that signs no tokens; use RSA, EC or Ed25519"
        )
    chosen = algorithm or fitting[0]
    if chosen not in fitting:
        raise ConfigInvalid(
            f"{name} has a key for {' or '.join(fitting)}, not for {chosen}; name one of those as"
            " the algorithm"
        )
    if (weakness := _weakness(key, name)) is not None:
        notices.append(weakness)
    return KeySet((VerificationKey(None, key, {chosen: _BY_NAME[chosen]}),), tuple(notices))


def _secret(secret: bytes, name: str, algorithm: str | None) -> KeySet:
    chosen = algorithm or HMAC[0]
    if chosen not in HMAC:
        raise ConfigInvalid(
            f"{name} holds a secret, and {chosen} needs a public key in PEM or as a JWK; or name"
            " HS256 as the algorithm"
        )
    if not secret:
        raise ConfigInvalid(f"{name} is empty; put a secret of {SECRET_BYTES_MIN} bytes there")
    weakness = _weakness(secret, name)
    key = VerificationKey(None, secret, {chosen: _BY_NAME[chosen]})
    return KeySet((key,), () if weakness is None else (weakness,))


def _public(key: Any) -> Any:
    """Return the public half of a private key, and anything else as it is."""
    return key.public_key() if hasattr(key, "public_key") else key


def _weakness(key: object, name: str) -> str | None:
    match key:
        case bytes() if len(key) < SECRET_BYTES_MIN:
            return (
                f"{name} holds a secret of {len(key)} bytes, which can be guessed; make it"
                f" {SECRET_BYTES_MIN} or longer (openssl rand -hex 32)"
            )
        case RSAPublicKey() if key.key_size < RSA_BITS_MIN:
            return f"{name} holds an RSA key of {key.key_size} bits; make it {RSA_BITS_MIN} or more"
        case _:
            return None
