"""What each kind of store takes under deliver_to, and the types these models share.

Apart from the stores themselves because those may be compiled, and a model of pydantic may not.
"""

from __future__ import annotations

import grp
import pwd
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from smtpmaild.sink.folder import check_template

_MODE = r"^0[0-7]{3,4}$"
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|)\s*", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _mode(value: object) -> object:
    # A number is refused: nobody can tell whether 640 was meant as octal.
    if isinstance(value, str) and re.match(_MODE, value, re.ASCII):
        return int(value, 8)
    raise ValueError("a mode is written in octal with a leading zero, as in 0640")


def _user(value: object) -> object:
    if isinstance(value, str) and not value.isdigit():
        try:
            return pwd.getpwnam(value).pw_uid
        except KeyError:
            raise ValueError(f"this machine has no user {value!r}") from None
    return value


def _group(value: object) -> object:
    if isinstance(value, str) and not value.isdigit():
        try:
            return grp.getgrnam(value).gr_gid
        except KeyError:
            raise ValueError(f"this machine has no group {value!r}") from None
    return value


def _seconds(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError('a duration is a number with s, m, h or d, as in "36h"')
        return float(match[1]) * _SECONDS[match[2]]
    return value


Mode = Annotated[int, BeforeValidator(_mode), WithJsonSchema({"type": "string", "pattern": _MODE})]
User = Annotated[int, BeforeValidator(_user, json_schema_input_type=str | int), Field(ge=0)]
Group = Annotated[int, BeforeValidator(_group, json_schema_input_type=str | int), Field(ge=0)]
Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=str | float), Field(gt=0)]


class FileOptions(BaseModel):
    """What every store of files lets the operator choose."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_mode: Mode = Field(0o600, json_schema_extra={"default": "0600"}, description="Mode of the files, octal: 0640.")
    directory_mode: Mode = Field(
        0o700, json_schema_extra={"default": "0700"}, description="Mode of the directories we make, octal: 0700."
    )
    owner: User | None = Field(None, description="User who owns files and directories (name or number); needs root.")
    group: Group | None = Field(None, description="Group of files and directories (name or number).")
    tmp_max_age: Seconds = Field(
        36 * 3600.0,
        description="At start, files in tmp/ that a crash left are removed when nobody touched them so long.",
    )


def _check_path(template: str) -> str:
    return check_template(template, ("domain",))


class MaildirOptions(FileOptions):
    """Maildirs, for IMAP servers and other readers of mail: a file for each message."""

    type: Literal["maildir"]
    path: Annotated[str, AfterValidator(check_template)] = Field(
        description="The Maildir, with {domain}, {mailbox} and {subaddress}: var/mail/{domain}/{mailbox}."
    )
    delivered_to: bool = Field(True, description="Put a Delivered-To field with the recipient in front of the message.")


class SpoolOptions(FileOptions):
    """A directory for a program to take mail from: ID.eml is a message, ID.json its envelope, which comes last."""

    type: Literal["spool"]
    path: Annotated[str, AfterValidator(_check_path)] = Field(
        description="The directory; may hold {domain}: one directory for each."
    )


class DiscardOptions(BaseModel):
    """Mail is acknowledged and forgotten: for tests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["discard"]
