"""Takes secrets out of what people are shown: log lines, errors, settings.

A URL carries a login in its *userinfo*, all between `//` and the `@` before the host (RFC 3986,
3.2.1: `user:password`, or a token alone). By that RFC the first of / ? # ends it, but a password is
written with any character all the same, and libraries quote it so; therefore everything up to the
last `@` counts as a login, and rather too much is masked than too little. Tokens stand in queries
(RFC 6750, 2.3), in headers and cookies.

Of text, a blank ends a URL, unless this is in quotes or has a colon before anything but a port. Who
knows that a value is a URL, which a setting is, calls `redacted_url`, which has no such limit.
"""

import re
from collections.abc import Iterator
from typing import Final

MASK: Final = "***"

_SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*"
_NEXT_URL: Final = re.compile(rf"(?=(?:(?<!.)|[\s,'\"(<]){_SCHEME}://)")
"""Before the character before a URL; NATS has several in one setting, with commas between them."""
_NEXT_OF_LIST: Final = re.compile(rf",(?={_SCHEME}://)")
_PASSWORD: Final = re.compile(rf".?{_SCHEME}://[^\s/?#@:]*:[^\d\s/'\"]")
"""Begins a URL that surely has a login: what is after the colon is no port."""
_IN_QUOTES: Final = re.compile(r"'(?:\\.|[^\\'])*|\"(?:\\.|[^\\\"])*")
_BLANKS: Final = re.compile(r"(\s+)")
_LOGIN: Final = re.compile(
    # The last as `urllib` shows a URL it has split.
    rf"(?P<before>(?<![A-Za-z0-9+.-]){_SCHEME}://|//|netloc=['\"])"
    r"|(?<![\w.%+-])(?!(?:acct|cid|mailto|mid|tag|xmpp):)[\w.%+-]+:",
    re.IGNORECASE,
)
"""Where a login begins, also if `//` is forgotten; the `@` of some schemes has no login before it.
"""
_NAME: Final = (
    r"(?<![\w-])[\w-]*"
    r"(?:authorization|token|jwt|passwd|password|secret|api[_-]?key|cookie|signature)"
)
_SECRET_NAME: Final = re.compile(_NAME, re.IGNORECASE)
_SECRETS: Final = (
    # The first, as what is next would take the scheme for the secret: `authorization=Bearer abc`.
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+", re.IGNORECASE), r"\1 ***"),
    # In the query of a URL inside another one, = is escaped.
    (re.compile(rf"({_NAME}(?:=|%3D))(?:\"[^\"]*\"|'[^']*'|[^&\s\"']+)", re.IGNORECASE), r"\1***"),
    (re.compile(r"(?<![\w-])eyJ[\w-]*\.[\w-]+\.[\w-]*"), MASK),  # a JWT: its header begins with {"
)


def redacted(text: str) -> str:
    """Return any text without logins in URLs, and without tokens.

    Takes time in proportion to its length, as the text may be a stranger's.
    """
    if "@" in text:
        text = "\n".join("".join(map(_without_login, _parts(line))) for line in text.split("\n"))
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


def redacted_url(urls: str) -> str:
    """Return a URL, or several with commas between them, without login and query.

    Also if they are written wrongly: without a scheme, or with blanks.
    """
    return ",".join(map(_redacted_url, _NEXT_OF_LIST.split(urls)))


def has_login(urls: str) -> bool:
    """Whether there is a login in a URL, or in one of several with commas between them."""
    return any(_redacted_url(url) != url for url in _NEXT_OF_LIST.split(urls) if "@" in url)


def is_secret_name(name: str) -> bool:
    """Whether what has this name, of a header, a parameter or a field, is a secret."""
    return _SECRET_NAME.fullmatch(name) is not None


def _redacted_url(url: str) -> str:
    login, found, rest = url.rpartition("@")
    if found:
        before = re.match(rf"{_SCHEME}://", login)
        url = f"{before[0] if before else ''}{MASK}@{rest}"
    url, found, _ = url.partition("?")
    return f"{url}?{MASK}" if found else url


def _parts(line: str) -> Iterator[str]:
    """Yield a line in parts with at most one login each: URLs, and words."""
    for number, part in enumerate(_NEXT_URL.split(line)):
        end = _end_of_url(part) if number else 0
        yield part[:end]
        yield from _BLANKS.split(part[end:])


def _end_of_url(part: str) -> int:
    """Return up to where the URL goes with which this begins, behind one character."""
    if _PASSWORD.match(part):
        return len(part)
    blank = re.compile(r"\s").search(part, 1)
    end = blank.start() if blank else len(part)
    quoted = _IN_QUOTES.match(part)
    return max(end, quoted.end()) if quoted else end


def _without_login(part: str) -> str:
    at = part.rfind("@")
    begin = _LOGIN.search(part, 0, at) if at >= 0 else None
    if begin is None:
        return part
    return f"{part[: begin.start()]}{begin['before'] or ''}{MASK}{part[at:]}"
