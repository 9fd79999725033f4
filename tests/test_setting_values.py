"""Kinds of values, each with what is written instead of a wrong one."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from noti.setting_values import BindAddress, HubUrl, Origin, Seed, is_loopback


def test_a_loopback_address_is_for_programs_of_this_machine() -> None:
    loopback = [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")]
    assert all(loopback)
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example", ""))


def test_hub_url_gets_the_path_of_the_hub_if_it_has_none() -> None:
    urls = TypeAdapter[str](HubUrl)
    assert urls.validate_python("https://h/") == "https://h/.well-known/mercure"
    assert urls.validate_python("https://h/hub") == "https://h/hub"


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (BindAddress, 8402, "is not host:port in quotes"),
        (Seed, "0.0.0.0:8401", "cannot be dialled"),
        (Origin, "https://a.example/", "is not an origin"),
        (HubUrl, "h", "is not a hub's URL"),
    ],
)
def test_wrong_value_is_told_in_a_clause_about_it(kind: Any, value: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        TypeAdapter[Any](kind).validate_python(value)
