"""The program of the last release, taken out of git's history, to run beside this one."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from noti import __version__

ROOT = Path(__file__).resolve().parents[2]

ENV = shutil.which("env") or "/usr/bin/env"

_RELEASE = re.compile(r"^## (\S+)\n\n[^\n]*, commit ([0-9a-f]+)\.$", re.MULTILINE)


def last_release(directory: Path) -> tuple[str, str]:
    """Return version and commit of the last release before this one, as CHANGELOG.md has them.

    Its program is in `directory` afterwards. A clone without that commit cannot have it.
    """
    released = _RELEASE.findall((ROOT / "CHANGELOG.md").read_text())
    version, commit = next(one for one in released if one[0] != __version__)
    archive = subprocess.run(
        ["git", "archive", commit, "noti"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        pytest.skip(f"{version} is not in this clone: git fetch --unshallow ({commit})")
    directory.mkdir()
    subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
    return version, commit


def program_in(directory: Path) -> Sequence[str]:
    """Return the command that runs the program that was put there, with this Python."""
    path = (ENV, "-C", str(directory), f"PYTHONPATH={directory}")
    return (*path, sys.executable, "-m", "noti")


def supported_in(directory: Path) -> int:
    """Return the level that the program there supports."""
    levels = directory / "noti/history/levels.py"
    if not levels.exists():
        return 0
    found = re.search(r"^SUPPORTED: Final = (\d+)$", levels.read_text(), re.MULTILINE)
    assert found is not None, levels
    return int(found[1])
