"""What both ends of the control socket agree on."""

import socket
from pathlib import Path

from noti.membership.control_protocol import SOCKET_NAME, short_path


def test_short_path_leads_to_the_socket_and_is_gone_afterwards(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        with short_path(directory) as path:
            bound.bind(path)
            assert len(path) < 108
        assert (directory / SOCKET_NAME).is_socket()
        assert not Path(path).exists()
