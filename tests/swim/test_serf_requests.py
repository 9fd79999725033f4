"""What an operator asks of all members."""

import pytest

from noti.errors import Unavailable
from noti.swim.serf_requests import SerfRequests


def test_request_before_the_node_gossips_is_rejected() -> None:
    with pytest.raises(Unavailable):
        SerfRequests().send_event("deploy", b"1")
