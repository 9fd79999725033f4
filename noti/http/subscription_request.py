"""Reads what a request for a stream asks for, in the dialect that it speaks.

Enters: a query, and a form where there is one; the hub's URL. Leaves: topic selectors, a cursor,
tokens; or what is invalid, in one sentence.
Never: I/O, what the client may see, a token in a text for people.

The dialects share one address and are told apart by their parameters (Mercure 0.x: `topic`; 1.0:
`match`, `match_exact`, `match_urlpattern`). Whoever uses both is asked to choose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from noti.authorization.grant import Dialect
from noti.authorization.presented import TOKEN_PARAMETER
from noti.errors import MessageInvalid, sentence
from noti.history.selectors import Selector, exact_matcher, pattern_matcher, topic_selector
from noti.http.forms import parse_form

MATCHERS_MAX: Final = 100
"""Topics in one subscription; the reference hub has the same limit."""
FIELDS_MAX: Final = 1000
"""Parameters of one request; those of applications beside ours are few."""
LAST_MAX: Final = 1000
"""Events that `?last=` may ask for; more is what cursors are for."""
KNOWN_MAX: Final = 1024
"""Queries that are remembered."""
CACHED_CHARS_MAX: Final = 2048
"""Longer queries are read anew each time, so that those kept take a few MB at most."""

TOPIC: Final = "topic"
MATCH: Final = "match"
_MATCHERS: Final[Mapping[str, Callable[[str, str], Selector]]] = {
    MATCH: lambda text, _: exact_matcher(text),
    "match_exact": lambda text, _: exact_matcher(text),
    "match_urlpattern": pattern_matcher,
}

CURSOR_PARAMETERS: Final = (
    "lastEventId",  # the polyfills of Yaffle and others
    "evs_last_event_id",  # amvtek's
    "lastEventID",  # Mercure 0.x
    "last_event_id",  # Mercure 1.0
    "Last-Event-ID",  # Mercure before 0.14, and what Symfony still sends beside the other one
)
"""Names under which clients that cannot send a header send their cursor. Polyfills come first:
they add theirs when they come back, to an address that names where the page began."""

MISSING_TOPIC: Final = (
    'Missing "topic" parameter. Add ?topic=NAME, several times for several topics, or ?topic=* for'
    " all; in Mercure 1.0, ?match=NAME."
)
MISSING_MATCHER: Final = (
    'Missing "match" parameter. Add ?match=NAME, ?match_urlpattern=PATTERN, several times for'
    " several, or ?match=* for all."
)


@dataclass(frozen=True, slots=True)
class SubscriptionParameters:
    """What a request asks for."""

    dialect: Dialect
    """In which it is answered."""
    selectors: frozenset[Selector] = frozenset()
    """Empty when there is a problem, or where none are asked for."""
    problem: str = ""
    """What is invalid, in a sentence; empty for nothing."""
    cursor: str | None = None
    """What the client has; None when nothing was said, empty when it was said to be nothing."""
    wants_cursors: bool = False
    """Whether it asks for the names of positions (`cursor=1`)."""
    last: int = 0
    """How many events a reader without a cursor begins with, as far as history holds them."""
    tokens: tuple[str, ...] = field(default=(), repr=False)
    """Values of the parameter for a token, unchecked."""


_UNREADABLE: Final = (
    f"The query is not UTF-8 in percent-encoding, or has more than {FIELDS_MAX} parameters."
)


def parameters_of(
    query: str, dialects: frozenset[Dialect], hub_url: str, body: bytes | None = None
) -> SubscriptionParameters:
    """Return what a request for the hub's address asks for.

    `query` is as it stands in the target, its bytes as characters; `dialects` are those that are
    spoken here. `body` is the form of a QUERY request: what it says is added to the query.
    """
    if body is not None or len(query) > CACHED_CHARS_MAX:
        return _read(query, dialects, hub_url, body)
    asked = _known.get((query, dialects, hub_url))
    if asked is None:
        asked = _read(query, dialects, hub_url, None)
        if not asked.tokens:
            if len(_known) >= KNOWN_MAX:
                _known.clear()
            _known[query, dialects, hub_url] = asked
    return asked


_known: Final[dict[tuple[str, frozenset[Dialect], str], SubscriptionParameters]] = {}
"""Most clients of one application ask with the same query; it is read once. None has a token."""


def cursor_parameters(query: str) -> SubscriptionParameters:
    """Return what a request asks for where topics are not chosen: a cursor, and tokens."""
    try:
        return _common(_fields(query, None), Dialect.V0)
    except MessageInvalid:
        return SubscriptionParameters(Dialect.V0, problem=_UNREADABLE)


def _read(
    query: str, dialects: frozenset[Dialect], hub_url: str, body: bytes | None
) -> SubscriptionParameters:
    default = Dialect.V0
    if Dialect.V0 not in dialects or (body is not None and Dialect.V1 in dialects):
        default = Dialect.V1
    try:
        fields = _fields(query, body)
    except MessageInvalid:
        return SubscriptionParameters(default, problem=_UNREADABLE)
    topics = [value for name, value in fields if name == TOPIC]
    matchers = [(name, value) for name, value in fields if name.lower().startswith(MATCH)]
    dialect = Dialect.V1 if matchers else Dialect.V0 if topics else default
    common = _common(fields, dialect if dialect in dialects else default)
    problem = _problem_of(topics, matchers, dialects, common.dialect)
    if problem is not None:
        return replace(common, problem=problem)
    try:
        selectors = {topic_selector(text) for text in topics}
        selectors |= {_MATCHERS[name](text, hub_url) for name, text in matchers}
    except MessageInvalid as error:
        return replace(common, problem=sentence(error))
    return replace(common, selectors=frozenset(selectors))


def _problem_of(
    topics: Sequence[str],
    matchers: Sequence[tuple[str, str]],
    dialects: frozenset[Dialect],
    dialect: Dialect,
) -> str | None:
    """Return what is invalid in the names and the number of parameters that choose topics."""
    if topics and Dialect.V0 not in dialects:
        return f'This hub speaks Mercure 1.0 only: say "{MATCH}" instead of "{TOPIC}".'
    if matchers and Dialect.V1 not in dialects:
        return (
            f'This hub speaks Mercure 0.x only: say "{TOPIC}" instead of {matchers[0][0][:80]!r}.'
        )
    if topics and matchers:
        return f'"{TOPIC}" (Mercure 0.x) and "{MATCH}" (1.0) do not go together; choose one.'
    for name, _ in matchers:
        if name not in _MATCHERS:
            known = ", ".join(_MATCHERS)
            return f"There is no matcher {name[:80]!r}: these are {known}, in lower case."
    if not topics and not matchers:
        return MISSING_TOPIC if dialect is Dialect.V0 else MISSING_MATCHER
    if len(topics) + len(matchers) > MATCHERS_MAX:
        return f"Too many topics: at most {MATCHERS_MAX} in one subscription."
    return None


def _fields(query: str, body: bytes | None) -> list[tuple[str, str]]:
    """Return the parameters in order, those of the query first. Raises `MessageInvalid`."""
    fields = parse_form(query.encode("latin-1"), FIELDS_MAX)
    return fields if body is None else fields + parse_form(body, FIELDS_MAX)


def _common(fields: list[tuple[str, str]], dialect: Dialect) -> SubscriptionParameters:
    first = dict(reversed(fields))  # of several, the first
    cursors = [first[name] for name in CURSOR_PARAMETERS if name in first]
    last = first.get("last", "")
    count = min(int(last), LAST_MAX) if last.isascii() and last.isdigit() and len(last) < 10 else 0
    return SubscriptionParameters(
        dialect,
        cursor=next(filter(None, cursors), "") if cursors else None,
        wants_cursors=first.get("cursor") == "1",
        last=count,
        tokens=tuple(value for name, value in fields if name == TOKEN_PARAMETER),
    )
