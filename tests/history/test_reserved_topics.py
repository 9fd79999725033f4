"""Promises about the topics that are the hub's own."""

import pytest

from noti.history.reserved_topics import reserved_in_0x, reserved_in_1_0

HUB = "/.well-known/mercure"


@pytest.mark.parametrize(
    "topic",
    [
        "*",
        HUB,
        f"{HUB}/subscriptions/a/b",
        f"https://example.com{HUB}",
        f"https://example.com:8443{HUB}/x?y#z",
        f"http:\\\\example.com{HUB}",
        f"ftp://example.com{HUB}",
        f"custom://host{HUB}",
        f"custom:{HUB}",
        f"//elsewhere{HUB}",
        "mercure",
        "mercure/x",
        "#x",
        "?x",
        "/a/../.well-known/mercure",
        "/a/%2e%2E/.well-known/mercure",
        "/.well-known/./mercure/",
        "/.well%2Dknown/mercur%65",
        "https:mercure",
        " /.well-known/mercure ",
    ],
)
def test_topics_that_resolve_to_the_hub_are_reserved_in_1_0(topic: str) -> None:
    assert reserved_in_1_0(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "a",
        "mercury",
        "/mercure",
        "/.well-known/mercures",
        "/x/.well-known/mercure",
        "/.WELL-KNOWN/mercure",
        "https://example.com/mercure",
        "https://mercure/",
        "https://example.com/a?b=/.well-known/mercure",
        "urn:x:/.well-known/mercure",
        "/.well-known%2Fmercure",
        "/.well-known/mercure/..",
        "/100%",
    ],
)
def test_others_are_not(topic: str) -> None:
    assert not reserved_in_1_0(topic)


def test_in_0_x_whatever_names_the_hubs_path_is_reserved_and_nothing_else() -> None:
    assert reserved_in_0x(f"https://example.com{HUB}/subscriptions/a")
    assert not reserved_in_0x("mercure")
    assert not reserved_in_0x("*")
