"""Tests that never end by themselves, each in its own way, for `test_time_limit.py` to run."""

import itertools
import socket
import subprocess
import sys
import threading
import time

import hypothesis
import pytest
import trio
from hypothesis import strategies


def test_busy() -> None:
    while True:
        pass


def test_blocked_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


def test_joins_a_thread() -> None:
    never = threading.Event()
    threading.Thread(target=never.wait, daemon=True).start()
    never.wait()


def test_waits_for_a_process() -> None:
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1000)"], check=True)


def test_swallows_what_it_can() -> None:
    while True:
        try:
            time.sleep(1000)
        except BaseException:  # noqa: BLE001 - what it is here for
            continue


def test_holds_the_interpreter() -> None:
    """Python looks for signals between its own instructions only, and here is one."""
    max(itertools.repeat(0))


@hypothesis.given(strategies.integers())
def test_examples(number: int) -> None:
    time.sleep(1000 + number)


async def test_on_trio() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever, name="the one that hangs")


async def test_on_trio_in_a_clean_up() -> None:
    """Its failure comes first; then it hangs."""
    try:
        raise ValueError
    finally:
        await trio.sleep_forever()


async def test_on_trio_busy() -> None:
    while True:
        pass


async def test_on_trio_shielded() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def test_on_trio_swallows_cancellation() -> None:
    while True:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            await trio.lowlevel.cancel_shielded_checkpoint()


async def test_on_trio_in_a_thread() -> None:
    await trio.to_thread.run_sync(threading.Event().wait)


@pytest.fixture
def stuck_in_the_end() -> object:
    yield
    threading.Event().wait()


def test_fails_and_its_fixture_hangs(stuck_in_the_end: object) -> None:
    raise AssertionError(f"with {stuck_in_the_end}")


def test_ends() -> None:
    pass
