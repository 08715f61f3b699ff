from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import SecretStr, TypeAdapter, ValidationError

from smtpmaild.config.paths import ConfigPath, SecretFile, Surroundings

PATH: TypeAdapter[str] = TypeAdapter(ConfigPath)
SECRET: TypeAdapter[SecretStr] = TypeAdapter(SecretFile)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("mail", "/etc/smtpmaild/mail"),
        ("../var/mail", "/etc/var/mail"),
        ("./a/./b", "/etc/smtpmaild/a/b"),
        ("/var/mail/", "/var/mail"),
    ],
)
def test_path(text: str, path: str) -> None:
    assert PATH.validate_python(text, context=Surroundings("/etc/smtpmaild")) == path


def test_path_of_a_program() -> None:
    assert PATH.validate_python("mail") == os.path.join(os.getcwd(), "mail")


def test_empty_path() -> None:
    with pytest.raises(ValidationError, match="a path must not be empty"):
        PATH.validate_python("")


def write(path: Path, text: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text)
    path.chmod(mode)
    return path


def secret(name: object, directory: Path, credentials: str = "") -> str:
    return SECRET.validate_python(name, context=Surroundings(str(directory), credentials)).get_secret_value()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b"secret\n\n", "secret\n"),  # one line end is the editor's, a second one is meant
        (b" secret ", " secret "),
        ("geh\u00e4im".encode(), "geh\u00e4im"),
    ],
)
def test_secret(tmp_path: Path, text: bytes, expected: str) -> None:
    write(tmp_path / "password", text)
    assert secret("password", tmp_path) == expected
    assert secret(str(tmp_path / "password"), Path("/")) == expected


def test_credentials_of_systemd_come_first(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    write(tmp_path / "password", b"beside the file")
    assert secret("password", tmp_path, str(credentials)) == "beside the file"
    write(credentials / "password", b"from systemd", 0o440)
    assert secret("password", tmp_path, str(credentials)) == "from systemd"
    assert secret("./password", tmp_path, str(credentials)) == "beside the file"


def test_secret_is_not_shown(tmp_path: Path) -> None:
    write(tmp_path / "password", b"secret")
    found = SECRET.validate_python("password", context=Surroundings(str(tmp_path)))
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        (b"secret", 0o644, "every user can read"),
        (b"secret", 0o604, "every user can read"),
        (b"", 0o600, "is empty"),
        (b"x" * 70_000, 0o600, "is too large for a secret"),
        (b"\xff\xfe", 0o600, "is not text in UTF-8"),
    ],
)
def test_no_secret(tmp_path: Path, text: bytes, mode: int, words: str) -> None:
    write(tmp_path / "password", text, mode)
    with pytest.raises(ValidationError, match=words):
        secret("password", tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", "No such file or directory"),
        (".", "Is a directory"),
        ("", "the name of a file is wanted here"),
        ("a\0b", "the name of a file is wanted here"),
        (5, "the name of a file is wanted here"),
    ],
)
def test_no_secret_file(tmp_path: Path, name: object, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        secret(name, tmp_path)
