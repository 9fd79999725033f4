"""What a node answers operators and load balancers over gRPC; asyncio.

All of it only reads.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar

import betterproto2
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from noti.errors import MessageInvalid
from noti.protobuf import parse
from noti.rpc.answers import RoleName
from noti.rpc.connections import stream_of
from noti.rpc.generated.google.protobuf import Empty
from noti.rpc.generated.grpc.health import v1 as health
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.generated.notification import v1 as notification
from noti.rpc.ports import NodeReport

M = TypeVar("M", bound=betterproto2.Message)

REQUEST_BYTES_MAX: Final = 64 * 1024
"""Longest request to the operator services; all of them are nearly empty."""

WATCH_INTERVAL_S: Final = 0.5
"""How often a health watch looks for a change; load balancers react within seconds."""

ROLES: Final[Mapping[RoleName, wire.Role]] = {
    "follower": wire.Role.FOLLOWER,
    "candidate": wire.Role.CANDIDATE,
    "leader": wire.Role.LEADER,
    "learner": wire.Role.LEARNER,
}

HEALTH_SERVICES: Final = frozenset(
    {
        "",
        "noti.v1.Raft",
        "noti.v1.Publisher",
        "noti.v1.Status",
        "notification.v1.Notification",
        "grpc.health.v1.Health",
    }
)


class Call(Protocol):
    """The part of `grpclib.server.Stream` that the services use."""

    @property
    def metadata(self) -> Mapping[str, object] | None:
        """What the caller says beside its messages, by lower-case names."""

    async def send_initial_metadata(self) -> None:
        """Accept the call."""

    async def send_message(self, message: Any) -> None:
        """Answer."""


class OperatorServices:
    """The services that report members, roles and health; one task a call.

    They are `notification.v1.Notification`, `noti.v1.Status` and `grpc.health.v1.Health`.
    """

    def __init__(self, node: NodeReport) -> None:
        self._node = node

    def __mapping__(self) -> dict[str, Handler]:
        """Return grpclib's routing table."""
        unary = Cardinality.UNARY_UNARY
        check, answer = health.HealthCheckRequest, health.HealthCheckResponse
        get_servers, servers = notification.GetServersRequest, notification.GetServersResponse
        prefix = "/notification.v1.Notification"
        return {
            f"{prefix}/GetServers": Handler(self._get_servers, unary, get_servers, servers),
            f"{prefix}/GetLeaderStatus": Handler(
                self._get_leader_status, unary, Empty, notification.LeaderStatusResponse
            ),
            "/noti.v1.Status/GetRole": Handler(
                self._get_role, unary, wire.GetRoleRequest, wire.GetRoleResponse
            ),
            "/grpc.health.v1.Health/Check": Handler(self._check, unary, check, answer),
            "/grpc.health.v1.Health/Watch": Handler(
                self._watch, Cardinality.UNARY_STREAM, check, answer
            ),
        }

    async def _get_servers(self, call: Call) -> None:
        await request(call, notification.GetServersRequest)
        servers = [
            notification.Server(id=server.id, rpc_addr=server.rpc_addr, is_leader=server.is_leader)
            for server in self._node.servers()
        ]
        await call.send_message(notification.GetServersResponse(servers=servers))

    async def _get_leader_status(self, call: Call) -> None:
        await request(call, Empty)
        is_leader = self._node.is_leader()
        await call.send_message(notification.LeaderStatusResponse(is_leader=is_leader))

    async def _get_role(self, call: Call) -> None:
        await request(call, wire.GetRoleRequest)
        own = self._node.role()
        await call.send_message(
            wire.GetRoleResponse(
                name=own.name, role=ROLES[own.role], term=own.term, leader=own.leader
            )
        )

    async def _check(self, call: Call) -> None:
        service = (await request(call, health.HealthCheckRequest)).service
        if service not in HEALTH_SERVICES:
            raise GRPCError(Status.NOT_FOUND, f"no service {service[:100]!r} here")
        await call.send_message(health.HealthCheckResponse(status=self._serving_status(service)))

    async def _watch(self, call: Call) -> None:
        service = (await request(call, health.HealthCheckRequest)).service
        sent = None
        while True:
            status = self._serving_status(service)
            if status != sent:
                await call.send_message(health.HealthCheckResponse(status=status))
                sent = status
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _serving_status(self, service: str) -> health.HealthCheckResponseServingStatus:
        status = health.HealthCheckResponseServingStatus
        if service not in HEALTH_SERVICES:
            return status.SERVICE_UNKNOWN
        return status.SERVING if self._node.serving() else status.NOT_SERVING


async def request(call: Call, request_class: type[M]) -> M:
    """Return the request of a unary call."""
    try:
        frame = await stream_of(call, REQUEST_BYTES_MAX).inbox.read()
        if frame is None:
            raise MessageInvalid("the request has no message")
        return parse(request_class, frame)
    except MessageInvalid as error:
        raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
