"""Answers of other servers are told from those of nodes."""

import pytest

from noti.client.strangers import is_strangers, type_of


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413, 422])
@pytest.mark.parametrize(
    "media_type", ["text/plain; charset=utf-8", "application/problem+json", None]
)
def test_what_a_node_refuses_is_its_own_word(status: int, media_type: str | None) -> None:
    assert not is_strangers(status, {"content-type": media_type} if media_type else {})


@pytest.mark.parametrize(
    ("status", "media_type"),
    [
        (200, "Text/HTML; charset=utf-8"),
        (302, "text/plain"),
        (404, "text/plain"),
        (405, ""),
        (400, "application/json"),
        (403, "text/html"),
    ],
)
def test_no_node_answers_so(status: int, media_type: str) -> None:
    assert is_strangers(status, {"content-type": media_type})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("media_type", ["text/html", "application/json", "text/plain"])
def test_behind_a_failure_may_be_a_node_that_has_taken_the_request(
    status: int, media_type: str
) -> None:
    assert not is_strangers(status, {"content-type": media_type})


def test_the_type_of_an_empty_answer_says_nothing() -> None:
    assert not is_strangers(204, {"content-type": "text/html; charset=utf-8"})


def test_a_type_is_compared_without_its_parameters() -> None:
    assert type_of({"content-type": "Text/HTML ; charset=utf-8"}) == "text/html"
    assert type_of({}) == ""
