"""The daemon's side of the drop directory: what waits there is handed in through the daemon's own socket.

So it meets the policies, limits and rules of that listener like any other message, and its 250 means the same. Of
several workers one looks at a time. What is refused for good goes to bad/ with a line in the log: whoever dropped it
has long gone, and nothing is thrown away. The sender gets a report, which is dropped like any other message.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from smtpmaild.facts import Log
from smtpmaild.queue.reports import Reporter
from smtpmaild.sendmail import drop
from smtpmaild.sendmail.drop import Dropped, NotTakenError
from smtpmaild.sendmail.refusal import report_of
from smtpmaild.sendmail.submit import submit
from smtpmaild.smtp.address import Address, ToAscii
from smtpmaild.smtp.reply import Reply

#: How often the directory is looked at.
LOOK_SECONDS = 2.0
#: What a killed sendmail left is removed after so many seconds, as in stores.
LEFT_OVER = 36 * 3600.0
#: We ask ourselves, so nobody is there only while we start or stop.
_PATIENCE = 15.0


class PickUp:
    """look() is called again and again, in a thread; it blocks."""

    def __init__(
        self,
        directory: str,
        socket: str,
        hostname: str,
        to_ascii: ToAscii,
        log: Log,
        reporter: Reporter,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._socket = socket
        self._hostname = hostname
        self._to_ascii = to_ascii
        self._log = log
        self._reporter = reporter
        self._clock = clock
        self._trouble = ""
        self._sweep_at = 0.0

    def look(self) -> None:
        """Take what waits."""
        try:
            drop.make(self._directory)
            os.makedirs(f"{self._directory}/bad", 0o700, exist_ok=True)
            lock = os.open(f"{self._directory}/bad/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._tell(str(error))
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_all()
            self._tell("")
        except BlockingIOError:
            pass  # another worker is at it
        except OSError as error:
            self._tell(str(error))
        finally:
            os.close(lock)

    def _tell(self, trouble: str) -> None:
        """Once, not every few seconds."""
        if trouble and trouble != self._trouble:
            self._log.warning("drop_failed", directory=self._directory, cause=trouble)
        self._trouble = trouble

    def _take_all(self) -> None:
        if self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + 3600.0
            self._sweep()
        for name in [*drop.names(self._directory)]:
            try:
                dropped = drop.take(self._directory, name, self._to_ascii)
            except NotTakenError as mistake:
                self._set_aside(name, str(mistake))
                continue
            with dropped.message:
                if not self._hand_in(dropped):
                    return  # nobody takes mail now, neither this nor the next

    def _hand_in(self, dropped: Dropped) -> bool:
        """False where nobody took anything."""
        letter = dropped.letter
        try:
            replies = submit(self._socket, letter, dropped.message, self._hostname, patience=_PATIENCE)
        except OSError as error:
            self._tell(f"cannot reach '{self._socket}': {error.strerror}")
            return False
        said = [*zip(letter.recipients, replies, strict=True)]
        self._log.info(
            "dropped_mail_handed_in",
            name=dropped.name,
            uid=dropped.owner,
            sender=letter.reverse_path.text,
            replies={recipient.text: str(reply) for recipient, reply in said},
        )
        refused = [(recipient, reply) for recipient, reply in said if reply.is_permanent]
        later = [recipient for recipient, reply in said if not reply.is_positive and not reply.is_permanent]
        if refused:
            self._keep_refused(dropped, refused)
            self._report(dropped, refused)
        if len(later) == len(said):
            return False
        self._leave(dropped, later)
        return True

    def _leave(self, dropped: Dropped, recipients: Sequence[Address]) -> None:
        """What waits now is for these; nobody: it is done with."""
        if recipients:
            # As a new message: the old one is its owner's, and stays whole until the new one is there.
            dropped.message.seek(0)
            letter = replace(dropped.letter, recipients=tuple(recipients))
            drop.put(self._directory, letter, dropped.message.read())
        for suffix in (".json", ".eml"):
            os.unlink(f"{self._directory}/{dropped.name}{suffix}")

    def _keep_refused(self, dropped: Dropped, refused: Sequence[tuple[Address, Reply]]) -> None:
        dropped.message.seek(0)
        with open(f"{self._directory}/bad/{dropped.name}.eml", "wb") as file:
            shutil.copyfileobj(dropped.message, file)
            file.flush()
            os.fsync(file.fileno())
        self._log.error(
            "dropped_mail_refused",
            name=dropped.name,
            uid=dropped.owner,
            sender=dropped.letter.reverse_path.text,
            recipients=[one.text for one, _ in refused],
            reply=str(refused[0][1]),
            kept=f"{self._directory}/bad/{dropped.name}.eml",
        )

    def _report(self, dropped: Dropped, refused: Sequence[tuple[Address, Reply]]) -> None:
        """Whatever goes wrong with it, the message is handled: it must not be handed in twice."""
        letter, now = dropped.letter, self._clock()
        try:
            report = report_of(self._reporter, dropped.name, letter, dropped.message, refused, now)
            if report is not None:
                drop.put(self._directory, *report)
        except OSError as error:
            self._log.error("report_failed", name=dropped.name, cause=str(error))

    def _set_aside(self, name: str, why: str) -> None:
        self._log.error("dropped_mail_refused", name=name, cause=why, kept=f"{self._directory}/bad/{name}.json")
        for suffix in (".json", ".eml"):
            try:
                os.rename(f"{self._directory}/{name}{suffix}", f"{self._directory}/bad/{name}{suffix}")
            except FileNotFoundError:
                pass

    def _sweep(self) -> None:
        """What nobody finished."""
        waiting = {*drop.names(self._directory)}
        before = self._clock() - LEFT_OVER
        for folder in (self._directory, f"{self._directory}/{drop.TMP}"):
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_waiting = folder == self._directory and entry.name.rpartition(".")[0] in waiting
                    status = entry.stat(follow_symlinks=False)
                    if not is_waiting and not entry.is_dir(follow_symlinks=False) and status.st_mtime < before:
                        os.unlink(entry.path)
