"""`noti wal dump` and `noti wal verify`: what the data directory of a node holds, for a person.

Text from events cannot steer the terminal.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_never

import click

from noti.cli.json_output import json_option
from noti.cli.wal_files import (
    IDENTITY_NAME,
    Directory,
    Meaning,
    WalFinding,
    decode_identity,
    decode_meaning,
    decode_state,
    read_directory,
    reject_damage,
    scan_segment,
    verify,
)
from noti.errors import CommandUnknown, MessageInvalid, StorageCorrupt
from noti.history.commands import SetLimits
from noti.history.notification import Event, Notification
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import Entry, HardState
from noti.raft.core.records import Record, SegmentStart
from noti.raft.storage.recovery import SNAPSHOT_NAME
from noti.raft.storage.segments import TailState, read_segment, segment_name
from noti.raft.storage.snapshot_file import decode_snapshot

TIMES = {"created_ms", "taken_ms", "before_ms"}
"""Fields that are a wall time."""

MOSTLY_EMPTY = {"type", "retry_ms", "private", "idempotency_key", "trace"}
"""Fields of events that are named only when they say something."""

COLORS = {"ok": "green", "torn": "yellow", "damaged": "red"}

_directory = click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
_live = click.option("--live", is_flag=True, help="Read the directory of a running node, too.")


@click.group()
def wal() -> None:
    """Look into the data directory of a stopped node. Nothing is ever changed."""


@wal.command("verify")
@_directory
@_live
@json_option
def verify_command(directory: Path, live: bool, as_json: bool) -> None:
    """Check every file; exit with 1 and name file and byte if one is damaged.

    A write that a crash cut off at the end of the log is no damage: the node repairs it.
    """
    held = _read(directory, live)
    findings = verify(held)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for line in _finding_lines(findings):
            click.echo(line)
    reject_damage(directory, findings)


@wal.command("dump")
@_directory
@_live
@json_option
def dump_command(directory: Path, live: bool, as_json: bool) -> None:
    """Show identity, snapshot, and every record of the log with its place in the file.

    Of damaged files everything before the damage is shown. An entry is "replaced" when a later
    record of the log takes its index.
    """
    described = describe(_read(directory, live))
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        for line in _dump_lines(described):
            click.echo(line)


def _read(path: Path, live: bool) -> Directory:
    held = read_directory(path, live=live)
    if held.live:
        click.echo(f"{path} is live: a node uses it, and what is shown may change", err=True)
    return held


# --- what a directory holds, ready for JSON -------------------------------------------------------


def describe(held: Directory) -> dict[str, Any]:
    """Return everything that the directory holds, as plain values."""
    segments = [_describe_segment(s, held.files[segment_name(s)]) for s in held.sequences]
    _mark_replaced([record for segment in segments for record in segment["records"]])
    return {
        "directory": str(held.path),
        "live": held.live,
        "identity": _describe_identity(held.files.get(IDENTITY_NAME)),
        "snapshot": _describe_snapshot(held.files.get(SNAPSHOT_NAME)),
        "segments": segments,
        "other_files": list(held.others),
    }


def _describe_identity(content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    try:
        name, node_id = decode_identity(content)
    except MessageInvalid as error:
        return {"problem": str(error)}
    return {"name": name, "node_id": node_id}


def _describe_snapshot(content: bytes | None) -> dict[str, Any] | None:
    if content is None:
        return None
    described: dict[str, Any] = {"size_bytes": len(content)}
    try:
        snapshot = decode_snapshot(content)
        described |= {"index": snapshot.index, "term": snapshot.term}
        configuration, store = decode_state(snapshot)
    except MessageInvalid as error:
        return described | {"problem": str(error)}
    return described | {
        "configuration": _plain(configuration),
        "history_size": store.limits.count,
        "notifications": [_plain(notification) for notification in store.history()],
    }


def _describe_segment(sequence: int, data: bytes) -> dict[str, Any]:
    content = read_segment(sequence, data)
    records: list[dict[str, Any]] = []
    problem = None
    try:
        records += [_describe_record(offset, record) for offset, record in scan_segment(content)]
    except StorageCorrupt as error:
        problem = str(error)
    if content.tail is TailState.DAMAGED:
        problem = f"damaged at byte {content.end}"
    return {
        "file": segment_name(sequence),
        "size_bytes": len(data),
        "used_bytes": content.end,
        "tail": content.tail.name.lower(),
        "problem": problem,
        "records": records,
    }


def _describe_record(offset: int, record: Record) -> dict[str, Any]:
    match record:
        case SegmentStart():
            return {"byte": offset, "record": "segment start"} | _plain(record)
        case HardState():
            return {"byte": offset, "record": "hard state"} | _plain(record)
        case Entry(index, term, kind):
            entry = {"index": index, "term": term, "kind": kind.name.lower()}
            size_bytes = record.size_bytes
            described = {"byte": offset, "record": "entry", **entry, "size_bytes": size_bytes}
            try:
                return described | _describe_meaning(decode_meaning(record))
            except (MessageInvalid, CommandUnknown) as error:
                return described | {"problem": str(error), "data_hex": record.data.hex()}
        case _:
            assert_never(record)


def _describe_meaning(meaning: Meaning) -> dict[str, Any]:
    match meaning:
        case None:
            return {}
        case Configuration():
            return {"configuration": _plain(meaning)}
        case _:
            fields = meaning.limits if isinstance(meaning, SetLimits) else meaning
            return {"command": {"name": _words(type(meaning).__name__)} | _plain(fields)}


def _plain(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass or an event as JSON has them; bytes as hex digits."""
    if isinstance(value, Event | Notification):
        fields = value._asdict()
    else:
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {name: _plain_field(field) for name, field in fields.items()}


