"""`noti disconnect`: ends the streams of a user or a token, and refuses the token for a time."""

from collections.abc import Sequence
from pathlib import Path

import click
import trio

from noti.address import HUB_PATH
from noti.cli.administration import answer_of
from noti.cli.deadline import timeout_option
from noti.cli.http import tls_ca_option, token_in
from noti.cli.nodes import first_answer, urls_option
from noti.cli.token import as_seconds

PATH = f"{HUB_PATH}/revocations"


@click.command()
@click.option("--subject", metavar="NAME", help="Whose streams end: the sub of their tokens.")
@click.option("--token-id", metavar="ID", help="Streams of this token end: its jti.")
@click.option(
    "--revoke-for",
    "for_s",
    callback=as_seconds,
    metavar="TIME",
    help="For how long such tokens are refused: 30m, 1h, 7d; as long as they live. Without, "
    "streams only end, and browsers come back.",
)
@urls_option("http://127.0.0.1:8402")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with a token that publishes everything (noti token --publish '*').",
)
@timeout_option
@tls_ca_option
def disconnect(
    subject: str | None,
    token_id: str | None,
    for_s: float | None,
    urls: Sequence[str],
    token_file: Path,
    timeout_s: float,
    tls_ca: Path | None,
) -> None:
    """End streams on all nodes, by whose they are.

    A refused token gets 401 from every node until the time is over; a browser then gives up until
    its page gets a new one.
    """
    if bool(subject) == bool(token_id):
        raise click.UsageError("give --subject or --token-id")
    given = {"subject": subject, "token_id": token_id, "for_s": for_s}
    form = {name: str(value) for name, value in given.items() if value is not None}

    token = token_in(token_file)

    async def ask(url: str) -> None:
        async with answer_of(
            "POST", url, PATH, token=token, tls_ca=tls_ca, timeout_s=timeout_s, form=form
        ):
            pass

    first_answer(urls, lambda url: trio.run(ask, url))  # twice does no harm
    whose = f"subject {subject}" if subject else f"token {token_id}"
    click.echo(f"streams of {whose} end" + (", and its tokens are refused" if for_s else ""))
