"""Writes the heads of responses of plain HTTP/1.1 connections, with what all of them carry."""

import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Final

from noti.http.config import HttpConfig
from noti.http.heads import response_head
from noti.http.response_headers import common_headers

HEADS_MAX: Final = 64
"""Heads remembered: applications have a few origins, and nearly all answers are alike."""


class ResponseHeads:
    """The heads of one node's responses."""

    def __init__(self, config: HttpConfig, unix_time: Callable[[], float] = time.time) -> None:
        self._config = config
        self._unix_time = unix_time
        self._second = -1
        self._date = ""
        self._heads: dict[tuple[int, str, tuple[tuple[str, str], ...]], bytes] = {}
        """Of this second."""

    def head(self, status: int, headers: Sequence[tuple[str, str]], origin: str) -> bytes:
        """Return status line and headers; `origin` is the request's Origin header."""
        second = int(self._unix_time())
        if self._second != second:  # made once a second (RFC 9110, 6.6.1)
            self._second = second
            self._date = formatdate(second, usegmt=True)
            self._heads.clear()
        wanted = status, origin, tuple(headers)
        head = self._heads.get(wanted)
        if head is None:
            common = *common_headers(origin, self._config), ("Date", self._date)
            head = response_head(status, (*headers, *common))
            if len(self._heads) < HEADS_MAX:
                self._heads[wanted] = head
        return head
