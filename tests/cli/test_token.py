"""`noti token` prints what a node accepts."""

import time
from pathlib import Path

import pytest

from noti.authorization.grant import Action, Grant
from noti.authorization.presented import Presented
from noti.cli import exit_status
from noti.history.selectors import ALL_TOPICS, topic_selector
from tests.authorization.tokens import SECRET, authorizer


@pytest.fixture
def key(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(SECRET + "\n")
    return str(tmp_path / "key")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Grant:
    assert exit_status(["token", *arguments]) == 0
    token = capsys.readouterr().out.strip()
    presented = Presented(authorization=f"Bearer {token}")
    return authorizer().grant(presented, Action.SUBSCRIBE, now=time.time())


def test_token_allows_what_the_flags_say(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--publish", "*", "--subscribe", "/users/7", "--subject", "7", "--payload", "[1]"]
    grant = printed(capsys, *flags, "--key-file", key, "--expires", "30m")
    assert grant.publish == {ALL_TOPICS}
    assert grant.subscribe == {topic_selector("/users/7")}
    assert (grant.subject, grant.payload_of("")) == ("7", "[1]")
    assert grant.token_id
    assert grant.expires_at is not None
    assert 1700 < grant.expires_at - time.time() <= 1800


def test_token_is_good_for_an_hour_unless_told_otherwise(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = printed(capsys, "--publish", "*", "--key-file", key)
    assert usual.expires_at is not None
    assert 3500 < usual.expires_at - time.time() <= 3600
    assert printed(capsys, "--publish=*", "--key-file", key, "--expires=never").expires_at is None


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "it would allow nothing"),
        (["--publish", "*", "--expires", "soon"], "write 90s, 30m, 1h or 7d"),
        (["--publish", "*", "--expires", "0s"], "write 90s, 30m, 1h or 7d"),
        (["--publish", "*", "--payload", "{"], "is not JSON"),
        (["--publish", "*", "--alg", "none"], "is not one of"),
        (["--publish", "*", "--alg", "ES256"], "not for ES256"),
        (["--publish", "*", "--protocol", "1"], "give --issuer"),
    ],
)
def test_wrong_use_is_one_clear_line(
    key: str, flags: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(["token", "--key-file", key, *flags]) == 2
    error = capsys.readouterr().err
    assert problem in error
    assert SECRET not in error
    assert len(error.splitlines()) == 1
