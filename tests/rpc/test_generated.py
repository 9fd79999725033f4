"""The committed code is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

import pytest

GENERATE = Path(__file__).resolve().parents[2] / "proto" / "generate.py"


@pytest.mark.slow
def test_generated_code_has_not_drifted() -> None:
    result = subprocess.run(
        [sys.executable, str(GENERATE), "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
