"""Connections that are none: they take what they are told to take."""


class Taker:
    """Notes what it was sent."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.taken = b""

    def fileno(self) -> int:
        return self.fd

    def take(self, data: bytes | memoryview, size: int) -> int:
        """Take up to `size` bytes; return how many."""
        self.taken += bytes(data[:size])
        return min(size, len(data))

    def send(self, data: bytes | memoryview, /) -> int:
        raise AssertionError("the core does not send")

    def recv(self, size: int, /) -> bytes:
        raise AssertionError("the core does not receive")

    def close(self) -> None:
        raise AssertionError("the core does not close")
