"""The image: its Dockerfile is linted, its lock fits pyproject.toml, its build stage really runs.

The commands of the build stage run here without a container, in directories of their own in place
of `/src` and `/opt`. What only a container engine could tell (the base, the user) is read.
"""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from noti import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "k8s" / "Dockerfile"
LOCK = ROOT / "k8s" / "requirements.lock"
BUILD_LOCK = ROOT / "k8s" / "build.lock"


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions: word and rest."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def locked(path: Path) -> dict[str, str]:
    """Return name and version of everything in a lock."""
    return dict(re.findall(r"(?m)^([\w.-]+)==(\S+) \\$", path.read_text()))


def test_hadolint_finds_no_fault() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_base_is_pinned_and_the_user_is_a_number() -> None:
    found = instructions()
    bases = [rest for word, rest in found if word == "FROM"]
    assert all(base.split()[0] == "${BASE}" for base in bases)
    [base] = [rest for word, rest in found if word == "ARG" and rest.startswith("BASE=")]
    assert re.fullmatch(
        r"BASE=docker\.io/library/python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", base
    )
    assert [rest for word, rest in found if word == "USER"] == ["10001:10001"]
    assert ("ENTRYPOINT", '["noti"]') in found
    assert ("ARG", f"VERSION={__version__}") in found


def test_the_lock_fits_what_noti_asks_for() -> None:
    """After a change of dependencies: just lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    versions = locked(LOCK)
    assert len(versions) > 30
    otel = project["project"]["optional-dependencies"]["otel"]
    for text in project["project"]["dependencies"] + otel:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), text
    for text in project["build-system"]["requires"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked(BUILD_LOCK)[requirement.name]), text


def test_everything_in_the_locks_has_hashes() -> None:
    for lock in (LOCK, BUILD_LOCK):
        for entry in re.split(r"(?m)^(?=\w)", lock.read_text())[1:]:
            assert "--hash=sha256:" in entry or entry.startswith("#"), entry


def test_nothing_but_the_product_is_sent_to_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        part
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for part in rest.split()[:-1]
    }
    assert allowed == copied


@pytest.mark.slow
def test_the_build_stage_makes_a_noti_that_runs_and_writes_nothing_to_its_image(
    tmp_path: Path,
) -> None:
    source, installed = tmp_path / "src", tmp_path / "opt"
    source.mkdir()
    installed.mkdir()
    environment = {
        **os.environ,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    stage = 0
    for word, rest in instructions():
        stage += word == "FROM"
        if stage != 1:
            continue
        if word == "COPY":
            *files, to = rest.split()
            for file in files:
                subprocess.run(["cp", "-r", str(ROOT / file), str(source / to)], check=True)
        elif word == "RUN":
            command = rest.replace("/opt/", f"{installed}/").replace(
                "python -m venv", f"{sys.executable} -m venv"
            )
            done = subprocess.run(
                ["bash", "-euc", command],
                cwd=source,
                env=environment,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
    image = installed / "noti"
    before = contents(image)
    for arguments in (
        ["--version"],
        ["run", "--help"],
        ["leave", "--help"],
        ["operator", "--help"],
    ):
        done = subprocess.run(
            [image / "bin" / "noti", *arguments],
            cwd=tmp_path,  # not where the sources are
            env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert f"noti, version {__version__}" in done.stdout or "Usage: noti" in done.stdout
    leads_alone(image / "bin" / "noti", tmp_path)
    assert contents(image) == before
    assert not list(image.glob("bin/pip*"))


def leads_alone(noti: Path, directory: Path) -> None:
    """Run a node with nothing but [project.dependencies] until it leads, and stop it."""
    addresses = [f"--{kind}-addr=127.0.0.1:0" for kind in ("http", "gossip", "rpc", "ops")]
    with subprocess.Popen(
        [noti, "run", "--data-dir=data", *addresses],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as node:
        try:
            assert node.stderr is not None
            assert any('"role": "leader"' in line for line in node.stderr), "it ended before"
            node.terminate()
            node.stderr.read()
            assert node.wait() == 0
        finally:
            node.kill()


def contents(directory: Path) -> dict[str, float]:
    """Return every file with the time of its last change."""
    return {str(path): path.lstat().st_mtime for path in directory.rglob("*")}
