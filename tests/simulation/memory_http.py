"""Publishers over HTTP without sockets: the real connection, endpoint and tokens, in virtual time.

Enters: the bytes of a request. Leaves: the status of its answer.
Never: the network; that a process is dead shows in its clients.
"""

from urllib.parse import quote_plus

import trio

from noti.authorization.signing import TokenDraft, signed_token
from noti.http.config import HttpConfig
from noti.http.publish_endpoint import PATH, PublishEndpoint
from noti.http.publish_exchange import PublishExchange
from noti.http.response_heads import ResponseHeads
from noti.publishing.ports import Draft
from tests.simulation.memory_clients import SECRET, MemoryClients, unix_time

_PEER = "192.0.2.1"


def token(**rights: list[str]) -> str:
    """Return a token that is good for as long as a simulation takes."""
    draft = TokenDraft(**rights, issued_at=0.0)  # type: ignore[arg-type]
    return signed_token(draft, SECRET.encode(), "the secret", "HS256")


_TOKEN = token(publish=["*"])


def _quoted(text: str) -> str:
    """Return what `quote_plus` does, which quotes the blanks that make a text long one by one."""
    head = text.rstrip(" ")
    return quote_plus(head) + "+" * (len(text) - len(head))


def request_of(draft: Draft) -> bytes:
    """Return the request that publishes this."""
    fields = [("topic", topic) for topic in draft.topics]
    fields += [("data", draft.data), ("id", draft.id or ""), ("type", draft.type)]
    fields += [("private", "on")] if draft.private else []
    body = "&".join([f"{name}={_quoted(text)}" for name, text in fields]).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {_TOKEN}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def post(clients: MemoryClients, draft: Draft) -> int | None:
    """Publish at one node; return the status, None when its process does not answer."""
    await clients.clock.thawed()
    if not clients.serving:
        return None
    config = HttpConfig()
    endpoint = PublishEndpoint(clients.publishing, clients.authorizer, config, unix_time)
    answered = trio.Event()
    exchange = PublishExchange(_PEER, endpoint, ResponseHeads(config), config, answered.set)
    exchange.receive(request_of(draft))
    for whole in exchange.advance():
        endpoint.submit(*whole)
    await answered.wait()
    await clients.clock.thawed()
    return int(exchange.take_output().split(b" ", 2)[1]) if clients.serving else None
