"""Says which topics a reader or a token means: exact, by URI template, by URL pattern, all.

Enters: selectors as requests and tokens write them; topics. Leaves: `Selector`s; whether one
matches a topic.
Never: I/O, normalisation of exact topics, time that grows faster than the topic's length.

Whoever may connect may write selectors, so nothing of them is trusted: they are bounded in length
and in what they cost to compile and to match, they are matched by automata (RE2, and Rust's regular
expressions in `urlpattern`), and only so many are kept compiled.

How a URI template matches is not in RFC 6570, which only expands. The rule is that of the 0.x hub:
a regular expression, anchored at both ends, in which each expression may be absent.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, TypeAlias, assert_never

import re2
from urlpattern import URLPattern

from noti.errors import MessageInvalid
from noti.history.topics import EVERYTHING, control_in

SELECTOR_BYTES_MAX: Final = 4096
"""Longest selector, as in the reference hub: a topic of the greatest length, and its variables."""

COMPILED_MAX: Final = 2048
"""Selectors that are kept compiled, of each kind; a template takes some 5 KB, 64 at most."""

TEMPLATE_MEMORY_BYTES: Final = 64 * 1024
"""What RE2 may use for one template, program and automaton together."""

TEMPLATE_SIZE_MAX: Final = 1000
"""Instructions of a compiled template: some 100 variables. A step of each for every character of
the longest topic takes 10 ms at worst."""

PATTERN_PARTS_MAX: Final = 100
"""Wildcards, groups and names of a URL pattern: 500 in one take 0.1 s for a topic (measured)."""

PATTERN_COST_MAX: Final = 512
"""What the regular expressions in a URL pattern may cost, in characters after repetition: more than
a UUID's, and compiled in 15 ms at worst."""

CLASS_COST: Final = 20
"""What a class of characters such as `\\w`, which is of all Unicode, costs of that."""


class SelectorKind(Enum):
    """How a selector is compared with topics."""

    EXACT = "exact"
    """Character for character."""
    TEMPLATE = "template"
    """A URI Template (RFC 6570) of Mercure 0.x; matches itself too, character for character."""
    URL_PATTERN = "urlpattern"
    """A WHATWG URL Pattern of Mercure 1.0."""
    ALL = "all"
    """`*`: every topic."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Which topics are meant.

    Made of foreign text only by `topic_selector`, `exact_matcher` and `pattern_matcher`, which see
    to it that it can be compiled.
    """

    kind: SelectorKind
    text: str
    base: str = ""
    """URL against which a relative pattern, and relative topics, are resolved; only of patterns."""

    def matches(self, topic: str) -> bool:
        """Return whether `topic` is meant."""
        match self.kind:
            case SelectorKind.EXACT:
                return topic == self.text
            case SelectorKind.ALL:
                return True
            case SelectorKind.TEMPLATE:
                return topic == self.text or _fits(_template(self.text), topic)
            case SelectorKind.URL_PATTERN:
                return _fits_pattern(_pattern(self.text, self.base), topic, self.base)
            case _:
                assert_never(self.kind)

    @property
    def prefix(self) -> str:
        """What every topic that it matches begins with, as far as that is known."""
        match self.kind:
            case SelectorKind.EXACT:
                return self.text
            case SelectorKind.TEMPLATE:
                return self.text[: self.text.index("{")]
            case SelectorKind.ALL | SelectorKind.URL_PATTERN:
                return ""
            case _:
                assert_never(self.kind)

    @property
    def path_prefix(self) -> str:
        """What the path of each topic that a URL pattern matches begins with (see `path_of`)."""
        pattern = _pattern(self.text, self.base)
        path = "" if pattern is None else pattern.pathname
        literal = path[: _SPECIAL.search(path + "*").start()]  # type: ignore[union-attr]
        # The slash before a group belongs to it, and may be absent with it.
        return literal if literal == path else literal.removesuffix("/")


ALL_TOPICS = Selector(SelectorKind.ALL, EVERYTHING)


