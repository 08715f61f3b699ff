"""Directories of stores: path templates, names made safe, creation that survives a crash, and the sweep of tmp/.

A template such as /var/mail/{domain}/{mailbox} has a static root, which prepare() makes, and a part that is made for
each mailbox on its first delivery. What fills the placeholders came from peers, so it is escaped: a value can neither
leave its directory nor be two values at once, and it can be read back.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
import time
from collections.abc import Iterator, Sequence

from smtpmaild.envelope import Destination
from smtpmaild.sink import disk

#: Where files are written before they get their name.
TMP = "tmp"
PLACEHOLDERS = ("domain", "mailbox", "subaddress")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")

# Written as it is; everything else in ASCII becomes %XX. A dot is odd only in front.
_PLAIN = re.compile(r"[A-Za-z0-9_+=@-][A-Za-z0-9_+=@.-]*", re.ASCII)
_PLAIN_ASCII = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+=@.-")
#: Names a Maildir keeps for itself: a subaddress of that name must not become a mailbox inside of new/.
_RESERVED = (TMP, "new", "cur")
_LONGEST_NAME = 255
_KEPT_OF_LONG_NAME = 180
#: Maildirs looked at by one sweep: a start must not take minutes.
_LARGEST_SWEEP = 20_000


def safe_name(value: str) -> str:
    """A value as part of a file name: no "/", NUL, control character or leading dot, never empty; reversible."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = "".join(map(_escaped, value))
    if escaped.startswith("."):
        escaped = "%2E" + escaped[1:]
    return escaped or "%"


def _escaped(character: str) -> str:
    if character in _PLAIN_ASCII or (not character.isascii() and character.isalnum()):
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _shortened(name: str) -> str:
    """A name that a file system takes: the end of a long one becomes a hash. "%~" begins no escape."""
    encoded = name.encode("utf-8")
    if len(encoded) <= _LONGEST_NAME:
        return name
    return f"{encoded[:_KEPT_OF_LONG_NAME].decode('utf-8', 'ignore')}%~{hashlib.sha256(encoded).hexdigest()[:32]}"


def check_template(template: str, allowed: Sequence[str] = PLACEHOLDERS) -> str:
    """The template itself; raises ValueError where it cannot be used."""
    names = _PLACEHOLDER.findall(template)
    for name in names:
        if name not in allowed:
            known = ", ".join(f"{{{each}}}" for each in allowed)
            raise ValueError(f"unknown placeholder {{{name}}}; use {known}")
    rest = _PLACEHOLDER.sub("", template)
    if "{" in rest or "}" in rest:
        raise ValueError("a lone brace; placeholders are written {mailbox}")
    if "\0" in template:
        raise ValueError("a path holds no NUL")
    if not template.strip():
        raise ValueError("the path is empty")
    if ".." in template.split("/"):
        raise ValueError("'..' in a path that is made from mail addresses")
    return template


class Template:
    """A checked path template: root is the part before the first placeholder, without a slash at its end."""

    def __init__(self, template: str) -> None:
        static: list[str] = []
        parts = [part for part in template.split("/") if part not in ("", ".")]
        while parts and not _PLACEHOLDER.search(parts[0]):
            static.append(parts.pop(0))
        self.root = ("/" if template.startswith("/") else "") + "/".join(static)
        self._parts = parts

    def path(self, destination: Destination) -> str:
        """The directory for a destination. A part that consists of nothing but an empty subaddress is left out."""
        values = {
            "domain": safe_name(destination.domain),
            "mailbox": safe_name(destination.mailbox),
            "subaddress": _safe_subaddress(destination.subaddress),
        }
        filled = [_PLACEHOLDER.sub(lambda match: values[match[1]], part) for part in self._parts]
        return "/".join([self.root, *[_shortened(part) for part in filled if part not in ("", ".")]])

    def existing(self) -> Iterator[str]:
        """The directories that could have been made from the template, as far as a bounded walk finds them."""
        level = [self.root]
        for part in self._parts:
            pattern = re.compile(".*".join(map(re.escape, _PLACEHOLDER.split(part)[::2])), re.DOTALL)
            may_be_left_out = "subaddress" in part
            below = [path for parent in level for path in _directories(parent, pattern)]
            level = ([*level, *below] if may_be_left_out else below)[:_LARGEST_SWEEP]
        yield from level


def _safe_subaddress(value: str) -> str:
    if not value:
        return ""
    if value in _RESERVED:
        return f"%{ord(value[0]):02X}{value[1:]}"
    return safe_name(value)


def _directories(parent: str, pattern: re.Pattern[str]) -> Iterator[str]:
    try:
        with os.scandir(parent) as entries:
            for entry in entries:
                if pattern.fullmatch(entry.name) and entry.name not in _RESERVED and entry.is_dir():
                    yield entry.path
    except OSError:
        return  # not ours to read: then nothing of ours is in it


