"""Revoking tokens over HTTP."""

from collections.abc import Mapping

import pytest

from noti.authorization.revoking import Revoking
from noti.errors import Overloaded
from noti.history.commands import decode
from noti.history.revocations import Revoke
from noti.http.app import App
from noti.http.config import HttpConfig
from noti.http.forms import FORM
from noti.http.revocations import PATH, add_routes
from noti.trio_clock import TrioClock
from tests.authorization.tokens import authorizer, token_v0

ADMIN = token_v0(["*"])


class Log:
    def __init__(self) -> None:
        self.commands: list[object] = []
        self.fails = False

    async def propose(self, command: bytes) -> None:
        if self.fails:
            raise Overloaded("later")
        self.commands.append(decode(command))


async def post(
    form: Mapping[str, str], token: str | None = ADMIN, log: Log | None = None
) -> tuple[int, str]:
    app, clock = App("test"), TrioClock()
    revoking = Revoking((log or Log()).propose, clock)
    add_routes(app, authorizer(), revoking, HttpConfig(), clock)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = await app.test_client().post(PATH, form=dict(form), headers=headers)
    return answer.status_code, await answer.get_data(as_text=True)


async def test_who_publishes_everything_revokes_a_subject_or_a_token() -> None:
    log = Log()
    assert await post({"subject": "7", "for_s": "60"}, log=log) == (204, "")
    assert await post({"token_id": "j"}, log=log) == (204, "")
    first, second = log.commands
    assert isinstance(first, Revoke)
    assert isinstance(second, Revoke)
    assert (first.subject, first.until_ms - first.created_ms) == ("7", 60_000)
    assert (second.token_id, second.until_ms - second.created_ms) == ("j", 0)


@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), ("garbage", 401), (token_v0(["/a"]), 403), (token_v0(subscribe=["*"]), 403)],
)
async def test_nobody_else_does(token: str | None, status: int) -> None:
    log = Log()
    assert (await post({"subject": "7"}, token, log))[0] == status
    assert log.commands == []


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"subject": ""},
        {"subject": "7", "token_id": "j"},
        {"subject": "7" * 600},
        {"subject": "7", "for_s": "soon"},
        {"subject": "7", "for_s": "nan"},
        {"subject": "7", "for_s": "-1"},
        {"subject": "7", "for_s": "1e12"},
    ],
)
async def test_what_is_invalid_is_told(form: dict[str, str]) -> None:
    status, text = await post(form)
    assert status == 400
    assert text.startswith(("Give subject or token_id", "for_s is a time"))


async def test_a_cluster_that_cannot_commit_says_so() -> None:
    log = Log()
    log.fails = True
    assert (await post({"subject": "7"}, log=log))[0] == 503


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"subject=J%FCrgen", FORM, 400),
        (b"subject=J\xfcrgen", FORM, 400),
        (b"&".join([b"a=b"] * 200), FORM, 400),
        (b'{"subject": "7"}', "application/json", 415),
    ],
)
async def test_a_name_that_cannot_be_read_revokes_nobody(
    body: bytes, kind: str, status: int
) -> None:
    log = Log()
    app, clock = App("test"), TrioClock()
    add_routes(app, authorizer(), Revoking(log.propose, clock), HttpConfig(), clock)
    headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
    answer = await app.test_client().post(PATH, data=body, headers=headers)
    assert answer.status_code == status
    assert log.commands == []
