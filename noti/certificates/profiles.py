"""The profiles of certificates, read from TOML: `ca.toml`, `node.toml`, `client.toml`.

They come from this package (a link to `tls/` at the top) or from a directory that a person names,
and have no defaults in code.
"""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from noti.errors import ConfigInvalid

KeyUsageName = Literal[
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
]
ExtendedKeyUsageName = Literal["serverAuth", "clientAuth"]
_KINDS = "^(DNS|URI|IP):"
NamePattern = Annotated[str, StringConstraints(pattern=rf"{_KINDS}([^{{}}]|\{{name\}})+$")]
ClusterNamePattern = Annotated[
    str, StringConstraints(pattern=rf"{_KINDS}([^{{}}]|\{{name\}}|\{{cluster\}})+$")
]

DAYS_MAX = 36_500
"""A century: what is longer is a slip, and may leave the years that X.509 can write."""


class Profile(BaseModel):
    """What a certificate of one kind is like; the words are OpenSSL's."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    days: int = Field(ge=1, le=DAYS_MAX)
    curve: Literal["P-256", "P-384"]
    authority: bool
    path_length: int | None = Field(default=None, ge=0)
    key_usage: tuple[KeyUsageName, ...]
    extended_key_usage: tuple[ExtendedKeyUsageName, ...]
    names: tuple[NamePattern, ...]
    """Subject alternative names; `{name}` stands for the name asked for."""
    names_in_cluster: tuple[ClusterNamePattern, ...] = ()
    """More of them, with `{cluster}`, when the cluster is given."""


def load_profile(kind: Literal["ca", "node", "client"], directory: Path | None = None) -> Profile:
    """Return a profile of ours, or that of `directory`; raises `ConfigInvalid`."""
    place = files(__package__) / "profiles" if directory is None else directory
    source = place / f"{kind}.toml"
    try:
        return Profile.model_validate(tomllib.loads(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigInvalid(
            f"profile {source} cannot be read: {error.strerror}; the directory needs ca.toml,"
            " node.toml and client.toml"
        ) from None
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        where = ".".join(map(str, detail["loc"]))
        raise ConfigInvalid(f"profile {source}: {where}: {detail['msg']}") from None
    except ValueError as error:
        raise ConfigInvalid(f"profile {source} is not valid TOML: {error}") from None
