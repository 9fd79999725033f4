"""The rules of this code base that no linter knows."""

import ast
import re
import tomllib
import typing
from collections import defaultdict
from pathlib import Path

import pytest

from tests import readmes

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
TEST_MODULE_LINES_MAX = 700
"""Of tests alone, one below the other; what they are built on has the limit of the product."""

SHELLS = {
    "noti.authorization": {"jwks", "key_files", "metrics", "revoked_file", "revoking", "service"},
    "noti.kubernetes": {
        "api",
        "role_queries",
        "client",
        "informer",
        "metrics",
        "operator",
        "ops",
        "reconciling",
        "service_account",
        "world",
    },
    "noti.history": set[str](),
    "noti.raft.core": set[str](),
    "noti.raft.storage": {"disk", "disk_writer", "log_reader", "log_writer", "ports", "wal"},
    "noti.streams": {"client_messages", "hub", "metrics", "sockets", "subscription"},
    "noti.swim.core": set[str](),
}
"""Modules that touch the world, in rooms whose other modules must not."""

TESTS_WITHOUT_A_ROOM = {
    "bench",
    "browser",
    "contract",
    "examples",
    "fuzz",
    "interop",
    "k8s",
    "simulation",
    "soak",
    "tidy",
}


def is_ours(path: Path) -> bool:
    return "generated" not in path.parts


SOURCES = sorted(filter(is_ours, (ROOT / "noti").rglob("*.py")))
ROOMS = {path.parent.name for path in SOURCES if path.parent.parent == ROOT / "noti"}
TESTS = sorted((ROOT / "tests").rglob("*.py"))
READMES = [ROOT / "README.md"]
for folder in ("k8s", "noti", "proto", "tests", "tls"):
    READMES += sorted((ROOT / folder).rglob("README.md"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def contract(name: str) -> set[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [found] = [
        contract
        for contract in config["tool"]["importlinter"]["contracts"]
        if contract["name"] == name
    ]
    return set(found["source_modules"])


PURE = contract("Pure modules do not know the world")


def is_pure(path: Path) -> bool:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return any(module == pure or module.startswith(f"{pure}.") for pure in PURE)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_states_its_job(path: Path) -> None:
    """Rooms also say what enters, what leaves and what never happens, and so may pure modules."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert docstring
    said = [word for word in ("Enters:", "Leaves:", "Never:") if word in docstring]
    if path.name == "__init__.py":
        assert len(said) == 3 or path.parent.name not in ROOMS
    else:
        assert not said or is_pure(path)


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_modules_and_functions_stay_readable_at_once(path: Path) -> None:
    text = path.read_text()
    tests = path in TESTS and path.name.startswith("test_")
    lines_max = TEST_MODULE_LINES_MAX if tests else MODULE_LINES_MAX
    assert len(text.splitlines()) <= lines_max
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < FUNCTION_LINES_MAX, node.name


@pytest.mark.parametrize("room", SHELLS)
def test_each_module_of_a_mixed_room_is_declared_pure_or_a_shell(room: str) -> None:
    """Whatever is not named here as a shell is under the contract in pyproject.toml."""
    modules = {path.stem for path in ROOT.joinpath(*room.split(".")).glob("*.py")} - {"__init__"}
    if room in PURE:
        assert not SHELLS[room]
    else:
        pure = {name.removeprefix(f"{room}.") for name in PURE if name.startswith(f"{room}.")}
        assert modules - SHELLS[room] == pure


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_pure_modules_are_handed_their_randomness(path: Path) -> None:
    """They may name the type `random.Random`; anything else of the module is a hidden input."""
    if not is_pure(path):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            assert [alias.name for alias in node.names] == ["Random"]
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in ("random.Random", "Random")
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random":
            assert node.attr == "Random"


def test_no_two_classes_share_a_name_nor_does_one_shadow_typing() -> None:
    """A name means one thing in all of noti, in a traceback as in a search."""
    places = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{name_of(path)}:{node.lineno}")
    assert [where for where in places.values() if len(where) > 1] == []
    assert [name for name in places if hasattr(typing, name)] == []


def test_tests_lie_where_their_room_lies() -> None:
    for directory in (ROOT / "tests").iterdir():
        if directory.is_dir() and not directory.name.startswith("__"):
            assert (directory / "__init__.py").exists(), directory
            if directory.name not in TESTS_WITHOUT_A_ROOM:
                assert (ROOT / "noti" / directory.name).is_dir(), directory


def test_every_room_has_tests() -> None:
    for room in (ROOT / "noti").iterdir():
        if (room / "__init__.py").exists():
            assert list((ROOT / "tests" / room.name).glob("test_*.py")), room


@pytest.mark.parametrize("name", readmes.LISTS)
def test_lists_in_readmes_are_those_of_the_code(name: str) -> None:
    file, lines = readmes.LISTS[name]
    text = file.read_text()
    assert readmes.with_list(text, name, lines()) == text, f"run `just readmes`: {file}"


@pytest.mark.parametrize("readme", READMES, ids=name_of)
def test_readme_names_files_that_exist(readme: Path) -> None:
    text = readme.read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text)
    paths = re.findall(r"`((?:noti|tests|proto|k8s|tls)/[\w./-]+)`", text)
    assert [link for link in links if not (readme.parent / link).exists()] == []
    places = (ROOT, readme.parent)
    assert [path for path in paths if not any((at / path).exists() for at in places)] == []


def test_readme_is_read_in_five_minutes() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 180
    assert max(map(len, lines)) <= 100


def test_no_test_is_skipped() -> None:
    banned = ("pytest." + "skip", "mark." + "skip", "mark." + "xfail")
    needs_history = ROOT / "tests/interop/last_release.py"  # which a clone may lack
    for path in {*TESTS} - {needs_history}:
        for word in banned:
            assert word not in path.read_text(), path


def test_no_leftover_notes() -> None:
    files = [*SOURCES, *TESTS, *ROOT.glob("*.*"), ROOT / "justfile", *ROOT.glob("proto/**/*.*")]
    files += ROOT.glob("tls/*")
    # Put together here, so that this file does not hold them.
    banned = ["T" + "ODO", "FIX" + "ME", "XX" + "X"]
    for path in filter(Path.is_file, files):
        if path.name == ".git":  # where git put the files of a linked worktree
            continue
        text = path.read_text()
        for word in banned:
            assert word not in text, (path, word)
