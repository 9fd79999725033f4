"""Settings that many parts share, and read when they need them, so that they can change."""

from dataclasses import fields
from typing import Any, ClassVar, Protocol, TypeVar


class SettingsObject(Protocol):
    """An object of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=SettingsObject)


def take_over(settings: T, newer: T) -> None:
    """Make every field of a settings object what it is in a newer one."""
    for field in fields(newer):
        setattr(settings, field.name, getattr(newer, field.name))
