"""A command for each recipient: the message on its standard input, the envelope in its environment.

Never a shell, and nothing that a stranger wrote becomes an argument: the arguments are those of the config. The exit
code decides, by the table of sysexits.h that every delivery command follows: 0 is delivered, 75 and whatever is not in
the table is tried again. What the command prints is kept, the beginning of it, for the sender who is told of a failure.

A command that takes too long is killed with everything it has started.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

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
#: Seconds that output is waited for when the command has ended and something that it left behind holds on to it.
_LAST_WORDS = 1.0

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
    """Runs the command once for each recipient, one after the other."""

    def __init__(self, options: PipeOptions, shared: Shared) -> None:
        self._options = options
        self._log = shared.log

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return await attempt(self._log, self._deliver, message, recipients)

    async def close(self) -> None:
        """Nothing is kept."""

    async def _deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return [Outcome(await self._run(message, recipient), passed=Passed.IN) for recipient in recipients]

    async def _run(self, message: QueuedMessage, recipient: QueuedRecipient) -> Reply:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._options.command,
                cwd=self._options.directory,
                env=_environment(message, recipient),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._log.error("command_not_started", command=self._options.command[0], cause=str(error))
            return Reply(451, "4.3.5", "The delivery command cannot be run")
        output = bytearray()
        try:
            async with asyncio.timeout(self._options.timeout):
                status = await _converse(process, message.body, output)
        except TimeoutError:
            return Reply(451, "4.3.0", _with_output("The delivery command took too long", output))
        except OSError as error:
            return Reply(451, "4.3.0", f"Cannot read the message: {error.strerror}")
        finally:
            await _end(process)
        return _reply(status, output)


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


async def _converse(process: asyncio.subprocess.Process, body: Body, output: bytearray) -> int:
    """Its exit status, negative for a signal. Raises OSError when the message cannot be read."""
    assert process.stdin is not None and process.stdout is not None
    listening = asyncio.create_task(_listen(process.stdout, output))
    try:
        await _feed(process.stdin, body)
        status = await process.wait()
        await asyncio.wait([listening], timeout=_LAST_WORDS)
        return status
    finally:
        listening.cancel()


async def _feed(stdin: asyncio.StreamWriter, body: Body) -> None:
    stream = await asyncio.to_thread(body.open)
    try:
        while block := await asyncio.to_thread(stream.read, BLOCK):
            stdin.write(block)
            await stdin.drain()
        stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it knows enough: its exit code says what of
    finally:
        stream.close()


async def _listen(stdout: asyncio.StreamReader, output: bytearray) -> None:
    while block := await stdout.read(BLOCK):
        output += block[: _MOST_OUTPUT - len(output)]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Whatever happened: it is gone, and so is what it started, where it did not end by itself."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await process.wait()


def _reply(status: int, output: bytearray) -> Reply:
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
