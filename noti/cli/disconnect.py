"""`noti disconnect`: ends the streams of a user or a token, and refuses the token for a time."""

from pathlib import Path

import click
import httpx

from noti.address import HUB_PATH
from noti.cli.http import tls_ca_option, tls_context, token_in
from noti.cli.token import as_seconds
from noti.errors import LocalError, Unavailable

PATH = f"{HUB_PATH}/revocations"
TIMEOUT_S = 10.0
"""A node answers within 5 s."""


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
@click.option("--url", default="http://127.0.0.1:8402", show_default=True, help="Any node.")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with a token that publishes everything (noti token --publish '*').",
)
@tls_ca_option
def disconnect(
    subject: str | None,
    token_id: str | None,
    for_s: float | None,
    url: str,
    token_file: Path,
    tls_ca: Path | None,
) -> None:
    """End streams on all nodes, by whose they are.

    A refused token gets 401 from every node until the time is over; a browser then gives up until
    its page gets a new one.
    """
    if bool(subject) == bool(token_id):
        raise click.UsageError("give --subject or --token-id")
    token = token_in(token_file)
    form = {"subject": subject, "token_id": token_id, "for_s": for_s}
    try:
        answer = httpx.post(
            url.rstrip("/") + PATH,
            data={name: str(value) for name, value in form.items() if value is not None},
            headers={"Authorization": f"Bearer {token}"},
            verify=tls_context(tls_ca),
            trust_env=False,  # it asks the node itself, and shows its token to no proxy
            timeout=TIMEOUT_S,
        )
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise Unavailable(f"{url} does not answer: {str(error) or type(error).__name__}") from None
    if answer.status_code != httpx.codes.NO_CONTENT:
        said = " ".join(answer.text.split())[:500]
        raise LocalError(f"{url} answers with status {answer.status_code}: {said}")
    whose = f"subject {subject}" if subject else f"token {token_id}"
    click.echo(f"streams of {whose} end" + (", and its tokens are refused" if for_s else ""))
