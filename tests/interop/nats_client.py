"""A client of NATS that ends with its connection, and whole."""

from collections.abc import Sequence

from nats.aio.client import Client

from noti.publishing.nats.client import NatsClient


async def connect_aio(urls: Sequence[str]) -> Client:
    """Return a client that is connected to one of these servers."""
    client = NatsClient()
    try:
        await client.connect(
            list(urls),
            error_cb=_ignore,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=1,
        )
    except BaseException:
        await client.close()  # nats-py leaves a half-made connection to the garbage collector
        raise
    return client


async def _ignore(_error: Exception) -> None:
    """Errors come out of the calls too; nats-py would print them."""
