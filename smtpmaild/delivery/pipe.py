"""A command for each recipient: the message on its standard input, the envelope in its environment.

Never a shell, and nothing that a stranger wrote becomes an argument: the arguments are those of the config. The exit
code decides, by the table of sysexits.h that every delivery command follows: 0 is delivered, 75 and whatever is not in
the table is tried again. What the command prints is kept, the beginning of it, for the sender who is told of a failure.

A command that takes too long is killed with everything it has started.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Annotated, BinaryIO, Literal

from pydantic import Field

from smtpmaild.delivery import Outcome, Passed
from smtpmaild.delivery.attempt import attempt
from smtpmaild.delivery.channel import BLOCK
from smtpmaild.delivery.options import AgentOptions
from smtpmaild.delivery.shared import Shared
from smtpmaild.queue import Body, QueuedMessage, QueuedRecipient
from smtpmaild.sink.options import Seconds
from smtpmaild.smtp.reply import Reply

#: Octets of what a command prints that are kept.
_MOST_OUTPUT = 4096
#: Commands at one time: each has a thread.
_MOST_COMMANDS = 16

#: sysexits.h, with the status codes that Postfix gives them.
EXIT_CODES: Mapping[int, tuple[str, str]] = {
    os.EX_USAGE: ("5.3.0", "command line usage error"),
    os.EX_DATAERR: ("5.6.0", "data format error"),
    os.EX_NOINPUT: ("5.3.0", "cannot open input"),
    os.EX_NOUSER: ("5.1.1", "user unknown"),
    os.EX_NOHOST: ("5.1.2", "host name unknown"),
    os.EX_UNAVAILABLE: ("5.3.0", "service unavailable"),
    os.EX_SOFTWARE: ("5.3.0", "internal software error"),
    os.EX_OSERR: ("4.3.0", "system error"),
    os.EX_OSFILE: ("5.3.0", "critical system file missing"),
    os.EX_CANTCREAT: ("5.3.0", "cannot create output"),
    os.EX_IOERR: ("5.3.0", "input/output error"),
    os.EX_TEMPFAIL: ("4.3.0", "temporary failure"),
    os.EX_PROTOCOL: ("5.5.0", "remote error in protocol"),
    os.EX_NOPERM: ("5.7.0", "permission denied"),
    os.EX_CONFIG: ("5.3.5", "local configuration error"),
}


class PipeOptions(AgentOptions):
    """A command that takes the message."""

    type: Literal["pipe"] = Field(description="A command that takes the message.")
    command: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        min_length=1,
        description="The program and its arguments, one by one; no shell. It finds the message on its standard "
        "input, and SENDER, RECIPIENT, LOCAL_PART, DOMAIN and QUEUE_ID in its environment.",
    )
    directory: str = Field("/", min_length=1, description="Where it runs.")
    timeout: Seconds = Field(300.0, description="How long it may take before it is killed.")


class PipeAgent:
    """Runs the command once for each recipient, one after the other; messages at one time have threads of their own."""

    def __init__(self, options: PipeOptions, shared: Shared) -> None:
        self._options = options
        self._log = shared.log
        self._threads = ThreadPoolExecutor(_MOST_COMMANDS, "pipe")

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return await attempt(self._log, self._deliver, message, recipients)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def _deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return [Outcome(await self._run(message, recipient), passed=Passed.IN) for recipient in recipients]

    async def _run(self, message: QueuedMessage, recipient: QueuedRecipient) -> Reply:
        command = _Command(self._options, _environment(message, recipient))
        loop = asyncio.get_running_loop()
        try:
            status = await loop.run_in_executor(self._threads, command.run, message.body)
        except _NotStartedError as error:
            self._log.error("command_not_started", command=self._options.command[0], cause=str(error))
            return Reply(451, "4.3.5", "The delivery command cannot be run")
        except OSError as error:
            return Reply(451, "4.3.0", f"Cannot read the message: {error.strerror}")
        except asyncio.CancelledError:
            command.kill()
            raise
        return _reply(status, command.output)


def _environment(message: QueuedMessage, recipient: QueuedRecipient) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "SENDER": message.reverse_path.text,
        "RECIPIENT": recipient.address.text,
        "LOCAL_PART": recipient.address.local_part,
        "DOMAIN": recipient.address.domain,
        "QUEUE_ID": message.queue_id,
    }


class _NotStartedError(Exception):
    """It cannot be run at all."""


class _Command:
    """One run, in a thread. output: the beginning of what it prints."""

    def __init__(self, options: PipeOptions, environment: Mapping[str, str]) -> None:
        self.output = bytearray()
        self._options = options
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._is_killed = False

    def run(self, body: Body) -> int | None:
        """Its exit status, negative for a signal, None where its time was up. Raises OSError for an unreadable body."""
        deadline = time.monotonic() + self._options.timeout
        with body.open() as message:
            process = self._start()
            try:
                self._converse(process, message, deadline)
                return process.poll()
            finally:
                self.kill()
                process.wait()
                self._close(process)

    def kill(self) -> None:
        """It, and what it started, unless it has ended by itself. From any thread."""
        self._is_killed = True
        process = self._process
        if process is not None and process.returncode is None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            # The operator's argv, and no shell.
            process = self._process = subprocess.Popen(  # noqa: S603
                self._options.command,
                cwd=self._options.directory,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise _NotStartedError(str(error)) from None
        if self._is_killed:  # meanwhile
            self.kill()
        return process

    def _converse(self, process: subprocess.Popen[bytes], message: BinaryIO, deadline: float) -> None:
        """Write to it and listen to it until it has ended, or its time is up."""
        assert process.stdin is not None and process.stdout is not None
        ended = os.pidfd_open(process.pid)
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdin, process.stdout):
                os.set_blocking(stream.fileno(), False)
            selector.register(process.stdin, selectors.EVENT_WRITE, _Feed(process.stdin, message).step)
            selector.register(process.stdout, selectors.EVENT_READ, partial(self._listen, process.stdout))
            selector.register(ended, selectors.EVENT_READ)
            try:
                while (seconds := deadline - time.monotonic()) > 0:
                    ready = [key for key, _ in selector.select(seconds)]
                    for key in ready:
                        if key.data is not None and not key.data():
                            selector.unregister(key.fileobj)
                    if any(key.fileobj == ended for key in ready):
                        self._listen(process.stdout)  # its last words; who it left behind may go on talking
                        return
            finally:
                os.close(ended)

    def _listen(self, stdout: IO[bytes]) -> bool:
        """False when there is no more."""
        block = stdout.read(BLOCK)  # None: nothing now
        self.output += (block or b"")[: _MOST_OUTPUT - len(self.output)]
        return block != b""

    @staticmethod
    def _close(process: subprocess.Popen[bytes]) -> None:
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


class _Feed:
    """The message on its way into a pipe that takes what fits."""

    def __init__(self, stdin: IO[bytes], message: BinaryIO) -> None:
        self._stdin = stdin
        self._message = message
        self._left = memoryview(b"")

    def step(self) -> bool:
        """Write what the pipe takes now; False when all is written, or nobody reads."""
        if not self._left:
            self._left = memoryview(self._message.read(BLOCK))
        if self._left:
            try:
                self._left = self._left[self._stdin.write(self._left) or 0 :]
                return True
            except BrokenPipeError:
                pass  # it knows enough: its exit code says what of
        self._stdin.close()
        return False


def _reply(status: int | None, output: bytearray) -> Reply:
    if status is None:
        return Reply(451, "4.3.0", _with_output("The delivery command took too long", output))
    if status == 0:
        return Reply(250, "2.0.0", "Delivered to the command")
    if status < 0:
        return Reply(451, "4.3.0", _with_output(f"The delivery command was ended by signal {-status}", output))
    enhanced, meaning = EXIT_CODES.get(status, ("4.3.0", f"exit status {status}"))
    code = 554 if enhanced.startswith("5") else 451
    return Reply(code, enhanced, _with_output(f"The delivery command failed: {meaning}", output))


def _with_output(text: str, output: bytearray) -> str:
    said = bytes(output).decode("utf-8", "replace").strip()
    return f"{text}\n{said}" if said else text
