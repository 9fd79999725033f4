"""Generate noti/rpc/generated from the .proto files in this directory.

Enters: proto/**/*.proto. Leaves: Python modules, to be committed. Never: network access.

    python proto/generate.py            write the modules
    python proto/generate.py --check    write nothing; exit 1 when the committed modules differ

Only messages and asyncio client stubs are generated: the servers in noti/rpc/grpc.py read requests
through their own size limit, which generated server classes have no place for.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
GENERATED = SOURCES.parent / "noti" / "rpc" / "generated"


def generate(target: Path) -> None:
    """Run protoc with the betterproto2 plugin of this Python's environment into `target`."""
    # Not resolved: a venv's python is a link out of the venv, and the plugin lies beside the link.
    scripts = Path(sys.executable).parent
    protos = sorted(str(path.relative_to(SOURCES)) for path in SOURCES.rglob("*.proto"))
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={SOURCES}",
        f"--plugin=protoc-gen-python_betterproto2={scripts / 'protoc-gen-python_betterproto2'}",
        "--python_betterproto2_opt=client_generation=async",
        "--python_betterproto2_opt=server_generation=none",
        f"--python_betterproto2_out={target}",
        *protos,
    ]
    # The plugin formats its output with ruff, which it looks for on the path.
    path = os.pathsep.join([str(scripts), os.environ.get("PATH", "")])
    subprocess.run(command, check=True, env={**os.environ, "PATH": path})  # noqa: S603 (own command)


def modules(directory: Path) -> dict[Path, bytes]:
    """Return every Python module under `directory` by its relative path."""
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*.py")}


def main() -> int:
    """Parse arguments, generate, compare or replace; return the exit status."""
    parser = argparse.ArgumentParser(description="Generate noti/rpc/generated from proto/.")
    parser.add_argument("--check", action="store_true", help="fail when committed code differs")
    check: bool = parser.parse_args().check
    with tempfile.TemporaryDirectory() as temporary:
        fresh_directory = Path(temporary)
        generate(fresh_directory)
        fresh = modules(fresh_directory)
    committed = modules(GENERATED) if GENERATED.exists() else {}
    names = fresh.keys() | committed.keys()
    drifted = sorted(str(path) for path in names if fresh.get(path) != committed.get(path))
    if check:
        for name in drifted:
            sys.stderr.write(f"noti/rpc/generated/{name} is stale: run python proto/generate.py\n")
        return 1 if drifted else 0
    for path in committed.keys() - fresh.keys():
        (GENERATED / path).unlink()
    for path, content in fresh.items():
        (GENERATED / path).parent.mkdir(parents=True, exist_ok=True)
        (GENERATED / path).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
