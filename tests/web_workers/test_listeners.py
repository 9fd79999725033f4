"""Promises of the sockets on which web workers listen."""

import socket

import pytest

from noti.errors import AddressInUse
from noti.web_workers.listeners import close_all, open_shared_listeners


async def test_all_listen_at_one_address_which_nobody_else_can_have() -> None:
    listeners = await open_shared_listeners(("127.0.0.1", 0), 3)
    addresses = {one.getsockname() for ours in listeners for one in ours}
    assert len(listeners) == 3
    assert len(addresses) == 1
    address = addresses.pop()
    with pytest.raises(AddressInUse, match="--http-addr"):
        await open_shared_listeners(address, 1)
    close_all(listeners)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(address)


async def test_the_kernel_spreads_connections_over_them() -> None:
    listeners = await open_shared_listeners(("127.0.0.1", 0), 2)
    clients = [socket.create_connection(listeners[0][0].getsockname()) for _ in range(64)]
    taken = []
    for (listener,) in listeners:
        listener.setblocking(False)
        count = 0
        while True:
            try:
                listener.accept()[0].close()
            except BlockingIOError:
                break
            count += 1
        taken.append(count)
    assert sum(taken) == 64
    assert min(taken) > 0
    for client in clients:
        client.close()
    close_all(listeners)
