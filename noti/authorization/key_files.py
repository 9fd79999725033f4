"""Keeps the keys of one file in step with the file."""

from collections.abc import Iterable
from pathlib import Path

import structlog

from noti.authorization.grant import Action
from noti.authorization.keys import KeySet, TrustedKeys, read_keys
from noti.certificates.files import read_file
from noti.certificates.renewal import Made, Renewed

log = structlog.get_logger("noti.authorization")


def key_file(
    path: Path, algorithm: str | None, actions: Iterable[Action], keys: TrustedKeys
) -> Renewed[KeySet]:
    """Put the keys of a file into `keys`, now and whenever it is looked at and has changed.

    Raises `ConfigInvalid` when it cannot be used now; later, what it held stays in use.
    """
    named = tuple(actions)
    use = " and ".join(f"{action.value}s" for action in named)

    def make() -> Made[KeySet]:
        found = read_keys(read_file(path, "key file"), str(path), algorithm)
        give_notice(found)
        keys.put(f"{path} for {use}", named, found.keys)
        return Made(found, {})

    return Renewed(use, [path], make, kind="keys for tokens", log=log)


def give_notice(found: KeySet) -> None:
    """Log what an operator should know about keys."""
    for notice in found.notices:
        log.warning(notice)
