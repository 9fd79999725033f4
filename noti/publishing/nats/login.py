"""How a node proves to NATS who it is, with what is in files.

The files are read for each connection, so that a secret can be renewed while the node runs. A
secret is never kept in memory between two connections, nor shown in a message or a `repr`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
from nats.aio.client import RawCredentials

from noti.certificates.files import read_file
from noti.config import Config
from noti.errors import ConfigInvalid

_JWT, _SEED = "-----BEGIN NATS USER JWT-----", "-----BEGIN USER NKEY SEED-----"


@dataclass(frozen=True, slots=True)
class NatsLogin:
    """At most one way to log in; none of them for a server that asks for nothing."""

    creds_file: Path | None = None
    nkey_file: Path | None = None
    token_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None

    @classmethod
    def of(cls, config: Config) -> "NatsLogin":
        """Return the way that is set."""
        return cls(
            config.nats_creds_file,
            config.nats_nkey_file,
            config.nats_token_file,
            config.nats_user,
            config.nats_password_file,
        )

    def options(self) -> dict[str, Any]:
        """Return arguments for `Client.connect`; they hold the secret.

        Raises `ConfigInvalid`, whose line names the file and what is wrong with it.
        """
        if self.creds_file is not None:
            return {"user_credentials": RawCredentials(_credentials(self.creds_file))}
        if self.nkey_file is not None:
            return {"nkeys_seed_str": _user_seed(_secret(self.nkey_file), self.nkey_file)}
        if self.token_file is not None:
            return {"token": _secret(self.token_file)}
        if self.user is not None and self.password_file is not None:
            return {"user": self.user, "password": _secret(self.password_file)}
        return {}


def _secret(path: Path) -> str:
    try:
        secret = read_file(path).decode().strip()
    except UnicodeDecodeError:
        raise ConfigInvalid(f"{path} is not text; put nothing but the secret there") from None
    if "\n" in secret:
        raise ConfigInvalid(f"{path} has several lines; put nothing but the secret there")
    return secret


def _credentials(path: Path) -> str:
    try:
        text = read_file(path).decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ConfigInvalid(f"{path} is not text; give a file of NATS credentials") from None
    for begin, what in ((_JWT, "user's JWT"), (_SEED, "user's seed")):
        _, found, rest = text.partition(begin + "\n")
        if not found or not rest.partition("\n")[0].strip():
            raise ConfigInvalid(
                f"{path} holds no {what}; give a file of NATS credentials, as nsc generate creds"
                " makes it"
            )
    seed = text.partition(_SEED + "\n")[2].partition("\n")[0]
    _user_seed(seed.strip(), path)
    return text if text.endswith("\n") else text + "\n"


def _user_seed(seed: str, path: Path) -> str:
    try:
        pair = nkeys.from_seed(bytearray(seed.encode()))
        is_user = pair.public_key.startswith(b"U")
        pair.wipe()
    except (nkeys.NkeysError, ValueError):
        is_user = False
    if not is_user:
        raise ConfigInvalid(f"{path} holds no seed of a user's nkey; it begins with SU")
    return seed
