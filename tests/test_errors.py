"""The tree of errors is what the module says it is."""

import inspect
import re

from noti import errors
from noti.errors import MessageInvalid, NotiError, leaves_of, sentence

BRANCH = re.compile(r"    ((?:│   |    )*)(?:├── |└── )(\w+)  *\S")


def drawn() -> dict[str, str]:
    """Return each class of the drawn tree with its parent, in the order of the drawing."""
    parents: dict[str, str] = {}
    path = ["NotiError"]
    tree = (errors.__doc__ or "").partition("    NotiError\n")[2]
    for line in tree.rstrip().splitlines():
        branch = BRANCH.fullmatch(line) or BRANCH.match(line)
        assert branch is not None, f"not a line of a tree: {line!r}"
        depth = len(branch[1]) // 4 + 1
        del path[depth:]
        parents[branch[2]] = path[-1]
        path.append(branch[2])
    return parents


def defined() -> dict[str, str]:
    found = [
        one
        for _, one in inspect.getmembers(errors, inspect.isclass)
        if issubclass(one, NotiError) and one is not NotiError
    ]
    return {one.__name__: one.__base__.__name__ for one in found if one.__base__ is not None}


def test_drawn_tree_equals_the_classes() -> None:
    assert drawn() == defined()


def test_every_error_documents_what_it_is_for() -> None:
    assert all(getattr(errors, name).__doc__ for name in defined())


def test_the_errors_of_a_group_are_found_at_any_depth() -> None:
    first, second = ValueError("a"), KeyboardInterrupt()
    group = BaseExceptionGroup("outer", [first, BaseExceptionGroup("inner", [second])])
    assert leaves_of(group) == [first, second]
    assert leaves_of(first) == [first]


def test_a_clause_becomes_a_sentence() -> None:
    assert sentence(MessageInvalid("a topic is empty")) == "A topic is empty."
