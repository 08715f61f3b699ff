"""What stores of files have in common as sinks: their directories, their health, their writer."""

from __future__ import annotations

import os
from collections.abc import Sequence

from smtpmaild.envelope import Destination
from smtpmaild.sink import Post
from smtpmaild.sink.folder import TMP, Folder, Ownership, Template, make_root, sweep
from smtpmaild.sink.options import FileOptions
from smtpmaild.sink.writer import Health, Writer
from smtpmaild.smtp.reply import Reply

#: Remembered directories. Where any local part is taken, peers choose how many there are: then we start over.
_MOST_FOLDERS = 20_000


class FileSink:
    """The part of smtpmaild.sink.Sink that Maildir and spool share; they add target() and begin()."""

    def __init__(self, options: FileOptions, path: str, writer: Writer, subdirectories: Sequence[str]) -> None:
        self._writer = writer
        self._health = Health(writer.clock)
        self._template = Template(path)
        self._ownership = Ownership(
            options.file_mode,
            options.directory_mode,
            -1 if options.owner is None else options.owner,
            -1 if options.group is None else options.group,
        )
        self._tmp_max_age = options.tmp_max_age
        self._subdirectories = subdirectories
        self._folders: dict[tuple[str, str, str], Folder] = {}

    def target(self, path: str) -> str:
        """The directory that readers of the store look into."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make the root, see that it can be written, sweep what crashes left in tmp/."""
        make_root(self._template.root, self._ownership)
        for path in self._template.existing():
            sweep(os.path.join(path, TMP), self._tmp_max_age)

    def start(self, post: Post) -> None:
        """In the worker: from here on threads run."""
        self._ownership.learn_umask()
        self._writer.start(post)

    def stop(self) -> None:
        """Finish what was committed."""
        self._writer.stop()

    def unhealthy(self) -> Reply | None:
        """Full disk, or too much in memory."""
        return self._health.trouble() or self._writer.overload()

    def locate(self, destination: Destination) -> str:
        """The directory for this destination."""
        return self._template.path(destination)

    def folder(self, destination: Destination) -> Folder:
        """The same, remembered."""
        key = (destination.domain, destination.mailbox, destination.subaddress)
        folder = self._folders.get(key)
        if folder is None:
            if len(self._folders) >= _MOST_FOLDERS:
                self._folders.clear()
            path = self._template.path(destination)
            folder = Folder(self._template.root, path, self.target(path), self._subdirectories, self._ownership)
            self._folders[key] = folder
        return folder
