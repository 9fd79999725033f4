"""`noti backup`, `noti restore` and `noti recover`: the state in a file, and as a new cluster."""

import secrets
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click

from noti import __version__
from noti.address import HUB_PATH
from noti.certificates.files import whole_file
from noti.cli.deadline import timeout_option
from noti.cli.http import tls_ca_option, token_file_option, token_in
from noti.cli.new_cluster import read_store, write_new_cluster
from noti.cli.nodes import first_answer, urls_option
from noti.cli.wal_files import IDENTITY_NAME, decode_identity
from noti.errors import LocalError, MessageInvalid, StorageFailed, Unavailable
from noti.history.backup import BackupReader, encode_backup
from noti.history.snapshot import StoreParts
from noti.setting_values import node_name

PATH = f"{HUB_PATH}/backup"
READ_BYTES = 1024 * 1024
_STANDARD = Path("-")
"""Stands for standard input or output."""

_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")


@click.command()
@_file
@urls_option("http://127.0.0.1:8402")
@token_file_option
@tls_ca_option
@click.option(
    "--stale", is_flag=True, help="Take what the node has, also where no majority answers."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of a stopped node, instead of --url.",
)
@timeout_option
def backup(
    file: Path,
    urls: Sequence[str],
    token_file: Path | None,
    tls_ca: Path | None,
    stale: bool,
    data_dir: Path | None,
    timeout_s: float,
) -> None:
    """Write all that the cluster keeps into FILE, - for standard output.

    \b
    noti token --publish '*' --subscribe '*' --key-file jwt.key >token
    noti backup --token-file token noti.backup

    Events, what is recognised as sent twice, and revoked tokens: everything that was committed
    before. It holds private events, so only who may publish and read everything gets it. The file
    replaces an older one when it is whole.
    """
    if data_dir is not None:
        store, _ = read_store(data_dir)
        about = {"node": str(data_dir), "build": __version__, "at_ms": time.time_ns() // 1_000_000}
        parts: Iterable[bytes] = encode_backup(about, store.snapshot_pieces())
        with _saving(file) as save:
            for part in parts:
                save(part)
        return
    if token_file is None:
        raise click.UsageError("--token-file is missing; noti token makes a token")
    # Here, as the others need no HTTP.
    import trio

    from noti.cli.administration import answer_of

    token = token_in(token_file)
    query = {"consistent": "0"} if stale else {}

    async def ask(url: str) -> None:
        began = False
        try:
            async with answer_of(
                "GET",
                url,
                PATH,
                token=token,
                tls_ca=tls_ca,
                timeout_s=timeout_s,
                query=query,
            ) as answer:
                began = True
                with _saving(file) as save:
                    while part := await answer.read_some():
                        save(part)
        except (Unavailable, MessageInvalid) as error:
            if began and file == _STANDARD:
                # It cannot be taken back: another node's would come behind it.
                raise LocalError(f"{error}; what was written is no backup") from None
            raise

    first_answer(urls, lambda url: trio.run(ask, url))


def _as_node_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return node_name(value)
    except ValueError as error:
        raise click.BadParameter(f"{value[:128]!r} {error}", context, parameter) from None


@click.command()
@_file
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of the new node; must be empty, or not there.",
)
@click.option(
    "--name",
    required=True,
    callback=_as_node_name,
    help="Of the new node, as noti run gets it.",
)
def restore(file: Path, data_dir: Path, name: str) -> None:
    """Make a new cluster of one node out of FILE, - for standard input.

    Start the node with the same --data-dir and --name; others join it with --join and an empty
    directory. It is another cluster: nodes of the old one are not let in, so stop them first. What
    was published after the backup is not there, and readers who have seen it are told of a gap.
    """
    reader = BackupReader()
    with _opened(file) as stream:
        for data in iter(lambda: stream.read(READ_BYTES), b""):
            reader.feed(data)
    try:
        parts = reader.finish()
    except MessageInvalid as error:
        raise MessageInvalid(f"{file}: {error}") from None
    cluster = write_new_cluster(data_dir, name, parts)
    click.echo(f"cluster {cluster} of node {name} in {data_dir}: {_contents(parts)}")


@click.command()
@click.option(
    "--data-dir",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Of the node that is left; it must be stopped.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def recover(data_dir: Path, yes: bool) -> None:
    """Make a new cluster of a node whose majority is gone for ever.

    Choose the node whose log is the longest (noti wal dump). It becomes a cluster of its own; the
    others, should they come back, are not let in, and join again with empty directories.
    """
    name = _name_in(data_dir)
    store, index = read_store(data_dir)
    click.echo(
        f"{data_dir} has {store.last_seq} as its last event, and entry {index} as its last. What "
        "other nodes have after that is lost, also if it was acknowledged; and what was never "
        "acknowledged may appear. If a majority of the old cluster can be started, do that instead."
    )
    if not yes:
        click.confirm("Make a new cluster of it?", abort=True)
    new = data_dir.with_name(f"{data_dir.name}.recovered-{secrets.token_hex(4)}")
    old = data_dir.with_name(f"{data_dir.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    cluster = write_new_cluster(new, name, store.parts())
    try:
        data_dir.rename(old)
        new.rename(data_dir)
    except OSError as error:
        raise StorageFailed(f"cannot put {new} in the place of {data_dir}: {error}") from None
    click.echo(f"cluster {cluster} of node {name} in {data_dir}; what was there is in {old}")


def _name_in(data_dir: Path) -> str:
    try:
        name, _ = decode_identity((data_dir / IDENTITY_NAME).read_bytes())
    except OSError as error:
        raise LocalError(f"{data_dir} is no data directory of a node: {error.strerror}") from None
    return name


@contextmanager
def _saving(file: Path) -> Iterator[Callable[[bytes], None]]:
    """Yield what takes a backup piece by piece and checks it; it is written whole or not at all."""
    reader, size = BackupReader(), 0

    def save(part: bytes) -> None:
        nonlocal size
        reader.feed(part)
        target.write(part)
        size += len(part)

    with _written(file) as target:
        yield save
        state = reader.finish()
    about: dict[str, Any] = reader.about
    click.echo(
        f"{file}: {_contents(state)}, {size:,} bytes, of {about.get('node')}", err=file == _STANDARD
    )


def _contents(parts: StoreParts) -> str:
    retention = parts.retention
    count = len(retention.sparse) + len(retention.window)
    return f"{count:,} events, the last with number {retention.last_seq}"


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if file == _STANDARD:
        yield sys.stdin.buffer
        return
    try:
        with file.open("rb") as stream:
            yield stream
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from None


@contextmanager
def _written(file: Path) -> Iterator[BinaryIO]:
    """Yield what becomes the file when the body ends well; only its owner can read it."""
    if file == _STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with whole_file(file, private=True, replace=True) as stream:
        yield stream
