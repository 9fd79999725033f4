"""noti: a highly available notification server. The rooms are described in noti/README.md."""

__version__ = "0.7.0"
