"""`noti trace ID`: what the nodes of a cluster know of one event."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from noti.certificates.describing import printable
from noti.cli.deadline import timeout_option
from noti.cli.http import get_json, tls_ca_option
from noti.cli.json_output import json_option
from noti.cli.nodes import OPS_URLS_VARIABLE, urls_option
from noti.cli.status import DEFAULT_URL, report_of
from noti.errors import MessageInvalid, NotiError
from noti.publishing.events import ID_CHARACTERS_MAX
from noti.redaction import redacted

_ROW = "{:<20} {:>10} {:>10}  {:<24} {:>10}"


@click.command()
@click.argument("event_id", metavar="ID")
@urls_option(DEFAULT_URL, variable=OPS_URLS_VARIABLE)
@json_option
@tls_ca_option
@timeout_option
def trace(
    event_id: str, urls: Sequence[str], as_json: bool, tls_ca: Path | None, timeout_s: float
) -> int:
    """Show what each node knows of the event ID.

    Where it is in history and in the log, when it was applied, to how many streams it was sent, or
    why it was refused. With one URL, all nodes are asked whose --ops-addr that one knows; with
    several, these. Exit status 1 if none knows it.
    """
    if not 0 < len(event_id) <= ID_CHARACTERS_MAX:
        raise click.UsageError(f"ID has 1 to {ID_CHARACTERS_MAX} characters, not {len(event_id):,}")
    asked, silent = _nodes_of(urls, tls_ca, timeout_s)
    answers: list[dict[str, Any]] = []
    for name, url in asked.items():
        try:
            answers.append(_answer_of(url, event_id, tls_ca, timeout_s))
        except NotiError as error:
            silent[name] = str(error)
    silent = {redacted(name): redacted(why) for name, why in silent.items()}
    known = any(answer["events"] or answer["refused"] for answer in answers)
    if as_json:
        nodes = [*answers, *({"node": name, "error": why} for name, why in silent.items())]
        click.echo(json.dumps({"id": event_id, "nodes": nodes}, indent=2))
    else:
        for line in _lines(event_id, answers, silent):
            click.echo(line)
    return 0 if known else 1


def _nodes_of(
    urls: Sequence[str], tls_ca: Path | None, timeout_s: float
) -> tuple[dict[str, str], dict[str, str]]:
    """Return URLs by the names of nodes; and why others are not asked."""
    if len(urls) > 1:
        return {url: url for url in urls}, {}
    url, report = report_of(urls, tls_ca, timeout_s)
    node, members = report.get("node"), report.get("members")
    own = str(node.get("name", url)) if isinstance(node, dict) else url
    asked, silent = {own: url}, dict[str, str]()
    for member in members if isinstance(members, list) else ():
        if not isinstance(member, dict):
            continue
        name, address = str(member.get("name")), member.get("ops")
        is_node = member.get("role", "none") != "none"
        if name == own or not is_node or member.get("state") not in ("alive", "suspect"):
            continue
        if address:
            asked[name] = f"http://{address}"
        else:
            silent[name] = "not asked, as its --ops-addr is for its own machine; name it by --url"
    return asked, silent


def _answer_of(url: str, event_id: str, tls_ca: Path | None, timeout_s: float) -> dict[str, Any]:
    answer = get_json(url, f"/trace?id={quote(event_id, safe='')}", timeout_s, tls_ca=tls_ca)
    match answer:
        case {"node": str(), "events": list(), "refused": list(), "last_seq": int()} as known:
            return dict(known)
        case _:
            raise MessageInvalid(f"{url}/trace is no answer; is this a noti node?")


def _lines(
    event_id: str, answers: Sequence[Mapping[str, Any]], silent: Mapping[str, str]
) -> Iterator[str]:
    seqs = sorted({event["seq"] for answer in answers for event in answer["events"]})
    for seq in seqs:
        events = {
            answer["node"]: event
            for answer in answers
            for event in answer["events"]
            if event["seq"] == seq
        }
        one = next(iter(events.values()))
        privacy = ", private" if one["private"] else ""
        topics = printable(" ".join(one["topics"]))
        yield f"{printable(event_id)}: number {seq}, {topics}{privacy}"
        yield f"made {_time(one['created_ms'])}, taken {_time(one['taken_ms'])}"
        yield ""
        yield _ROW.format("node", "log index", "source seq", "applied", "streams")
        for node, event in events.items():
            yield _row(node, event)
        yield ""
    for answer in answers:
        for refusal in answer["refused"]:
            times = f"{refusal['times']} times, last " if refusal["times"] > 1 else ""
            reason = printable(refusal["reason"])
            yield f"{answer['node']} refused it {times}{_time(refusal['at_ms'])}: {reason}"
    for answer in answers:
        if not answer["events"]:
            newest = f"its newest number is {answer['last_seq']}"
            yield f"{answer['node']} does not have it in history ({newest})"
    for name, why in silent.items():
        yield f"{printable(name)}: {printable(why)}"


def _row(node: str, event: Mapping[str, Any]) -> str:
    at_least = "" if event["streams_complete"] else ">= "
    applied = "-" if event["applied_ms"] is None else _time(event["applied_ms"])
    return _ROW.format(
        printable(node),
        event["log_index"] or "-",
        event["source_seq"] or "-",
        applied,
        f"{at_least}{event['streams']}",
    )


def _time(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
