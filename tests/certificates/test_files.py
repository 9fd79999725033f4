"""Files are written whole, private when they must be, and never over others unasked."""

import os
from pathlib import Path

import pytest

from noti.certificates.files import can_be_read_by_others, is_private, read_file, write_file
from noti.errors import LocalError


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_key_is_for_its_owner_only_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "node1.key"
    before = os.umask(umask)
    try:
        write_file(path, b"secret", private=True)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_private(path)
    assert read_file(path) == b"secret"


def test_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "node1.pem"
    path.write_bytes(b"old")
    with pytest.raises(LocalError, match=r"node1\.pem exists and is kept"):
        write_file(path, b"new", private=False)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_renewed_file_replaces_the_old_one_at_once(tmp_path: Path) -> None:
    path = tmp_path / "node1.pem"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_file(path, b"new", private=False, replace=True)
        assert reader.read() == b"old", "who reads meanwhile sees the old file whole"
    assert path.read_bytes() == b"new"


def test_missing_directory_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"node1\.pem cannot be written: No such file"):
        write_file(tmp_path / "none" / "node1.pem", b"", private=False)


def test_file_that_every_user_can_read_is_told_from_one_of_a_group(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("")
    for mode, others in ((0o604, True), (0o660, False), (0o600, False)):
        path.chmod(mode)
        assert can_be_read_by_others(path) is others
    assert not can_be_read_by_others(tmp_path / "missing")


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path()):
        with pytest.raises(LocalError, match="no file that could be replaced"):
            write_file(path, b"x", private=True, replace=True)
    assert pipe.is_fifo()
