"""What the packages say of themselves: one version everywhere, and the files that ship are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import smtpmaild

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_image_has_the_version_of_the_package() -> None:
    assert re.findall(r"^ARG VERSION=(.*)$", DOCKERFILE, re.MULTILINE) == [smtpmaild.__version__]


@pytest.mark.parametrize("copied", re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE))
def test_what_the_image_copies_reaches_the_builder(copied: str) -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name in copied.split():
        assert (ROOT / name).exists()
        assert name.partition("/")[0] in let_through
