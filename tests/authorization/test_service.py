"""A node's authorization, made from its settings."""

import random
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from noti.authorization.grant import ANONYMOUS, Action
from noti.authorization.presented import Presented
from noti.authorization.rejection import TokenRejected
from noti.authorization.service import Authorization
from noti.cli.loading import load
from noti.errors import ConfigInvalid
from noti.trio_clock import TrioClock
from tests import promises
from tests.authorization.issuer import serving
from tests.authorization.tokens import (
    NOW,
    SECRET,
    jwk,
    private_key,
    public_pem,
    signed,
    write_jwks,
)
from tests.settings import clean_environment as clean_environment

PUBLISHER = {"mercure": {"publish": ["*"]}}
OTHER = "another secret of more than 32 bytes"


def made(**settings: Any) -> Authorization:
    config = load({"name": "n", **settings})
    return Authorization(config, TrioClock(), random.Random(1), lambda _s, _t, _now: False)


def accepts(one: Authorization, action: Action, token: str) -> bool:
    try:
        one.authorizer.grant(Presented(authorization=f"Bearer {token}"), action, now=NOW)
    except TokenRejected:
        return False
    return True


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_one_key_serves_publishers_and_subscribers(tmp_path: Path) -> None:
    one = made(publisher_jwt_key_file=write(tmp_path / "k", SECRET))
    for action in Action:
        assert accepts(one, action, signed(PUBLISHER))
        assert not accepts(one, action, signed(PUBLISHER, OTHER))


def test_two_keys_serve_one_each(tmp_path: Path) -> None:
    one = made(
        publisher_jwt_key_file=write(tmp_path / "p", public_pem(private_key("ES256"))),
        publisher_jwt_alg="ES256",
        subscriber_jwt_key_file=write(tmp_path / "s", OTHER),
    )
    publisher = signed(PUBLISHER, private_key("ES256"), "ES256")
    assert [accepts(one, action, publisher) for action in Action] == [True, False]
    assert [accepts(one, action, signed({}, OTHER)) for action in Action] == [False, True]


def test_a_key_of_subscribers_alone_publishes_nothing(tmp_path: Path) -> None:
    with capture_logs() as logs:
        one = made(subscriber_jwt_key_file=write(tmp_path / "s", OTHER))
    assert [accepts(one, action, signed(PUBLISHER, OTHER)) for action in Action] == [False, True]
    assert "nobody can publish over HTTP" in str(logs)


def test_subscribers_may_use_the_publishers_key_with_another_algorithm(tmp_path: Path) -> None:
    secret = "s" * 64
    file = write(tmp_path / "k", secret)
    one = made(publisher_jwt_key_file=file, subscriber_jwt_alg="HS512")
    for algorithm, expected in (("HS256", [True, False]), ("HS512", [False, True])):
        token = signed(PUBLISHER, secret, algorithm)
        assert [accepts(one, action, token) for action in Action] == expected


def test_variables_of_mercures_image_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_KEY", "p" * 64)
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_ALG", "HS512")
    monkeypatch.setenv("MERCURE_SUBSCRIBER_JWT_KEY", OTHER)
    monkeypatch.setenv("MERCURE_SUBSCRIBER_JWT_ALG", "HS256")
    with capture_logs() as logs:
        one = made()
    assert accepts(one, Action.PUBLISH, signed(PUBLISHER, "p" * 64, "HS512"))
    assert accepts(one, Action.SUBSCRIBE, signed(PUBLISHER, OTHER))
    assert "pppp" not in str(logs)


@promises.SECRETS_NOT_SHOWN
def test_an_unusable_key_names_its_place_and_not_its_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_KEY", OTHER)
    monkeypatch.setenv("MERCURE_PUBLISHER_JWT_ALG", "RS256")
    with pytest.raises(ConfigInvalid, match="MERCURE_PUBLISHER_JWT_KEY holds a secret") as caught:
        made()
    assert OTHER not in str(caught.value)


def test_a_key_set_in_a_file_serves_both(tmp_path: Path) -> None:
    write_jwks(tmp_path / "jwks", jwk("ES256", "a"))
    one = made(jwks_url=str(tmp_path / "jwks"))
    token = signed(PUBLISHER, private_key("ES256"), "ES256", {"kid": "a"})
    assert all(accepts(one, action, token) for action in Action)


@pytest.mark.parametrize(
    ("settings", "anonymous", "said"),
    [
        ({}, True, "everybody on this machine can read public events"),
        ({"http_addr": "[::1]:8402"}, True, "everybody on this machine"),
        ({"http_addr": "0.0.0.0:8402"}, False, "nobody can read: there is no key for tokens"),
        ({"http_addr": "10.0.0.1:8402", "jwks_url": "https://i.example/"}, False, "need a token"),
        ({"http_addr": "0.0.0.0:8402", "anonymous": True}, True, "nobody can publish"),
        ({"anonymous": False}, False, "nobody can read"),
    ],
)
def test_anonymous_readers_are_for_loopback_unless_the_operator_says_so(
    settings: dict[str, Any], anonymous: bool, said: str
) -> None:
    with capture_logs() as logs:
        one = made(**settings)
    assert said in str(logs)
    if anonymous:
        grant = one.authorizer.grant(Presented(), Action.SUBSCRIBE, now=NOW)
        assert grant is ANONYMOUS
    else:
        with pytest.raises(TokenRejected):
            one.authorizer.grant(Presented(), Action.SUBSCRIBE, now=NOW)


