"""The real Prometheus and its `promtool`, from Debian's package, without installing it.

Enters: nothing. Leaves: paths of the programs. Never: a service; the package would start one.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "prometheus"


def program(name: str) -> Path | None:
    """Return `prometheus` or `promtool`, fetching both when they are nowhere; None if that fails.

    Debian's is of 2023 (2.42): what it understands, so do later ones.
    """
    if installed := shutil.which(name):
        return Path(installed)
    if not CACHE.exists() and shutil.which("apt-get"):
        _fetch()
    found = CACHE / "usr/bin" / name
    return found if found.exists() else None


def _fetch() -> None:
    CACHE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as name:
        directory = Path(name)
        subprocess.run(["apt-get", "download", "prometheus"], cwd=directory, capture_output=True)
        for package in directory.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package.name, "unpacked"], cwd=directory, check=True)
            if not CACHE.exists():  # another test run may have been faster
                (directory / "unpacked").rename(CACHE)
