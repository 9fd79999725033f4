"""When full states are exchanged."""

import pytest

from noti.swim.core.exchanges import push_pull_interval_s


@pytest.mark.parametrize(
    ("members", "factor"), [(1, 1), (32, 1), (33, 2), (64, 2), (65, 3), (128, 3)]
)
def test_full_exchanges_become_rarer_in_large_clusters(members: int, factor: int) -> None:
    assert push_pull_interval_s(30, members) == 30 * factor
