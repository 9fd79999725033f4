"""Carries out what the operator of this machine asks of the node; `control.py` brings it here.

Statuses are in Serf's words, as are those of its commands: a suspect is still alive, and what noti
calls dead has failed.
"""

from collections.abc import Awaitable, Callable

from noti.errors import MessageInvalid
from noti.membership.control import NO_REQUEST, WITHIN_S_MAX
from noti.membership.ports import MemberList, Tell
from noti.swim.core.messages import Member, MemberState


class OperatorRequests:
    """What one node does for its operator."""

    def __init__(self, leave: Callable[[float], Awaitable[None]], gossip: MemberList) -> None:
        """`leave(seconds)` decommissions the node, or raises a `NotiError` with the reason."""
        self._leave = leave
        self._gossip = gossip

    async def carry_out(self, request: object, tell: Tell) -> None:
        """Carry out one request; see `noti.membership.ports.CarryOut`."""
        match request:
            case {"leave_within_s": float() as seconds} if 0 <= seconds <= WITHIN_S_MAX:
                await self._leave(seconds)
            case {"request": "members"}:
                for member in self._gossip.members():
                    await tell(_describe(member))
            case _:
                raise MessageInvalid(NO_REQUEST)


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
