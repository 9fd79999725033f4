"""Takes revocations of tokens over HTTP, from those who may publish everything.

Not of Mercure's protocol; `noti disconnect` uses it, and so may an application at a user's logout.
"""

from typing import Final

import trio
from quart import Response, request
from quart_trio import QuartTrio

from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Grant
from noti.authorization.revoking import REVOKE_FOR_S_MAX, Revoking
from noti.errors import MessageInvalid, TooLarge, Unavailable
from noti.history.revocations import NAME_CHARS_MAX
from noti.history.selectors import ALL_TOPICS
from noti.history.topics import RESERVED
from noti.http.administrators import rejection_of
from noti.http.answers import RETRY_AFTER, plain
from noti.http.config import HttpConfig
from noti.http.forms import parse_form, problem_of_type
from noti.http.quart_glue import header_of, response_of
from noti.ports import Clock

PATH: Final = f"{RESERVED}/revocations"
ANSWER_WITHIN_S: Final = 5.0
"""An election takes less; then whoever asks learns that he may ask again."""
NEED: Final = "revoking needs a token that publishes everything (*)"
FIELDS_MAX: Final = 100
"""Fields of one form; it has two that mean something."""


def add_routes(
    app: QuartTrio, authorizer: Authorizer, revoking: Revoking, config: HttpConfig, clock: Clock
) -> None:
    """Add the address that takes revocations: POST with `subject` or `token_id`, and `for_s`."""

    @app.post(PATH)
    async def revoke() -> Response:
        now = clock.wall_ms() / 1000
        rejection = rejection_of(
            authorizer, config, now, method="POST", allows=_publishes_all, need=NEED
        )
        if rejection is not None:
            return rejection
        if (problem := problem_of_type(header_of(request)("content-type"))) is not None:
            return response_of(plain(415, problem))
        form: bytes = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        wanted = revocation_in(form)
        if isinstance(wanted, str):
            return response_of(plain(400, wanted))
        subject, token_id, for_s = wanted
        try:
            with trio.fail_after(ANSWER_WITHIN_S):
                await revoking.revoke(subject=subject, token_id=token_id, for_s=for_s)
        except (Unavailable, trio.TooSlowError):
            text = "The cluster did not confirm it; repeat it, which does no harm."
            return response_of(plain(503, text, RETRY_AFTER))
        return Response(b"", status=204)


def _publishes_all(grant: Grant) -> bool:
    return ALL_TOPICS in grant.publish


def revocation_in(body: bytes) -> tuple[str, str, float] | str:
    """Return subject, id (one of them empty) and seconds of a form, or what is invalid in it.

    A name that is not UTF-8 is refused: whoever it is, somebody else would be shut out.
    """
    try:
        fields = parse_form(body, FIELDS_MAX)
    except (MessageInvalid, TooLarge) as error:
        return str(error)
    subjects, token_ids, times = (
        [value for name, value in fields if name == wanted]
        for wanted in ("subject", "token_id", "for_s")
    )
    return revocation_of(subjects, token_ids, times[0] if times else None)


def revocation_of(
    subjects: list[str], token_ids: list[str], for_s: str | None
) -> tuple[str, str, float] | str:
    """Return subject, id (one of them empty) and seconds, or what is invalid in a form."""
    names = [*subjects, *token_ids]
    if len(names) != 1 or not 1 <= len(names[0]) <= NAME_CHARS_MAX:
        return f"Give subject or token_id, once, of 1 to {NAME_CHARS_MAX} characters."
    try:
        seconds = float(for_s or "0")
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= REVOKE_FOR_S_MAX:
        return f"for_s is a time in seconds, 0 to {REVOKE_FOR_S_MAX:.0f}."
    return ("".join(subjects), "".join(token_ids), seconds)
