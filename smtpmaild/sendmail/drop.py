"""The drop directory: messages of anybody on this machine, for the daemon to take when it runs.

`<name>.eml` is the message with CRLF, `<name>.json` its envelope, written and renamed last: who sees it may take the
pair. The directory is writable for all and readable for the daemon alone (mode 3733): nobody sees what others dropped,
nobody removes it, and the group it hands down lets the daemon read. Names hold 64 random bits.

Whoever reads trusts nothing here: no symbolic link is followed, what has a second name is refused (it might be a file
that only the daemon may read), and both files must be of one owner.

    {"version": 1, "reverse_path": "a@x.example", "recipients": ["b@y.example"], "mail": {"RET": "HDRS"}, "rcpt": {}}
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from smtpmaild import queue_id
from smtpmaild.sendmail import Letter
from smtpmaild.smtp.address import NULL_REVERSE_PATH, ToAscii, parse_mailbox

MODE = 0o3733
#: Where setting the group bit is forbidden (RestrictSUIDSGID= of systemd): then what is dropped is readable for all who
#: guess its name.
MODE_WITHOUT_GROUP = 0o1733
#: Below the directory; no place that is known to anybody else.
TMP = "tmp"
_LARGEST_ENVELOPE = 10_000_000


def make(directory: str) -> None:
    """The directory with its tmp/, where they are missing; the daemon's work. What is there stays as it is."""
    for path in (directory, f"{directory}/{TMP}"):
        try:
            os.makedirs(path)
        except FileExistsError:
            continue
        try:
            os.chmod(path, MODE)
        except PermissionError:
            os.chmod(path, MODE_WITHOUT_GROUP)


def put(directory: str, letter: Letter, message: bytes) -> str:
    """Drop a message; its name. It is durable when this returns; OSError if it could not be."""
    name = f"{queue_id.make()}-{secrets.token_hex(8)}"
    envelope = json.dumps({
        "version": 1,
        "reverse_path": letter.reverse_path.text,
        "recipients": [one.text for one in letter.recipients],
        "mail": dict(letter.mail),
        "rcpt": dict(letter.rcpt),
    })  # fmt: skip
    made: list[str] = []
    try:
        for suffix, data in ((".eml", message), (".json", envelope.encode("ascii"))):
            path = f"{directory}/{TMP}/{name}{suffix}"
            made.append(path)
            _write(path, data)
        for suffix in (".eml", ".json"):
            os.rename(f"{directory}/{TMP}/{name}{suffix}", f"{directory}/{name}{suffix}")
            made.append(f"{directory}/{name}{suffix}")
        _sync_names(directory)
    except BaseException:
        for path in reversed(made):
            try:
                os.unlink(path)
            except OSError:
                pass  # never made, or renamed
        raise
    return name


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        has_its_group = os.stat(os.path.dirname(path)).st_mode & stat.S_ISGID
        os.fchmod(descriptor, 0o640 if has_its_group else 0o644)
        os.fsync(descriptor)


def _sync_names(directory: str) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # we may write there, not read: nothing narrower is left
        os.sync()
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class NotTakenError(Exception):
    """What was dropped is nothing to take. The text says why."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message that waits. owner: the user id of whoever dropped it."""

    name: str
    letter: Letter
    message: BinaryIO
    owner: int


def names(directory: str) -> Iterator[str]:
    """Whatever waits, the oldest first."""
    yield from (name.removesuffix(".json") for name in sorted(os.listdir(directory)) if name.endswith(".json"))


def take(directory: str, name: str, to_ascii: ToAscii) -> Dropped:
    """The pair of a name, its message open. Raises NotTakenError for what should not be there, OSError."""
    message = None
    try:
        with _opened(f"{directory}/{name}.json") as envelope:
            message = _opened(f"{directory}/{name}.eml")
            owner, of_envelope = os.fstat(message.fileno()).st_uid, os.fstat(envelope.fileno()).st_uid
            if of_envelope not in (owner, os.geteuid()):
                raise NotTakenError("message and envelope have different owners")
            return Dropped(name, _letter(envelope.read(_LARGEST_ENVELOPE), to_ascii), message, owner)
    except BaseException:
        if message is not None:
            message.close()
        raise


def _opened(path: str) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise NotTakenError(f"cannot open '{path}': {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(descriptor)
        raise NotTakenError(f"'{path}' is no plain file of one name")
    return open(descriptor, "rb")


def _letter(text: bytes, to_ascii: ToAscii) -> Letter:
    try:
        record = json.loads(text)
        if record["version"] != 1:
            raise ValueError("version")
        sender = record["reverse_path"]
        reverse_path = parse_mailbox(sender, to_ascii) if sender else NULL_REVERSE_PATH
        recipients = [parse_mailbox(one, to_ascii) for one in record["recipients"]]
        mail, rcpt = _texts(record["mail"]), _texts(record["rcpt"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotTakenError("the envelope is not of the format") from error
    found = tuple(one for one in recipients if one is not None)
    if reverse_path is None or not found or len(found) != len(recipients):
        raise NotTakenError("the envelope holds something that is no address")
    return Letter(reverse_path, found, mail, rcpt)


def _texts(value: object) -> Mapping[str, str]:
    """Parameters; a value that could end a command line is none."""
    if not isinstance(value, dict):
        raise TypeError("parameters")
    for word in (*value, *value.values()):
        if not isinstance(word, str) or not word.isprintable() or " " in word:
            raise ValueError("parameters")
    return value