def _plain_field(value: Any) -> Any:
    match value:
        case bytes():
            return value.hex()
        case Event() | Notification():
            return _plain(value)
        case dict():
            return {str(name): _plain_field(item) for name, item in value.items()}
        case tuple() | list() | frozenset() | set():
            return [_plain_field(item) for item in value]
        case _:
            return _plain(value) if dataclasses.is_dataclass(value) else value


def _mark_replaced(records: Sequence[dict[str, Any]]) -> None:
    """Note in each entry whether a later one has its index, or a lower one."""
    lowest_later: int | None = None
    for record in reversed(records):
        if record["record"] == "entry":
            index = record["index"]
            record["replaced"] = lowest_later is not None and index >= lowest_later
            lowest_later = index if lowest_later is None else min(lowest_later, index)


# --- lines for a person ---------------------------------------------------------------------------


def _finding_lines(findings: Sequence[WalFinding]) -> Iterator[str]:
    name_width = max(len(finding.file) for finding in findings)
    for finding in findings:
        status = click.style(f"{finding.status:<11}", fg=COLORS.get(finding.status))
        place = f"at byte {finding.offset}: " if finding.status == "damaged" else ""
        yield f"{finding.file:<{name_width}}  {status}  {place}{finding.text}"


def _dump_lines(described: dict[str, Any]) -> Iterator[str]:
    match described["identity"]:
        case {"name": name, "node_id": node_id}:
            yield f"identity: node {name}, id {node_id}"
        case {"problem": problem}:
            yield f"identity: {problem}"
        case _:
            yield "identity: missing"
    yield from _snapshot_lines(described["snapshot"])
    for segment in described["segments"]:
        yield ""
        yield (
            f"{segment['file']}: {segment['used_bytes']:,} of {segment['size_bytes']:,} bytes used"
        )
        yield f"{'byte':>9} {'index':>8} {'term':>5}  record"
        for record in segment["records"]:
            yield from _record_lines(record)
        if segment["problem"]:
            yield f"{segment['used_bytes']:>9}  {segment['problem']}"
        elif segment["tail"] == "torn":
            yield f"{segment['used_bytes']:>9}  a write that a crash cut off"
    for name in described["other_files"]:
        yield f"\nalso there: {_safe(name)}"


def _snapshot_lines(snapshot: dict[str, Any] | None) -> Iterator[str]:
    if snapshot is None:
        yield "snapshot: none"
        return
    text = f"snapshot: {snapshot['size_bytes']:,} bytes"
    if "index" in snapshot:
        text += f", up to entry {snapshot['index']} of term {snapshot['term']}"
    if "problem" in snapshot:
        yield f"{text}: {snapshot['problem']}"
        return
    yield f"{text}; {_members(snapshot['configuration'])}"
    yield f"  the last {len(snapshot['notifications'])} of {snapshot['history_size']} notifications"
    for notification in snapshot["notifications"]:
        yield f"  {_fields(notification)}"


def _record_lines(record: dict[str, Any]) -> Iterator[str]:
    match record:
        case {"record": "segment start", "sequence": sequence, "base_index": base, "fresh": fresh}:
            anew = "; the log begins anew here" if fresh else ""
            text = f"segment {sequence}, after entry {base}{anew}"
            yield f"{record['byte']:>9} {'':>8} {'':>5}  {text}"
        case {"record": "hard state", "term": term, "voted_for": vote}:
            text = f"hard state: voted for {vote}" if vote else "hard state: no vote"
            yield f"{record['byte']:>9} {'':>8} {term:>5}  {text}"
        case _:
            replaced = "  (replaced)" if record["replaced"] else ""
            place = f"{record['byte']:>9} {record['index']:>8} {record['term']:>5}"
            first, *more = _entry_lines(record)
            yield f"{place}  {first}{replaced}"
            yield from (f"{'':>26}{line}" for line in more)


def _entry_lines(record: dict[str, Any]) -> Iterator[str]:
    if "problem" in record:
        yield f"{record['kind']}: {record['problem']}"
        yield f"{record['size_bytes']} bytes: {record['data_hex']}"
    elif "configuration" in record:
        yield f"configuration: {_members(record['configuration'])}"
    elif "command" in record:
        command = dict(record["command"])
        name, events = command.pop("name"), command.pop("events", None)
        count = "" if events is None else f", {len(events)} events"
        yield f"{name}: {_fields(command)}{count}"
        yield from map(_fields, events or ())
    else:
        yield record["kind"]


def _members(configuration: dict[str, Any]) -> str:
    groups = [
        f"{group} {', '.join(configuration[group])}"
        for group in ("voters", "outgoing", "learners")
        if configuration[group]
    ]
    return ", ".join([f"cluster {configuration['cluster_id']}", *groups])


def _fields(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{_words(name)} {_value(name, value)}"
        for name, value in values.items()
        if value or name not in MOSTLY_EMPTY
    )


def _value(name: str, value: object) -> str:
    if name in TIMES and isinstance(value, int):
        try:
            return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="milliseconds")
        except (ValueError, OverflowError):
            return str(value)
    if isinstance(value, list):
        return " ".join(_safe(str(item)) for item in value)
    return _safe(str(value))


def _safe(text: str) -> str:
    """Return text without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _words(name: str) -> str:
    """Return `PublishBatch` and `publish_batch` as a person writes them."""
    spaced = "".join(f" {char.lower()}" if char.isupper() else char for char in name)
    return spaced.strip().replace("_", " ")
