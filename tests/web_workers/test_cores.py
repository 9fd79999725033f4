"""Promises of how many web workers a node has."""

from pathlib import Path

import pytest

from noti.web_workers.cores import cores, worker_count


@pytest.mark.parametrize(
    ("wanted", "usable", "count"),
    [
        (None, 1, 0),
        (None, 2, 0),
        (None, 3, 2),
        (None, 16, 15),
        ("auto", 1, 1),
        ("auto", 8, 7),
        (0, 16, 0),
        (6, 2, 6),
    ],
)
def test_a_node_has_the_workers_that_its_cores_are_for(
    wanted: int | None, usable: int, count: int
) -> None:
    assert worker_count(wanted, usable) == count


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    unlimited = cores(tmp_path / "absent")
    assert unlimited >= 1
    limit = tmp_path / "cpu.max"
    for text, expected in (
        ("max 100000\n", unlimited),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("garbage", unlimited),
    ):
        limit.write_text(text)
        assert cores(limit) == expected
