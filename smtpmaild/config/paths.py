"""Paths and secrets in the file.

A relative path is relative to the folder of the file, whatever the working directory of the daemon is. A secret file
may also be named as systemd or a container runtime knows it, and is read when the configuration is.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, PlainValidator, SecretStr, ValidationInfo, WithJsonSchema

# A password, not a mailbox: a file that is larger was named by mistake.
_LARGEST_SECRET = 64 * 1024


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the models must know of the world, given to pydantic as the context of the validation.

    directory: absolute, that of the configuration file.  credentials: $CREDENTIALS_DIRECTORY, or "".
    """

    directory: str
    credentials: str = ""


def surroundings(info: ValidationInfo) -> Surroundings:
    """The context; the working directory for models that are built in a program."""
    return info.context if isinstance(info.context, Surroundings) else Surroundings(os.getcwd())


def absolute_path(text: str, info: ValidationInfo) -> str:
    """The path, relative to the folder of the file; "." and ".." in it are resolved, symbolic links are not."""
    if not text or "\0" in text:
        raise ValueError("a path must not be empty")
    return os.path.normpath(os.path.join(surroundings(info).directory, text))


def read_secret(value: object, info: ValidationInfo) -> SecretStr:
    """The text of a secret file without its last newline; raises ValueError where nobody should rely on it."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("the name of a file is wanted here")
    return read_secret_file(secret_path(value, info))


def read_secret_file(path: str) -> SecretStr:
    """The same of a path."""
    try:
        with open(path, "rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IROTH:
                raise ValueError(f"every user can read '{path}': chmod o-rwx it")
            secret = file.read(_LARGEST_SECRET + 1)
    except OSError as error:
        raise ValueError(f"cannot read '{path}': {error.strerror}") from None
    return SecretStr(_secret_text(path, secret))


def secret_path(name: str, info: ValidationInfo) -> str:
    """Where a secret is: among the credentials of systemd, else relative to the folder of the file."""
    return secret_path_in(surroundings(info), name)


def secret_path_in(context: Surroundings, name: str) -> str:
    """The same for who has no validation at hand."""
    credential = os.path.join(context.credentials, name)
    if context.credentials and "/" not in name and os.path.exists(credential):
        return credential
    return os.path.normpath(os.path.join(context.directory, name))


def _secret_text(path: str, secret: bytes) -> str:
    if not secret or len(secret) > _LARGEST_SECRET:
        raise ValueError(f"'{path}' is {'too large for a secret' if secret else 'empty'}")
    try:
        return secret.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ValueError(f"'{path}' is not text in UTF-8") from None


ConfigPath = Annotated[str, AfterValidator(absolute_path)]
#: In the file the name of a file; in the model what it holds.
SecretFile = Annotated[
    SecretStr,
    PlainValidator(read_secret),
    WithJsonSchema({"type": "string", "examples": ["relay-password", "/run/secrets/relay"]}),
]
