"""The library `websockets` as a client that goes on at the next URL whenever a connection ends.

    python -m tests.interop.websockets_client CA TOKEN URL...

It reads the text of an event stream, and sends its token in a header. Prints what it is told, one
JSON object a line.
"""

import asyncio
import itertools
import json
import ssl
import sys
from urllib.parse import urlencode

import websockets
from websockets.asyncio.client import connect

from noti.client.event_stream import EventStreamParser


async def main(ca: str, token: str, urls: list[str]) -> None:
    context = ssl.create_default_context(cafile=ca)
    last = "earliest"
    for url in itertools.cycle(urls):
        try:
            async with connect(
                f"{url}&{urlencode({'lastEventID': last})}",
                ssl=context if url.startswith("wss:") else None,
                subprotocols=[websockets.Subprotocol("sse")],
                additional_headers={"Authorization": f"Bearer {token}"},
            ) as socket:
                tell(open=True, protocol=socket.subprotocol)
                parser = EventStreamParser(last)
                async for message in socket:
                    assert isinstance(message, str)
                    for event in parser.feed(message.encode()):
                        tell(**{"gap" if event.type == "noti-gap" else "data": event.data})
                    last = parser.last_event_id
                tell(close=socket.close_code)
        except websockets.ConnectionClosed as error:
            tell(close=error.rcvd.code if error.rcvd else 1006)
        except (OSError, TimeoutError, websockets.InvalidHandshake):
            pass  # at the next one, then
        await asyncio.sleep(0.2)


def tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
