"""Carries out what the operator of this machine asks of the node; `control.py` brings it here.

Statuses are in Serf's words, as are those of its commands: a suspect is still alive, and what noti
calls dead has failed. Payloads are bytes, which JSON has not, so they come and go in base64.
"""

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence

import structlog

from noti.errors import LocalError, MessageInvalid
from noti.membership.control import NO_REQUEST
from noti.membership.control_protocol import RELAY_FACTOR_MAX, WITHIN_S_MAX
from noti.membership.ports import SerfLayer, Tell
from noti.membership.tags import ALIVE_STATES
from noti.swim.core.messages import Member, MemberState
from noti.swim.serf_requests import KeyOperation

log = structlog.get_logger("noti.node")

_KEY_OPERATIONS = {
    "list": KeyOperation.LIST,
    "install": KeyOperation.INSTALL,
    "use": KeyOperation.USE,
    "remove": KeyOperation.REMOVE,
}


class OperatorRequests:
    """What one node does for its operator."""

    def __init__(
        self,
        name: str,
        leave: Callable[[float], Awaitable[None]],
        live_voters: Callable[[], Sequence[str]],
        gossip: SerfLayer,
    ) -> None:
        """`leave(seconds)` decommissions this node, or raises a `NotiError` with the reason."""
        self._name = name
        self._leave = leave
        self._live_voters = live_voters
        self._gossip = gossip

    async def carry_out(self, request: object, tell: Tell) -> None:
        """Carry out one request; see `noti.membership.ports.CarryOut`."""
        match request:
            case {"leave_within_s": float() as seconds} if 0 <= seconds <= WITHIN_S_MAX:
                await self._leave(seconds)
            case {"request": "voters"}:
                for name in self._live_voters():
                    await tell({"name": name})
            case {"request": "members"}:
                for member in self._gossip.members():
                    await tell(_describe(member))
            case {
                "request": "event",
                "name": str(name),
                "payload": str(payload),
                "coalesce": bool(coalesce),
            }:
                self._gossip.send_event(name, _decoded(payload), coalesce=coalesce)
                log.info("the operator sent an event", event_name=name)
            case {"request": "query"}:
                await self._query(request, tell)
            case {"request": "keys"}:
                await self._keys(request, tell)
            case {"request": "force-leave", "name": str(name), "prune": bool(prune)}:
                self._gossip.force_leave(name, prune=prune)
                log.info("the operator says that a member left", member=name, prune=prune)
            case {"request": "forget", "name": str(name)}:
                self._forget(name)
            case {"request": "rtt", "nodes": [str(one), *others]} if len(others) <= 1:
                await self._round_trip(one, str(others[0]) if others else self._name, tell)
            case _:
                raise MessageInvalid(NO_REQUEST)

    async def _query(self, request: object, tell: Tell) -> None:
        match request:
            case {
                "name": str(name),
                "payload": str(payload),
                "nodes": list(nodes),
                "tags": dict(tags),
                "timeout_s": (float() | None) as timeout_s,
                "wants_acks": bool(wants_acks),
                "relay_factor": int(relay_factor),
            } if _are_texts([*nodes, *tags.values()]) and 0 <= relay_factor <= RELAY_FACTOR_MAX:
                answers = self._gossip.query(
                    name,
                    _decoded(payload),
                    nodes=nodes,
                    tags=tags,
                    timeout_s=_within_limits(timeout_s),
                    wants_acks=wants_acks,
                    relay_factor=relay_factor,
                )
            case _:
                raise MessageInvalid(NO_REQUEST)
        with answers:
            async for answer in answers:
                encoded = base64.b64encode(answer.payload).decode()
                await tell({"node": answer.node, "is_ack": answer.is_ack, "payload": encoded})

    async def _keys(self, request: object, tell: Tell) -> None:
        match request:
            case {
                "operation": str(operation),
                "key": (str() | None) as key,
                "timeout_s": (float() | None) as timeout_s,
            } if operation in _KEY_OPERATIONS and (key is None) is (operation == "list"):
                report = await self._gossip.keys_query(
                    _KEY_OPERATIONS[operation],
                    None if key is None else _decoded(key),
                    timeout_s=_within_limits(timeout_s),
                )
            case _:
                raise MessageInvalid(NO_REQUEST)
        if operation != "list":
            done = sum(answer.done for answer in report.answers)
            log.info("the operator changed keys", operation=operation, members=done)
        for answer in report.answers:
            await tell(
                {
                    "node": answer.node,
                    "done": answer.done,
                    "text": answer.text,
                    "keys": list(answer.keys),
                    "primary": answer.primary,
                }
            )
        for node in report.silent:
            await tell({"node": node, "silent": True})

    async def _round_trip(self, one: str, other: str, tell: Tell) -> None:
        for name in (one, other):
            self._member(name)
        await tell({"nodes": [one, other], "rtt_s": self._gossip.distance_s(one, other)})

    def _member(self, name: str) -> Member:
        for member in self._gossip.members():
            if member.name == name:
                return member
        raise LocalError(f"there is no member {name}; `noti members` shows all")

    def _forget(self, name: str) -> None:
        member = self._member(name)
        if member.state in ALIVE_STATES:
            raise LocalError(f"{name} is alive; stop it first, or it would be back at once")
        self._gossip.force_leave(name, prune=True)
        log.info("the operator has a member forgotten", member=name)
        if any(each.name == name for each in self._gossip.members()):
            raise LocalError(
                f"{name} has left now, but is still a voter or a learner of the cluster, so nodes "
                "keep it in sight; forget it when the cluster has removed it"
            )


def status_of(member: Member) -> str:
    """Return a member's status in Serf's words: alive, leaving, left or failed."""
    match member.state:
        case MemberState.ALIVE | MemberState.SUSPECT:
            return "leaving" if member.leaving else "alive"
        case MemberState.DEAD:
            return "failed"
        case MemberState.LEFT:
            return "left"


def _describe(member: Member) -> dict[str, object]:
    """Return what is known about a member; the versions are those of Serf's protocol."""
    host, port = member.address
    low, high, current = member.versions[3:]
    return {
        "name": member.name,
        "host": host,
        "port": port,
        "tags": dict(sorted(member.tags.items())),
        "status": status_of(member),
        "state": member.state.name.lower(),
        "incarnation": member.incarnation,
        "protocol": {"min": low, "max": high, "version": current},
    }


def _decoded(payload: str) -> bytes:
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error:
        raise MessageInvalid(NO_REQUEST) from None


def _are_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _within_limits(timeout_s: float | None) -> float | None:
    if timeout_s is not None and not 0 < timeout_s <= WITHIN_S_MAX:
        raise MessageInvalid(NO_REQUEST)
    return timeout_s
