"""What neither nodes of ours nor Serf agents take amiss: garbage, and a second one of a name."""

import random
import socket

import msgpack
import pytest
import trio

from noti.swim.core.messages import Dead, Ping
from noti.swim.core.packets import encode, encode_packet
from tests.interop.serf.agents import HOST, serf_agent
from tests.interop.serf.fleets import DETECT_S, fleet, until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]

PACKETS = 2000
STREAMS = 40


async def test_garbage_leaves_both_sides_alive() -> None:
    rng = random.Random(1)
    # About nobody here, so that no change of a byte makes a claim that counts.
    good = [
        encode_packet([encode(Ping(7, "nobody", (HOST, 9), "noone"))]),
        encode_packet([encode(Dead(1, "nobody", "noone"))] * 3),
        b"\x09" + msgpack.packb({"Algo": 0, "Buf": rng.randbytes(200)}, use_bin_type=False),
    ]
    async with fleet(agents=2, nodes=2) as four:
        ports = [member.port for member in four.members]
        with socket.socket(type=socket.SOCK_DGRAM) as sending:
            for count in range(PACKETS):
                for port in ports:
                    sending.sendto(_wrong(rng.choice(good), rng), (HOST, port))
                if count % 50 == 0:
                    await trio.sleep(0.01)
        for port in ports:
            for _ in range(STREAMS // len(ports)):
                async with await trio.open_tcp_stream(HOST, port) as stream:
                    await stream.send_all(_wrong(rng.choice(good), rng))
        everyone = {member.name: "alive" for member in four.members}

        async def agreed() -> bool:
            views = await four.views()
            # An agent takes a death with one byte changed for the life of a member without a name.
            for agent in four.agents:
                views[agent.name] = {one: at for one, at in views[agent.name].items() if one}
            return all(view == everyone for view in views.values())

        await until(agreed, four.views, DETECT_S)


async def test_second_agent_of_a_name_is_voted_out_and_the_first_stays() -> None:
    async with fleet(agents=1, nodes=2) as three:
        async with serf_agent("agent1", join=[three.nodes[0].port]) as second:

            async def ended() -> bool:
                return second.process.poll() is not None

            await until(ended, three.views, DETECT_S)
            assert "minority in name conflict resolution" in second.log_text()
        await three.until_all_see()
        assert three.agents[0].process.poll() is None


def _wrong(good: bytes, rng: random.Random) -> bytes:
    """Return random bytes, or a valid packet with some bytes changed, or cut off."""
    match rng.randrange(3):
        case 0:
            return rng.randbytes(rng.randrange(1, 200))
        case 1:
            return good[: rng.randrange(1, len(good))]
        case _:
            changed = bytearray(good)
            for _ in range(rng.randrange(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
