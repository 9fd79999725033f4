"""Tokens that a file revokes."""

from pathlib import Path

import pytest

from noti.authorization.revoked_file import RevokedNames, names_of, revoked_file
from noti.errors import ConfigInvalid


def test_lines_name_subjects_and_tokens() -> None:
    content = b"# gone\n\nsub 7\n jti  a b \nsub \xc3\xb6\n"
    found = names_of(content, "f")
    assert found == RevokedNames(frozenset({"7", "\u00f6"}), frozenset({"a b"}))
    assert found.covers("7", None)
    assert found.covers("8", "a b")
    assert not found.covers("a b", "7")
    assert not RevokedNames().covers(None, None)


@pytest.mark.parametrize("line", ["77", "sub ", "user 77", "jti " + "x" * 600])
def test_another_line_is_invalid_and_not_shown(line: str) -> None:
    with pytest.raises(ConfigInvalid, match="f: line 2 is neither") as caught:
        names_of(f"sub 1\n{line}\n".encode(), "f")
    assert not {"77", "xxx"} & set(str(caught.value).split())


def test_a_changed_file_is_told_at_the_second_look_and_a_wrong_one_never(tmp_path: Path) -> None:
    file, told = tmp_path / "revoked", list[RevokedNames]()
    file.write_text("")
    renewed = revoked_file(file, told.append)
    for content in ("sub 7\n", "nonsense\n"):
        file.write_text(content)
        renewed.look()
        renewed.look()
    assert told == [RevokedNames(), RevokedNames(frozenset({"7"}))]
