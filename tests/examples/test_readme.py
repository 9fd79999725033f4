"""The README's examples, run as they are printed, beside the demo that they are written for.

Only the port differs, as the usual one may be taken.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from noti.cli.demo import Ports
from tests.browser.chromium import chromium
from tests.cli.test_demo import SHIFT, demo, line_with

README = Path(__file__).parents[2] / "README.md"
HUB = f"http://127.0.0.1:{Ports.of(1, SHIFT).http}"
PRINTED_HUB = "http://127.0.0.1:8402"

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def example(language: str) -> str:
    """Return the only example in a language."""
    [found] = re.findall(
        rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE
    )
    return str(found).replace(PRINTED_HUB, HUB)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the demo in a directory that looks like a checkout of somebody who does so."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / ".venv").symlink_to(sys.prefix)
    with demo(folder / ".data/demo") as process:
        line_with(process, r"node\d leads")
        yield folder
        process.send_signal(signal.SIGINT)
        process.wait(20)


def run_curl(checkout: Path) -> list[str]:
    """Run the example until its endless stream has shown what it publishes."""
    seen = []
    with subprocess.Popen(
        ["bash", "-euc", example("sh")],
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            seen.append(line)
            if "for user 7" in line:
                break
        os.killpg(process.pid, signal.SIGTERM)
    return seen


def test_examples_are_as_short_as_promised() -> None:
    for language in ("js", "sh", "python"):
        assert len(example(language).splitlines()) <= 12


def test_the_example_in_python_publishes_an_event_and_prints_its_id(checkout: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", example("python")]
    for _ in range(2):
        ran = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
        assert (ran.stdout, ran.returncode) == ("news-17\n", 0), ran.stderr


def test_the_examples_with_curl_publish_and_show_what_a_token_allows(checkout: Path) -> None:
    seen = run_curl(checkout)
    assert "data: hello\n" in seen
    assert "data: for user 7\n" in seen


@pytest.mark.chromium
async def test_the_example_in_javascript_shows_what_is_published(
    checkout: Path, tmp_path: Path
) -> None:
    async with chromium(tmp_path) as page:
        await page.open(f"{HUB}/liveness")
        await page.until("document.readyState === 'complete'")
        await page.value("window.said = []; console.log = (...what) => said.push(what.join(' '))")
        await page.value(example("js") + "; 0")
        await page.until("events.readyState === EventSource.OPEN")
        await trio.to_thread.run_sync(run_curl, checkout)
        await page.until("said.some((line) => /^urn:uuid:[-0-9a-f]+ hello$/.test(line))")
