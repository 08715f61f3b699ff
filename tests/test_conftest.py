"""A Debian test skips where its program is missing, and fails where the program is promised."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SKIPPING = """
import pytest

@pytest.mark.debian
def test_program(needs_program):
    needs_program("no-such-program")

@pytest.mark.debian
@pytest.mark.skipif(True, reason="by itself")
def test_condition():
    pass

@pytest.mark.debian
@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    raise AssertionError

@pytest.mark.debian
@pytest.mark.skipif(True, reason="left to `make soak`")
def test_long():
    pass

def test_other():
    pytest.skip("not of Debian")
"""


@pytest.mark.parametrize(
    ("required", "outcome"), [("0", "4 skipped, 1 xfailed"), ("1", "1 failed, 2 skipped, 1 xfailed, 1 error")]
)
def test_skip_of_a_debian_test(tmp_path: Path, required: str, outcome: str) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = debian\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-rs", tmp_path],
        env={**os.environ, "PYTHONPATH": str(TESTS), "SMTPMAILD_REQUIRE_DEBIAN": required},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{outcome} in " in done.stdout
    assert "'no-such-program' is not installed" in done.stdout