async def test_a_token_with_a_new_key_of_the_issuer_is_good_at_the_second_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noti.authorization.jwks.REFETCH_EVERY_S", 0.01)
    async with serving() as issuer, trio.open_nursery() as nursery:
        issuer.publish(jwk("ES256", "old"))
        one = made(jwks_url=issuer.url)
        await nursery.start(one.run)
        with trio.fail_after(10):
            await one.refresh()
            issuer.publish(jwk("ES384", "new"))
            token = signed(PUBLISHER, private_key("ES384"), "ES384", {"kid": "new"})
            presented = Presented(authorization=f"Bearer {token}")
            with pytest.raises(TokenRejected) as caught:
                one.authorizer.grant(presented, Action.PUBLISH, now=NOW)
            assert caught.value.unknown_key
            await one.refresh()
            assert one.authorizer.grant(presented, Action.PUBLISH, now=NOW).publish
        nursery.cancel_scope.cancel()


async def test_it_is_ready_with_the_keys_of_the_issuer_or_when_there_are_none() -> None:
    token = signed(PUBLISHER, private_key("ES256"), "ES256", {"kid": "a"})
    async with serving() as issuer, trio.open_nursery() as nursery:
        issuer.publish(jwk("ES256", "a"))
        one = made(jwks_url=issuer.url)
        with trio.fail_after(10):
            await nursery.start(one.run)
            assert accepts(one, Action.PUBLISH, token)
            other = made(jwks_url="http://127.0.0.1:1/")
            await nursery.start(other.run)
            assert not accepts(other, Action.PUBLISH, token)
        nursery.cancel_scope.cancel()


async def test_without_an_issuer_nobody_waits_for_one() -> None:
    with trio.fail_after(10):
        await made().refresh()


def test_other_settings_count_at_once_and_nothing_from_before(tmp_path: Path) -> None:
    first, second = write(tmp_path / "1", SECRET), write(tmp_path / "2", OTHER)
    one = made(publisher_jwt_key_file=first, anonymous=True)
    token, other = signed(PUBLISHER), signed(PUBLISHER, OTHER)
    assert accepts(one, Action.PUBLISH, token)
    generation = one.authorizer.generation
    one.change(load({"name": "n", "publisher_jwt_key_file": second, "anonymous": False}))
    assert one.authorizer.generation > generation
    assert not accepts(one, Action.PUBLISH, token)
    assert accepts(one, Action.PUBLISH, other)
    assert one.authorizer.without_token is None


def test_file_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    one = made(publisher_jwt_key_file=write(tmp_path / "1", SECRET), anonymous=True)
    for wrong in ("publisher_jwt_key_file", "revoked_file"):
        flags = {"publisher_jwt_key_file": write(tmp_path / "2", OTHER), "anonymous": False}
        with pytest.raises(ConfigInvalid, match="missing cannot be read"):
            one.change(load({"name": "n", **flags, wrong: str(tmp_path / "missing")}))
        assert accepts(one, Action.PUBLISH, signed(PUBLISHER))
        assert one.authorizer.without_token is ANONYMOUS


async def test_files_that_newer_settings_name_are_followed_and_those_before_are_not(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    first, second = write(tmp_path / "1", SECRET), write(tmp_path / "2", SECRET)
    one = made(publisher_jwt_key_file=first)
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        one.change(load({"name": "n", "publisher_jwt_key_file": second}))
        write(tmp_path / "1", OTHER * 2)
        await trio.sleep(10)
        assert accepts(one, Action.PUBLISH, signed(PUBLISHER))
        write(tmp_path / "2", OTHER)
        await trio.sleep(10)
        assert accepts(one, Action.PUBLISH, signed(PUBLISHER, OTHER))
        nursery.cancel_scope.cancel()


def test_revocations_of_a_file_that_is_named_no_longer_end(tmp_path: Path) -> None:
    flags = {"name": "n", "publisher_jwt_key_file": write(tmp_path / "k", SECRET)}
    one = made(**flags, revoked_file=write(tmp_path / "r", "sub eve\n"))
    token = signed({**PUBLISHER, "sub": "eve"})
    assert not accepts(one, Action.PUBLISH, token)
    one.change(load(flags))
    assert accepts(one, Action.PUBLISH, token)


def test_settings_of_others_change_nothing_and_forget_no_token(tmp_path: Path) -> None:
    one = made(publisher_jwt_key_file=write(tmp_path / "k", SECRET))
    generation = one.authorizer.generation
    (tmp_path / "k").unlink()
    one.change(load({"name": "n", "publisher_jwt_key_file": str(tmp_path / "k"), "pacing_s": 1}))
    assert one.authorizer.generation == generation
