"""HTTP POST of each message to a web server: as it is, or in JSON; once for all its recipients.

| the server says              | the message                                                |
|------------------------------|------------------------------------------------------------|
| 2xx                          | is delivered                                               |
| 408, 425, 429, 5xx           | is tried again                                             |
| other 4xx                    | goes back to the sender; `on_4xx: retry`: is tried again   |
| 3xx                          | is tried again: a redirection is the operator's to follow  |
| nothing, or no HTTP          | is tried again                                             |

With a secret, a request proves that it is ours and how old it is: Smtpmaild-Signature is "sha256=" and the hexadecimal
HMAC of the lines Smtpmaild-Timestamp, queue id, sender, recipients (separated by ","), each ended by LF, and the body.

http.client of the standard library serves: one request at a time and connection, in a thread; it streams the body, and
a library for more would bring what nobody asked for. What is read from the server is bounded.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from smtpmaild.delivery import Outcome, Passed
from smtpmaild.delivery.attempt import attempt, same
from smtpmaild.delivery.authorities import verifying_context
from smtpmaild.delivery.options import AgentOptions
from smtpmaild.delivery.shared import Shared
from smtpmaild.queue import QueuedMessage, QueuedRecipient
from smtpmaild.sink.options import Seconds
from smtpmaild.smtp.mailing import NEEDS_TLS
from smtpmaild.smtp.reply import Reply, printable

#: A multiple of three, so that the base64 of blocks joined is the base64 of the whole.
_BLOCK = 192 * 1024
#: Requests at one time: each has a thread.
_MOST_REQUESTS = 8
#: Octets of the server's answer that are read, and of it that people see.
_MOST_READ = 2048
_MOST_SHOWN = 200
#: Too early, too many: 4xx that are no judgement of the message.
_RETRY_4XX = frozenset((408, 425, 429))


def _http_url(text: str) -> str:
    try:
        url = urlsplit(text)
        is_url = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and text.isascii()
    except ValueError:
        is_url = False
    if not is_url or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is not the URL of a web server: write it as https://host/path")
    if url.username is not None:
        raise ValueError("a password does not belong into the URL: sign requests with secret_file")
    return text


class WebhookOptions(AgentOptions):
    """A web server that takes messages."""

    type: Literal["webhook"] = Field(description="HTTP POST to a web server.")
    url: Annotated[str, AfterValidator(_http_url)] = Field(description="Where to POST to, http or https.")
    format: Literal["raw", "json"] = Field(
        "raw",
        description="raw: the message as message/rfc822, the envelope in header fields. json: an object with queue_id, "
        "received_at, sender, recipients, and the message in base64.",
    )
    secret_file: str = Field("", description="File with the secret that requests are signed with (HMAC-SHA256).")
    on_4xx: Literal["bounce", "retry"] = Field("bounce", description="What 4xx means, but for 408, 425 and 429.")
    ca_file: str = Field("", description="Authorities to trust for https, PEM; left out: the system's.")
    timeout: Seconds = Field(60.0, description="How long a request may take.")


@dataclass(frozen=True, slots=True)
class _Request:
    """message is read twice when it is signed. secret: b"" for none."""

    options: WebhookOptions
    url: SplitResult
    message: QueuedMessage
    recipients: Sequence[str]
    secret: bytes = field(repr=False)
    timestamp: int = 0

    def blocks(self) -> Iterator[bytes]:
        """The body, in pieces."""
        if self.options.format == "json":
            before, after = self._json_frame()
            yield before
        with self.message.body.open() as stream:
            while block := stream.read(_BLOCK):
                yield base64.b64encode(block) if self.options.format == "json" else block
        if self.options.format == "json":
            yield after

    def length(self) -> int:
        """Of the body."""
        size = self.message.body.size
        if self.options.format == "raw":
            return size
        return (size + 2) // 3 * 4 + sum(map(len, self._json_frame()))

    def _json_frame(self) -> tuple[bytes, bytes]:
        """What stands before and after the message."""
        facts = {
            "queue_id": self.message.queue_id,
            "received_at": self.message.received_at,
            "sender": self.message.reverse_path.text,
            "recipients": self.recipients,
            "message": "",
        }
        whole = json.dumps(facts).encode()
        return whole[:-2], whole[-2:]

    def headers(self) -> Mapping[str, bytes]:
        headers = {
            "Content-Type": b"application/json" if self.options.format == "json" else b"message/rfc822",
            "Content-Length": str(self.length()).encode(),
            "User-Agent": b"smtpmaild",
            "Connection": b"close",
            "Smtpmaild-Queue-Id": self.message.queue_id.encode(),
            "Smtpmaild-Sender": self.message.reverse_path.text.encode(),
            "Smtpmaild-Recipients": ",".join(self.recipients).encode(),
        }
        if self.secret:
            headers["Smtpmaild-Timestamp"] = str(self.timestamp).encode()
            headers["Smtpmaild-Signature"] = b"sha256=" + self._signature().encode()
        return headers

    def _signature(self) -> str:
        lines = [str(self.timestamp), self.message.queue_id, self.message.reverse_path.text, ",".join(self.recipients)]
        signature = hmac.new(self.secret, "".join(f"{line}\n" for line in lines).encode(), hashlib.sha256)
        for block in self.blocks():
            signature.update(block)
        return signature.hexdigest()


class WebhookAgent:
    """Posts messages to one URL."""

    def __init__(self, options: WebhookOptions, shared: Shared) -> None:
        self._options = options
        self._log = shared.log
        self._url = urlsplit(options.url)
        self._remote = self._url.netloc  # not the whole URL: its query may be a secret too
        self._threads = ThreadPoolExecutor(_MOST_REQUESTS, "webhook")
        self._context: ssl.SSLContext | None = None

    async def deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        return await attempt(self._log, self._deliver, message, recipients)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def _deliver(self, message: QueuedMessage, recipients: Sequence[QueuedRecipient]) -> Sequence[Outcome]:
        if message.requires_tls and self._url.scheme != "https":  # RFC 8689 §4.2.1
            return same(NEEDS_TLS, recipients)
        addresses = [recipient.address.text for recipient in recipients]
        loop = asyncio.get_running_loop()
        connection = _Connection(self._options.timeout)
        try:
            async with asyncio.timeout(self._options.timeout):
                outcome = await loop.run_in_executor(self._threads, self._post, connection, message, addresses)
        except TimeoutError:
            return same(Reply(451, "4.4.2", f"{self._remote}: the web server took too long"), recipients)
        finally:
            connection.cut()
        return [outcome] * len(recipients)

    # In a thread of ours

    def _post(self, connection: _Connection, message: QueuedMessage, addresses: Sequence[str]) -> Outcome:
        try:
            secret = Path(self._options.secret_file).read_bytes().strip() if self._options.secret_file else b""
            if self._context is None and self._url.scheme == "https":
                self._context = verifying_context(self._options.ca_file)
        except OSError as error:
            self._log.error("webhook_not_ready", url=self._remote, cause=str(error))
            return Outcome(Reply(451, "4.3.5", "Cannot read the secret or the authorities of the webhook"))
        request = _Request(self._options, self._url, message, addresses, secret, int(time.time()))
        try:
            status, said = connection.post(request, self._context)
        except (OSError, http.client.HTTPException) as error:
            why = printable(str(error))[:_MOST_SHOWN] or type(error).__name__
            return Outcome(Reply(451, "4.4.2", f"{self._remote}: {why}"))
        return Outcome(self._reply(status, said), self._remote, Passed.IN)

    def _reply(self, status: int, said: str) -> Reply:
        text = f"HTTP {status} {said}".strip()
        if 200 <= status < 300:
            return Reply(250, "2.0.0", text)
        if 400 <= status < 500 and status not in _RETRY_4XX and self._options.on_4xx == "bounce":
            return Reply(554, "5.3.0", text)
        return Reply(451, "4.3.0", text)


class _Connection:
    """One request; cut() ends it from another thread, whatever it waits for."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def post(self, request: _Request, context: ssl.SSLContext | None) -> tuple[int, str]:
        """The status and the beginning of what the server says; raises OSError and HTTPException."""
        url = request.url
        assert url.hostname is not None
        if context is None:
            connection = http.client.HTTPConnection(url.hostname, url.port, self._timeout)
        else:
            connection = http.client.HTTPSConnection(url.hostname, url.port, timeout=self._timeout, context=context)
        self._connection = connection
        try:
            connection.connect()
            connection.putrequest("POST", (url.path or "/") + (f"?{url.query}" if url.query else ""))
            for name, value in request.headers().items():
                connection.putheader(name, value)
            connection.endheaders()
            try:
                for block in request.blocks():
                    connection.send(block)
            except (BrokenPipeError, ConnectionResetError):
                pass  # a server that has seen enough: what it says of that is there to be read
            response = connection.getresponse()
            said = response.read(_MOST_READ).decode("utf-8", "replace")
            return response.status, printable(said.strip().partition("\n")[0])[:_MOST_SHOWN]
        finally:
            connection.close()

    def cut(self) -> None:
        sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed already
