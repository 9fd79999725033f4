"""Under which URL a request knows the hub."""

from ipaddress import ip_network

import pytest

from noti.address import HUB_PATH
from noti.config import Config
from noti.history.topics import RESERVED
from noti.http.config import HttpConfig
from noti.http.hub_url import hub_url_of

PROXIES = HttpConfig(trusted_proxies=(ip_network("10.0.0.0/8"),))


def known(config: HttpConfig, scheme: str = "http", peer: str = "10.0.0.1", **headers: str) -> str:
    return hub_url_of(lambda name: headers.get(name.replace("-", "_"), ""), scheme, peer, config)


@pytest.mark.parametrize(
    ("scheme", "host", "url"),
    [
        ("http", "Hub.example:8402", "http://hub.example:8402"),
        ("https", "hub.example:443", "https://hub.example"),
        ("http", "hub.example:80", "http://hub.example"),
        ("http", "[::1]:8402", "http://[::1]:8402"),
        ("http", "", "http://invalid"),
        ("http", "a/b?c@d", "http://invalid"),
    ],
)
def test_it_is_what_the_request_names(scheme: str, host: str, url: str) -> None:
    assert known(HttpConfig(), scheme, host=host) == f"{url}{RESERVED}"


def test_the_operators_word_counts_more() -> None:
    config = HttpConfig(public_url="https://example.com/hub")
    assert known(config, host="other") == "https://example.com/hub"


def test_a_trusted_proxy_may_say_that_it_was_reached_by_https() -> None:
    for config, peer, forwarded, scheme in [
        (PROXIES, "10.0.0.1", "https", "https"),
        (PROXIES, "192.0.2.1", "https", "http"),
        (PROXIES, "10.0.0.1", "gopher", "http"),
        (HttpConfig(), "10.0.0.1", "https", "http"),
    ]:
        url = known(config, peer=peer, host="h", x_forwarded_proto=forwarded)
        assert url == f"{scheme}://h{RESERVED}"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://example.com", f"https://example.com{HUB_PATH}"),
        ("https://example.com/", f"https://example.com{HUB_PATH}"),
        ("https://example.com/hub", "https://example.com/hub"),
    ],
)
def test_a_public_url_without_a_path_is_a_host(given: str, taken: str) -> None:
    assert Config(public_url=given).public_url == taken
    assert HUB_PATH == RESERVED


@pytest.mark.parametrize("given", ["example.com", "ftp://example.com", "https://", "https://a/?b"])
def test_a_public_url_is_a_url(given: str) -> None:
    with pytest.raises(ValueError, match="is not a hub's URL"):
        Config(public_url=given)
