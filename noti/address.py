"""Network addresses."""

from typing import TypeAlias

Address: TypeAlias = tuple[str, int]
"""Host (name or IP) and port."""