def topic_selector(text: str) -> Selector:
    """Return what Mercure 0.x means by `text`: `*`, a URI template, or else a topic.

    Raises `MessageInvalid` when it is too long, no text for a topic, or too large a template.
    """
    _check_text(text)
    if text == EVERYTHING:
        return ALL_TOPICS
    if "{" in text and (expression := _expression_of(text)) is not None:
        if _compiled(expression) is None:
            raise MessageInvalid(
                f"the URI template {text[:80]!r} is too large: use fewer variables"
            )
        return Selector(SelectorKind.TEMPLATE, text)
    return Selector(SelectorKind.EXACT, text)


def exact_matcher(text: str) -> Selector:
    """Return what Mercure 1.0 means by `match` and `match_exact`: `*`, or a topic.

    Raises `MessageInvalid`.
    """
    _check_text(text)
    return ALL_TOPICS if text == EVERYTHING else Selector(SelectorKind.EXACT, text)


def pattern_matcher(text: str, base: str) -> Selector:
    """Return what Mercure 1.0 means by `match_urlpattern`: `*`, or a URL pattern.

    `base` is the hub's URL, against which relative patterns and topics are resolved.
    Raises `MessageInvalid`.
    """
    _check_text(text)
    if text == EVERYTHING:
        return ALL_TOPICS
    if _pattern(text, base) is None:
        raise MessageInvalid(
            f"{text[:80]!r} is no URL pattern, or one that costs too much to match"
        )
    return Selector(SelectorKind.URL_PATTERN, text, base)


def _check_text(text: str) -> None:
    if not text:
        raise MessageInvalid("a topic selector is empty: name a topic, or * for all")
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise MessageInvalid(
            f"a topic selector is no Unicode text: it has half a surrogate pair at {error.start}"
        ) from None
    if size_bytes > SELECTOR_BYTES_MAX:
        raise MessageInvalid(
            f"a topic selector of {size_bytes} bytes; {SELECTOR_BYTES_MAX} are allowed"
        )
    if (control := control_in(text)) is not None:
        raise MessageInvalid(
            f"topic selector {text[:80]!r} has a control character, {control!r}: no topic has one"
        )


# --- URI templates --------------------------------------------------------------------------------

_HEX: Final = "%[0-9A-Fa-f]{2}"
_UNRESERVED: Final = r"\-.0-9A-Z_a-z~"
_RESERVED: Final = r"!#$&'()*+,/:;=?@\[\]"

_NAME: Final = rf"(?:[0-9A-Z_a-z]|{_HEX})(?:\.?(?:[0-9A-Z_a-z]|{_HEX}))*"
_EXPRESSION: Final = re.compile(
    rf"\{{([+#./;?&]?)({_NAME}(?:\*|:[1-9][0-9]{{0,3}})?(?:,{_NAME}(?:\*|:[1-9][0-9]{{0,3}})?)*)\}}"
)
"""RFC 6570, 2.2 to 2.4: operator, variables."""

_LITERALS: Final = re.compile(
    rf"(?:[!#$&(-;=?-\[\]_a-z~\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\uffef\U00010000-\U0010fffd]|{_HEX})+"
)
"""RFC 6570, 2.1; of the planes beyond the first, the two last characters of each are let in too."""

_SEPARATORS: Final = {"": ",", "+": ",", "#": ",", ".": ".", "/": "/", ";": ";", "?": "&", "&": "&"}


def _expression_of(template: str) -> bytes | None:
    """Return a regular expression for the topics of a URI template; None when it is none."""
    pieces: list[str] = []
    position = 0
    while position < len(template):
        if (found := _LITERALS.match(template, position)) is not None:
            pieces.append(re2.escape(found[0]))
        elif (found := _EXPRESSION.match(template, position)) is not None:
            pieces.append(_variables(found[1], found[2].split(",")))
        else:
            return None
        position = found.end()
    return "".join(pieces).encode()


