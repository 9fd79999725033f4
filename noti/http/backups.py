"""Gives a backup to who may publish and read everything: the whole state, as this node has it now.

Not of Mercure's protocol; `noti backup` uses it.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import trio
from quart import Response, request
from quart_trio import QuartTrio

from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Grant
from noti.history.backup import encode_backup
from noti.history.selectors import ALL_TOPICS
from noti.history.topics import RESERVED
from noti.http.administrators import rejection_of
from noti.http.answers import RETRY_AFTER, plain
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.quart_glue import response_of
from noti.ports import Clock

PATH: Final = f"{RESERVED}/backup"
CONSISTENT_WITHIN_S: Final = 5.0
"""An election takes less; without a majority there is no point in waiting longer."""
BACKUPS_MAX: Final = 2
"""At one time: each holds what history loses meanwhile."""
PAUSE: Final = 3.0
"""How long to leave the loop to others after each piece, so many times as long as it took."""
OCTETS: Final = "application/octet-stream"
NEED: Final = "a backup needs a token that publishes and reads everything (*)"
NOT_CONSISTENT: Final = (
    "No majority answers, so this might not be all; with ?consistent=0 this node gives what it has."
)


def add_routes(
    app: QuartTrio,
    authorizer: Authorizer,
    node: NodeView,
    pieces_of_state: Callable[[], Iterator[bytes]],
    config: HttpConfig,
    clock: Clock,
) -> None:
    """Add the address of backups: GET, and `?consistent=0` for what a node without leader has."""
    under_way = 0

    async def write(about: dict[str, object]) -> AsyncIterator[bytes]:
        nonlocal under_way
        under_way += 1
        try:
            parts = encode_backup(about, pieces_of_state())
            while True:
                begun_at = clock.now()
                if (part := next(parts, None)) is None:
                    return
                took_s = clock.now() - begun_at
                yield part
                await clock.sleep_until(clock.now() + PAUSE * took_s)
        finally:
            under_way -= 1

    @app.get(PATH)
    async def give() -> Response:
        now = clock.wall_ms() / 1000
        rejection = rejection_of(
            authorizer, config, now, method="GET", allows=_reads_and_publishes_all, need=NEED
        )
        if rejection is not None:
            return rejection
        if request.args.get("consistent") != "0":
            with trio.move_on_after(CONSISTENT_WITHIN_S) as patience:
                await node.barrier()
            if patience.cancelled_caught:
                return response_of(plain(503, NOT_CONSISTENT, RETRY_AFTER))
        if under_way >= BACKUPS_MAX:
            text = f"{BACKUPS_MAX} backups are under way; try again later."
            return response_of(plain(503, text, RETRY_AFTER))
        about = {"node": node.hostname, "build": node.build, "at_ms": clock.wall_ms()}
        headers = {"Content-Type": OCTETS, "Cache-Control": "no-store"}
        return Response(write(about), headers=headers)


def _reads_and_publishes_all(grant: Grant) -> bool:
    return ALL_TOPICS in grant.publish and ALL_TOPICS in grant.subscribe
