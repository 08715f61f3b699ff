"""The file with the words of reports: what of it is a mistake is said where it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpmaild.config import ConfigError
from smtpmaild.config.reading import load_text
from smtpmaild.queue.reports import Action
from smtpmaild.queue.words import ENGLISH

CONFIG = """\
listeners: [{{name: mx, listen: ["127.0.0.1:2525"]}}]
local_domains: {{example.com: {{deliver: mail}}}}
deliver_to: {{mail: {{type: discard}}}}
queue: {{report_words_file: {name}}}
"""


def words(folder: Path, name: str = "words.txt") -> object:
    return load_text(CONFIG.format(name=name), str(folder / "smtp.yaml")).queue.report_words_file


def test_words_are_read_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("[failed]\nSubject: Zurück\n\n{recipients}\n")
    found = words(tmp_path)
    assert isinstance(found, type(ENGLISH))
    assert found[Action.FAILED].subject == "Zurück"
    assert found[Action.DELAYED] == ENGLISH[Action.DELAYED]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (b"x" * 70_000, "is too large for the words of reports"),
        (b"[failed]\nSubject: Zur\xfcck\n", "is not text in UTF-8"),
        (b"", "there is no text in it"),
    ],
)
def test_mistakes(tmp_path: Path, text: bytes, mistake: str) -> None:
    (tmp_path / "words.txt").write_bytes(text)
    with pytest.raises(ConfigError, match=mistake):
        words(tmp_path)


def test_something_that_names_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the name of a file is wanted here"):
        words(tmp_path, "[a, b]")