def _variables(operator: str, variables: list[str]) -> str:
    """Return the regular expression of one `{...}`."""
    named = operator in (";", "?", "&")
    exploded = [variable.endswith("*") for variable in variables]

    def values(with_names: bool) -> str:
        if operator in ("+", "#"):
            allowed = _UNRESERVED + _RESERVED
        else:
            allowed = f",={_UNRESERVED}" if with_names else f",{_UNRESERVED}"
        return rf"(?:[{allowed}]|{_HEX})*"

    first, more = values(named or exploded[0]), values(named or any(exploded))
    separator = re2.escape(_SEPARATORS[operator])
    times = "*" if any(exploded) else f"{{0,{len(variables) - 1}}}"
    rest = f"(?:{separator}{more})" + times if len(variables) > 1 or exploded[0] else ""
    begin = "" if operator == "+" else re2.escape(operator)
    return f"(?:{begin}{first}{rest})?"


_Automaton: TypeAlias = Callable[[bytes], object]
"""Returns None for a text that does not match."""


def _compiled(expression: bytes) -> _Automaton | None:
    """Return an expression as an automaton; None when it is too large."""
    options = re2.Options()
    options.max_mem = TEMPLATE_MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        compiled = re2.compile(expression, options)
    except re2.error:
        return None
    return compiled.fullmatch if compiled.programsize <= TEMPLATE_SIZE_MAX else None


@lru_cache(maxsize=COMPILED_MAX)
def _template(text: str) -> _Automaton | None:
    expression = _expression_of(text)
    return None if expression is None else _compiled(expression)


def _fits(template: _Automaton | None, topic: str) -> bool:
    # Bytes: RE2 would translate positions of text in vain. Half a surrogate pair becomes `?`, which
    # only a template of reserved characters takes; no topic has one.
    return template is not None and template(topic.encode("utf-8", "replace")) is not None


# --- URL patterns ---------------------------------------------------------------------------------


@lru_cache(maxsize=COMPILED_MAX)
def _pattern(text: str, base: str) -> URLPattern | None:
    """Return a compiled pattern; None when it is none, or costs too much."""
    if sum(map(text.count, ":*({")) > PATTERN_PARTS_MAX or _cost(text) > PATTERN_COST_MAX:
        return None
    try:
        return URLPattern(text, base)
    except ValueError:
        return None


_SPECIAL: Final = re.compile(r"[:*({})+?\\]")
"""What in a component of a URL pattern may be no literal text (WHATWG URL Pattern, 1.3)."""
_ANY_URL: Final = URLPattern({})


def path_of(topic: str, base: str) -> str | None:
    """Return the path with which URL patterns compare theirs; None when a topic is no URL."""
    try:
        parts = _ANY_URL.exec(topic, base)
    except (TypeError, ValueError):  # half a surrogate pair
        return None
    return None if parts is None else parts["pathname"]["input"]


def _fits_pattern(pattern: URLPattern | None, topic: str, base: str) -> bool:
    if pattern is None:
        return False
    try:
        return pattern.test(topic, base)
    except (TypeError, ValueError):  # half a surrogate pair
        return False


_TOKEN: Final = re.compile(r"\\.|\{(\d*),?(\d*)\}|\[(?:\\.|[^\]\\])*\]|[()]|[^\\]", re.DOTALL)
_CLASS: Final = re.compile(r"\\[dswpDSWP]|\[\^|\[:")


def _cost(pattern: str) -> int:
    """Return how much the regular expressions of a pattern grow when they are compiled.

    Repetitions multiply what stands before them. Text outside of groups does not grow.
    """
    costs = [0]
    last = 0
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text == "(":
            costs.append(0)
            last = 0
        elif text == ")" and len(costs) > 1:
            last = costs.pop()
            costs[-1] += last
        elif text[0] == "{" and len(text) > 1:
            times = max((int(number[:9]) for number in token.groups() if number), default=1)
            grown = last * max(times - 1, 0)
            costs[-1] += grown
            last += grown
        elif len(costs) > 1:
            classes = len(_CLASS.findall(text))
            last = len(text) + CLASS_COST * classes + (CLASS_COST // 4 if text == "." else 0)
            costs[-1] += last
    return sum(costs)
