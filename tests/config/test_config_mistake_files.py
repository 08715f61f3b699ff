"""Each tests/config/NAME.yaml against NAME.err: every mistake as it is printed, or every warning where it loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpmaild.config import ConfigError, load

FOLDER = Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    monkeypatch.delenv("SMTPMAILD_TEST_UNSET", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("SMTPMAILD_TEST_LEVEL", "info")


def printed(name: str) -> str:
    try:
        warnings = load(f"{name}.yaml").warnings
    except ConfigError as error:
        return error.render()
    return "\n".join(warning.render() for warning in warnings)


@pytest.mark.parametrize("name", NAMES)
def test_mistakes(name: str) -> None:
    expected = (FOLDER / f"{name}.err").read_text().rstrip("\n")
    assert printed(name).replace(str(FOLDER), "FOLDER") == expected


def test_every_expectation_has_its_file() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.err")) == NAMES
    assert len(NAMES) > 50


def test_the_mistake_of_the_manual_looks_as_printed_there() -> None:
    assert printed("experience").splitlines() == [
        "experience.yaml:14:5: unknown key 'mailboxs' in local_domains.example.com; did you mean 'mailboxes'?",
        "   14 |     mailboxs: [alice, bob]",
        "      |     ^~~~~~~~",
    ]
