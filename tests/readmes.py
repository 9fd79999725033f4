"""What README files take from the code: promises with their tests, settings, metrics.

Each list stands between two comments that name it. `just readmes` writes them all anew, and a tidy
test compares.
"""

import ast
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from noti.config import Config, flag_of, has_flag, is_secret, variable_of
from noti.setting_changes import RELOADED
from tests import promises

ROOT = Path(__file__).parents[1]
WIDTH = 100
METRICS = {"Counter": "_total", "Gauge": "", "Histogram": ""}
"""What a metric's name ends with when Prometheus reads it."""


def promise_list() -> list[str]:
    """Return the promises by heading; raises `AssertionError` for one that no test holds."""
    marked = list(_marked_tests())
    marks = {name: mark for name, mark in vars(promises).items() if name.isupper()}
    lines, last_heading = [], ""
    for name, mark in marks.items():
        if not isinstance(mark, pytest.MarkDecorator):
            continue  # a heading
        heading, sentence = mark.args
        files: dict[str, list[str]] = {}
        for promise, file, test in marked:
            if promise == name:
                files.setdefault(file, []).append(test)
        assert files, f"no test holds {name}"
        lines += ["", f"### {heading}"] if heading != last_heading else []
        last_heading = heading
        lines += ["", *textwrap.wrap(f"**{sentence}** (`{name}`)", WIDTH), ""]
        for file, tests in files.items():
            lines += [f"- [{file}]({file}):", *(f"  `{test}`" for test in tests)]
    return lines


def _marked_tests() -> Iterator[tuple[str, str, str]]:
    """Yield name of the promise, file, test."""
    tests = ROOT / "tests"
    for path in sorted(tests.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in map(ast.unparse, node.decorator_list):
                    if mark.startswith("promises."):
                        file = path.relative_to(tests).as_posix()
                        yield mark.removeprefix("promises."), file, node.name


def setting_list() -> list[str]:
    """Return every setting with its default and its help."""
    defaults = Config(name="hostname").masked()
    lines = []
    for name, field in Config.model_fields.items():
        default = "" if defaults[name] in (None, []) else f" ({defaults[name]})"
        written = variable_of(name) if is_secret(name) else flag_of(name)
        if not (is_secret(name) or has_flag(name)):
            written = f"[[{name}]]"
        mark = " ↻" if name in RELOADED else ""
        lines += _item(f"`{written}`{default}{mark}: {field.description}")
    return lines


def metric_list() -> list[str]:
    """Return every metric with its labels and its help, sorted by name."""
    found = {}
    for path in sorted((ROOT / "noti").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or len(node.args) < 2:
                continue
            ending = METRICS.get(ast.unparse(node.func).removeprefix("prometheus_client."))
            if ending is not None:
                name, text, *labels = map(ast.literal_eval, node.args)
                by = f" by {', '.join(f'`{label}`' for label in labels[0])}" if labels else ""
                name = name.removesuffix(ending) + ending
                found[name] = f"`{name}`{by}: {text.removesuffix('.')}."
    return [line for name in sorted(found) for line in _item(found[name])]


def _item(text: str) -> list[str]:
    return textwrap.wrap(
        re.sub(r"\s+", " ", text),
        WIDTH,
        initial_indent="- ",
        subsequent_indent="  ",
        break_on_hyphens=False,
    )


LISTS: dict[str, tuple[Path, Callable[[], list[str]]]] = {
    "promises": (ROOT / "tests" / "README.md", promise_list),
    "settings": (ROOT / "noti" / "README.md", setting_list),
    "metrics": (ROOT / "noti" / "README.md", metric_list),
}


def with_list(readme: str, name: str, lines: list[str]) -> str:
    """Return the text of a README with the list called `name` replaced."""
    begin, end = f"<!-- {name}: written by `just readmes` -->", f"<!-- {name} end -->"
    before, rest = readme.split(begin)
    return "\n".join([before + begin, *lines, end]) + rest.split(end)[1]


if __name__ == "__main__":
    for name, (file, lines) in LISTS.items():
        file.write_text(with_list(file.read_text(), name, lines()))
