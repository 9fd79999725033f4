"""Which headers responses carry."""

import pytest

from noti.config import Config
from noti.http.config import HttpConfig
from noti.http.response_headers import common_headers, header_text


def headers(origin: str, *allowed: str) -> dict[str, str]:
    return dict(common_headers(origin, HttpConfig(cors_origins=allowed)))


@pytest.mark.parametrize(
    ("allowed", "origin", "named"),
    [
        ("https://a.example", "https://a.example", True),
        ("https://a.example", "http://a.example", False),
        ("https://*.example.com", "https://a.example.com", True),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://.example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "https://evil.com/.example.com", False),
        ("https://*.example.com", "https://evil.com#.example.com", False),
        ("https://*.example.com", "https://u@a.example.com", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("https://*.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("https://*.example.com", "https://*.example.com", False),
    ],
)
def test_a_named_origin_may_read_with_cookies(allowed: str, origin: str, named: bool) -> None:
    carried = headers(origin, allowed)
    assert (carried.get("Access-Control-Allow-Origin") == origin) == named
    assert ("Access-Control-Allow-Credentials" in carried) == named
    assert carried["Vary"] == "Origin"


def test_everybody_may_read_without_cookies_only() -> None:
    for origin in ("https://a.example", "null", "*", ""):
        carried = headers(origin, "*")
        assert carried["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in carried


@pytest.mark.parametrize("origin", ["https://a.*.com", "https://*a.com", "https://*", "*.a.com"])
def test_a_setting_has_a_wildcard_for_whole_labels_only(origin: str) -> None:
    with pytest.raises(ValueError, match="cors_origins"):
        Config(cors_origins=(origin,))


def test_ids_in_headers_are_utf_8() -> None:
    for text in ("id-1", "\u00e9", "\U0001f600"):
        assert header_text(text.encode().decode("latin-1")) == text
    assert header_text("\xff") == "\xff"
    assert header_text("\u0100") == "\u0100"
