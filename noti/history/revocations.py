"""The replicated table of tokens that are refused before they expire, by subject or by id.

Enters: committed revocations; a subject and an id, and the time. Leaves: whether they are revoked;
whose streams are to end.
Never: I/O, clocks; a token; more entries than a bound that is the same on every node.
"""

from dataclasses import dataclass
from typing import Final, TypeGuard

from noti.errors import MessageInvalid

REVOKE: Final = 30
"""The command's kind."""

REVOCATIONS_MAX: Final = 50_000
"""Entries that are kept, at some 200 bytes. When there are more, those that have ended go, and then
the one that ends first."""
NAME_CHARS_MAX: Final = 512
"""Of a subject or id, as in tokens."""
_INTEGER_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Revoke:
    """End the streams of a subject, or of a token, and refuse its tokens until a time."""

    subject: str
    """`sub`; empty when `token_id` is given."""
    token_id: str
    """`jti`; empty when `subject` is given."""
    until_ms: int
    """Wall time in milliseconds since 1970; at or below `created_ms`, streams only end."""
    created_ms: int
    """Wall time in milliseconds since 1970."""


class RevocationTable:
    """Part of the state machine."""

    def __init__(self) -> None:
        self._until_ms: dict[tuple[str, str], int] = {}
        """By subject and id, one of them empty."""
        self._news: list[Revoke] = []
        """Told to nobody yet; no state."""

    def __eq__(self, other: object) -> bool:
        """Whether another table is in the same state."""
        return isinstance(other, RevocationTable) and self._until_ms == other._until_ms

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._until_ms)

    def is_revoked(self, subject: str | None, token_id: str | None, now: float) -> bool:
        """Whether a token of this subject, with this id, is refused at Unix time `now`."""
        if not self._until_ms:
            return False
        now_ms = now * 1000
        return (subject is not None and self._until_ms.get((subject, ""), 0) > now_ms) or (
            token_id is not None and self._until_ms.get(("", token_id), 0) > now_ms
        )

    def apply(self, command: Revoke) -> None:
        """Take a revocation; one that ends later than the same one before replaces it."""
        self._news.append(command)
        key = command.subject, command.token_id
        if command.until_ms <= max(command.created_ms, self._until_ms.get(key, 0)):
            return
        self._until_ms.pop(key, None)
        if len(self._until_ms) >= REVOCATIONS_MAX:
            self._make_room(command.created_ms)
        self._until_ms[key] = command.until_ms

    def take_news(self) -> list[Revoke]:
        """Return the revocations whose streams are to end on this node, each once."""
        taken, self._news = self._news, []
        return taken

    def fields(self) -> tuple[tuple[str, str, int], ...]:
        """Return the state, for a snapshot."""
        return tuple((*key, until_ms) for key, until_ms in self._until_ms.items())

    def add_fields(self, fields: object) -> None:
        """Take one entry of a snapshot; raises `MessageInvalid`."""
        match fields:
            case [str(subject), str(token_id), until_ms] if (
                _are_names(subject, token_id)
                and _is_integer(until_ms)
                and (subject, token_id) not in self._until_ms
                and len(self._until_ms) < REVOCATIONS_MAX
            ):
                self._until_ms[subject, token_id] = until_ms
            case _:
                raise MessageInvalid("a revocation in a snapshot has the wrong fields")

    def restore(self, other: "RevocationTable") -> None:
        """Replace the state; all that it revokes is news, as it may be new to this node."""
        self._until_ms = dict(other._until_ms)
        self._news = [Revoke(*key, until_ms, 0) for key, until_ms in self._until_ms.items()]

    def _make_room(self, now_ms: int) -> None:
        kept = {key: until for key, until in self._until_ms.items() if until > now_ms}
        if len(kept) >= REVOCATIONS_MAX:
            del kept[min(kept, key=lambda key: (kept[key], key))]
        self._until_ms = kept


def fields_of_revoke(command: Revoke) -> list[object]:
    """Return what stands for a revocation in the log, its kind first."""
    return [
        REVOKE,
        command.subject,
        command.token_id,
        command.until_ms,
        command.created_ms,
    ]


def revoke_of(fields: list[object]) -> Revoke:
    """Return the revocation with these fields, its kind left out; raises `MessageInvalid`."""
    match fields:
        case [str(subject), str(token_id), until_ms, created_ms] if (
            _are_names(subject, token_id) and _is_integer(until_ms) and _is_integer(created_ms)
        ):
            return Revoke(subject, token_id, until_ms, created_ms)
        case _:
            raise MessageInvalid("a revocation does not have the fields it needs")


def _are_names(subject: str, token_id: str) -> bool:
    """Whether exactly one is given, and of a length that tokens may have."""
    return bool(subject) != bool(token_id) and max(len(subject), len(token_id)) <= NAME_CHARS_MAX


def _is_integer(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _INTEGER_MAX
