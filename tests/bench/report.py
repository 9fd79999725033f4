"""How a benchmark takes its options and tells its figures: a table for people, JSON for programs.

`just bench NAME [option=value …] [json=FILE]`. A ratio is the figure divided by its baseline, both
measured in the same call; a baseline that could not run has no value, and so no ratio.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, and what it is compared with."""

    name: str
    value: float
    unit: str
    baseline: str | None = None
    """What else does the same; for one that is not installed, with the command that installs it."""
    baseline_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """The figure divided by its baseline."""
        return self.value / self.baseline_value if self.baseline_value else None


class Arguments(argparse.ArgumentParser):
    """Options of a benchmark, written `name=value`; `--name=value` works as well."""

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")

    def options(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Return the options in `argv` (default: the command line)."""
        given = sys.argv[1:] if argv is None else argv
        return self.parse_args([one if one.startswith("-") else f"--{one}" for one in given])


class Report:
    """The figures of one run."""

    def __init__(self, title: str, json_file: Path | None) -> None:
        self._title = title
        self._json_file = json_file
        self._figures: list[Figure] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        baseline: str | None = None,
        baseline_value: float | None = None,
    ) -> None:
        """Note one figure."""
        self._figures.append(Figure(name, value, unit, baseline, baseline_value))

    def finish(self) -> None:
        """Print the table, and write the JSON file if one was asked for."""
        interpreter = f"{platform.python_implementation()} {platform.python_version()}"
        table = Table(
            title=self._title,
            # How it was built counts, too; see the README.
            caption=f"noti ran on {interpreter}, {Path(sys.executable).resolve()}",
            title_justify="left",
            caption_justify="left",
            box=None,
            padding=(0, 2, 0, 0),
        )
        table.add_column("figure")
        for name in ("value", "unit", "baseline", "its value", "ratio"):
            table.add_column(name, justify="left" if name in ("unit", "baseline") else "right")
        for figure in self._figures:
            table.add_row(
                figure.name,
                _number(figure.value),
                figure.unit,
                figure.baseline or "",
                _number(figure.baseline_value),
                "" if figure.ratio is None else f"{figure.ratio:.2f}",
            )
        console = Console(highlight=False, markup=False)
        if not console.is_terminal:
            console.width = 160
        console.print(table)
        if self._json_file is not None:
            rows = [asdict(figure) | {"ratio": figure.ratio} for figure in self._figures]
            self._json_file.write_text(json.dumps(rows, indent=2) + "\n")


def tell(line: str) -> None:
    """Say what is going on while nothing can be reported yet."""
    print(line, file=sys.stderr, flush=True)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
