"""Timing of a core."""

import pytest

from noti.raft.core.config import RaftConfig


def test_timing_that_could_not_keep_a_leader_is_rejected() -> None:
    """A single late heartbeat would be an election."""
    RaftConfig("n1", heartbeat_interval_s=0.1, election_timeout_s=0.2)
    with pytest.raises(AssertionError):
        RaftConfig("n1", heartbeat_interval_s=0.1, election_timeout_s=0.19)
