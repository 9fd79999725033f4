"""Settings that parts share become newer ones in place."""

from noti.http.config import HttpConfig
from noti.live_settings import take_over


def test_every_field_becomes_that_of_the_newer_object_and_the_object_stays() -> None:
    shared = HttpConfig(cors_origins=("https://a",), head_bytes_max=5000)
    reader = shared
    take_over(shared, HttpConfig(head_bytes_max=6000, leader_sheds=True))
    assert reader == HttpConfig(head_bytes_max=6000, leader_sheds=True)
