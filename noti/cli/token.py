"""`noti token`: makes a token for trying things and for scripts."""

import json
import re
import secrets
import time
from pathlib import Path
from typing import Any, get_args

import click

from noti.authorization.grant import Dialect
from noti.authorization.signing import TokenDraft, signed_token
from noti.certificates.files import read_file
from noti.setting_values import JwtAlgorithmName

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DIALECTS = {"0": Dialect.V0, "1": Dialect.V1}
TOKEN_ID_BYTES = 9
"""72 random bits: no two tokens of one subject get the same."""

_DURATION = re.compile(r"(\d{1,9})([smhd])")


def as_seconds(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> float | None:
    """Return a duration as people write it, 90s, 30m, 1h, 7d, in seconds; `never` is None."""
    if value is None or value == "never":
        return None
    found = _DURATION.fullmatch(value)
    if found is None or not int(found[1]):
        raise click.BadParameter(f"{value!r} is not a time; write 90s, 30m, 1h or 7d", context)
    return float(int(found[1]) * UNITS_S[found[2]])


def as_json(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """Return a value that is written as JSON."""
    try:
        return None if value is None else json.loads(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not JSON", context, parameter) from None


@click.command()
@click.option(
    "--publish", multiple=True, metavar="TOPIC", help="What it may publish; * for all; repeatable."
)
@click.option(
    "--subscribe",
    multiple=True,
    metavar="TOPIC",
    help="Which private events it may read; * for all; repeatable. Public ones need no right.",
)
@click.option(
    "--key-file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The key of --publisher-jwt-key-file or --subscriber-jwt-key-file: the secret, or the "
    "private half, in PEM or as a JWK.",
)
@click.option(
    "--alg",
    type=click.Choice(get_args(JwtAlgorithmName)),
    metavar="NAME",
    help="Algorithm; HS256 for a secret, otherwise what fits the key.",
)
@click.option(
    "--expires",
    "expires_in_s",
    callback=as_seconds,
    default="1h",
    show_default=True,
    metavar="TIME",
    help="For how long it is good: 90s, 30m, 1h, 7d or never.",
)
@click.option("--subject", metavar="NAME", help="Whose token it is (sub), as noti disconnect says.")
@click.option("--payload", callback=as_json, metavar="JSON", help="Shown with its subscriptions.")
@click.option(
    "--protocol",
    type=click.Choice(list(DIALECTS)),
    default="0",
    show_default=True,
    help="Mercure 0.x or 1.0.",
)
@click.option("--issuer", metavar="NAME", help="iss: --jwt-issuer of the nodes.")
@click.option("--audience", metavar="NAME", help="aud: --jwt-audience of the nodes.")
@click.option(
    "--match-type",
    type=click.Choice(["exact", "urlpattern"]),
    default="exact",
    show_default=True,
    help="How a token of 1.0 matches topics; of 0.x, they are URI templates.",
)
def token(
    publish: tuple[str, ...],
    subscribe: tuple[str, ...],
    key_file: Path,
    alg: str | None,
    protocol: str,
    **claims: Any,
) -> None:
    """Print a token that a node accepts.

    Whoever has it may do what it says until it expires, or noti disconnect refuses it:

        noti token --publish '*' --key-file key

        noti token --subscribe '/users/7' --subject 7 --expires 30m --key-file key
    """
    if not publish and not subscribe:
        raise click.UsageError("give --publish or --subscribe, or both: it would allow nothing")
    draft = TokenDraft(
        dialect=DIALECTS[protocol],
        publish=publish,
        subscribe=subscribe,
        token_id=secrets.token_urlsafe(TOKEN_ID_BYTES),
        issued_at=time.time(),
        **claims,
    )
    click.echo(signed_token(draft, read_file(key_file, "key file"), str(key_file), alg))
