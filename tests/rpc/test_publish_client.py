"""What a publisher's end says about each answer, and about none."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.certificates.context import MutualContexts
from noti.errors import (
    MessageInvalid,
    NotiError,
    Overloaded,
    PeerUnavailable,
    ProposalUncertain,
    Unavailable,
)
from noti.publishing.ports import Draft, Outcome
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.publish_client import open_publish_stream
from tests.certificates.authority import SERVER, Wanted, issue
from tests.certificates.bad import peer_context
from tests.contract.test_rpc_network import ANY_PORT, Handler, Publications
from tests.rpc import test_tls as tls
from tests.rpc.older_nodes import older_tls
from tests.rpc.test_grpc import serving
from tests.rpc.tls_peers import Fixed, cluster_authority, node_tls

DRAFT = Draft(("t",), "x", "an-id")


class Silent(Publications):
    """Takes events, and never says what became of them."""

    def __init__(self) -> None:
        super().__init__()
        self.come = trio.Event()

    def submit(
        self, drafts: Sequence[Draft], done: Callable[[Outcome], None], *, at_once: bool = False
    ) -> None:
        self.come.set()


class Careless(Publications):
    """Answers for fewer events than it took."""

    def submit(
        self, drafts: Sequence[Draft], done: Callable[[Outcome], None], *, at_once: bool = False
    ) -> None:
        done(tuple(str(number) for number, _ in enumerate(drafts[1:])))


async def publish(
    asyncio_loop: AsyncioLoop,
    address: Address,
    *batches: Sequence[Draft],
    caller: str | None = None,
    plain_too: bool = False,
    within_s: float = 10.0,
) -> list[list[str]]:
    context = None if caller is None else older_tls(caller).current.client

    async def on_stream() -> list[list[str]]:
        async with open_publish_stream(
            address, context, plain_too=plain_too, within_s=within_s
        ) as stream:
            return [await stream.publish(batch) for batch in batches]

    return await asyncio_loop.call(on_stream)


async def test_requests_of_one_stream_are_answered_one_by_one() -> None:
    taken = Publications()
    async with serving(Handler(), taken) as (asyncio_loop, _, address):
        assert await publish(asyncio_loop, address, [DRAFT], [Draft(("t", "u"), "y"), DRAFT]) == [
            ["an-id"],
            ["made-3", "an-id"],
        ]
    assert taken.drafts == [DRAFT, Draft(("t", "u"), "y"), DRAFT]


@pytest.mark.parametrize(
    "failure",
    [
        MessageInvalid("bad"),
        Overloaded("full"),
        ProposalUncertain("who knows"),
        Unavailable("no leader"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_each_failure_arrives_as_what_it_was(failure: NotiError) -> None:
    async with serving(Handler(), Publications(failure)) as (asyncio_loop, _, address):
        with pytest.raises(type(failure), match=f"says: {failure}") as caught:
            await publish(asyncio_loop, address, [DRAFT])
    assert type(caught.value) is type(failure)


async def test_nobody_knows_when_no_answer_comes() -> None:
    async with serving(Handler(), Silent()) as (asyncio_loop, _, address):
        with pytest.raises(ProposalUncertain, match=r"no answer .* may or may not be committed"):
            await publish(asyncio_loop, address, [DRAFT], within_s=0.5)


async def test_nobody_knows_when_the_answer_does_not_fit() -> None:
    async with serving(Handler(), Careless()) as (asyncio_loop, _, address):
        with pytest.raises(ProposalUncertain, match=r"hung up; .* may or may not be committed"):
            await publish(asyncio_loop, address, [DRAFT, DRAFT])


async def test_nobody_knows_when_the_node_goes_before_its_answer() -> None:
    silent = Silent()
    asyncio_loop = AsyncioLoop()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            network = GrpcNetwork(asyncio_loop)
            node = trio.CancelScope()

            async def serve(*, task_status: trio.TaskStatus[Address]) -> None:
                with node:
                    await network.serve_rpc(
                        ANY_PORT, Handler(), Handler(), silent, task_status=task_status
                    )

            address = await nursery.start(serve)

            async def stop() -> None:
                await silent.come.wait()
                node.cancel()

            nursery.start_soon(stop)
            with pytest.raises(ProposalUncertain, match="may or may not be committed"):
                await publish(asyncio_loop, address, [DRAFT])
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("node", [None, "server"], ids=["plain", "tls"])
async def test_permissive_publisher_speaks_as_the_node_does(node: str | None) -> None:
    async with tls.serving(None if node is None else node_tls(node)) as scene:
        sent = publish(scene.asyncio_loop, scene.address, [DRAFT], caller="node2", plain_too=True)
        assert await sent == [["an-id"]]


async def test_who_holds_no_nodes_certificate_is_not_believed(tmp_path: Path) -> None:
    """Any other server with a certificate of the CA could claim that it committed events."""
    other = issue(Wanted(dns=("nats",), usages=(SERVER,)), cluster_authority())
    shows = peer_context(other, tmp_path, server=True)
    there = Fixed(MutualContexts(shows, node_tls("client").current.client))
    async with tls.serving(there) as scene:
        with pytest.raises(PeerUnavailable, match="for node nats, is not a node's"):
            await publish(scene.asyncio_loop, scene.address, [DRAFT], caller="client")
    async with tls.serving(node_tls("server")) as scene:
        assert await publish(scene.asyncio_loop, scene.address, [DRAFT], caller="client") == [
            ["an-id"]
        ]
