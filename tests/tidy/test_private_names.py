"""Private names of foreign libraries: few, known, and each with the pin to look at when it breaks.

A private name is `x._name`, an import of `_name`, a keyword argument `_name=`, or a `_name` of our
own subclass that the foreign base class has as well.
"""

import ast
import functools
import importlib
import inspect
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.tidy.test_source import ROOT, SOURCES, name_of

PRIVATE_MAX = 8
"""Without the glue to Hypercorn, whose private names are counted apart."""

DOCUMENTED = {"_asdict", "_exit", "_fields", "_make", "_replace"}
"""Public in spite of their names: of `os`, and of named tuples, where others would be fields."""


@dataclass(frozen=True)
class Private:
    """One private name; its reason stands where it is used."""

    path: str
    name: str
    distribution: str
    is_as_expected: Callable[[], bool]
    """Whether the library still has it, as we use it."""

    def __str__(self) -> str:
        return f"{self.distribution}:{self.name}"


def parameters(function: object) -> list[str]:
    assert callable(function)
    return list(inspect.signature(function).parameters)


def takes_a_stream() -> bool:
    import grpclib.client
    import grpclib.server

    server = "self._stream = stream" in inspect.getsource(grpclib.server.Stream.__init__)
    return server and "_stream" in grpclib.client.Stream.__annotations__


def runs_one_callback() -> bool:
    import trio_asyncio

    one = trio_asyncio.BaseTrioEventLoop._main_loop_one
    return inspect.iscoroutinefunction(one) and parameters(one) == ["self", "no_wait"]


def keeps_a_transport() -> bool:
    from nats.aio.client import Client

    makes_one = inspect.getsource(Client._connect_to_server)
    return Client()._transport is None and "if not self._transport:" in makes_one


def describes_fields() -> bool:
    from noti.rpc.generated.noti import v1 as wire

    described = wire.Event._betterproto  # type: ignore[arg-type]
    return {"meta_by_field_name", "cls_by_field"} <= set(dir(described))


ALLOWED = [
    Private("noti/rpc/connections.py", "_stream", "grpclib", takes_a_stream),
    Private("noti/asyncio_loop.py", "_main_loop_one", "trio-asyncio", runs_one_callback),
    Private("noti/protobuf.py", "_betterproto", "betterproto2", describes_fields),
    Private("noti/publishing/nats/client.py", "_transport", "nats-py", keeps_a_transport),
]

HTTP_GLUE = {
    "noti/http/hypercorn_glue.py",
    "noti/http/strict_parsers.py",
    "noti/http/tls.py",
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in {"_", *DOCUMENTED}


def defined_in(tree: ast.AST) -> set[str]:
    """Return the names that a module gives to anything of its own."""
    defined = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                defined.add(node.name)
            case ast.Attribute(ctx=ast.Store(), value=ast.Name(id="self" | "cls")):
                defined.add(node.attr)
            case ast.Name(ctx=ast.Store()):
                defined.add(node.id)
            case ast.Constant(value=str(text)):  # __slots__
                defined.add(text)
            case _:
                pass
    return defined


def taken_from_outside(tree: ast.AST) -> Iterator[str]:
    """Return private names of what is not defined in the module."""
    defined = defined_in(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name) if is_private(name) and name not in defined:
                yield name
            case ast.ImportFrom(module=str(module)) if not module.startswith("noti"):
                parts = [*module.split("."), *(alias.name for alias in node.names)]
                yield from filter(is_private, parts)
            case ast.Import():
                for alias in node.names:
                    yield from filter(is_private, alias.name.split("."))
            case ast.keyword(arg=str(name)) if is_private(name) and name not in defined:
                yield name


@functools.cache
def names_of(owner: type) -> frozenset[str]:
    """Return what a foreign class calls its own, in its body and on `self`."""
    names = set(vars(owner))
    try:
        tree = ast.parse(inspect.getsource(inspect.getmodule(owner) or owner))
    except (OSError, TypeError):  # written in C
        return frozenset(names)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "self":
                    names.add(inner.attr)
    return frozenset(names)


def taken_from_bases(path: Path, tree: ast.AST) -> Iterator[str]:
    """Return private names that a class here shares with a foreign base class."""
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or not node.bases:
            continue
        ours = getattr(importlib.import_module(module), node.name, None)
        if not isinstance(ours, type):
            continue
        used = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
        used |= defined_in(node)
        for base in ours.__mro__:
            if base.__module__.partition(".")[0] not in ("noti", "builtins", "typing", "enum"):
                yield from (name for name in used & names_of(base) if is_private(name))


def found() -> set[tuple[str, str]]:
    every = set()
    for path in SOURCES:
        if path.name == "__main__.py":
            continue
        tree = ast.parse(path.read_text())
        names = {*taken_from_outside(tree), *taken_from_bases(path, tree)}
        every |= {(name_of(path), name) for name in names}
    return every


def test_private_names_of_foreign_libraries_are_few_and_listed() -> None:
    assert len(ALLOWED) <= PRIVATE_MAX
    names = {(path, name) for path, name in found() if path not in HTTP_GLUE}
    assert names == {(one.path, one.name) for one in ALLOWED}


@pytest.mark.parametrize("private", ALLOWED, ids=str)
def test_library_still_has_the_private_name_that_we_use(private: Private) -> None:
    installed = version(private.distribution)
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [pin] = [
        one
        for one in config["project"]["dependencies"]
        if one.partition(">")[0].partition("[")[0] == private.distribution
    ]
    assert ",<" in pin, "a private name may go in any version: give the pin an upper bound"
    try:
        as_expected = private.is_as_expected()
    except (AttributeError, ImportError, TypeError):
        as_expected = False
    assert as_expected, (
        f"{private.distribution} {installed} (pinned as {pin!r}) has no {private.name} as "
        f"{private.path} uses it: adapt that, or lower the pin's upper bound"
    )


def test_private_names_are_found(tmp_path: Path) -> None:
    source = "from lib._hidden import thing\ndef f(x):\n    x._y = 1\n    g(_z=2)\n"
    assert sorted(taken_from_outside(ast.parse(source))) == ["_hidden", "_y", "_z"]
