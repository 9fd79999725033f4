"""Keeps the tokens that a file revokes in step with the file: one line each, `sub Y` or `jti X`.

For one file that is mounted on every node, where the table of the cluster (`noti disconnect`) is
not wanted. Streams that are open end when their line appears.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from noti.certificates.files import read_file
from noti.certificates.renewal import Made, Renewed
from noti.errors import ConfigInvalid
from noti.history.revocations import NAME_CHARS_MAX

log = structlog.get_logger("noti.authorization")


@dataclass(frozen=True, slots=True)
class RevokedNames:
    """What a file revokes."""

    subjects: frozenset[str] = frozenset()
    token_ids: frozenset[str] = frozenset()

    def covers(self, subject: str | None, token_id: str | None) -> bool:
        """Whether a token of this subject, with this id, is revoked."""
        return subject in self.subjects or token_id in self.token_ids


def revoked_file(path: Path, revoked: Callable[[RevokedNames], object]) -> Renewed[RevokedNames]:
    """Read the file now and whenever it changed; `revoked` gets what it revokes.

    Raises `ConfigInvalid` when it cannot be used now; later, what it held stays in use.
    """

    def make() -> Made[RevokedNames]:
        found = names_of(read_file(path, "list of tokens", may_be_empty=True), str(path))
        revoked(found)
        return Made(found, {})

    return Renewed("revoked tokens", [path], make, kind="list of tokens", log=log)


def names_of(content: bytes, name: str) -> RevokedNames:
    """Return what the lines revoke; those that are empty or begin with # mean nothing.

    Raises `ConfigInvalid`, with the number of the line and nothing of it.
    """
    found: dict[str, set[str]] = {"sub": set(), "jti": set()}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        kind, _, value = text.partition(" ")
        value = value.strip()
        if kind not in found or not 1 <= len(value) <= NAME_CHARS_MAX:
            raise ConfigInvalid(f"{name}: line {number} is neither `sub NAME` nor `jti ID`")
        found[kind].add(value)
    return RevokedNames(frozenset(found["sub"]), frozenset(found["jti"]))
