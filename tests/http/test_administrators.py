"""Requests that concern all of a hub are admitted by what their token allows."""

import pytest
from quart import Response

from noti.authorization.grant import Grant
from noti.http.administrators import rejection_of
from noti.http.app import App
from noti.http.config import HttpConfig
from tests.authorization.tokens import NOW, authorizer, token_v0


def publishes_a(grant: Grant) -> bool:
    return grant.may_publish(["/a"])


async def ask(token: str | None) -> tuple[int, str]:
    app = App("test")

    @app.get("/")
    async def handle() -> Response:
        rejection = rejection_of(
            authorizer(), HttpConfig(), NOW, method="GET", allows=publishes_a, need="needs /a"
        )
        return rejection or Response("admitted")

    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = await app.test_client().get("/", headers=headers)
    return answer.status_code, await answer.get_data(as_text=True)


async def test_token_that_allows_it_is_admitted() -> None:
    assert await ask(token_v0(["/a"])) == (200, "admitted")


@pytest.mark.parametrize("token", [None, "garbage"])
async def test_who_shows_no_token_is_asked_for_one(token: str | None) -> None:
    assert (await ask(token))[0] == 401


async def test_token_that_does_not_allow_it_is_told_what_it_takes() -> None:
    status, text = await ask(token_v0(["/b"], ["*"]))
    assert status == 403
    assert "needs /a" in text
