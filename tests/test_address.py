"""Addresses are written and read in one way, with brackets around IPv6."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.address import format_address, parse_address


@given(
    st.sampled_from(["10.0.0.1", "::1", "fe80::1%eth0", "node-1.noti", ""]), st.integers(0, 65_535)
)
def test_an_address_survives_writing(host: str, port: int) -> None:
    assert parse_address(format_address((host, port))) == (host, port)


def test_only_ipv6_is_written_in_brackets() -> None:
    assert format_address(("fe80::1%eth0", 8400)) == "[fe80::1%eth0]:8400"
    assert format_address(("node-1.noti", 8400)) == "node-1.noti:8400"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not host:port"),
        ("host", "is not host:port"),
        (":", "is not host:port"),
        ("host:", "is not host:port"),
        ("host:x", "is not host:port"),
        ("host:-1", "is not host:port"),
        ("host:²", "is not host:port"),
        ("[::1]", "is not host:port"),
        ("host:65536", "has a port above 65535"),
        ("host:" + "9" * 5000, "has a port above 65535"),
        ("::1:8402", "has no brackets"),
        ("[::1:8402", "has no brackets"),
        ("[host]:8402", "has brackets around what is no IPv6 address"),
        ("[::g]:80", "has brackets around what is no IPv6 address"),
        ("[]:8402", "has brackets around what is no IPv6 address"),
    ],
)
def test_anything_but_host_and_port_is_rejected_with_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{problem}"):
        parse_address(text)


@pytest.mark.parametrize("text", ["a..b:1", f"{'a' * 64}:1", ".a:1", "a\0b:1"])
def test_host_that_cannot_be_looked_up_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="has no name of a host before the port"):
        parse_address(text)
