"""Writes the heads of responses of plain HTTP/1.1 connections, with what all of them carry."""

from collections.abc import Sequence
from email.utils import formatdate
from typing import Final

import trio

from noti.http.config import HttpConfig
from noti.http.heads import response_head
from noti.http.response_headers import common_headers

ORIGINS_MAX: Final = 64
"""Origins remembered; applications have a few."""


class ResponseHeads:
    """The heads of one node's responses."""

    def __init__(self, config: HttpConfig) -> None:
        self._config = config
        self._second = -1
        self._date = ""
        self._common: dict[str, tuple[tuple[str, str], ...]] = {}
        """By the request's origin; of this second."""

    def head(self, status: int, headers: Sequence[tuple[str, str]], origin: str) -> bytes:
        """Return status line and headers; `origin` is the request's Origin header."""
        second = int(trio.current_time())
        if self._second != second:  # made once a second (RFC 9110, 6.6.1)
            self._second = second
            self._date = formatdate(usegmt=True)
            self._common.clear()
        common = self._common.get(origin)
        if common is None:
            common = (*common_headers(origin, self._config), ("Date", self._date))
            if len(self._common) < ORIGINS_MAX:
                self._common[origin] = common
        return response_head(status, (*headers, *common))
