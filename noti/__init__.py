"""noti: a highly available notification server. The rooms are described in README.md."""

__version__ = "0.1.0"
