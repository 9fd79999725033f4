"""Tells systemd that the process is ready, where that started it with `Type=notify`.

Source: sd_notify(3): a datagram to the Unix socket that `NOTIFY_SOCKET` names.
"""

import os
import socket

import structlog

log = structlog.get_logger("noti.node")

VARIABLE = "NOTIFY_SOCKET"


def tell_ready() -> None:
    """Say that the process serves now; nothing happens where nobody wants to know."""
    place = os.environ.get(VARIABLE)
    if not place:
        return
    if place.startswith("@"):  # an abstract name
        place = f"\0{place[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto(b"READY=1", place)
    except OSError as error:
        log.warning("systemd cannot be told that this node is ready", error=error.strerror)
