"""What a foreign client saw of numbered events, and what is wrong with it."""

import json
import re
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Witness:
    """One client: the numbers that it was shown, in order."""

    name: str
    numbers: list[int] = field(default_factory=list)
    opened: int = 0
    gaps: list[str] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)
    """`readyState` at each error: 0 is connecting again, 2 is closed for ever."""

    closes: list[int] = field(default_factory=list)
    """Codes with which WebSockets ended, 1006 for none."""

    def see(self, said: dict[str, Any]) -> None:
        """Take what a client says: it opened, an event, a gap or an error."""
        match said:
            case {"open": True}:
                self.opened += 1
            case {"data": str(data)}:
                self.numbers.append(number_of(data))
            case {"gap": str(gap)}:
                self.gaps.append(gap)
            case {"error": int(state)}:
                self.errors.append(state)
            case {"close": int(code)}:
                self.closes.append(code)
            case _:
                raise AssertionError(said)

    @property
    def last(self) -> int:
        return self.numbers[-1] if self.numbers else 0

    def problem(self) -> str | None:
        """Say what is wrong if the numbers do not follow each other, each once, without a gap."""
        first = self.numbers[0] if self.numbers else 1
        expected = list(range(first, first + len(self.numbers)))
        if self.numbers == expected and not self.gaps and 2 not in self.errors:
            return None
        wrong = [pair for pair in zip(expected, self.numbers, strict=True) if pair[0] != pair[1]]
        return (
            f"{self.name}: {len(self.numbers)} events on {self.opened} connections; "
            f"expected and seen differ first at {wrong[:1]}; gaps {self.gaps}; errors {self.errors}"
        )


def number_of(data: str) -> int:
    """Return the number in an event of `traffic.Publisher`, in either of its two forms."""
    if found := re.fullmatch(r"UserID: (\d+) Category: books MatchCategory: films", data):
        return int(found[1])
    return int(json.loads(data)["user_id"])
