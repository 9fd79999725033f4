"""Logins and tokens are masked in any text, however they are written; what is none stays."""

import json
import re
from urllib.parse import quote, urlsplit

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from noti import telemetry
from noti.cli.loading import checked, given_settings
from noti.config import Config
from noti.redaction import has_login, redacted, redacted_url
from tests import promises

MARK = "hUsh"
"""In front of each piece of a password, so that no piece occurs in a text by chance."""

# What ends a part of a URL, a list, a quoted text or a word; and escapes.
separators = st.sampled_from([*"/@?#:,;&=+%[]()<>|~!*$. ", "//", "%40", "%2F", "\\"])
pieces = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=5)


@st.composite
def passwords(draw: st.DrawFn) -> str:
    """Pieces that all begin with the mark, with what may stand between them."""
    between = draw(st.lists(separators, max_size=5))
    return "".join(f"{MARK}{draw(pieces)}{one}" for one in [*between, ""])


texts = st.sampled_from(
    [
        "{}",
        "no answer from {}: why",
        "lost '{}', was at 10.0.0.1:8401",
        'asked for "{}", http://other:80/x said no',
        "nats: {},nats://b:4222",
        "http://a/x,{}",
        "failed\n  raise ValueError({!r})\nValueError",
    ]
)


@promises.SECRETS_NOT_SHOWN
@given(passwords(), texts, st.sampled_from(["nats", "https", "tls", "socks5"]))
def test_no_piece_of_a_password_in_a_url_is_left_in_a_text(
    password: str, text: str, scheme: str
) -> None:
    assume("://" not in password)  # there, another URL begins
    shown = redacted(text.format(f"{scheme}://user:{password}@host:4222/x"))
    assert MARK not in shown
    assert scheme in shown
    assert "@host:4222" in shown


@promises.SECRETS_NOT_SHOWN
@given(passwords(), texts)
def test_no_piece_of_a_token_before_a_host_is_left_in_a_text(token: str, text: str) -> None:
    assume("://" not in token and not re.search(r"\s", token))
    for login in (token, f"user:{token}"):
        assert MARK not in redacted(text.format(f"nats://{login}@host"))
        assert MARK not in redacted(text.format(f"//{login}@host"))
    assert MARK not in redacted(text.format(f"user:{token}@host")), "// is forgotten"
    assert MARK not in redacted(str(urlsplit(f"nats://{quote(token, safe='')}@host")))


@promises.SECRETS_NOT_SHOWN
@given(passwords(), st.sampled_from(["nats_url", "jwks_url", "public_url"]))
def test_no_piece_of_a_password_in_a_setting_is_shown_right_or_wrong(
    password: str, setting: str
) -> None:
    assume(",nats://" not in password)
    for url in (f"nats://user:{password}@h", f"user:{password}@h", f"https://{password}@h:x"):
        config, problems = checked(given_settings({"name": "n", setting: url}, None))
        told = [text for _, text in problems]
        assert MARK not in "".join(told)
        assert MARK not in str(config.masked()[setting] if config else "")
    assert has_login(f"nats://a,nats://user:{password}@h")


@promises.SECRETS_NOT_SHOWN
@given(passwords())
def test_no_piece_of_a_secret_in_a_query_or_a_header_is_left_in_a_log_line(secret: str) -> None:
    names = ("authorization", "access_token", "token", "jwt", "client_secret", "api_key")
    for name in names:
        url = str(httpx.URL("http://h/x", params={"topic": "a", name: secret}))
        line = {"event": f"cannot reach {url}", "error": ValueError(url), name: secret, "url": url}
        nested = f"http://h/x?next={quote(url, safe='')}&topic=b"
        line |= {"headers": [{f"X-{name}": secret}], "nested": nested}
        assert MARK not in str(telemetry.redact(None, "info", line)), name
    token = re.sub(r"[^\w~+/-]", "", secret)
    assert MARK not in redacted(f"sent Authorization: Bearer {token}")
    cookie = quote(secret, safe="")
    assert MARK not in redacted(f"Cookie: mercureAuthorization={cookie}; __Host-session=1")


def test_a_token_is_masked_wherever_it_stands() -> None:
    header = "eyJhbGciOiJIUzI1NiJ9"
    assert redacted(f"cannot read {header}.eyJzdWIiOiJ4In0.c2ln as JSON") == (
        "cannot read *** as JSON"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no answer from http://u:hush@h:1: why", "no answer from http://***@h:1: why"),
        ("http://u:a/b@c?d#e@h/x", "http://***@h/x"),
        ("'http:u:hush@h' is no URL", "'***@h' is no URL"),
        ("nats://u:hu/sh@a:1,nats://hush@b:2,tls://c", "nats://***@a:1,nats://***@b:2,tls://c"),
        ("'nats://u:hu sh@a', ask us", "'nats://***@a', ask us"),
        ("GET /x?authorization=hush&topic=a", "GET /x?authorization=***&topic=a"),
    ],
)
def test_only_login_or_token_is_masked_and_the_rest_is_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "none of http://h:80/x?a=b: nobody",
        "http://h:84/x does not answer; ask ops@example.com",
        "no answer at 10.0.0.1:8401 and [::1]:8401, said a@b",
        "mailto:ops@example.com",
        "the contact is mailto:ops@example.com, or acct:ops@example.com",
        "tag:ops@example.com,2026:event",
        "event urn:uuid:0190 of topic https://example.com/users/7{?x}",
        "basically, bearers of a token",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_of_a_url_login_and_query_are_masked() -> None:
    assert redacted_url("https://me:a b/c@h:8443/jwks?key=secret") == "https://***@h:8443/jwks?***"
    assert redacted_url("nats://u:p@a,b,nats://c@d") == "nats://***@a,b,nats://***@d"
    assert not has_login("nats://a:1,nats://b:2")


@pytest.mark.parametrize("value", [b"token=hUsh", httpx.URL("http://u:hUsh@h"), {"token=hUsh"}])
def test_objects_in_a_log_line_are_masked_as_they_would_be_shown(value: object) -> None:
    line = telemetry.redact(None, "info", {"event": "x", "value": value, "n": 1, "none": None})
    assert MARK not in json.dumps(line)
    assert (line["n"], line["none"]) == (1, None)


def test_masked_settings_are_those_that_have_a_login() -> None:
    config = Config(name="n", jwt_issuer="https://issuer.example", cors_origins=("https://a.b",))
    assert config.masked()["jwt_issuer"] == "https://issuer.example"
    assert config.masked()["cors_origins"] == ["https://a.b"]


@pytest.mark.parametrize(
    "text",
    [
        "authorization=Bearer s3cr3t",
        "access_token=bearer s3cr3t",
        "Bearer\ts3cr3t",
        "basic  s3cr3t",
    ],
)
def test_scheme_of_a_token_is_not_taken_for_the_token(text: str) -> None:
    assert "s3cr3t" not in redacted(text)


@pytest.mark.parametrize("piece", ["a", "a.", "a+", "eyJ-", "eyJ"])
def test_work_for_a_text_grows_no_faster_than_the_text(piece: str) -> None:
    """It ends at all: with work that grows as the square this takes hours."""
    text = piece * (500_000 // len(piece))
    assert redacted(text + "@").endswith("@")
    redacted(text)