class Ownership:
    """Modes and owner of what a store makes. -1 leaves an owner or group as it is."""

    __slots__ = ("_is_masked", "directory_mode", "file_mode", "gid", "uid")

    def __init__(self, file_mode: int, directory_mode: int, uid: int = -1, gid: int = -1) -> None:
        self.file_mode = file_mode
        self.directory_mode = directory_mode
        self.uid = uid
        self.gid = gid
        self._is_masked = True

    def learn_umask(self) -> None:
        """Called before threads run, for the umask can only be read by changing it: saves a call per file."""
        umask = os.umask(0o077)
        os.umask(umask)
        self._is_masked = bool(self.file_mode & umask)

    def check(self, path: str) -> None:
        """Raises PermissionError where files could not be given away."""
        if os.geteuid() == 0:
            return
        ours = (-1, os.getegid(), *os.getgroups())
        if self.uid not in (-1, os.geteuid()) or self.gid not in ours:
            raise PermissionError(errno.EPERM, "only root gives files to another owner or group", path)

    def own_file(self, fd: int) -> None:
        """Give a fresh file its mode and owner."""
        if self._is_masked:
            os.fchmod(fd, self.file_mode)
        if self.uid >= 0 or self.gid >= 0:
            os.fchown(fd, self.uid, self.gid)

    def make_directory(self, path: str) -> None:
        """One directory, durable when this returns, also where another process has just made it."""
        try:
            disk.mkdir(path, self.directory_mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
            self._sync_parent(path, is_ours=False)
        else:
            os.chmod(path, self.directory_mode)
            if self.uid >= 0 or self.gid >= 0:
                os.chown(path, self.uid, self.gid)
            self._sync_parent(path, is_ours=True)

    def _sync_parent(self, path: str, *, is_ours: bool) -> None:
        try:
            disk.sync_directory(os.path.dirname(path) or ".")
        except PermissionError:
            if is_ours:
                raise
            # A directory we may search but not read: somebody made the path for us, long ago.


class Folder:
    """One directory of a store with its tmp/. Made on first use, then remembered.

    path: the directory.  target: where files are renamed to (path/new in a Maildir).  device: its file system's
    number, after make().
    """

    __slots__ = ("_is_made", "_ownership", "_root", "_subdirectories", "device", "path", "target", "tmp")

    def __init__(self, root: str, path: str, target: str, subdirectories: Sequence[str], ownership: Ownership) -> None:
        self.path = path
        self.tmp = f"{path}/{TMP}"
        self.target = target
        self.device = -1
        self._root = root
        self._subdirectories = subdirectories
        self._ownership = ownership
        self._is_made = False

    def make(self) -> None:
        """In a writer thread: make what is missing, once."""
        if self._is_made:
            return
        with _making:
            self._make()

    def _make(self) -> None:
        path = self._root
        for part in self.path[len(self._root) :].split("/"):
            if part:
                path = f"{path}/{part}"
                self._ownership.make_directory(path)
        for name in self._subdirectories:
            self._ownership.make_directory(f"{self.path}/{name}")
        self.device = os.stat(self.tmp).st_dev
        self._is_made = True

    def create(self, name: str) -> int:
        """A new file in tmp/, its descriptor."""
        path = f"{self.tmp}/{name}"
        mode = self._ownership.file_mode
        try:
            fd = disk.create(path, mode)
        except FileNotFoundError:  # somebody removed the mailbox while we ran
            self._is_made = False
            self.make()
            fd = disk.create(path, mode)
        try:
            self._ownership.own_file(fd)
        except OSError:
            disk.close(fd)
            disk.unlink(path)
            raise
        return fd


_making = threading.Lock()


def make_root(root: str, ownership: Ownership) -> None:
    """Make the static part of a path and see that it can be written; raises OSError with the path."""
    ownership.check(root)
    missing = []
    path = root or "."
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path) or "."
    for path in reversed(missing):
        ownership.make_directory(path)
    trouble = _not_writable(root or ".")
    if trouble is not None:
        raise trouble


def why_not_writable(path: str) -> str | None:
    """Why a directory could not be made and written, None if it could. Touches nothing."""
    path = path or "."
    while not os.path.lexists(path):
        path = os.path.dirname(path) or "."
    trouble = _not_writable(path)
    return None if trouble is None else f"{path}: {trouble.strerror}"


def _not_writable(path: str) -> OSError | None:
    """The error that a file created in an existing directory would meet."""
    try:
        is_directory = stat.S_ISDIR(os.stat(path).st_mode)
        is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError as error:
        return error
    number = 0
    if not is_directory:
        number = errno.ENOTDIR
    elif is_read_only:
        number = errno.EROFS
    elif not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
        number = errno.EACCES
    return OSError(number, os.strerror(number), path) if number else None


def sweep(directory: str, age: float) -> int:
    """Unlink the files of a directory that nobody has touched for `age` seconds; how many went."""
    oldest = time.time() - age
    count = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and max(status.st_mtime, status.st_atime) < oldest:
                    disk.unlink(entry.path)
                    count += 1
    except OSError:
        return count  # a mailbox that is not ours, or went away: no reason not to start
    return count
