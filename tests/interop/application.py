"""An application that publishes numbered events and reads its own: on Trio or on asyncio.

    python -m tests.interop.application trio|asyncio COUNT TOKEN URL...

Each event goes to the next URL first. Prints the numbers as they are read, a line each.
"""

import sys

import anyio

from noti.client import Client

TOPIC = "/numbers"


async def main(count: int, token: str, urls: list[str]) -> None:
    async with (
        Client(urls, token=token) as reader,
        reader.subscribe(TOPIC, last_event_id="earliest") as events,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(publish, count, token, urls)
        async for event in events:
            print(event.data if event.type == "number" else event, flush=True)
            if event.data == str(count):
                break


async def publish(count: int, token: str, urls: list[str]) -> None:
    for number in range(1, count + 1):
        turn = number % len(urls)
        async with Client(urls[turn:] + urls[:turn], token=token) as client:
            await client.publish(TOPIC, str(number), type="number", private=True)


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[2]), sys.argv[3], sys.argv[4:], backend=sys.argv[1])
